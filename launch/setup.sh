# shellcheck shell=bash
# Makes the folder .venv and installs what launch/packages.py lists for this
# machine's accelerator, in the versions of requirements/ACCELERATOR.lock on
# Linux x86_64. A stamp of their hash makes a second start install nothing.
#
#   bash launch/setup.sh
#
# The other scripts here source it, and call `setup`.
#
# VDM_PYTHON       the interpreter to make .venv with; else the first of
#                  python3.13, python3.12, python3.11, python3 that works.
# VDM_ACCELERATOR  cpu, cuda12, cuda13 or tpu; else what is found.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv_python=$root/.venv/bin/python
stamp=$root/.venv/vdm_stamp
lock=$root/.venv.lock # Beside .venv, which `venv --clear` empties.

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

# Whether $1 runs (a shim may not) and is a Python that the packages are for.
is_supported() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
    >/dev/null 2>&1
}

# Prints the interpreter to make .venv with.
find_python() {
  local candidate without_venv=
  if [ -n "${VDM_PYTHON:-}" ]; then
    is_supported "$VDM_PYTHON" || fail "VDM_PYTHON=$VDM_PYTHON is not a" \
      "Python 3.11, 3.12 or 3.13 that runs: name one that is."
  fi
  for candidate in ${VDM_PYTHON:+"$VDM_PYTHON"} \
    python3.13 python3.12 python3.11 python3; do
    if is_supported "$candidate"; then
      if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        printf '%s\n' "$candidate"
        return
      fi
      without_venv=${without_venv:-$candidate}
    fi
    # Named by the user: no other one will do.
    [ -z "${VDM_PYTHON:-}" ] || break
  done
  [ -z "$without_venv" ] || fail "$without_venv has no venv module: install" \
    "it (Debian and Ubuntu: the package python3-venv) and run this again."
  fail "No Python 3.11, 3.12 or 3.13 was found: install one, or set" \
    "VDM_PYTHON to its path, and run this again."
}

# Prints cpu, cuda12, cuda13 or tpu. $1: where devices are, /dev if not given.
find_accelerator() {
  local gpus
  if [ "$(uname -s)" = Darwin ]; then
    echo cpu
    return
  fi
  # CUDA 13 begins with driver 580 and ends before compute capability 7.5.
  if gpus=$(nvidia-smi --query-gpu=driver_version,compute_cap \
    --format=csv,noheader 2>/dev/null) && [ -n "$gpus" ]; then
    local driver capability choice=cuda13
    while IFS=', ' read -r driver capability; do
      capability=${capability/./}
      case ${driver%%.*}$capability in *[!0-9]*) capability=0 ;; esac
      if [ "${capability:-0}" -lt 75 ] || [ "${driver%%.*}" -lt 580 ]; then
        choice=cuda12
      fi
    done <<<"$gpus"
    echo "$choice"
    return
  fi
  if [ "$(count_chips "${1:-/dev}")" -gt 0 ]; then
    echo tpu
  else
    echo cpu
  fi
}

# Prints how many chips of a TPU this host has. $1: where devices are.
count_chips() {
  local file count=0
  for file in "$1"/accel[0-9]* "$1"/vfio/[0-9]*; do
    [ ! -e "$file" ] || count=$((count + 1))
  done
  echo "$count"
}

# Prints what was found and which jax it gets. $1: the accelerator, $2: where
# devices are, /dev if not given.
describe_machine() {
  local chips found="VDM_ACCELERATOR=$1" jax="jax[$1], one process"
  if [ "$1" = cpu ]; then
    jax="jax on CPU, $(nproc 2>/dev/null || sysctl -n hw.ncpu) cores"
  fi
  if [ -z "${VDM_ACCELERATOR:-}" ]; then
    case $1 in
      cpu) found='No accelerator found' ;;
      tpu)
        chips=$(count_chips "${2:-/dev}")
        found="Found a TPU ($chips chips on this host)"
        ;;
      *) found=$(describe_gpus) ;;
    esac
  fi
  echo "$found: $jax."
}

