# shellcheck shell=bash
# Sourced by local.sh and test.sh: `setup` makes the folder .venv and installs
# requirements.txt, the tools of the tests and jax for this machine's
# accelerator. A stamp of their hash makes a second start install nothing.
#
# VDM_PYTHON       the interpreter to make .venv with; else the first of
#                  python3.13, python3.12, python3.11, python3 that works.
# VDM_ACCELERATOR  cpu, cuda12, cuda13 or tpu; else what is found.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv_python=$root/.venv/bin/python

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
  local devices=${1:-/dev} gpus file
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
  for file in "$devices"/accel[0-9]* "$devices"/vfio/[0-9]*; do
    if [ -e "$file" ]; then
      echo tpu
      return
    fi
  done
  echo cpu
}

setup() {
  local accelerator python stamp=$root/.venv/vdm_stamp wanted jax
  accelerator=${VDM_ACCELERATOR:-$(find_accelerator)}
  case $accelerator in
    cpu) jax='jax' ;;
    cuda12 | cuda13 | tpu) jax="jax[$accelerator]" ;;
    *) fail "VDM_ACCELERATOR=$accelerator is unknown:" \
      "it is cpu, cuda12, cuda13 or tpu." ;;
  esac

  # An interrupted start leaves a .venv without pip: it is made again.
  if ! is_supported "$venv_python" ||
    ! "$venv_python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making .venv with $python."
    "$python" -m venv --clear "$root/.venv" ||
      fail "$python could not make $root/.venv (its message is above)."
  fi

  # The packages to install, one a line; the tests' tools have their bounds in
  # pyproject.toml.
  "$venv_python" - "$root" "$jax" >"$root/.venv/vdm_packages.txt" <<'END'
import pathlib, sys, tomllib
root = pathlib.Path(sys.argv[1])
print((root / 'requirements.txt').read_text())
project = tomllib.loads((root / 'pyproject.toml').read_text())['project']
print(*project['optional-dependencies']['dev'], sys.argv[2], sep='\n')
END
  wanted=$("$venv_python" -c 'import hashlib, sys
print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' \
    "$root/.venv/vdm_packages.txt")
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    return
  fi

  echo "Installing into .venv for $accelerator: minutes, once."
  rm -f "$stamp"
  "$venv_python" -m pip install --disable-pip-version-check \
    -r "$root/.venv/vdm_packages.txt" ||
    fail "Installing failed (pip's message is above): mend that and run the" \
      "same command again."
  printf '%s\n' "$wanted" >"$stamp"
}
