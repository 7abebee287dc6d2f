#!/usr/bin/env bash
# Builds the image twice, each time from nothing: another folder, another cargo
# home, a kernel and an image builder of its own. Fails, naming the part that
# moved, if anything differs.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

case ${1:-} in
-h | --help)
    say "usage: image/reproduce.sh [--reuse-kernel]"
    say "Builds the image twice and compares every part (25 minutes on two cores)."
    say "  --reuse-kernel  take kernel and builder from the cache, and build only"
    say "                  init and application twice (8 minutes)"
    exit 0
    ;;
esac
fresh=--fresh
[ "${1:-}" != --reuse-kernel ] || fresh=

checkout=$(cd .. && pwd)
need git git tar tar
work=$(mktemp -d -t sealfold-reproduce-XXXXXX)
trap 'rm -rf "$work"' EXIT
need_space "$work" 8000

# The checkout as it is, changes that are not committed included.
commit=$(git -C "$checkout" rev-parse --short=12 HEAD)
git -C "$checkout" diff --quiet HEAD || commit+=-changed
first=$work/a/sealfold
second=$work/another-folder/with/a-longer-name
for folder in "$first" "$second"; do
    say "building in $folder"
    mkdir -p "$folder" "$folder-cargo"
    git -C "$checkout" ls-files -z --cached --others --exclude-standard |
        tar -C "$checkout" --null --files-from - -c | tar -x -C "$folder"
    # The settings of this machine's cargo, such as a proxy or a mirror.
    for settings in config config.toml; do
        settings=${CARGO_HOME:-$HOME/.cargo}/$settings
        [ ! -f "$settings" ] || cp "$settings" "$folder-cargo/"
    done
    # The toolchain's programs stay on the path; only cargo's home is another.
    CARGO_HOME=$folder-cargo SEALFOLD_COMMIT=$commit \
        "$folder/image/build.sh" $fresh --out "$folder/target/eif"
done
"$(builder/build.sh)/sealfold-image" compare "$first/target/eif" "$second/target/eif"