# Prints 'Found 2 GPUs (NVIDIA H100, driver 580.65.06)'.
describe_gpus() {
  local name driver names='' count=0 details='' s=s
  while IFS=, read -r driver name; do
    name=${name# }
    count=$((count + 1))
    case ", $names, " in
      *", $name, "*) ;;
      *) names=${names:+$names, }$name ;;
    esac
    details=", driver $driver"
  done < <(nvidia-smi --query-gpu=driver_version,name --format=csv,noheader \
    2>/dev/null)
  [ "$count" != 1 ] || s=
  if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    details="$details, CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES"
  fi
  echo "Found $count GPU$s ($names$details)"
}

# Sets `accelerator`, makes .venv and installs.
setup() {
  local code
  accelerator=${VDM_ACCELERATOR:-$(find_accelerator)}
  case $accelerator in
    cpu | cuda12 | cuda13 | tpu) ;;
    *) fail "VDM_ACCELERATOR=$accelerator is unknown:" \
      "it is cpu, cuda12, cuda13 or tpu." ;;
  esac

  ! is_installed || return 0
  # A subshell, whose traps leave those of the scripts that source this alone.
  (
    take_lock
    trap release_lock EXIT
    is_installed || make_venv
  )
  code=$?
  # macOS's bash 3.2 goes on after a subshell that failed.
  [ "$code" = 0 ] || exit "$code"
}

# Whether .venv has what it should. Another start may be installing, so nothing
# is written.
is_installed() {
  is_whole && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted_stamp)" ]
}

# Whether .venv is an environment with pip: an interrupted start leaves less.
is_whole() {
  is_supported "$venv_python" &&
    "$venv_python" -m pip --version >/dev/null 2>&1
}

# Prints what to install.
list_packages() {
  "$venv_python" "$root/launch/packages.py" "$accelerator"
}

wanted_stamp() {
  list_packages | "$venv_python" -c 'import hashlib, sys
print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

# Waits until no other start installs, or takes over from one that is gone, then
# keeps others out. By mkdir, since macOS has no flock. Sets `own` to the
# subshell that calls it: that outlives a script that is killed alone, and $$ is
# the script's process.
take_lock() {
  local holder pid host waited=0
  own=$(exec bash -c 'echo "$PPID"')
  [ -w "$root" ] ||
    fail "$root cannot be written to: make it writable, or use another copy."
  until mkdir "$lock" 2>/dev/null; do
    holder=$(cat "$lock/holder" 2>/dev/null) || holder=
    read -r pid host <<<"$holder"
    if [ "$host" = "$HOSTNAME" ] && ! kill -0 "$pid" 2>/dev/null &&
      mkdir "$lock/heir" 2>/dev/null; then
      # Of those that saw it die one is heir, and of this lock: no newer one.
      if [ "$(cat "$lock/holder" 2>/dev/null)" = "$holder" ]; then
        release_lock
      else
        rmdir "$lock/heir" 2>/dev/null || true
      fi
      continue
    fi
    [ "$waited" != 0 ] || echo 'Another start installs into .venv: waiting.'
    [ "$waited" != 300 ] || echo "Process ${pid:-?} of host ${host:-?} has" \
      "held it for 5 minutes: if that is gone, delete $lock."
    sleep 1
    waited=$((waited + 1))
  done
  echo "$own $HOSTNAME" >"$lock/holder"
}

# Renamed first: that is one step, whatever another start does in there.
release_lock() {
  ! mv "$lock" "$lock.$own" 2>/dev/null || rm -rf "$lock.$own"
}

# Makes .venv, unless it is whole, and installs into it.
make_venv() {
  local packages=$root/.venv/vdm_packages.txt python first wanted
  if ! is_whole; then
    python=$(find_python)
    echo "Making .venv with $python."
    "$python" -m venv --clear "$root/.venv" ||
      fail "$python could not make $root/.venv (its message is above)."
  fi

  list_packages >"$packages"
  wanted=$(wanted_stamp)
  echo "Installing into .venv for $accelerator: minutes, once."
  read -r first <"$packages"
  case $first in '# pip chooses'*) echo "${first#\# }" ;; esac
  rm -f "$stamp"
  "$venv_python" -m pip install --disable-pip-version-check \
    -r "$packages" ||
    fail "Installing failed (pip's message is above): mend that and run the" \
      "same command again."
  printf '%s\n' "$wanted" >"$stamp"
}

# By itself it installs and starts nothing.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  setup
fi
