#!/usr/bin/env bash
# What the tests need besides Rust: valgrind, which watches that rules take the
# same path whatever the values, a browser for the status page, and a reader and a
# witness of the log that are not ours, in a Python environment of their own.
set -euo pipefail
cd "$(dirname "$0")"
. ../image/lib.sh

case ${1:-} in
-h | --help)
    say "usage: tests/tools.sh"
    say "Checks for valgrind and chromium and installs the independent reader and witness of the log into"
    say "target/tools/tlog, unless it is there. SEALFOLD_INSTALL=1, as root, installs"
    say "Debian's packages that are missing."
    exit 0
    ;;
esac

need valgrind valgrind python3 python3 chromium chromium
# Without a font a browser draws no letters.
need_packages fonts-dejavu-core
environment=$(cd .. && pwd)/target/tools/tlog
complete="$environment/complete-2"
[ ! -f "$complete" ] || exit 0
python3 -c 'import ensurepip, venv' 2>/dev/null || need_packages python3-venv
rm -rf "$environment"
python3 -m venv "$environment"
say "log reader: installing aics-tlog 0.2.1 and aics-witness 0.1.0"
# The package asks for Python 3.12; what the tests use of it runs with Debian 12's
# 3.11 as well, and is tried by the tests.
"$environment/bin/pip" install --quiet --disable-pip-version-check --no-input \
    --ignore-requires-python --only-binary :all: \
    aics-tlog==0.2.1 aics-witness==0.1.0 cryptography==50.0.2 cffi==2.1.1 pycparser==3.12 ||
    die "the independent reader and witness of the log could not be installed" \
        "look at pip's message above; it needs the package registry of Python"
touch "$complete"
