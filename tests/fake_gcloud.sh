#!/bin/bash
# A cloud of one slice, for tests/fake_cloud.py. $FAKE_CLOUD has its state:
#
#   state      of the queued resource; absent without one
#   calls      the arguments of each call, quoted, one call a line
#   machines   how many slices were made; machine-N/W is the home of worker W
#   workers    the number of workers
#   plan       what the N-th start of the trainer does, one a line
#   drop       if present, the next connection that follows a log is lost
#   mute       if present, no ssh gets through
#
# `ssh --command` runs the command in a shell in the worker's home.

set -um # Each worker's processes are a group, which a lost connection ends.
cd "$FAKE_CLOUD" || exit
line=$(printf '%q ' "$@")
echo "$line" >>calls # In one write: calls may run beside each other.

kill_processes() {
  local file
  for file in machine-*/*/vdm_runs/*/{pid,trainer_pid}; do
    [ ! -f "$file" ] || kill -KILL "$(cat "$file")" 2>/dev/null
  done
}

state() {
  cat state 2>/dev/null
}

option() { # --NAME=VALUE among the other arguments
  local name=$1 word
  shift
  for word; do
    case $word in "--$name="*) echo "${word#*=}" ;; esac
  done
}

on_worker() { # as sshd does it: a clean environment, a shell, the home folder
  local home
  home=$FAKE_CLOUD/machine-$(cat machines)/$1
  (cd "$home" && exec env -i HOME="$home" PATH="$PATH" FAKE_WORKER="$1" \
    FAKE_CLOUD="$FAKE_CLOUD" FAKE_LOG="$FAKE_CLOUD/python_calls" \
    VDM_TPU_POLL_SECONDS="$VDM_TPU_POLL_SECONDS" ${FAKE_OLD:+FAKE_OLD=yes} \
    bash -c "$2" </dev/null)
}

case "$3 $4" in
  'queued-resources list')
    case $* in
      *failedData*) echo 'Quota exceeded.' ;;
      *) state ;;
    esac
    # Time passes.
    case $(state) in
      WAITING_FOR_RESOURCES) echo PROVISIONING >state ;;
      PROVISIONING) echo "${FAKE_BECOMES:-ACTIVE}" >state ;;
      SUSPENDING) echo SUSPENDED >state ;;
    esac
    ;;
  'queued-resources create')
    if [ -f state ]; then
      echo 'ALREADY_EXISTS' >&2
      exit 1
    fi
    echo WAITING_FOR_RESOURCES >state
    echo $(($(cat machines) + 1)) >machines
    for ((w = 0; w < $(cat workers); w++)); do
      mkdir -p "machine-$(cat machines)/$w"
    done
    ;;
  'queued-resources delete')
    case $* in *--force*) ;; *) exit 1 ;; esac
    kill_processes
    rm state
    ;;
  'tpu-vm scp' | 'tpu-vm ssh')
    if [ "$(state)" != ACTIVE ] || [ -f mute ]; then
      echo 'This TPU has terminal state "PREEMPTED".' >&2
      exit 1
    fi
    worker=$(option worker "$@")
    if [ "$worker" = all ]; then
      worker=$(seq 0 $(($(cat workers) - 1)))
    fi
    codes=0
    if [ "$4" = scp ]; then
      for w in $worker; do
        for word; do
          [ ! -f "$word" ] || cp "$word" "machine-$(cat machines)/$w" || codes=1
        done
      done
      exit "$codes"
    fi
    command=$(option command "$@")
    for w in $worker; do
      on_worker "$w" "$command" &
    done
    case $command in
      *' follow '*)
        if [ -f drop ]; then
          rm drop
          sleep 0.5
          for job in $(jobs -p); do kill -KILL -- "-$job"; done
          exit 255
        fi
        echo $$ >followers
        ;;
    esac
    for job in $(jobs -p); do
      wait "$job" || codes=$?
    done
    exit "$codes"
    ;;
  *) exit 1 ;;
esac
