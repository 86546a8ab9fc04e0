#!/bin/sh
# A folder includes only from itself and from folders below it:
#   base < storage < journal < cluster < api < cmd; tests may include anything.
#   usage: scripts/lint-includes.sh FILE…
set -eu
awk '
    BEGIN {
        count = split("base storage journal cluster api cmd", order, " ")
        for (i = 1; i <= count; i++) rank[order[i]] = i
        rank["tests"] = count + 1
    }
    FNR == 1 { split(FILENAME, part, "/"); own = part[1] }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        split($0, quoted, "\""); target = quoted[2]
        split(target, part, "/"); folder = part[1]
        where = FILENAME ":" FNR ": "
        if (target ~ /\.\./ || !(folder in rank)) {
            # Tests may name their helpers beside them.
            if (own == "tests" && target !~ /\//) next
            print where "\"" target "\" is not a path from the top"; bad = 1
        } else if (rank[folder] > rank[own]) {
            print where own "/ must not include from " folder "/"; bad = 1
        }
    }
    END { exit bad }' "$@"
