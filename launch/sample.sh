#!/usr/bin/env bash
# Makes videos on this machine, installing first where needed. Arguments go to
# vdm.sample; without any, 8 videos of the two models in colabs/cascade:
#
#   bash launch/sample.sh
#   bash launch/sample.sh --workdir runs/first --num 16

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup
cd "$root"
[ $# -gt 0 ] || set -- --num 8 --overwrite --out outputs/demo \
  --chain colabs/cascade/key_frames,colabs/cascade/frames
exec "$venv_python" -m vdm.sample "$@"
