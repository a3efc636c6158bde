#!/usr/bin/env bash
# Makes colabs/cascade again: trains both models of the cascade, or resumes them,
# and exports them. Some three hours on one core. The argument is the first run's
# folder. Look at the samples and numbers afterwards: cascade_notes.md has to be
# true of them.
#
#   bash colabs/make_cascade.sh [runs/cascade]

source "$(dirname "${BASH_SOURCE[0]}")/../launch/setup.sh"
setup
cd "$root"
workdir=${1:-runs/cascade}

# Arguments: name of the export, variant, folder of the run.
make() {
  "$venv_python" -m vdm.main --config "configs/synthetic_cascade.py$2" \
    --workdir "$3"
  "$venv_python" -m vdm.export --workdir "$3" --out "colabs/cascade/$1" \
    --dtype bfloat16 --samples 8 --overwrite --name "The cascade: $1" \
    --license apache-2.0 --notes colabs/cascade_notes.md \
    --data_license 'rendered by this repository, Apache-2.0'
}

make key_frames '' "$workdir"
make frames :frames "${workdir}_frames"
