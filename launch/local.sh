#!/usr/bin/env bash
# Trains on this machine, installing first where needed; the same command
# resumes. All GPUs, or all chips of a TPU, are used by one process. Arguments
# go to vdm.main:
#
#   bash launch/local.sh --config configs/synthetic.py --workdir runs/first

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup
describe_machine "$accelerator"
cd "$root"
exec "$venv_python" -m vdm.main "$@"
