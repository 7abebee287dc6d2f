#!/usr/bin/env bash
# Builds the enclave image file (EIF): kernel, init, application, description.
# The same source gives the same bytes on every Debian 12 machine.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

usage() {
    cat >&2 <<-EOF
	usage: image/build.sh [--out FOLDER] [--sign CERTIFICATE KEY] [--fresh]
	                      [--simulation ROOT-FILE]

	Writes sealfold.eif, measurements.json and bom.json into FOLDER
	(target/eif).

	  --sign        sign the image (PCR8); PEM files, a P-384 key
	  --fresh       build the kernel and the builder anew, whatever the cache has
	  --simulation  for tests: the application with its simulation feature, which
	                signs what an emulated NSM says under the root in ROOT-FILE

	The cache is $CACHE; SEALFOLD_CACHE moves it.
	EOF
}

checkout=$(cd .. && pwd)
out=$checkout/target/eif
fresh=
sign=()
simulation=
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=$(realpath -m "${2:?}") && shift 2 ;;
    --sign) sign=(--sign-certificate "$(realpath "${2:?}")" --sign-key "${3:?}") && shift 3 ;;
    --fresh) fresh=1 && shift ;;
    --simulation) simulation=$(realpath "${2:?}") && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) usage && die "unknown argument $1" ;;
    esac
done

TARGET=x86_64-unknown-linux-gnu
need cargo cargo gcc gcc make make pkg-config pkg-config git git
need_packages libc6-dev libssl-dev
need_space "$checkout" 2000
mkdir -p "$out"

# The kernel.
if [ -n "$fresh" ]; then
    kernel=$(kernel/build.sh --fresh "$checkout/target/image/fresh")
else
    kernel=$(kernel/build.sh)
fi

# What writes the format; a tool, not a part of the image.
compile_builder() {
    CARGO_TARGET_DIR=$work/target cargo build --release --locked \
        --manifest-path "$checkout/image/builder/Cargo.toml"
    mkdir "$work/result"
    cp "$work/target/release/sealfold-image" "$work/result/"
}
builder=$CACHE/builder-$(key_of builder/Cargo.lock builder/Cargo.toml builder/src/*.rs \
    "$(rustc --version)")
if [ -z "$fresh" ] && cached "$builder"; then
    say "image builder: reused"
else
    say "image builder: building it (4 minutes on two cores)"
    work=$CACHE/work/builder-$$
    rm -rf "$work" && mkdir -p "$work"
    logged "image builder" "$work.log" compile_builder
    keep "$work/result" "$builder"
    rm -rf "$work" "$work.log"
fi

# The commit goes into the version that the enclave answers with.
commit=$(git -C "$checkout" rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
git -C "$checkout" diff --quiet HEAD 2>/dev/null || [ "$commit" = unknown ] || commit+=-changed
export SEALFOLD_COMMIT=${SEALFOLD_COMMIT:-$commit}

# Init and application, static. No path of this machine may be in them.
remap="--remap-path-prefix=$checkout=/sealfold"
remap+=" --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
remap+=" --remap-path-prefix=$(rustc --print sysroot)=/rust"
compile() {
    RUSTFLAGS="-C target-feature=+crt-static $remap" \
    CFLAGS="-ffile-prefix-map=$checkout=/sealfold -ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
    SOURCE_DATE_EPOCH=1 CARGO_TARGET_DIR=$checkout/target/image \
        cargo build --quiet --release --locked --target "$TARGET" \
        --manifest-path "$checkout/Cargo.toml" "$@"
}
say "init and application: building"
compile -p sealfold-init
if [ -n "$simulation" ]; then
    compile -p sealfold-enclave --features simulation
    more=(--file "root.pem=$simulation" --arg --simulation-root --arg /app/root.pem
        --arg --simulation-over-nsm)
else
    compile -p sealfold-enclave
    more=()
fi
binaries=$checkout/target/image/$TARGET/release
for binary in sealfold-init sealfold-enclave; do
    if ldd "$binaries/$binary" 2>/dev/null | grep -q '=>'; then
        die "$binary: expected a static binary, found one with shared libraries"
    fi
done

version=$(sed -n 's/^version = "\(.*\)"/\1/p' ../Cargo.toml | head -n 1)
"$builder/sealfold-image" assemble --kernel "$kernel" --init "$binaries/sealfold-init" \
    --application "$binaries/sealfold-enclave" "${more[@]}" "${sign[@]}" \
    --source "$version $SEALFOLD_COMMIT" --out "$out/sealfold.eif"
"$builder/sealfold-image" bom --manifest ../Cargo.toml --lock ../Cargo.lock --kernel "$kernel" \
    --root sealfold-enclave --root sealfold-init >"$out/bom.json"
say "image: $out/sealfold.eif, $(stat -c %s "$out/sealfold.eif") bytes"
