#!/usr/bin/env bash
# Builds what is needed to boot an enclave image without AWS: QEMU with its
# nitro-enclave machine, and the vhost-user device that gives the machine a
# vsock. Once, into a cache; prints where they are.
set -euo pipefail
cd "$(dirname "$0")"
. ../lib.sh

QEMU_VERSION=1:10.0.2+ds-2+deb13u1~bpo12+1
QEMU_TARBALL=qemu_10.0.2+ds.orig.tar.xz
QEMU_SHA256=0901da33844a331bf8b3602b9c1fbd178e60b737c8e3ade678255bd090c9b9f1
MESON=1.5.0
PYCOTAP=1.3.1
VSOCK_VERSION=0.3.0
VSOCK_SHA256=52ce95d81af89ad693d067c650e42df0f217addfbc96cc4820f7c62eb4a28b13

case ${1:-} in
-h | --help)
    say "usage: image/vm/tools.sh"
    say "Builds QEMU (nitro-enclave machine) and vhost-device-vsock into $CACHE"
    say "(SEALFOLD_CACHE moves it) unless they are there, and prints where they are."
    exit 0
    ;;
esac

jobs=$(nproc)

compile_qemu() {
    cd "$work"
    mkdir src
    tar -xf "$QEMU_TARBALL" -C src --strip-components=1
    cd src
    # The firmware images are not in Debian's tarball; this machine boots with
    # Debian's own packages of them.
    sed -i 's/unpack_edk2_blobs = bzip2.found()/unpack_edk2_blobs = false/' meson.build
    ! grep -q 'unpack_edk2_blobs = bzip2' meson.build
    printf 'CONFIG_MICROVM=y\nCONFIG_NITRO_ENCLAVE=y\n' \
        >configs/devices/x86_64-softmmu/nitro.mak
    python3 -m venv ../venv
    ../venv/bin/pip -q install "meson==$MESON" "pycotap==$PYCOTAP"
    mkdir build && cd build
    ../configure --python="$work/venv/bin/python3" --target-list=x86_64-softmmu \
        --without-default-features --without-default-devices \
        --with-devices-x86_64=nitro --enable-tcg --enable-system --enable-gnutls \
        --enable-libcbor --enable-vhost-user --enable-fdt=system \
        --disable-install-blobs --disable-user --disable-tools --disable-docs \
        --disable-guest-agent --disable-werror
    ninja -j "$jobs" qemu-system-x86_64
    mkdir "$work/result"
    strip -o "$work/result/qemu-system-x86_64" qemu-system-x86_64
}

build_qemu() {
    need gcc gcc g++ g++ ninja ninja-build flex flex bison bison pkg-config pkg-config \
        python3 python3 xz xz-utils make make
    need_packages libcbor-dev libgnutls28-dev libglib2.0-dev libpixman-1-dev libfdt-dev \
        zlib1g-dev python3-venv dpkg-dev
    need_space "$CACHE" 3000
    work=$CACHE/work/qemu-$$
    rm -rf "$work" && mkdir -p "$work"
    say "qemu: fetching $QEMU_TARBALL, then building it (4 minutes on two cores)"
    fetch_source "$work" "qemu=$QEMU_VERSION" "$QEMU_TARBALL" "$QEMU_SHA256"
    logged qemu "$work.log" compile_qemu
    keep "$work/result" "$1"
    rm -rf "$work" "$work.log"
}

compile_vsock() {
    # The crate is a program, so that cargo fetches it but builds nothing.
    cargo fetch --manifest-path "$work/fetch/Cargo.toml"
    crate=$(ls "${CARGO_HOME:-$HOME/.cargo}"/registry/cache/*/vhost-device-vsock-$VSOCK_VERSION.crate |
        head -n 1)
    check_sha256 "$crate" "$VSOCK_SHA256"
    mkdir "$work/src"
    tar -xf "$crate" -C "$work/src" --strip-components=1
    patch -p1 -d "$work/src" <vhost-device-vsock.patch
    printf '\n[workspace]\n' >>"$work/src/Cargo.toml"
    CARGO_TARGET_DIR=$work/target cargo build --release --locked \
        --manifest-path "$work/src/Cargo.toml"
    mkdir "$work/result"
    strip -o "$work/result/vhost-device-vsock" "$work/target/release/vhost-device-vsock"
}

build_vsock() {
    need cargo cargo patch patch gcc gcc
    need_space "$CACHE" 1500
    work=$CACHE/work/vsock-$$
    rm -rf "$work" && mkdir -p "$work/fetch/src"
    say "vhost-device-vsock: building it (1 minute on two cores)"
    : >"$work/fetch/src/lib.rs"
    printf '%s\n' '[package]' 'name = "fetch"' 'version = "0.0.0"' 'edition = "2021"' \
        '[dependencies]' "vhost-device-vsock = \"=$VSOCK_VERSION\"" '[workspace]' \
        >"$work/fetch/Cargo.toml"
    logged vhost-device-vsock "$work.log" compile_vsock
    keep "$work/result" "$1"
    rm -rf "$work" "$work.log"
}

# At run time QEMU needs these firmware files from Debian.
need_packages qemu-system-data seabios libcbor0.8 libfdt1

# tool NAME FOLDER FUNCTION: from the cache, or built into it.
tool() {
    if cached "$2"; then
        account reused "$1"
    else
        "$3" "$2"
        account built "$1"
    fi
}

qemu=$CACHE/qemu-$(key_of "$QEMU_VERSION" "$QEMU_SHA256" "$MESON" "$PYCOTAP" "$(declare -f compile_qemu)")
tool qemu "$qemu" build_qemu
vsock=$CACHE/vsock-$(key_of "$VSOCK_SHA256" "$(declare -f compile_vsock)" vhost-device-vsock.patch)
tool vhost-device-vsock "$vsock" build_vsock
printf 'SEALFOLD_QEMU=%s\nSEALFOLD_VHOST_VSOCK=%s\n' "$qemu/qemu-system-x86_64" "$vsock/vhost-device-vsock"
