#!/bin/sh
# Starts the enclave and stays until it is gone, so that a service manager has
# a process to watch: `nitro-cli run-enclave` itself returns as soon as the
# image has booted and its heartbeat was answered.
#
# Not tried on EC2; tests/tests/start_script.rs runs it with a nitro-cli that is made
# up. It needs nitro-cli and sealfold on the path.
#
# Exit codes: 0 it was told to stop; 1 the enclave is gone or did not start, and
# starting it again may help; 78 the image or a setting is not what it should
# be, and starting it again does not help.
set -eu

# The image, and the measurements that it must have: what `sealfold measure`
# printed for the image that the sites agreed to.
image=${SEALFOLD_EIF:-/usr/local/lib/sealfold/sealfold.eif}
pinned=${SEALFOLD_MEASUREMENTS:-/etc/sealfold/measurements.toml}
# What the enclave gets of the allocator's pool: whole cores, MiB.
cpus=${SEALFOLD_ENCLAVE_CPUS:-2}
memory=${SEALFOLD_ENCLAVE_MEMORY:-256}
# Where the host finds it: --enclave vsock://16:5000.
cid=${SEALFOLD_ENCLAVE_CID:-16}
name=${SEALFOLD_ENCLAVE_NAME:-sealfold}
# How often it looks whether the enclave is there, in seconds.
pause=${SEALFOLD_WATCH_SECONDS:-5}
# After so many looks in a row without it, the enclave is gone. One look is not
# enough: after a commit an enclave that is ended by mistake costs the round.
looks=6

say() { printf 'run-enclave: %s\n' "$*" >&2; }

usage() {
    cat >&2 <<'TEXT'
usage: run-enclave.sh

Starts the enclave and stays until it is gone or it is told to stop; a service manager
runs it (sealfold-enclave.service). It takes no arguments. Settings, as environment
variables:
  SEALFOLD_EIF             the image (/usr/local/lib/sealfold/sealfold.eif)
  SEALFOLD_MEASUREMENTS    what `sealfold measure` printed for the image that the sites
                           agreed to (/etc/sealfold/measurements.toml)
  SEALFOLD_ENCLAVE_CPUS    whole cores of the allocator's pool, counted as CPUs (2)
  SEALFOLD_ENCLAVE_MEMORY  MiB of that pool (256)
  SEALFOLD_ENCLAVE_CID     where the host finds it: --enclave vsock://16:5000 (16)
  SEALFOLD_ENCLAVE_NAME    its name in nitro-cli's list (sealfold)
  SEALFOLD_WATCH_SECONDS   how often it looks whether the enclave is there (5)

Exit codes: 0 it was told to stop; 1 the enclave is gone or did not start, and starting
it again may help; 78 the image or a setting is not what it should be.
TEXT
}

case $#:${1:-} in
0:) ;;
1:-h | 1:--help) usage && exit 0 ;;
*) usage && exit 78 ;;
esac

# refuse WHAT WAS EXPECTED AND FOUND, NEXT STEP
refuse() {
    say "error: $1"
    say "  next: $2"
    exit 78
}

# The lines `pcrN = "..."` of a text, in order, without the rest.
registers() {
    sed -n 's/^[[:space:]]*\(pcr[0-9][0-9]*\)[[:space:]]*=[[:space:]]*"\([0-9a-f]*\)".*/\1 \2/p' | sort
}

# The enclaves that nitro-cli lists, a line each, without white space: of its
# JSON the strings with braces and the objects within an enclave are left out,
# so that each brace that remains begins one.
enclaves() {
    listed=$(timeout 30 nitro-cli describe-enclaves) || return 1
    printf '%s\n' "$listed" | tr -d '[:space:]' |
        sed -e 's/:"[^"]*[{}][^"]*"/:""/g' -e ':inner' -e 's/:{[^{}]*}/:0/g' -e 't inner' |
        tr '{' '\n'
}

# Sleeps, and wakes when it is told to stop.
nap() {
    sleep "$pause" &
    wait "$!" || :
    kill "$!" 2>/dev/null || :
}

for program in nitro-cli sealfold; do
    command -v "$program" >/dev/null ||
        refuse "expected $program on the path, found none" "install it: docs/operating.md"
done
[ -r "$pinned" ] ||
    refuse "expected the accepted measurements in $pinned, found no such file" \
        "sealfold measure sealfold.eif, on the machine that built it"

# Another image than the one that was announced helps nobody: the sites refuse
# it. This check is for the operator; theirs does not rest on it.
expected=$(registers <"$pinned")
for register in pcr0 pcr1 pcr2; do
    case $expected in
    *"$register "?*) ;;
    *) refuse "expected $register in $pinned, found none" "write what sealfold measure prints" ;;
    esac
done
measured=$(sealfold measure "$image") ||
    refuse "expected a whole image in $image" "copy it again from the machine that built it"
found=$(printf '%s\n' "$measured" | registers)
[ "$found" = "$expected" ] ||
    refuse "$image has other measurements than $pinned: expected
$expected
found
$found" "run the image that the sites accepted, or have them accept this one: docs/operating.md"

# The address is taken where an enclave of an earlier run, or of somebody else,
# is still there. It is not this script's to end.
if ! there=$(enclaves); then
    say "nitro-cli does not say which enclaves run"
    say "  next: nitro-cli describe-enclaves, as this user"
    exit 1
fi
if printf '%s\n' "$there" | grep -qE "\"EnclaveCID\":$cid[,}]"; then
    say "an enclave with CID $cid runs already; it was not started from here and is left alone"
    say "  next: nitro-cli describe-enclaves, and end it by its id if it is yours"
    exit 1
fi

# From here on a signal only leaves word: whatever was begun is finished, so
# that the enclave's id is known when it is to be ended.
stopping=
trap 'stopping=1' TERM INT HUP

say "starting $image: CID $cid, $cpus CPUs, $memory MiB"
if ! answer=$(timeout 300 nitro-cli run-enclave --eif-path "$image" --cpu-count "$cpus" \
    --memory "$memory" --enclave-cid "$cid" --enclave-name "$name"); then
    say "nitro-cli did not start the enclave; its error code is above"
    say "  next: the table in docs/operating.md, or nitro-cli explain --error-code CODE"
    exit 1
fi
id=$(printf '%s\n' "$answer" | grep -o '"EnclaveID": *"[^"]*"' | head -n 1 | cut -d '"' -f 4)
if [ -z "$id" ]; then
    say "expected an EnclaveID in nitro-cli's answer, found: $answer"
    exit 1
fi
say "enclave $id has booted"

missing=0
while [ -z "$stopping" ]; do
    nap
    [ -z "$stopping" ] || break
    # No answer is no news: to end an enclave that runs would cost its round.
    if ! there=$(enclaves); then
        say "nitro-cli does not answer; enclave $id is left alone"
        continue
    fi
    if printf '%s\n' "$there" | grep -F "\"EnclaveID\":\"$id\"" | grep -qF '"State":"RUNNING"'; then
        missing=0
        continue
    fi
    missing=$((missing + 1))
    say "enclave $id is not listed as running (look $missing of $looks)"
    if [ "$missing" -ge "$looks" ]; then
        say "enclave $id is gone"
        exit 1
    fi
done

say "told to stop; ending enclave $id"
timeout 60 nitro-cli terminate-enclave --enclave-id "$id" >&2 || {
    say "nitro-cli did not end enclave $id"
    exit 1
}
