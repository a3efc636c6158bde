#!/usr/bin/env bash
# Makes requirements/{cpu,cuda12,cuda13,tpu}.lock again, after a change of
# requirements.txt or of an extra in pyproject.toml. One file serves Python
# 3.11, 3.12 and 3.13 by markers. Arguments go to uv; by default versions stay
# where they still fit:
#
#   bash launch/lock.sh
#   bash launch/lock.sh --upgrade
#   bash launch/lock.sh --upgrade-package pillow

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

python=$(find_python)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch/env"
"$scratch/env/bin/python" -m pip install --quiet -r "$root/requirements/uv.txt"

# $1: an accelerator, then arguments of packages.py.
packages() {
  "$scratch/env/bin/python" "$root/launch/packages.py" "$@"
}

# Resolves stdin for all Pythons and platforms. $1: file to write.
compile() {
  local output=$1
  shift
  (cd "$scratch" && env/bin/uv --no-config pip compile --quiet --universal \
    --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
    --no-emit-find-links --output-file "$output" "$@" - >/dev/null)
}

# One choice of versions that all files share and that admits Beam, which they
# do not have.
[ ! -f "$root/requirements/cpu.lock" ] ||
  cp "$root/requirements/cpu.lock" "$scratch/all.txt"
packages cpu --bounds --extra beam | compile all.txt "$@"

mkdir -p "$root/requirements"
for accelerator in cpu cuda12 cuda13 tpu; do
  packages "$accelerator" --bounds |
    compile "$accelerator.txt" --generate-hashes --constraints all.txt
  {
    echo '# Made by launch/lock.sh. Exact versions with the hashes of their'
    echo '# files, for Python 3.11, 3.12 and 3.13.'
    packages "$accelerator" --mark
    cat "$scratch/$accelerator.txt"
  } >"$scratch/$accelerator.lock"
done
# All of them or none.
mv "$scratch"/*.lock "$root/requirements/"
wc -l "$root"/requirements/*.lock
