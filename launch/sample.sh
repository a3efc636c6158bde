#!/usr/bin/env bash
# Makes videos on this machine, installing first where needed. Arguments go to
# vdm.sample; without any, 8 videos of the two models in colabs/cascade, sampled
# as docs/cascade.md found best:
#
#   bash launch/sample.sh
#   bash launch/sample.sh --workdir runs/first --num 16

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup
cd "$root"
[ $# -gt 0 ] || set -- --num 8 --overwrite --out outputs/demo \
  --eta 1 --steps 40 --guidance 1.5 \
  --chain colabs/cascade/key_frames,colabs/cascade/frames
exec "$venv_python" -m vdm.sample "$@"
