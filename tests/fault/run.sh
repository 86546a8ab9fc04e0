#!/bin/sh
# Run the fault injector and count it as one test for each scenario and way to fail.
#   usage: tests/fault/run.sh PROGRAM ARGUMENT…     RESULTS: the build that gets the counts
set -u
program=$1
shift
log=$program.log
[ "${1:-}" = replay ] && exec "$program" "$@"
{ "$program" "$@" 2>&1; echo "$?" >"$program.rc"; } | tee "$log"
rc=$(cat "$program.rc")
passed=$(grep -c ' 0 failures$' "$log")
failed=$(grep -cE ' [1-9][0-9]* failures$' "$log")
[ "$rc" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
mkdir -p "$RESULTS/results"
echo "$passed $failed 0" >"$RESULTS/results/fault"
exit "$rc"
