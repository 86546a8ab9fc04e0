#!/bin/sh
# Start three nodes on this machine that form one cluster, each with its directories under
# run/cluster-N, and the directory run/cluster-cloud for their cloud; once they know each other, say what to try. Ctrl-C ends all three.
#   usage: scripts/cluster.sh BUILD
set -u
build=$1
nodes=
stopping=
ended=

# Node N is client port 11000-N, private port 12000-N: the first has the default ports.
start() {
    number=$1
    shift
    directory=run/cluster-$number
    mkdir -p "$directory" || exit 73
    setsid setpriv --pdeathsig TERM "$build/objstore" \
        --public-addr 127.0.0.1:$((11000 - number)) \
        --private-addr 127.0.0.1:$((12000 - number)) --tag cluster \
        --state-dir "$directory/state" --files-dir "$directory/files" \
        --cloud=dir:run/cluster-cloud "$@" \
        2>"$directory/log" &
    nodes="$nodes $!"
}

# The nodes are in sessions of their own: the terminal's Ctrl-C and this would be two signals, and
# the second one ends a node at once.
end() {
    [ -z "$ended" ] || return 0
    ended=1
    for node in $nodes; do
        kill -TERM "$node" 2>/dev/null
    done
}

alive() {
    for node in $nodes; do
        kill -0 "$node" 2>/dev/null || return 1
    done
}

# All three say that three belong to the cluster and answer.
together() {
    for number in 1 2 3; do
        "$build/objctl" cluster --addr 127.0.0.1:$((11000 - number)) 2>/dev/null |
            grep -q '^health good; 3 belong to it, 3 answer$' || return 1
    done
}

for port in 10999 10998 10997; do
    if curl -s -o /dev/null --max-time 2 "http://127.0.0.1:$port/"; then
        echo "cluster: something answers on 127.0.0.1:$port already" >&2
        exit 69
    fi
done
trap 'stopping=1; end' INT TERM HUP
trap end EXIT
start 1
start 2 --nodes 127.0.0.1:11999
start 3 --nodes 127.0.0.1:11999

tries=0
until together; do
    tries=$((tries + 1))
    if [ -n "$stopping" ] || ! alive || [ "$tries" -gt 300 ]; then
        break
    fi
    sleep 0.1
done
rc=0
if [ -z "$stopping" ] && together; then
    "$build/objctl" cluster
    cat <<'TEXT'

Three nodes run on 127.0.0.1:10999, :10998 and :10997; their state and logs lie in run/cluster-1 to
run/cluster-3. Ctrl-C ends them. In another terminal, try:

  # An id from one node, the file to another, with copies on all, and back from the third.
  id=$(curl -s localhost:10999/api/v1/id); echo $id
  echo 'It works!' > test.txt
  curl -d @test.txt -H "X-Meta-ConsistencyLevel: 2" -H "X-Meta-Name: test.txt" \
      -H "X-Meta-ID: $id" localhost:10998/api/v1/put
  curl localhost:10997/api/v1/get/$id

  # Kept by one node alone; another fetches it from there: X-Meta-Symlink: true.
  id=$(curl -s localhost:10999/api/v1/id)
  curl -d @test.txt -H "X-Meta-ID: $id" localhost:10999/api/v1/put
  curl -v localhost:10997/api/v1/get/$id

  # Deleted anywhere is deleted everywhere.
  curl -X POST localhost:10998/api/v1/delete/$id
  curl -v localhost:10999/api/v1/get/$id

TEXT
    echo "  # Who is there, live."
    echo "  $build/objctl cluster watch"
    echo
elif [ -z "$stopping" ]; then
    echo "cluster: the nodes did not come together; the last lines of their logs:" >&2
    tail -n 5 run/cluster-1/log run/cluster-2/log run/cluster-3/log >&2
    rc=1
fi

# Until Ctrl-C, or until one of them ends by itself.
while [ -z "$stopping" ] && [ "$rc" -eq 0 ] && alive; do
    sleep 1
done
end
# A signal ends a wait, not yet the nodes, which drain first.
for node in $nodes; do
    while :; do
        wait "$node"
        code=$?
        kill -0 "$node" 2>/dev/null || break
    done
    if [ -z "$stopping" ] && [ "$rc" -eq 0 ] && [ "$code" -ne 0 ]; then
        echo "cluster: a node ended with $code; run/cluster-*/log say why" >&2
        rc=$code
    fi
done
exit "$rc"
