#!/bin/sh
# Makes what an enclave in a Google Confidential Space needs (service account,
# its roles, firewall) and starts its machine; or takes the machine away.
#
# NOT TRIED on Google Cloud. tests/tests/launch_script.rs runs it with a gcloud
# that is made up. It needs gcloud, logged in, on the path. What is there already
# is left as it is, so it may be run again; a machine that is there and was started
# with other settings is refused, because the launcher reads them only once.
#
# Exit codes: 0 done; 1 gcloud failed, and trying again may help; 78 a setting is
# not what it should be, and trying again does not help.
set -eu

say() { printf 'launch: %s\n' "$*" >&2; }

usage() {
    cat >&2 <<'TEXT'
usage: launch.sh start | stop | show

Settings, as environment variables:
  SEALFOLD_PROJECT       the project
  SEALFOLD_ZONE          the zone, such as europe-west4-a
  SEALFOLD_IMAGE         REGISTRY/REPOSITORY/NAME@sha256:DIGEST, by digest and not by tag
  SEALFOLD_MEASUREMENTS  what `sealfold measure target/oci/image` printed
                         (/etc/sealfold/measurements.toml)
  SEALFOLD_HOST_ADDRESS  the host's address within the network, such as 10.10.0.2, without
                         scheme and port; its record door is port 5001
  SEALFOLD_AUDIENCE      what the sites' policies name as audience
  SEALFOLD_TOKEN         pki (default) or oidc
  SEALFOLD_NETWORK       the network (default); its subnet has Private Google Access
  SEALFOLD_SUBNET        the subnet (default)
  SEALFOLD_TECHNOLOGY    TDX (default; processors of Intel) or SEV (of AMD)
  SEALFOLD_MACHINE       the machine's type (c3-standard-4 for TDX, n2d-standard-4 for SEV)
  SEALFOLD_NAME          the machine's name (sealfold-enclave)
TEXT
}

# refuse WHAT WAS EXPECTED AND FOUND, NEXT STEP
refuse() {
    say "error: $1"
    say "  next: $2"
    exit 78
}

case ${1:-} in
start | stop | show) action=$1 ;;
-h | --help) usage && exit 0 ;;
*) usage && exit 78 ;;
esac

for variable in SEALFOLD_PROJECT SEALFOLD_ZONE; do
    eval "value=\${$variable:-}"
    [ -n "$value" ] || refuse "expected $variable, found nothing" "launch.sh --help"
done
project=$SEALFOLD_PROJECT zone=$SEALFOLD_ZONE
name=${SEALFOLD_NAME:-sealfold-enclave}
network=${SEALFOLD_NETWORK:-default} subnet=${SEALFOLD_SUBNET:-default}
technology=${SEALFOLD_TECHNOLOGY:-TDX}
token=${SEALFOLD_TOKEN:-pki}
# The host's machine runs as this account; the firewall goes by both.
account=$name@$project.iam.gserviceaccount.com
host_account=sealfold-host@$project.iam.gserviceaccount.com

command -v gcloud >/dev/null ||
    refuse "expected gcloud on the path, found none" "install Google Cloud's command line tools"

gc() { gcloud --quiet --project "$project" "$@"; }

# ensure WHAT: the rest describes it, unless that fails; then it is made by the
# words behind `--`.
ensure() {
    what=$1
    shift
    describe=
    while [ "$1" != -- ]; do
        describe="$describe $1"
        shift
    done
    shift
    # shellcheck disable=SC2086 # words, none of which has a space
    if gc $describe >/dev/null 2>&1; then
        say "$what is there"
    else
        say "making $what"
        gc "$@" || { say "gcloud did not make $what" && exit 1; }
    fi
}

if [ "$action" = show ]; then
    exec gcloud --quiet --project "$project" compute instances describe "$name" --zone "$zone"
fi
if [ "$action" = stop ]; then
    say "ending $name; an enclave that ends after a commit costs its round"
    gc compute instances delete "$name" --zone "$zone" || exit 1
    exit 0
fi

for variable in SEALFOLD_IMAGE SEALFOLD_HOST_ADDRESS SEALFOLD_AUDIENCE; do
    eval "value=\${$variable:-}"
    [ -n "$value" ] || refuse "expected $variable, found nothing" "launch.sh --help"
done
image=$SEALFOLD_IMAGE address=$SEALFOLD_HOST_ADDRESS audience=$SEALFOLD_AUDIENCE
case $image$address$audience in
*[~\ ]*) refuse "expected settings without spaces and ~, found $image $address $audience" \
    "gcloud's list of metadata is separated by ~" ;;
esac
case $token in
pki | oidc) ;;
*) refuse "expected SEALFOLD_TOKEN=pki or oidc, found $token" "launch.sh --help" ;;
esac
case $address in
*[!A-Za-z0-9.-]* | [!A-Za-z0-9]*) refuse "expected SEALFOLD_HOST_ADDRESS to be a bare IPv4 address \
or name, found $address" "leave out scheme and port: the door becomes tcp://ADDRESS:5001" ;;
esac
case $technology in
TDX) machine=${SEALFOLD_MACHINE:-c3-standard-4} ;;
SEV) machine=${SEALFOLD_MACHINE:-n2d-standard-4} ;;
*) refuse "expected SEALFOLD_TECHNOLOGY=TDX or SEV, found $technology" \
    "name what the sites' policies list under hardware_models" ;;
