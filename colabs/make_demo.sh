#!/usr/bin/env bash
# Makes colabs/demo again: trains the demo, or resumes it, and exports it. Under
# two hours on one core. The argument is the run's folder. Look at the samples
# and numbers afterwards: demo_notes.md has to be true of them.
#
#   bash colabs/make_demo.sh [runs/demo]

source "$(dirname "${BASH_SOURCE[0]}")/../launch/setup.sh"
setup
cd "$root"
workdir=${1:-runs/demo}
"$venv_python" -m vdm.main --config configs/synthetic.py:steady \
  --workdir "$workdir"
exec "$venv_python" -m vdm.export --workdir "$workdir" --out colabs/demo \
  --dtype bfloat16 --samples 8 --overwrite --name 'The demo: moving shapes' \
  --license apache-2.0 --notes colabs/demo_notes.md \
  --data_license 'rendered by this repository, Apache-2.0'
