#!/bin/sh
# All that `make lint` checks, each part to its end, so that one run names every finding.
#   usage: scripts/lint.sh FILE.c… FILE.h…     CC and WARNINGS in the environment
set -u
status=0
# The version is some string here: these flags pass through several shells, quotes would not.
flags="-std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DOBJSTORE_VERSION=__FILE__ -I."
flags="$flags -isystem /usr/share/include/llhttp"
warnings=${WARNINGS:--Wall -Wextra -Werror}
jobs=$(nproc 2>/dev/null || echo 2)

part() {
    name=$1
    shift
    started=$(date +%s)
    if "$@"; then
        echo "lint: $name ok ($(($(date +%s) - started)) s)"
    else
        echo "lint: $name FAILED" >&2
        status=1
    fi
}

sources=$(printf '%s\n' "$@" | grep '\.c$')
headers=$(printf '%s\n' "$@" | grep '\.h$')
[ -n "$sources" ] && [ -n "$headers" ] || { echo "lint: no files named" >&2; exit 64; }

headers_alone() {
    # Twice, so that a missing include guard shows.
    printf '%s\n' "$headers" | xargs -P "$jobs" -I '{}' sh -c '
        printf "#include \"%s\"\n#include \"%s\"\n" {} {} |
        '"${CC:-gcc} $flags $warnings"' -x c -fsyntax-only - || { echo "{}: does not compile alone"; exit 1; }'
}
format() { printf '%s\n' "$@" | xargs clang-format --dry-run -Werror; }
tidy() {
    printf '%s\n' "$sources" | xargs -P "$jobs" -n 4 sh -c '
        out=$(clang-tidy --quiet "$@" -- '"$flags"' 2>&1); rc=$?
        printf "%s\n" "$out" | grep -vE "^$|^[0-9]+ (warning|error)s?.* (generated|treated)|^Error while processing|^Suppressed "
        exit $rc' sh
}
check() {
    # shellcheck disable=SC2086
    cppcheck --quiet --std=c11 --language=c --enable=warning,performance,portability --inline-suppr \
        --suppressions-list=scripts/cppcheck.supp --error-exitcode=1 -j "$jobs" \
        -D_GNU_SOURCE -DOBJSTORE_VERSION=__FILE__ -D__x86_64__ -I. $sources
}
# The programs are built with one compiler; the other one must not warn either.
other_compiler() {
    for compiler in gcc clang; do
        printf '%s\n' "$sources" | xargs -P "$jobs" -n 8 sh -c '
            '"$compiler $flags $warnings -O2 -fsyntax-only"' "$@"' sh || return 1
    done
}

part 'include order' scripts/lint-includes.sh "$@"
part 'headers alone' headers_alone
part 'compilers' other_compiler
part 'clang-format' format "$@"
part 'clang-tidy' tidy
part 'cppcheck' check
exit "$status"
