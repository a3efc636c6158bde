"""Compares models of synthetic scenes by quality against steps of the sampler.

  python benchmarks/few_steps.py --models runs/synthetic,runs/few_steps \
      --record benchmarks/records/my_machine.json

The numbers are those of a run's `final/metrics.json`, of videos with the same
seeds and labels for every model and number of steps. Seconds are of a clip,
without compiling, those of the processors with all their cores, which other
work on the machine disturbs less. Evaluations are of the network on one clip,
counted while one is made: guidance adds one to each for every prediction that
it contrasts with, and Heun's method takes two a step but for the last.
"""

import itertools
import os
import sys

from absl import app
from absl import flags
import common
import scenes

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.config import flag

_MODELS = flags.DEFINE_list('models', None, 'Runs or exports.', required=True)
_METHODS = flags.DEFINE_list(
  'methods', [], "Samplers; by default each model's own."
)
_STEPS = flags.DEFINE_list('steps', ['1', '2', '4', '8', '20'], 'Of samplers.')
_NUM = flags.DEFINE_integer('num', 128, 'Videos.', lower_bound=2)
_VIDEOS = flags.DEFINE_string('videos', None, 'Folder for some of the videos.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


def rows_of(source, real):
  """The numbers of one model, a row for each method and number of steps."""
  from vdm import trained
  from vdm.media import video_files

  model = trained.load(source)
  methods = _METHODS.value or [model.config.sample.method]
  for method, steps in itertools.product(methods, map(int, _STEPS.value)):
    changes = {'method': method, 'steps': steps}
    videos, numbers = scenes.measured(model, changes, _NUM.value, real)
    row = {
      'model': source,
      'objective': model.stage.objective,
      'step': model.step,
      'method': method,
      'steps': steps,
      'evaluations': scenes.evaluations(model, changes),
      **numbers,
    }
    if _VIDEOS.value:
      name = f'{model.stage.objective}_{method}_{steps:02d}'
      path = os.path.join(_VIDEOS.value, name)
      video_files.write_grid(path, videos[:32], model.frame_rate, [''] * 32, 8)
    print(scenes.show([row]), flush=True)
    yield row


def main(argv):
  del argv

  from vdm import trained
  from vdm.evaluation import real_clips

  model = trained.load(_MODELS.value[0])
  real = real_clips.RealClips(model.config.data, model.stage).same(
    'validation', _NUM.value
  )
  rows = [row for source in _MODELS.value for row in rows_of(source, real)]
  print(scenes.show(rows))
  common.write(_RECORD.value, {**common.environment(), 'rows': rows})


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
