#!/bin/sh
# Run the simulator of clusters of BUILD and count its runs.
#   usage: tests/cluster_sim/run.sh BUILD [SEEDS [HOURS [MORE…]]]
# Without SEEDS: what `make test` does, 100 simulated hours from seed 1 on (4 with SANITIZE or
# COVERAGE in the environment). SEEDS: A..B, or a count of seeds from 1 on; HOURS: of each run. MORE
# goes to the simulator (tests/cluster_sim/world.c lists it). JOBS: how many runs at a time.
set -u
build=$1
seeds=${2:-}
hours=${3:-}
shift $(($# < 3 ? $# : 3))
jobs=${JOBS:-$(nproc 2>/dev/null || echo 2)}

count=20
# Instrumented code is several times slower; it is there for what it alone sees.
[ -z "${SANITIZE:-}${COVERAGE:-}" ] || { count=4; hours=${hours:-1}; }
hours=${hours:-5}
case $seeds in
'') set -- --seeds=1..$count --hours="$hours" --least=$((count * hours)) --twice "$@" ;;
*..*) set -- --seeds="$seeds" --hours="$hours" "$@" ;;
*) set -- --seeds="1..$seeds" --hours="$hours" "$@" ;;
esac
mkdir -p "$build/results"
"$build/sim/cluster_sim" --jobs="$jobs" --results="$build/results/cluster-sim" "$@"
