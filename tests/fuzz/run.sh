#!/bin/sh
# Run each fuzz target for SECONDS and end with a line for each: runs a second, runs, edges covered.
# What libFuzzer finds to be worth keeping lies in BUILD/corpus/NAME and is used by the next run,
# inputs that break something in BUILD/found/NAME.
#   usage: tests/fuzz/run.sh BUILD SECONDS NAME…     FUZZ_FLAGS: further flags of libFuzzer
set -u
build=$1 seconds=$2
shift 2
status=0
summary=

for name in "$@"; do
    mkdir -p "$build/corpus/$name" "$build/found/$name"
    log=$build/$name.log
    # shellcheck disable=SC2086
    "$build/fuzz/$name" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=2048 \
        -print_final_stats=1 -verbosity=1 ${FUZZ_FLAGS:-} -artifact_prefix="$build/found/$name/" \
        "$build/corpus/$name" "tests/fuzz/corpus/$name" >"$log" 2>&1
    rc=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    line=$(printf '%-14s %8s/s %12s runs %6s edges' "$name" "${rate:--}" "${runs:--}" "${edges:--}")
    echo "$(date -u +%FT%TZ) $seconds s $line" >>"$build/history"
    if [ "$rc" -ne 0 ]; then
        status=1
        line="$line  FAILED: see $log"
        grep -aE 'ERROR|runtime error|broken property|Assertion|Test unit written' "$log" | head -n 5
    fi
    echo "fuzz: $line"
done
exit "$status"
