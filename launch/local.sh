#!/usr/bin/env bash
# Trains on this machine, installing first where needed; the same command
# resumes. Arguments go to vdm.main:
#
#   bash launch/local.sh --config configs/synthetic.py --workdir runs/first

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup
cd "$root"
exec "$venv_python" -m vdm.main "$@"
