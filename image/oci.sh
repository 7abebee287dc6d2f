#!/usr/bin/env bash
# Builds the enclave binary into an OCI image, without a Docker engine: for
# `nitro-cli build-enclave` and for Confidential Space. The same source gives
# the same digest.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

checkout=$(cd .. && pwd)
out=$checkout/target/oci
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=$(realpath -m "${2:?}") && shift 2 ;;
    -h | --help)
        say "usage: image/oci.sh [--out FOLDER]"
        say "Writes into FOLDER (target/oci): image/, an OCI layout; digest; and"
        say "context/, which Dockerfile.enclave is built from."
        exit 0
        ;;
    *) die "unknown argument $1" "image/oci.sh --help" ;;
    esac
done

need cargo cargo gcc gcc git git buildah buildah
need_packages libc6-dev
need_space "$checkout" 1000
say "application: building"
compile_static "$checkout" -p sealfold-enclave
expect_static "$checkout/$STATIC/sealfold-enclave"
mkdir -p "$out"
rm -rf "$out/context"
mkdir "$out/context"
cp "$checkout/$STATIC/sealfold-enclave" "$out/context/"

# Storage of its own, thrown away; `vfs` needs nothing of the kernel.
work=$(mktemp -d -t sealfold-oci-XXXXXX)
trap 'rm -rf "$work"' EXIT
storage=(--root "$work/root" --runroot "$work/run" --storage-driver vfs)
say "oci image: building"
# No time and no name of the builder's version goes in; the layer is not
# compressed, so that the digest does not depend on a compressor.
buildah "${storage[@]}" build --quiet --isolation chroot --format oci --timestamp 1 \
    --identity-label=false --layers=false --tag sealfold-enclave \
    --file "$checkout/Dockerfile.enclave" "$out/context" >"$work/log" 2>&1 ||
    die "the image did not build: $(tail -n 5 "$work/log")"
rm -rf "$work/layout"
buildah "${storage[@]}" push --quiet --disable-compression --digestfile "$work/digest" \
    sealfold-enclave "oci:$work/layout:sealfold-enclave" >"$work/log" 2>&1 ||
    die "the image could not be written: $(tail -n 5 "$work/log")"
rm -rf "$out/image"
mv "$work/layout" "$out/image"
{ cat "$work/digest" && echo; } >"$out/digest"
say "oci image: $out/image"
cat "$out/digest"
