#!/bin/sh
# Run the unit test programs of BUILD, two at a time (they wait more than they work), and count their
# tests. A program that fails shows its output; one that ends without a word (a crash, a sanitizer)
# counts as one failure.
#   usage: scripts/run-unit.sh BUILD [NAME]     NAME: only programs whose name contains it
set -u
build=$1
only=${2:-}
logs=$(mktemp -d) || exit 74 # two runs at once must not share it
trap 'rm -rf "$logs"' EXIT
passed=0 failed=0 skipped=0

mkdir -p "$build/results"
names=$(for program in "$build"/unit/*"$only"*_test; do
    name=$(basename "$program")
    # A program whose source is gone is a leftover.
    [ -x "$program" ] && [ -f "tests/unit/$name.c" ] && echo "$name"
done)
# shellcheck disable=SC2016
printf '%s\n' $names | xargs -r -P 2 -I '{}' sh -c '
    CMOCKA_MESSAGE_OUTPUT=TAP timeout 300 "$1/unit/$3" >"$2/$3" 2>&1 </dev/null
    echo "$?" >"$2/$3.rc"' sh "$build" "$logs" '{}'
for name in $names; do
    log=$logs/$name
    rc=$(cat "$log.rc")
    # cmocka 1.1 says "not ok" of a test that is skipped, too.
    skip=$(grep -acE '^(not )?ok .*# SKIP' "$log")
    good=$(grep -a '^ok ' "$log" | grep -avc '# SKIP')
    bad=$(grep -a '^not ok ' "$log" | grep -avc '# SKIP')
    [ "$rc" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
    [ "$good$bad$skip" = 000 ] && bad=1
    passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + skip))
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
