#!/bin/sh
# Install the Debian packages that the named groups need and that are missing. With everything in
# place it asks dpkg once and changes nothing.
#   usage: scripts/setup.sh GROUP…     GROUP: build test lint bench coverage
set -eu

packages_of() {
    case $1 in
    build) echo gcc libc6-dev make libsqlite3-dev libssl-dev libxxhash-dev \
        libjansson-dev libmsgpack-dev libzmq3-dev node-llhttp libcurl4-openssl-dev libexpat1-dev curl ;;
    test) echo libcmocka-dev curl bash util-linux mount python3 python3-venv ;;
    lint) echo clang clang-format clang-tidy cppcheck libclang-rt-14-dev ;;
    bench) echo wrk nginx-light python3 python3-venv ;;
    coverage) echo lcov ;;
    *) echo "setup: unknown group '$1'" >&2 && exit 64 ;;
    esac
}

wanted=$(for group in "$@"; do packages_of "$group" || exit; done | tr ' ' '\n' | sort -u)

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: this is not Debian; please provide what these Debian packages hold:" >&2
    echo "  $(echo $wanted)" >&2
    # Whoever has provided them goes on: a missing header stops the build with its name.
    exit 0
fi

# shellcheck disable=SC2086
present=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' $wanted 2>/dev/null |
    sed -n 's/ installed$//p' | sort -u) || true
missing=$(printf '%s\n' "$wanted" | grep -Fxv "$(printf '%s\n' "${present:-none}")" || true)
[ -n "$missing" ] || exit 0
missing=$(echo $missing)

line="apt-get install -y --no-install-recommends $missing"
if [ "$(id -u)" = 0 ]; then
    as=""
elif sudo -n true 2>/dev/null; then
    as="sudo -n"
else
    echo "setup: some packages are missing, and there is no way to become root. Please run:" >&2
    echo "  sudo $line" >&2
    exit 1
fi

echo "setup: installing $missing"
export DEBIAN_FRONTEND=noninteractive
# The package lists of a fresh machine or container are empty or old: refresh them and try again.
# shellcheck disable=SC2086
if ! $as $line >/dev/null 2>&1; then
    $as apt-get update -q >/dev/null && $as $line >/dev/null || {
        echo "setup: apt failed. Please run:" >&2
        echo "  ${as:+sudo }apt-get update && ${as:+sudo }$line" >&2
        exit 1
    }
fi
