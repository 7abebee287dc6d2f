#!/usr/bin/env bash
# Builds the enclave image file (EIF): kernel, init, application, description.
# The same source gives the same bytes on every Debian 12 machine.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

usage() {
    cat >&2 <<-EOF
	usage: image/build.sh [--out FOLDER] [--sign CERTIFICATE KEY] [--fresh]
	                      [--simulation ROOT-FILE] [--application FILE]

	Writes sealfold.eif, measurements.json and bom.json into FOLDER
	(target/eif).

	  --sign        sign the image (PCR8); PEM files, a P-384 key
	  --fresh       build the kernel and the builder anew, whatever the cache has
	  --simulation  for tests: the application with its simulation feature, which
	                signs what an emulated NSM says under the root in ROOT-FILE
	  --application for tests: this binary instead of the one that is built

	The cache is $CACHE; SEALFOLD_CACHE moves it.
	EOF
}

checkout=$(cd .. && pwd)
out=$checkout/target/eif
fresh=
sign=()
simulation=
application=
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=$(realpath -m "${2:?}") && shift 2 ;;
    --sign) sign=(--sign-certificate "$(realpath "${2:?}")" --sign-key "${3:?}") && shift 3 ;;
    --fresh) fresh=--fresh && shift ;;
    --simulation) simulation=$(realpath "${2:?}") && shift 2 ;;
    --application) application=$(realpath "${2:?}") && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) usage && die "unknown argument $1" ;;
    esac
done

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

builder=$(builder/build.sh $fresh)

# Init and application.
say "init and application: building"
compile_static "$checkout" -p sealfold-init
if [ -n "$simulation" ]; then
    compile_static "$checkout" -p sealfold-enclave --features simulation
    more=(--file "root.pem=$simulation" --arg --simulation-root --arg /app/root.pem
        --arg --simulation-over-nsm)
else
    compile_static "$checkout" -p sealfold-enclave
    more=()
fi
binaries=$checkout/$STATIC
application=${application:-$binaries/sealfold-enclave}
expect_static "$binaries/sealfold-init" "$application"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' ../Cargo.toml | head -n 1)
"$builder/sealfold-image" assemble --kernel "$kernel" --init "$binaries/sealfold-init" \
    --application "$application" "${more[@]}" "${sign[@]}" \
    --compiler "$(rustc --version)" \
    --source "$version $(commit_of "$checkout")" --out "$out/sealfold.eif"
"$builder/sealfold-image" bom --manifest ../Cargo.toml --lock ../Cargo.lock --kernel "$kernel" \
    --root sealfold-enclave --root sealfold-init >"$out/bom.json"
say "image: $out/sealfold.eif, $(stat -c %s "$out/sealfold.eif") bytes"
