#!/usr/bin/env bash
# A job on a Cloud TPU slice of one or many VMs, with gcloud alone.
#
#   export NAME=ucjax ZONE=us-west4-a SHARE=10.0.0.2:/share     # SHARE: an NFS export of your own
#   launch/tpu_vm.sh create --spot      queues for ACCELERATOR; flags go to gcloud
#   launch/tpu_vm.sh status             wait until it is ACTIVE
#   launch/tpu_vm.sh sync               puts code, Python and the share on every VM
#   launch/tpu_vm.sh run --config=configs/quickstart.py
#   launch/tpu_vm.sh logs [WORKER]      worker 0 tells the progress, each its own failure
#   launch/tpu_vm.sh delete
#
# Results are on SHARE under ucjax/out. When the slice was preempted: delete, create, sync, and
# the same run, which goes on where it was. With --print first, gcloud's command lines are printed
# instead of run. `ssh-add ~/.ssh/google_compute_engine` is needed once.
set -euo pipefail
cd "$(dirname "$0")/.."

ACCELERATOR=${ACCELERATOR:-v5litepod-16}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite} # belongs to ACCELERATOR: v6e needs v2-alpha-tpuv6e
MOUNT=/mnt/share
# Holds compiled programs, which are code that is trusted: nobody else may write there.
FOLDER=$MOUNT/ucjax

cloud() {
  if [[ $print ]]; then
    local word line=gcloud
    for word; do
      [[ $word =~ ^[A-Za-z0-9_./:=,-]+$ ]] || word=${word@Q}
      line+=" $word"
    done
    echo "$line"
  else
    gcloud "$@"
  fi
}

on_workers() { # WORKERS COMMAND
  cloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker="$1" --command="$2"
}

create() {
  cloud compute tpus queued-resources create "$NAME" --zone="$ZONE" --node-id="$NAME" \
    --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME" "$@"
}

status() {
  cloud compute tpus queued-resources describe "$NAME" --zone="$ZONE" --format="value(state.state)"
}

sync() {
  local nfs="${SHARE:?NFS export as HOST:/PATH, such as a Filestore instance of the same network}"
  on_workers all "mkdir -p ucjax"
  cloud compute tpus tpu-vm scp pyproject.toml README.md LICENSE configs ucjax "$NAME:ucjax/" \
    --zone="$ZONE" --worker=all --recurse
  # New VMs update themselves and hold apt's lock for minutes.
  on_workers all "sudo apt-get -o DPkg::Lock::Timeout=600 install -y nfs-common"
  on_workers all "sudo mkdir -p $MOUNT; mountpoint -q $MOUNT || sudo mount -t nfs $nfs $MOUNT"
  on_workers all "sudo mkdir -p $FOLDER/out && sudo chown --reference=. $FOLDER $FOLDER/out"
  on_workers all "chmod 700 $FOLDER && ln -sfn $FOLDER/out ucjax/out"
  # The VMs' own Python is 3.10; uv brings the one that JAX needs.
  on_workers all "python3 -m pip install --user uv"
  on_workers all ".local/bin/uv venv --allow-existing --python 3.11 venv"
  on_workers all ".local/bin/uv pip install --python venv/bin/python -e './ucjax[tpu]'"
}

run() {
  local arguments
  printf -v arguments ' %q' "$@"
  # Detached, so that the job outlives the connection.
  on_workers all "cd ucjax && { UCJAX_CACHE=$FOLDER/cache TFDS_DATA_DIR=$FOLDER/tfds \
nohup ../venv/bin/python -m ucjax.main --distributed$arguments \
>> ../ucjax.log 2>&1 < /dev/null & }"
}

logs() { on_workers "${1:-0}" "tail -n 50 -f ucjax.log"; }

delete() {
  cloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force --quiet
}

print=
if [[ ${1-} == --print ]]; then
  print=yes
  shift
fi
case ${1-} in
  create | status | sync | run | logs | delete)
    : "${NAME:?name of the TPU to create or use}" "${ZONE:?its zone, such as us-west4-a}"
    "$@"
    ;;
  *)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
