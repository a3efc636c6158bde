#!/usr/bin/env bash
# Runs on each worker of a TPU slice, from the home folder; launch/tpu.sh copies
# it there and calls it over ssh. Nothing here depends on the connection: the
# trainer is detached, with a log and, once it has ended, its exit code.
#
#   status                        one line: vdm WORKER STATE ATTEMPT CODE IDENTITY
#   setup COMMIT                  unpacks vdm.tar.gz, makes vdm/.venv
#   before COMMAND                runs a command of the user's in vdm/
#   start ATTEMPT IDENTITY ARG... starts the trainer, unless it already did
#   follow ATTEMPT [WORKER:LINE]  prints its log from that line, until it ends
#   log [LINES]                   prints the end of the newest log
#   stop                          asks the trainer to save and stop
#   pack FOLDER                   writes a folder to stdout as a tar archive
#
# gcloud repeats a command whose connection broke, so every one of them may run
# twice. An attempt's folder is vdm_runs/ATTEMPT: log, pid, trainer_pid, boot_id,
# identity, stopped and exit_code, whichever apply.

set -euo pipefail

runs=$HOME/vdm_runs
code=$HOME/vdm
boot_id=/proc/sys/kernel/random/boot_id
metadata=http://metadata.google.internal/computeMetadata/v1/instance/attributes
# Newer Pythons than the images have; a fixed uv carries the sha256 of the
# Pythons that it installs.
uv='uv==0.13.9 --hash=sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19'

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

worker_number() {
  local number
  number=$(curl -sf -m 5 -H 'Metadata-Flavor: Google' \
    "$metadata/agent-worker-number") || number=
  case $number in
    '' | *[!0-9]*) echo 0 ;;
    *) echo "$number" ;;
  esac
}

# Prints the state of attempt $1: running, exited CODE, stopped CODE (on
# request), rebooted (the machine was, meanwhile) or lost (killed from outside).
state_of() {
  local folder=$runs/$1
  # The supervisor holds the lock as long as it lives.
  if [ ! -f "$folder/exit_code" ] && ! flock -n "$runs/lock" true; then
    echo 'running -'
  elif [ -f "$folder/exit_code" ]; then
    if [ -f "$folder/stopped" ]; then
      echo "stopped $(cat "$folder/exit_code")"
    else
      echo "exited $(cat "$folder/exit_code")"
    fi
  elif cmp -s "$folder/boot_id" "$boot_id"; then
    # Or it ended between the two questions above.
    if [ -f "$folder/exit_code" ]; then state_of "$1"; else echo 'lost -'; fi
  else
    echo 'rebooted -'
  fi
}

status() {
  local attempt state
  if [ ! -f "$runs/current" ]; then
    printf 'vdm %s idle - - -\n' "$(worker_number)"
    return
  fi
  attempt=$(cat "$runs/current")
  state=$(state_of "$attempt")
  printf 'vdm %s %s %s %s %s\n' "$(worker_number)" "${state% *}" "$attempt" \
    "${state#* }" "$(cat "$runs/$attempt/identity")"
}

# Installs Ubuntu packages. unattended-upgrades holds apt's locks for some
# minutes after the first boot; apt-get waits for one of them only.
apt_install() {
  local tries=60
  until sudo apt-get -q update; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || fail 'apt-get update failed for ten minutes.'
    sleep 10
  done
  sudo DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 \
    install -y "$@"
}

# Runs a function of launch/setup.sh.
in_setup() {
  # shellcheck disable=SC2016 # Expanded by the inner bash.
  bash -c 'source "$1/launch/setup.sh" && "${@:2}"' - "$code" "$@"
}

# Leaves in vdm_runs/python the interpreter to make .venv with.
choose_python() {
  in_setup find_python >"$runs/python" 2>/dev/null && return
  if in_setup is_supported python3; then
    apt_install python3-venv
  else
    echo 'The Python of this image is too old: installing 3.12.'
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
    python3 -m pip install --quiet --user --require-hashes -r <(echo "$uv")
    python3 -m uv python install --quiet 3.12
    python3 -m uv python find --managed-python 3.12 >"$runs/python"
    return
  fi
  in_setup find_python >"$runs/python"
}

# Waits until the same command, whose connection broke, is through.
wait_for_the_other() {
  exec 8>"$runs/setup_lock"
  flock 8
}

# Unpacks vdm.tar.gz of commit $1 into vdm/ and installs what it needs. Files of
# another commit go first; what was added later (.venv, runs, data) stays.
setup_worker() {
  wait_for_the_other
  mkdir -p "$code"
  if [ "$(cat "$runs/commit" 2>/dev/null)" != "$1" ]; then
    rm -f "$runs/commit"
    if [ -f "$runs/files" ]; then
      (cd "$code" && xargs -0 rm -f --) <"$runs/files"
    fi
    tar -tzf vdm.tar.gz | grep -v '/$' | tr '\n' '\0' >"$runs/files"
    tar -xzf vdm.tar.gz -C "$code"
    echo "$1" >"$runs/commit"
  fi
  [ -s "$runs/python" ] || choose_python
  enter_code
  in_setup setup
}

