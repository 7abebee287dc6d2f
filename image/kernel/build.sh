#!/usr/bin/env bash
# Builds the enclave's kernel from Debian's source: one version, one
# configuration, the same bytes on every machine with Debian 12's compiler.
# Prints the folder with bzImage, config and source.txt.
set -euo pipefail
cd "$(dirname "$0")"
. ../lib.sh

VERSION=6.12.117-1~deb12u1
DEB=linux-source-6.12_6.12.117-1~deb12u1_all.deb
DEB_SHA256=e849faf31ca3555757f3a8877cb01af92122f744f75d1f3102734651c4e14703

case ${1:-} in
-h | --help)
    say "usage: image/kernel/build.sh [--fresh FOLDER]"
    say "Builds the kernel into $CACHE unless it is there, and prints its folder."
    say "--fresh builds it anew, in FOLDER, whatever the cache holds."
    say "SEALFOLD_SOURCES=FOLDER takes $DEB from there instead of Debian's archive."
    exit 0
    ;;
esac

compile() {
    cd "$work"
    mkdir src
    dpkg-deb --fsys-tarfile "$DEB" | tar -xO ./usr/src/linux-source-6.12.tar.xz |
        tar -xJ -C src --strip-components=1
    # Nothing of when, where and by whom it was built may be in the result, nor
    # what the environment asks for.
    unset KCFLAGS KCPPFLAGS KAFLAGS CROSS_COMPILE LLVM ARCH MAKEFLAGS MAKEOVERRIDES
    export KBUILD_BUILD_TIMESTAMP=@1 KBUILD_BUILD_USER=sealfold KBUILD_BUILD_HOST=sealfold
    export KBUILD_BUILD_VERSION=1 LC_ALL=C
    make -C src -s KCONFIG_ALLCONFIG="$fragment" allnoconfig
    # What was asked for is there: a renamed option would otherwise be dropped
    # without a word.
    while read -r line; do
        case $line in
        CONFIG_*=n) ! grep -q "^${line%=n}=" src/.config ;;
        CONFIG_*) grep -qxF "$line" src/.config ;;
        "# CONFIG_"*) name=${line#\# } && ! grep -q "^${name%% *}=" src/.config ;;
        esac || { echo "not in the configuration as made: $line" && exit 1; }
    done <"$fragment"
    make -C src -s -j "$(nproc)" bzImage
    mkdir result
    cp src/arch/x86/boot/bzImage result/bzImage
    cp src/.config result/config
    printf 'linux-source %s\nsha256 %s\n%s\n%s\n' "$VERSION" "$DEB_SHA256" \
        "$(gcc --version | head -n 1)" "$(ld --version | head -n 1)" >result/source.txt
}

build() {
    need gcc gcc make make flex flex bison bison bc bc xz xz-utils dpkg-deb dpkg perl perl
    need_packages libelf-dev
    need_space "$1" 3000
    work=$1/kernel-work-$$
    rm -rf "$work" && mkdir -p "$work"
    say "kernel: fetching linux-source $VERSION, then building it (4 minutes on two cores)"
    fetch_source "$work" "linux-source-6.12=$VERSION" "$DEB" "$DEB_SHA256"
    logged kernel "$work.log" compile
    keep "$work/result" "$2"
    rm -rf "$work" "$work.log"
}

fragment=$PWD/config.fragment
if [ "${1:-}" = --fresh ]; then
    build "$(realpath -m "$2")" "$(realpath -m "$2")/kernel"
    printf '%s\n' "$2/kernel"
    exit 0
fi
need gcc gcc ld binutils
kernel=$CACHE/kernel-$(key_of "$DEB_SHA256" "$(declare -f compile)" "$fragment" \
    "$(gcc --version | head -n 1)" "$(ld --version | head -n 1)")
if cached "$kernel"; then
    account reused kernel
else
    build "$CACHE/work" "$kernel"
    account built kernel
fi
printf '%s\n' "$kernel"
