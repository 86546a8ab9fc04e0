#!/bin/sh
# Start one node on 127.0.0.1:10999 with its state under run/ and the directory run/cloud for a cloud;
# once it answers, say what to try.
#   usage: scripts/run.sh BUILD
set -u
build=$1
url=http://127.0.0.1:10999/api/v1

if curl -s -o /dev/null --max-time 2 http://127.0.0.1:10999/; then
    echo "run: something answers on 127.0.0.1:10999 already" >&2
    exit 69
fi
mkdir -p run || exit 73
# In a session of its own: the terminal's Ctrl-C and the TERM below would be two signals, and the
# second one ends it at once.
setsid setpriv --pdeathsig TERM "$build/objstore" --public-addr 127.0.0.1:10999 \
    --state-dir run/state --files-dir run/files --cloud=dir:run/cloud &
node=$!
stopping=
trap 'stopping=1; kill -TERM "$node" 2>/dev/null' INT TERM HUP

tries=0
until curl -sf -o /dev/null http://127.0.0.1:10999/readyz; do
    tries=$((tries + 1))
    if ! kill -0 "$node" 2>/dev/null || [ "$tries" -gt 600 ]; then
        break
    fi
    sleep 0.1
done
if kill -0 "$node" 2>/dev/null; then
    cat <<TEXT

A node runs on 127.0.0.1:10999, its state lies in run/; Ctrl-C ends it. In another terminal, try:

  id=\$(curl -s $url/id); echo \$id
  curl -s -T README.md -H "X-Meta-ID: \$id" -H "X-Meta-Name: README.md" $url/put
  curl -s $url/get/\$id

TEXT
fi
# A signal ends a wait, not yet the node, which drains first.
wait "$node"
rc=$?
while [ -n "$stopping" ] && kill -0 "$node" 2>/dev/null; do
    wait "$node"
    rc=$?
done
[ -z "$stopping" ] || [ "$rc" -le 128 ] || rc=0
exit "$rc"
