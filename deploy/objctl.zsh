#compdef objctl
# zsh completion for objctl(1): install it as _objctl in a directory of $fpath.

_objctl() {
    local -a common commands
    common=(
        '(-q --quiet)'{-q,--quiet}'[no progress and no summary]'
        '(-h --help)'{-h,--help}'[help]'
    )
    commands=(
        'put:store files, print their ids'
        'get:fetch an object'
        'meta:show or change what is known about an object'
        'rm:delete objects'
        'stats:show the figures of the node'
        'cluster:show who belongs to the cluster'
        'node:make the node leave its cluster or join it again, forget another'
        'cloud:look after the cloud behind a node'
        'journal:look after the journal'
        'verify:read and check every body'
        'backup:copy the node into a new directory'
        'help:show help'
    )
    if (( CURRENT == 2 )); then
        _describe -t commands 'objctl command' commands
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in
    put | get | meta | rm | stats | cluster) common+=('--addr=[the node]:host\:port:_hosts') ;;
    node | cloud | journal | verify | backup) common+=(
        '--state-dir=[state directory]:directory:_directories'
        '--files-dir=[files directory]:directory:_directories'
    ) ;;
    esac
    case $command in
    put) _arguments -s $common \
        '(-r --recursive)'{-r,--recursive}'[store whole trees]' \
        '(-j --jobs)'{-j+,--jobs=}'[uploads at a time]:number:' \
        '--id=[the id]:id:' '--name=[the name]:name:' '--type=[media type]:type:' \
        '--level=[consistency level]:level:(local s3 full)' \
        '*--meta=[user meta data]:key=value:' '--retry=[patience]:duration:' '*:file:_files' ;;
    get) _arguments -s $common '(-o --output)'{-o+,--output=}'[file to write]:file:_files' \
        '--fetch[look in the cloud, too]' '1:id:' ;;
    meta) _arguments -s $common '--name=[new name]:name:' \
        '--level=[new level]:level:(local s3 full)' '*--meta=[new meta data]:key=value:' '1:id:' ;;
    rm) _arguments -s $common '--purge[delete the copy in the cloud, too]' '*:id:' ;;
    stats) _arguments -s $common '--json[as JSON]' ;;
    cluster) _arguments -s $common '--state-dir=[state directory]:directory:_directories' \
        '--limit=[differences at most]:number:' '--to=[feature level]:level:' \
        '1:verb:(watch secret diff upgrade)' '*:member:' ;;
    node) _arguments -s $common '--cancel[take a drain back]' '--no-wait[begin a drain alone]' \
        '--accept-loss[forget the only holder of objects]' '--force[forget a node that answers]' \
        '1:verb:(drain join forget)' '2:node:' ;;
    cloud) _arguments -s $common '--prefix=[keys that begin so]:prefix:' '--dry-run[count what an import would do]' \
        '--cancel[end an import]' '--no-wait[begin an import alone]' '--limit=[entries of the outbox]:number:' \
        '1:verb:(check outbox import)' ;;
    journal) _arguments -s $common \
        '--accept-data-loss[rebuild without what the disk cannot read]' '1:verb:(verify dump compact rebuild new-node-id)' ;;
    backup) _arguments -s $common '1:directory:_directories' ;;
    verify) _arguments -s $common ;;
    help) _describe -t commands 'objctl command' commands ;;
    esac
}

_objctl "$@"