# Prepares for launch/: it is in this folder and reads these variables.
enter_code() {
  cd "$code"
  VDM_PYTHON=$(cat "$runs/python")
  export VDM_PYTHON VDM_ACCELERATOR=tpu
}

# Starts attempt $1 of identity $2; the rest are the trainer's arguments.
start() {
  local attempt=$1 identity=$2 folder=$runs/$1 old
  shift 2
  mkdir "$folder" 2>/dev/null || return 0 # Started before the connection broke.
  if [ -f "$runs/current" ]; then
    # Of an attempt that ended, what still occupies the TPU.
    old=$runs/$(cat "$runs/current")
    if cmp -s "$old/boot_id" "$boot_id" && [ ! -f "$old/exit_code" ]; then
      kill -KILL "$(cat "$old/trainer_pid")" 2>/dev/null || true
    fi
  fi
  echo "$identity" >"$folder/identity"
  cat "$boot_id" >"$folder/boot_id"
  if [ -f vdm.env ]; then
    mv vdm.env "$folder/env"
  fi
  : >"$folder/log"
  # A session of its own: no signal of the connection reaches it.
  setsid bash "${BASH_SOURCE[0]}" supervise "$attempt" "$@" \
    </dev/null >/dev/null 2>&1 &
  for _ in {1..100}; do
    if [ -f "$folder/pid" ]; then
      echo "$attempt" >"$runs/current"
      return
    fi
    sleep 0.1
  done
  fail "Attempt $attempt did not start: an earlier one holds $runs/lock."
}

# Runs the trainer and records its exit code; the process behind `start`.
supervise() {
  local folder=$runs/$1 status=0
  shift
  exec 9>"$runs/lock"
  flock -w 9 9 # `status` holds it for a moment.
  printf 'Started %s on worker %s:%s\n' "$(date -u '+%Y-%m-%d %H:%M:%S UTC')" \
    "$(worker_number)" "$(printf ' %q' "$@")" >>"$folder/log"
  if [ -f "$folder/env" ]; then
    # shellcheck source=/dev/null
    source "$folder/env"
    rm -f "$folder/env"
  fi
  enter_code
  # In the background, so that $! is the trainer itself: local.sh becomes it.
  bash launch/local.sh "$@" </dev/null >>"$folder/log" 2>&1 9>&- &
  echo $! >"$folder/trainer_pid"
  echo $$ >"$folder/pid"
  wait $! || status=$?
  echo "$status" >"$folder/exit_code.part"
  mv "$folder/exit_code.part" "$folder/exit_code"
}

# Prints WORKER:LINE:TEXT for the lines of attempt $1's log; the other arguments
# say from which line on, WORKER:LINE for each worker.
follow() {
  local folder=$runs/$1 worker number=1 pair line
  worker=$(worker_number)
  shift
  for pair; do
    [ "${pair%%:*}" != "$worker" ] || number=${pair#*:}
  done
  tail -n "+$number" -f -s "${VDM_TPU_POLL_SECONDS:-1}" \
    --pid="$(cat "$folder/pid")" "$folder/log" |
    while IFS= read -r line || [ -n "$line" ]; do
      printf '%s:%s:%s\n' "$worker" "$number" "$line"
      number=$((number + 1))
    done
}

stop() {
  local attempt
  [ -f "$runs/current" ] || fail 'Nothing has been started here.'
  attempt=$(cat "$runs/current")
  [ "$(state_of "$attempt")" = 'running -' ] || return 0
  touch "$runs/$attempt/stopped"
  kill -TERM "$(cat "$runs/$attempt/trainer_pid")"
}

before() {
  wait_for_the_other
  enter_code
  bash -euo pipefail -c "$1"
}

log() {
  [ -f "$runs/current" ] || fail 'Nothing has been started here.'
  tail -n "${1:-+1}" "$runs/$(cat "$runs/current")/log"
}

# Packs a folder given as --workdir, relative to vdm/; one that the run never
# made is an empty archive.
pack() {
  cd "$code"
  if [ -d "$1" ]; then
    tar -C "$(dirname -- "$1")" -cf - -- "$(basename -- "$1")"
  else
    tar -cf - -T /dev/null
  fi
}

cd "$HOME"
mkdir -p "$runs"
task=$1
shift
case $task in
  setup) setup_worker "$@" ;;
  status | before | start | supervise | follow | log | stop | pack) "$task" "$@" ;;
  *) fail "tpu_worker.sh has no $task." ;;
esac
