#!/bin/sh
# Run the integration tests against the programs of BUILD.
#   usage: scripts/run-integration.sh BUILD VENV [PYTEST ARGUMENT…]
set -u
build=$1 venv=$2
shift 2

mkdir -p "$build/results"
# The S3 server of the cloud's tests; without it they are skipped.
VERSITYGW_BIN=${VERSITYGW_BIN:-$(scripts/versitygw.sh || true)}
export VERSITYGW_BIN
xml=$build/results/integration.xml
rm -f "$xml"
"$venv/bin/python" -B -m pytest -p no:cacheprovider -q -ra --junitxml="$xml" tests/integration \
    "$@" </dev/null
rc=$?
count() { sed -n "s/.*<testsuite [^>]*$1=\"\([0-9]*\)\".*/\1/p" "$xml" 2>/dev/null | head -1; }
tests=$(count tests) errors=$(count errors) failures=$(count failures) skipped=$(count skipped)
failed=$((${errors:-0} + ${failures:-0}))
[ "$rc" -ne 0 ] && [ "$failed" -eq 0 ] && failed=1
passed=$((${tests:-0} - ${errors:-0} - ${failures:-0} - ${skipped:-0}))
echo "$passed $failed ${skipped:-0}" >"$build/results/integration"
echo "integration: $passed passed, $failed failed, ${skipped:-0} skipped"
exit "$rc"
