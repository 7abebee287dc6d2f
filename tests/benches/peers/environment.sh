#!/usr/bin/env bash
# Makes the Python environment with the peers, once, into a cache; prints where
# its interpreter is. Nothing of the peers is shipped: they are installed for
# this benchmark only.
set -euo pipefail
cd "$(dirname "$0")"
. ../../../image/lib.sh

case ${1:-} in
-h | --help)
    say "usage: tests/benches/peers/environment.sh"
    say "Installs what requirements.txt lists into $CACHE (SEALFOLD_CACHE moves"
    say "it) unless it is there, and prints the path of its Python interpreter."
    exit 0
    ;;
esac

need python3 python3
version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$(printf '3.11\n%s\n' "$version" | sort -V | head -n 1)" = 3.11 ] ||
    die "python3 is version $version, expected 3.11 (Debian 12) or later" \
        "put a later python3 first in PATH"

# Packages differ between versions of Python, so that is part of the name.
environment=$CACHE/peers-$(key_of requirements.txt "$version")

install() {
    python3 -m venv "$work"
    "$work/bin/pip" install --disable-pip-version-check --no-input --no-compile \
        --only-binary :all: --no-deps -r requirements.txt
    "$work/bin/pip" check
}

# Imports write compiled files into an environment, so it is not held against
# sums; the mark is set when it is whole.
if [ -f "$environment/complete" ]; then
    account reused peers
else
    python3 -c 'import ensurepip, venv' 2>/dev/null || need_packages python3-venv
    need_space "$CACHE" 2000
    # An environment knows its own path, so it is made where it stays.
    work=$environment
    rm -rf "$work" && mkdir -p "$CACHE"
    say "peers: installing $(grep -c == requirements.txt) Python packages (2 minutes)"
    logged peers "$work.log" install
    rm "$work.log"
    touch "$environment/complete"
    account built peers
fi
printf '%s\n' "$environment/bin/python3"
