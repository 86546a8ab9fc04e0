#!/bin/sh
# Run all tests in an instrumented build and print the line coverage by folder; less than 85 % in
# total is a failure.
#   usage: scripts/coverage.sh BUILD
set -u
build=$1
least=85

find "$build" -name '*.gcda' -delete 2>/dev/null
scripts/test.sh "$build" || exit 1

info=$build/coverage.info
# lcov 1.16 under a newer Perl warns about itself; what it says counts only where it fails.
if ! lcov --quiet --capture --directory "$build/obj" --base-directory . --no-external \
    --output-file "$info" >"$build/lcov.log" 2>&1; then
    cat "$build/lcov.log"
    exit 1
fi
echo
echo 'line coverage:'
# SF: begins a file's record, DA:line,count is one line of code.
awk -v root="$PWD/" -v least="$least" '
    /^SF:/ { file = substr($0, 4); sub(root, "", file); split(file, part, "/"); folder = part[1] }
    /^DA:/ && folder ~ /^(base|storage|journal|cluster|api|cmd)$/ {
        split(substr($0, 4), hit, ",")
        all[folder]++; total++
        if (hit[2] > 0) { seen[folder]++; covered++ }
    }
    END {
        for (folder in all)
            printf "  %-10s %5.1f %% of %d lines\n", folder, 100 * seen[folder] / all[folder], all[folder] | "sort"
        close("sort")
        if (!total) exit 1
        printf "  %-10s %5.1f %% of %d lines\n", "total", 100 * covered / total, total
        if (100 * covered / total < least) { printf "below %d %%\n", least; exit 1 }
    }' "$info"