esac
# Google's families with processors of AMD end in d: n2d, c2d, c3d.
case $technology.${machine%%-*} in
SEV.*d) ;;
SEV.*) refuse "expected a machine of AMD for SEV, found $machine" "SEALFOLD_MACHINE=n2d-standard-4" ;;
TDX.*d) refuse "expected a machine of Intel for TDX, found $machine" "SEALFOLD_MACHINE=c3-standard-4" ;;
esac

# Another image than the one that was announced helps nobody: the sites refuse
# it. This check is for the operator; theirs does not rest on it.
pinned=${SEALFOLD_MEASUREMENTS:-/etc/sealfold/measurements.toml}
[ -r "$pinned" ] ||
    refuse "expected the accepted measurements in $pinned, found no such file" \
        "sealfold measure target/oci/image, on the machine that built it"
expected=$(sed -n 's/^image_digest = "\([0-9a-f]\{64\}\)"$/\1/p' "$pinned")
case $expected in
*[!0-9a-f]*) refuse "expected one image_digest in $pinned, found several" "keep the one that is to run" ;;
?*) ;;
*) refuse "expected image_digest in $pinned, found none" "write what sealfold measure prints" ;;
esac
case $image in
*@sha256:"$expected") ;;
*@sha256:*) refuse "$image has another digest than $pinned: expected $expected" \
    "run the image that the sites accepted, or have them accept this one" ;;
*) refuse "expected an image by its digest, found $image" "append @sha256:$expected" ;;
esac

# What the launcher reads when the machine starts, in the order of both lists below.
door=tcp://$address:5001
wanted=$technology~$image~$door~$audience~$token
keys=confidentialInstanceConfig.confidentialInstanceType,metadata.items.tee-image-reference
for variable in DOOR AUDIENCE TOKEN; do keys=$keys,metadata.items.tee-env-SEALFOLD_$variable; done
if found=$(gc compute instances describe "$name" --zone "$zone" \
    --format "value[separator='~'](status,$keys)" 2>/dev/null); then
    [ "${found#*~}" = "$wanted" ] ||
        refuse "machine $name was started with other settings: expected
$wanted
found
${found#*~}" "after a release and before the next commit: launch.sh stop, then start"
    case ${found%%~*} in
    PROVISIONING | STAGING | RUNNING) ;;
    *) refuse "expected machine $name to run, found ${found%%~*}" "launch.sh stop, then start" ;;
    esac
fi

# The host's machine is there before, and both firewall rules rest on its account.
gc iam service-accounts describe "$host_account" >/dev/null 2>&1 ||
    refuse "expected the service account of the host's machine, $host_account, found none" \
        "docs/operating-google.md, step 4: gcloud iam service-accounts create sealfold-host"
ensure "service account $account" iam service-accounts describe "$account" -- \
    iam service-accounts create "$name" --display-name "sealfold enclave"
# To have tokens signed, to take the image, to write the launcher's own log.
for role in confidentialcomputing.workloadUser artifactregistry.reader logging.logWriter; do
    say "role $role"
    gc projects add-iam-policy-binding "$project" --member "serviceAccount:$account" \
        --role "roles/$role" --condition None >/dev/null ||
        { say "gcloud did not grant $role" && exit 1; }
done
# The host reaches the enclave, the enclave the host's record door; nobody else
# reaches either. What passes is sealed or signed in any case.
ensure "firewall rule $name-requests" compute firewall-rules describe "$name-requests" -- \
    compute firewall-rules create "$name-requests" --network "$network" --direction INGRESS \
    --allow tcp:5000 --source-service-accounts "$host_account" \
    --target-service-accounts "$account"
ensure "firewall rule $name-door" compute firewall-rules describe "$name-door" -- \
    compute firewall-rules create "$name-door" --network "$network" --direction INGRESS \
    --allow tcp:5001 --source-service-accounts "$account" \
    --target-service-accounts "$host_account"

# The production image: the one for debugging lets its operator log in, and every
# site refuses it by the check debug-mode.
metadata="^~^tee-image-reference=$image"
metadata="$metadata~tee-restart-policy=Always"
metadata="$metadata~tee-env-SEALFOLD_DOOR=$door"
metadata="$metadata~tee-env-SEALFOLD_AUDIENCE=$audience"
metadata="$metadata~tee-env-SEALFOLD_TOKEN=$token"
ensure "machine $name" compute instances describe "$name" --zone "$zone" -- \
    compute instances create "$name" --zone "$zone" --machine-type "$machine" \
    --confidential-compute-type "$technology" --maintenance-policy TERMINATE \
    --shielded-secure-boot --image-project confidential-space-images \
    --image-family confidential-space --network "$network" --subnet "$subnet" --no-address \
    --service-account "$account" --scopes cloud-platform --metadata "$metadata"
found=$(gc compute instances describe "$name" --zone "$zone" \
    --format "value(networkInterfaces[0].networkIP)") || exit 1
say "the host finds the enclave with --enclave tcp://$found:5000"
