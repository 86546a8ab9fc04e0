#!/bin/sh
# Run the simulator of BUILD and count its runs.
#   usage: tests/sim/run.sh BUILD [SEEDS [MORE…]]
# Without SEEDS: what `make test` does, at least 10,000 crash points from seed 1 on (500 with
# SANITIZE or COVERAGE in the environment). SEEDS: A..B, or a count of seeds from 1 on. MORE goes to
# the simulator (tests/sim/sim.c lists it).
set -u
build=$1
seeds=${2:-}
[ $# -ge 2 ] && shift
shift
jobs=$(nproc 2>/dev/null || echo 2)

points=10000
# Instrumented code is several times slower; it is there for what it alone sees.
[ -z "${SANITIZE:-}${COVERAGE:-}" ] || points=500
case $seeds in
'') set -- --seeds=1..200 --until=$points --least=$points --twice "$@" ;;
*..*) set -- --seeds="$seeds" "$@" ;;
*) set -- --seeds="1..$seeds" "$@" ;;
esac
mkdir -p "$build/results"
"$build/sim/sim" --jobs="$jobs" --results="$build/results/sim" "$@"
