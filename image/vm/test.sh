#!/usr/bin/env bash
# Boots enclave images in a virtual machine that emulates a Nitro enclave, and
# runs rounds through them: `make test-nitro`.
set -euo pipefail
cd "$(dirname "$0")"
. ../lib.sh

case ${1:-} in
-h | --help)
    say "usage: image/vm/test.sh [NAME]"
    say "Builds the images and the virtual machine, and runs tests/tests/nitro.rs and"
    say "tests/tests/image.rs, or the tests of them whose name has NAME in it."
    exit 0
    ;;
esac

checkout=$(cd ../.. && pwd)
images=$checkout/target/nitro
mkdir -p "$images"
export SEALFOLD_ACCOUNT=$images/account
: >"$SEALFOLD_ACCOUNT"
need openssl openssl buildah buildah
tools=$(./tools.sh)
cd "$checkout"

# The root of the simulation: thrown away with the target folder.
root=$images/root.pem
target/release/sealfold-enclave --simulation-root "$root" --print-policy >"$images/policy.toml"
# A signer of images.
if [ ! -f "$images/signer.pem" ]; then
    openssl req -new -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -days 3650 \
        -subj "/CN=sealfold test signer" -keyout "$images/signer.key" -out "$images/signer.pem" \
        2>/dev/null
fi
image/build.sh
image/build.sh --simulation "$root" --out "$images/simulation"
image/build.sh --simulation "$root" --out "$images/signed" \
    --sign "$images/signer.pem" "$images/signer.key"
# One byte of the application is another one: a letter of its help.
application=$STATIC/sealfold-enclave
offset=$(grep -abo 'The trusted part of sealfold' "$application" | head -n 1 | cut -d : -f 1)
[ -n "$offset" ] || die "no text to change in $application"
cp "$application" "$images/changed-application"
printf 't' | dd of="$images/changed-application" bs=1 seek="$offset" conv=notrunc status=none
[ "$(cmp -l "$application" "$images/changed-application" | wc -l)" = 1 ] ||
    die "expected one changed byte in $images/changed-application"
image/build.sh --simulation "$root" --application "$images/changed-application" \
    --out "$images/changed"
accounted

# shellcheck disable=SC2086 # two settings
env $tools SEALFOLD_IMAGES="$checkout/target" \
    "${CARGO:-cargo}" test --release --locked --workspace \
    --features sealfold-enclave/simulation --test nitro --test image --no-fail-fast \
    -- --ignored --test-threads 2 "$@"
