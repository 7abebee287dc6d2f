#!/usr/bin/env bash
# That the binaries compile for aarch64 (Graviton), and that what is calculated
# there is the same: the tests of the aggregation rules and the keyed hash run
# in QEMU's emulation of its processor.
set -euo pipefail
cd "$(dirname "$0")/.."
. image/lib.sh

case ${1:-} in
-h | --help)
    say "usage: tests/aarch64.sh"
    say "Checks all binaries for aarch64 and runs the library tests of aggregation and"
    say "enclave under emulation, in target/aarch64. SEALFOLD_INSTALL=1, as root, installs"
    say "Debian's packages that are missing."
    exit 0
    ;;
esac

need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu qemu-aarch64 qemu-user
[ -d /usr/aarch64-linux-gnu/include ] || need_packages libc6-dev-arm64-cross
target=aarch64-unknown-linux-gnu
rustup target add "$target"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
options=(--release --locked --target "$target" --target-dir target/aarch64)
cargo check "${options[@]}" -p sealfold-enclave -p sealfold-host -p sealfold -p sealfold-audit
# The accounting by loss distributions takes minutes in emulation and is plain
# arithmetic, whose figures the other accountants share.
cargo test "${options[@]}" -p sealfold-aggregation -p sealfold-enclave --lib -- \
    rule accumulate noise norm format integer clipping optimiser keyed_hash
say "aarch64: compiled, and the same bytes"
