#!/bin/sh
# Whether the release build of each FILE is hardened: position-independent, all relocations resolved
# and made read-only at the start, no executable stack, no text relocations, stack protector, and
# checked library functions (FORTIFY).
#   usage: scripts/hardened.sh FILE…
set -u
rc=0

lacks() {
    echo "$1: $2"
    rc=1
}

for file in "$@"; do
    segments=$(readelf -W -l "$file") && dynamic=$(readelf -W -d "$file") &&
        symbols=$(readelf -W --dyn-syms "$file") || exit 1
    readelf -W -h "$file" | grep -q 'Type: *DYN' && echo "$dynamic" | grep -q 'FLAGS_1.*PIE' ||
        lacks "$file" 'is not position-independent (-pie)'
    echo "$segments" | grep -q ' GNU_RELRO ' || lacks "$file" 'has no RELRO segment (-z relro)'
    echo "$dynamic" | grep -Eq '\((FLAGS|FLAGS_1)\).*(BIND_NOW|NOW)' ||
        lacks "$file" 'resolves symbols lazily (-z now)'
    echo "$segments" | grep -q ' GNU_STACK .* RW ' || lacks "$file" 'has an executable stack'
    echo "$segments" | grep -q ' LOAD .* RWE ' && lacks "$file" 'has a segment to write and execute'
    echo "$dynamic" | grep -q 'TEXTREL' && lacks "$file" 'has text relocations'
    echo "$symbols" | grep -q '__stack_chk_fail' || lacks "$file" 'has no stack protector'
    echo "$symbols" | grep -Eq '__(memcpy|snprintf|vsnprintf|read|pread64?|printf)_chk' ||
        lacks "$file" 'calls no checked functions (_FORTIFY_SOURCE)'
done
[ "$rc" -eq 0 ] && echo "hardened: $*"
exit "$rc"
