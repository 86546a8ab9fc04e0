#!/bin/sh
# Run the unit test programs of BUILD and count their tests. A program that fails shows its output;
# one that ends without a word (a crash, a sanitizer) counts as one failure.
#   usage: scripts/run-unit.sh BUILD [NAME]     NAME: only programs whose name contains it
set -u
build=$1
only=${2:-}
log=$(mktemp) || exit 74 # two runs at once must not share it
trap 'rm -f "$log"' EXIT
passed=0 failed=0 skipped=0

mkdir -p "$build/results"
for program in "$build"/unit/*"$only"*_test; do
    [ -x "$program" ] || continue
    name=$(basename "$program")
    # A program whose source is gone is a leftover.
    [ -f "tests/unit/$name.c" ] || continue
    CMOCKA_MESSAGE_OUTPUT=TAP timeout 300 "$program" >"$log" 2>&1 </dev/null
    rc=$?
    good=$(grep -ac '^ok ' "$log")
    skip=$(grep -aci '^ok .*# SKIP' "$log")
    bad=$(grep -ac '^not ok ' "$log")
    [ "$rc" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
    [ "$good$bad" = 00 ] && bad=1
    passed=$((passed + good - skip)) failed=$((failed + bad)) skipped=$((skipped + skip))
    if [ "$bad" -gt 0 ]; then
        echo "  FAIL  $name (exit code $rc)"
        sed 's/^/        /' "$log"
    else
        echo "  ok    $name ($good)"
    fi
done
echo "$passed $failed $skipped" >"$build/results/unit"
echo "unit: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
