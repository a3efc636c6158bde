#!/usr/bin/env bash
# Makes videos on this machine, installing first where needed. Arguments go to
# vdm.sample; without any, 8 videos of the model in colabs/demo:
#
#   bash launch/sample.sh
#   bash launch/sample.sh --workdir runs/first --num 16

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup
cd "$root"
[ $# -gt 0 ] || set -- --workdir colabs/demo --num 8 --overwrite
exec "$venv_python" -m vdm.sample "$@"
