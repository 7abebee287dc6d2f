# Shared by the scripts in this folder: messages, the cache, and Debian's
# sources by exact version. To be sourced by bash with `set -euo pipefail`.
# shellcheck shell=bash

# Built tools live outside the checkout, so that a second checkout, or CI,
# does not build them again.
CACHE=${SEALFOLD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sealfold}
for folder in "$CACHE" "${SEALFOLD_SOURCES:-/}" "$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"; do
    case $folder in
    *[[:space:]]*) echo "error: $folder: expected a path without white space" >&2 && exit 1 ;;
    /*) ;;
    *) echo "error: $folder: expected an absolute path" >&2 && exit 1 ;;
    esac
done

say() { printf '%s\n' "$*" >&2; }

# die WHAT WAS EXPECTED AND FOUND, NEXT STEP
die() {
    say "error: $1"
    [ $# -lt 2 ] || say "  next: $2"
    exit 1
}

# need COMMAND DEBIAN-PACKAGE ...: each command must be there.
need() {
    local missing=()
    while [ $# -gt 1 ]; do
        command -v "$1" >/dev/null || missing+=("$2")
        shift 2
    done
    install_or_say "${missing[@]}"
}

# need_packages DEBIAN-PACKAGE ...: libraries, which have no command.
need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    install_or_say "${missing[@]}"
}

# Installs what is missing where that was allowed (CI, SEALFOLD_INSTALL=1),
# and otherwise says which command does it.
install_or_say() {
    [ $# -gt 0 ] || return 0
    if [ -n "${CI:-}${SEALFOLD_INSTALL:-}" ] && [ "$(id -u)" = 0 ]; then
        say "installing: $*"
        { apt-get update -q && apt-get install -y -q --no-install-recommends "$@"; } >&2 ||
            die "could not install: $*" "install them by hand, then run this again"
    else
        die "not installed: $*" "apt install $*   (or set SEALFOLD_INSTALL=1 as root)"
    fi
}

# need_space FOLDER MEBIBYTES
need_space() {
    local free
    mkdir -p "$1"
    free=$(df --output=avail -B1M "$1" | tail -n 1 | tr -d ' ')
    [ "$free" -ge "$2" ] || die "$1 has $free MiB free, expected at least $2 MiB" \
        "free some space, or point SEALFOLD_CACHE or TMPDIR to a larger disk"
}

# sha256_of FILE
sha256_of() { sha256sum "$1" | cut -d ' ' -f 1; }

# check_sha256 FILE EXPECTED
check_sha256() {
    local found
    found=$(sha256_of "$1")
    [ "$found" = "$2" ] || die "$1: expected SHA-256 $2, found $found" \
        "it is not the pinned source: remove it and run this again; if it stays, tell the maintainers"
}

# key_of STRING-OR-FILE ...: what a cached thing depends on, as a short name.
key_of() {
    local part
    for part in "$@"; do
        if [ -f "$part" ]; then sha256_of "$part"; else printf '%s\n' "$part"; fi
    done | sha256sum | cut -c 1-16
}

# cached FOLDER: is it there, whole and unchanged since it was built? This guards
# against accidents; whoever can write into the cache can change what is built.
cached() {
    [ -f "$1/SHA256SUMS" ] || return 1
    (cd "$1" && sha256sum --quiet --strict -c SHA256SUMS >/dev/null 2>&1 &&
        [ "$(find . -type f ! -name SHA256SUMS | sort)" = "$(cut -c 67- SHA256SUMS)" ]) && return 0
    say "cache: $1 was changed or is not whole; building it again"
    rm -rf "$1"
    return 1
}

# account built|reused NAME: said, and remembered for the one line at the end of
# a run that sets SEALFOLD_ACCOUNT to a file.
account() {
    say "$2: $1"
    [ -z "${SEALFOLD_ACCOUNT:-}" ] || printf '%s %s\n' "$1" "$2" >>"$SEALFOLD_ACCOUNT"
}

# accounted: that line.
accounted() {
    local built reused
    built=$(sed -n 's/^built //p' "$SEALFOLD_ACCOUNT" | sort -u)
    # What was built first and then used again in this run was built.
    reused=$(sed -n 's/^reused //p' "$SEALFOLD_ACCOUNT" | sort -u | grep -vxF -e "${built:-/}" || true)
    built=${built:-nothing} reused=${reused:-nothing}
    say "cache $CACHE: reused ${reused//$'\n'/, }; built ${built//$'\n'/, }"
}

# keep FOLDER-WITH-RESULT FOLDER-IN-CACHE: at once, so that an interrupted
# build leaves nothing that looks whole.
keep() {
    (cd "$1" && find . -type f ! -name SHA256SUMS -print0 | sort -z |
        xargs -0 sha256sum >SHA256SUMS)
    mkdir -p "$(dirname "$2")"
    rm -rf "$2"
    mv "$1" "$2"
}

# fetch_source FOLDER PACKAGE=VERSION FILE SHA256: a source tarball (or, if FILE
# ends in .deb, a binary package) of exactly this version, from
# SEALFOLD_SOURCES if it lies there, else from Debian's archive.
fetch_source() {
    local folder=$1 package=$2 file=$3
    if [ -f "${SEALFOLD_SOURCES:-/nonexistent}/$file" ]; then
        cp "$SEALFOLD_SOURCES/$file" "$folder/"
    else
        private_apt_sources
        private_apt update -q
        case $file in
        *.deb) (cd "$folder" && private_apt download -q "$package") ;;
        *) (cd "$folder" && private_apt source -q --download-only --tar-only "$package") ;;
        esac || die "could not fetch $package from Debian's archive" \
            "see whether the archive can be reached; it drops old versions, which Debian's snapshot archive keeps: put $file into a folder and set SEALFOLD_SOURCES to it"
    fi
    check_sha256 "$folder/$file" "$4"
}

# mirror_of SUITE: where this machine gets a suite of Debian from.
mirror_of() {
    local site
    site=$(apt-get indextargets --format '$(RELEASE) $(SITE)' |
        sed -n "s/^$1 //p" | sort -u | head -n 1)
    [ -n "$site" ] || die "apt knows no source of $1 on this machine; expected Debian 12" \
        "add the suite $1 to apt's sources, or set SEALFOLD_SOURCES to a folder with the pinned sources"
    printf '%s\n' "$site"
}

# The suites that the pinned sources are in, from this machine's own mirrors,
# for an apt with a state of its own: neither the machine's list of sources nor
# its installed packages are changed.
private_apt_sources() {
    local home=$CACHE/apt main security
    main=$(mirror_of bookworm) security=$(mirror_of bookworm-security)
    mkdir -p "$home/lists/partial" "$home/archives/partial"
    cat >"$home/sources.list" <<-EOF
	deb $main bookworm-backports main
	deb-src $main bookworm-backports main
	deb $security bookworm-security main
	EOF
    cat >"$home/apt.conf" <<-EOF
	Dir::Etc::sourcelist "$home/sources.list";
	Dir::Etc::sourceparts "-";
	Dir::State::lists "$home/lists";
	Dir::Cache "$home";
	Dir::Cache::archives "$home/archives";
	APT::Sandbox::User "root";
	EOF
}

private_apt() { APT_CONFIG=$CACHE/apt/apt.conf apt-get "$@" >&2; }

# logged NAME LOG FUNCTION: runs the function with its output in the log, and
# ends with the log's last lines if it fails. (Under `||` or `if` bash would go
# on after a failed command in it; a job that is waited for stops.)
logged() {
    (
        set -euo pipefail
        "$3"
    ) >"$2" 2>&1 &
    local job=$! status=0
    wait "$job" || status=$?
    [ "$status" = 0 ] || die "$1 did not build (exit code $status); the end of its log:
$(tail -n 15 "$2")" "read the whole log, $2"
}

# commit_of CHECKOUT: what the version says that is built; SEALFOLD_COMMIT
# gives it where there is no git.
commit_of() {
    local commit
    commit=$(git -C "$1" rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
    git -C "$1" diff --quiet HEAD 2>/dev/null || [ "$commit" = unknown ] || commit+=-changed
    printf '%s\n' "${SEALFOLD_COMMIT:-$commit}"
}

# Where static binaries come to lie, below the checkout.
STATIC=target/image/x86_64-unknown-linux-gnu/release

# compile_static CHECKOUT CARGO-ARGUMENT ...: static binaries, the same bytes
# in every folder: no path of this machine is in them.
compile_static() {
    local checkout=$1 cargo_home=${CARGO_HOME:-$HOME/.cargo} remap
    shift
    remap="--remap-path-prefix=$checkout=/sealfold"
    remap+=" --remap-path-prefix=$cargo_home=/cargo"
    remap+=" --remap-path-prefix=$(rustc --print sysroot)=/rust"
    RUSTFLAGS="-C target-feature=+crt-static $remap" \
    CFLAGS="-ffile-prefix-map=$checkout=/sealfold -ffile-prefix-map=$cargo_home=/cargo" \
    SOURCE_DATE_EPOCH=1 SEALFOLD_COMMIT=$(commit_of "$checkout") \
    CARGO_TARGET_DIR=$checkout/target/image \
        cargo build --quiet --release --locked --target x86_64-unknown-linux-gnu \
        --manifest-path "$checkout/Cargo.toml" "$@"
}

# expect_static FILE ...
expect_static() {
    local binary
    for binary in "$@"; do
        ! ldd "$binary" 2>/dev/null | grep -q '=>' ||
            die "$binary: expected a static binary, found one with shared libraries"
    done
}
