#!/usr/bin/env bash
# Builds what writes the image format; a tool, not a part of the image. Prints
# the folder with sealfold-image.
set -euo pipefail
cd "$(dirname "$0")"
. ../lib.sh

case ${1:-} in
-h | --help)
    say "usage: image/builder/build.sh [--fresh]"
    say "Builds the image builder into $CACHE unless it is there, and prints its folder."
    say "--fresh builds it anew, whatever the cache holds."
    exit 0
    ;;
esac

compile() {
    export CARGO_TARGET_DIR=$work/target
    cargo build --release --locked
    cargo test --release --locked
    mkdir "$work/result"
    cp "$work/target/release/sealfold-image" "$work/result/"
}

need cargo cargo gcc gcc pkg-config pkg-config
need_packages libc6-dev libssl-dev
builder=$CACHE/builder-$(key_of Cargo.lock Cargo.toml src/*.rs "$(rustc --version)")
if [ "${1:-}" != --fresh ] && cached "$builder"; then
    account reused "image builder"
else
    say "image builder: building it (4 minutes on two cores)"
    need_space "$CACHE" 2000
    work=$CACHE/work/builder-$$
    rm -rf "$work" && mkdir -p "$work"
    logged "image builder" "$work.log" compile
    keep "$work/result" "$builder"
    rm -rf "$work" "$work.log"
    account built "image builder"
fi
printf '%s\n' "$builder"
