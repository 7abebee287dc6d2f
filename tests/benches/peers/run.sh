#!/usr/bin/env bash
# Aggregation by the peers beside ours: makes the peers' environment, builds our
# side, and runs both. Arguments go to compare.py (--help lists them).
set -euo pipefail
cd "$(dirname "$0")"
. ../../../image/lib.sh

python=$(./environment.sh)
root=$(cd ../../.. && pwd)
# The updates, as they are and sealed, and two aggregates of each.
need_space "$root/target" 4000
# cargo names the program that it built; its own messages go to the terminal.
ours=$(cd "$root" && "${CARGO:-cargo}" bench --no-run --locked -p sealfold-tests --bench peers \
    --message-format json-render-diagnostics |
    sed -n 's/.*"name":"peers".*"executable":"\([^"]*\)".*/\1/p')
[ -x "$ours" ] || die "cargo named no program of the benchmark, found \"$ours\"" \
    "run: cargo bench --no-run -p sealfold-tests --bench peers"
PYTHONDONTWRITEBYTECODE=1 exec "$python" compare.py --ours "$ours" "$@"
