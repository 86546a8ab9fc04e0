#!/bin/sh
# Build into BUILD, run every test, and end with one line that counts them. A failing kind of test
# does not keep the next from running.
#   usage: scripts/test.sh BUILD     SANITIZE and COVERAGE in the environment as in the Makefile
set -u
build=$1
# A make of its own, with its own jobs: this script holds no place in the caller's job server. What
# the caller named on the command line (CC, CFLAGS) is in the environment.
unset MAKEFLAGS MFLAGS MAKELEVEL
make="${MAKE:-make} --no-print-directory BUILD=$build SANITIZE=${SANITIZE:-} COVERAGE=${COVERAGE:-}"
passed=0 failed=0 skipped=0

rm -rf "$build/results"
if ! $make build units feature-build cloud-drive "$build/sim/sim" "$build/sim/cluster_sim" build/venv/ready; then
    echo "the build failed"
    echo "0 passed, 1 failed"
    exit 1
fi
# The integration tests wait most of their time: they run beside all others.
$make integration >"$build/results.integration" 2>&1 &
for kind in unit fuzz sim cluster-sim fault integration; do
    target=$kind
    [ "$kind" = fuzz ] && target=fuzz-corpus
    if [ "$kind" = integration ]; then
        wait
        cat "$build/results.integration"
    else
        $make "$target" || true
    fi
    if read -r p f s <"$build/results/$kind"; then
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    else
        failed=$((failed + 1))
    fi
done
[ "$skipped" -eq 0 ] || echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
