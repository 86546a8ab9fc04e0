#!/bin/sh
# Replay the corpus of each fuzz target, two at a time, and count targets as tests.
#   usage: tests/fuzz/replay.sh BUILD NAME…     RESULTS: the build that gets the counts (BUILD)
set -u
build=$1
results=${RESULTS:-$build}/results
shift
passed=0 failed=0

# shellcheck disable=SC2016
printf '%s\n' "$@" | xargs -P 2 -I '{}' sh -c '
    timeout 300 "$1/fuzz/$2" "tests/fuzz/corpus/$2" >"$1/fuzz/$2.log" 2>&1 </dev/null
    echo $? >"$1/fuzz/$2.rc"' replay "$build" '{}'
for name in "$@"; do
    log=$build/fuzz/$name.log
    if [ "$(cat "$build/fuzz/$name.rc")" = 0 ]; then
        passed=$((passed + 1))
        echo "  ok    $name ($(tail -n 1 "$log"))"
    else
        failed=$((failed + 1))
        echo "  FAIL  $name"
        sed 's/^/        /' "$log"
    fi
done
mkdir -p "$results"
echo "$passed $failed 0" >"$results/fuzz"
echo "fuzz corpora: $passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
