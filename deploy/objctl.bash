# bash completion for objctl(1)
_objctl() {
    local current=$2 previous=$3 command=${COMP_WORDS[1]}
    local common='--quiet --help'
    local dirs="$common --state-dir --files-dir" words
    COMPREPLY=()

    if [ "$COMP_CWORD" -eq 1 ]; then
        words='put get meta rm stats cluster node cloud journal verify backup help --help --version'
        COMPREPLY=($(compgen -W "$words" -- "$current"))
        return
    fi
    case $previous in
    --level) COMPREPLY=($(compgen -W 'local s3 full' -- "$current")); return ;;
    --state-dir | --files-dir) compopt -o filenames; COMPREPLY=($(compgen -d -- "$current")); return ;;
    -o | --output) compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return ;;
    --addr | --id | --name | --type | --meta | --retry | -j | --jobs | --limit | --to | --prefix) return ;;
    esac
    case $command in
    put | get | meta | rm | stats | cluster) common="$common --addr" ;;
    esac
    words=$common
    case $command in
    put) words="$common --recursive --jobs --id --name --type --level --meta --retry" ;;
    get) words="$common --output --fetch" ;;
    meta) words="$common --name --level --meta" ;;
    rm) words="$common --purge" ;;
    stats) words="$common --json" ;;
    cluster)
        if [[ $current == -* ]]; then words="$common --state-dir --limit --to"
        else words='watch secret diff upgrade'; fi ;;
    node)
        if [[ $current == -* ]]; then words="$dirs --cancel --no-wait --accept-loss --force"
        else words='drain join forget'; fi ;;
    cloud)
        if [[ $current == -* ]]; then words="$dirs --prefix --dry-run --cancel --no-wait --limit"
        else words='check outbox import'; fi ;;
    journal)
        if [[ $current == -* ]]; then words="$dirs --accept-data-loss"
        else words='verify dump compact rebuild new-node-id'; fi ;;
    verify | backup) words=$dirs ;;
    help) words='put get meta rm stats cluster node cloud journal verify backup' ;;
    esac
    if [[ $current != -* && ( $command == put || $command == backup ) ]]; then
        compopt -o filenames
        COMPREPLY=($(compgen -f -- "$current"))
    elif [[ $current == -* || $command == cluster || $command == node || $command == cloud || $command == journal || $command == help ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$current"))
    fi
}
complete -F _objctl objctl
