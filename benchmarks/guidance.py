"""Compares ways to guide a model of synthetic scenes.

  python benchmarks/guidance.py --model runs/synthetic_steady --autoguide 3000 \
      --label_scales 1,2,3 --autoguide_scales 2,3 \
      --record benchmarks/records/my_machine.json

By the label, and against a worse model (autoguidance), each with several
scales: videos of the same seeds and labels, measured as a run's
`final/metrics.json`. `worse_parameters` and `worse_step` say what the model is
guided against.
"""

import os
import sys

from absl import app
from absl import flags
import common
import scenes

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.config import flag

_MODEL = flags.DEFINE_string('model', None, 'Run or export.', required=True)
_AUTOGUIDE = flags.DEFINE_string(
  'autoguide', None, 'As of vdm.sample.', required=True
)
_LABEL = flags.DEFINE_list('label_scales', ['2'], 'Scales by the label.')
_AUTO = flags.DEFINE_list('autoguide_scales', ['2'], 'Of autoguidance.')
_STEPS = flags.DEFINE_integer('steps', 20, 'Of the sampler.')
_ETA = flags.DEFINE_float('eta', 0.0, 'Of the sampler, ddim.')
_NUM = flags.DEFINE_integer('num', 128, 'Videos.', lower_bound=2)
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


def main(argv):
  del argv
  import jax

  from vdm import trained
  from vdm.evaluation import real_clips

  model = trained.load(_MODEL.value, autoguide='none')
  worse = trained.load_worse(model, _AUTOGUIDE.value)
  real = real_clips.RealClips(model.config.data, model.stage).same(
    'validation', _NUM.value
  )
  rows = []
  for against, scales in ((None, _LABEL.value), (worse, _AUTO.value)):
    for scale in map(float, scales):
      changes = {'steps': _STEPS.value, 'eta': _ETA.value, 'guidance': scale}
      _, numbers = scenes.measured(model, changes, _NUM.value, real, against)
      row = {
        'objective': f'{"label" if against is None else "autoguide"} {scale:g}',
        'method': model.config.sample.method,
        **changes,
        **numbers,
      }
      print(scenes.show([row]), flush=True)
      rows.append(row)
  print(scenes.show(rows))
  record = {
    **common.environment(),
    'worse_step': worse.step,
    'worse_parameters': sum(x.size for x in jax.tree.leaves(worse.params)),
    'rows': rows,
  }
  common.write(_RECORD.value, record)


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
