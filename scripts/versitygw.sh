#!/bin/sh
# Put versitygw, the S3 server that the tests run against, at build/tools/versitygw-VERSION and print
# that path. It is built from source by Go, once; GOPROXY and its like are heeded. Where it cannot be
# had, this says what is missing and ends with 75: the tests that need it are then skipped, and counted.
#   usage: scripts/versitygw.sh
set -u
version=v1.8.0
directory=build/tools
program=$directory/versitygw-$version
wanted=1.25 # of Go, at least, as the go.mod of that version says

missing() {
    echo "versitygw: $1" >&2
    exit 75
}

if [ -x "$program" ]; then
    echo "$program"
    exit 0
fi
PATH=$PATH:/usr/local/go/bin:/usr/lib/go/bin
command -v go >/dev/null ||
    missing "no Go: the tests against a real S3 server need Go $wanted or newer (https://go.dev/dl)"
have=$(go env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//')
lowest=$(printf '%s\n%s\n' "$wanted" "${have:-0}" | sort -V | head -1)
[ "$lowest" = "$wanted" ] || [ "$(go env GOTOOLCHAIN)" != local ] ||
    missing "Go ${have:-of an unknown version} is too old: $wanted or newer is needed"
mkdir -p "$directory" || exit 73
into=$(mktemp -d "$directory/making.XXXXXX") || exit 73
trap 'rm -rf "$into"' EXIT
echo "  GO    versitygw $version (some minutes, once)" >&2
# Two runs at once may both build it; a rename decides, and both are the same.
if ! GOBIN=$(realpath "$into") CGO_ENABLED=0 \
    go install -trimpath "github.com/versity/versitygw/cmd/versitygw@$version" >"$into/log" 2>&1; then
    tail -n 3 "$into/log" >&2
    missing "go install could not fetch or build it (is GOPROXY reachable?)"
fi
mv "$into/versitygw" "$program" && echo "$program"
