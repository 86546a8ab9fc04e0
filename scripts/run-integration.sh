#!/bin/sh
# Run the integration tests against the programs of BUILD; all of them in two parts at a time, since
# they wait most of the time, each with ports of its own.
#   usage: scripts/run-integration.sh BUILD VENV [PYTEST ARGUMENT…]
set -u
build=$1 venv=$2
shift 2

mkdir -p "$build/results"
# The S3 server of the cloud's tests; without it they are skipped.
VERSITYGW_BIN=${VERSITYGW_BIN:-$(scripts/versitygw.sh || true)}
export VERSITYGW_BIN
# NAME FIRST_PORT ARGUMENT…: pytest, its figures in NAME.xml.
part() {
    name=$1
    TEST_PORTS=$2
    export TEST_PORTS
    shift 2
    rm -f "$build/results/$name.xml"
    "$venv/bin/python" -B -m pytest -p no:cacheprovider -q -ra --durations=10 \
        --junitxml="$build/results/$name.xml" "$@" </dev/null
}
if [ $# -eq 0 ]; then
    # Those of the cloud and of clusters take as long as all others.
    part integration-1 13000 tests/integration/test_c*.py >"$build/results/integration-1.log" 2>&1 &
    first=$!
    part integration-2 22000 tests/integration --ignore-glob='*/test_c*.py'
    rc=$?
    wait "$first" || rc=1
    cat "$build/results/integration-1.log"
else
    rm -f "$build/results/integration-2.xml"
    part integration-1 13000 tests/integration "$@"
    rc=$?
fi
# All that the parts count of one kind.
count() {
    sed -n "s/.*<testsuite [^>]*$1=\"\([0-9]*\)\".*/\1/p" "$build/results/integration-1.xml" \
        "$build/results/integration-2.xml" 2>/dev/null | awk '{ sum += $1 } END { print sum + 0 }'
}
tests=$(count tests) skipped=$(count skipped)
failed=$(($(count errors) + $(count failures)))
[ "$rc" -ne 0 ] && [ "$failed" -eq 0 ] && failed=1
passed=$((tests - failed - skipped))
echo "$passed $failed $skipped" >"$build/results/integration"
echo "integration: $passed passed, $failed failed, $skipped skipped"
exit "$rc"
