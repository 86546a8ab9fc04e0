#!/bin/sh
# Start one node on 127.0.0.1:10999 with its state under run/, and say what to try.
#   usage: scripts/run.sh BUILD
set -eu
build=$1

mkdir -p run
cat <<TEXT

A node starts on http://127.0.0.1:10999, its state lies in run/. Ctrl-C ends it. In another terminal:

  id=\$(curl -s http://127.0.0.1:10999/api/v1/id)
  curl -s -H "X-Meta-ID: \$id" -H "X-Meta-Name: README.md" --data-binary @README.md http://127.0.0.1:10999/api/v1/put
  curl -s http://127.0.0.1:10999/api/v1/get/\$id | head -3

TEXT
exec "$build/objstore" --public-addr 127.0.0.1:10999 --state-dir run/state --files-dir run/files
