#!/usr/bin/env bash
# Runs the OCI image from its unpacked root file system, in namespaces without a
# network but for its two endpoints, and the example study through it: `make
# test-confidential-space`. The launcher of a Confidential Space is a double.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

case ${1:-} in
-h | --help)
    say "usage: image/space.sh [NAME]"
    say "Builds the image and runs tests/tests/space_image.rs, or the tests of it whose"
    say "name has NAME in it. It needs namespaces: root with CAP_SYS_ADMIN, or user"
    say "namespaces; a machine without either fails."
    exit 0
    ;;
esac

checkout=$(cd .. && pwd)
need unshare util-linux ip iproute2 tar tar buildah buildah
./oci.sh >/dev/null
cd "$checkout"
SEALFOLD_OCI=$checkout/target/oci/image \
    "${CARGO:-cargo}" test --release --locked --workspace \
    --features sealfold-enclave/simulation --test space_image --no-fail-fast \
    -- --ignored --test-threads 2 "$@"
