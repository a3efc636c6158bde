"""The demo against lucidrains' video diffusion: same clips, minutes and judge.

  python -m venv /tmp/peers
  /tmp/peers/bin/pip install torch video-diffusion-pytorch
  python -m vdm.main --config configs/synthetic.py --workdir runs/race_0
  python benchmarks/race.py --runs runs/race_0 --python /tmp/peers/bin/python \
      --out runs/race --record benchmarks/records/my_machine.json

Of each run, one a seed, the peer gets the training clips, the labels and the
time that the steps of the run took, by the median pace in its log: on the
latents of the run's autoencoder that of the video stage, so that the
autoencoder is for nothing, on pixels (`--spaces pixels`) that of all stages.
What the peer's networks make is judged as the run's videos are, by the truth of
the scenes.

The peer is Unet3D and GaussianDiffusion as they are in its package, with its
schedule and optimizer (Adam), the label where its text would be, left out in a
tenth. Tuned for it here, since its defaults are for days on a GPU: the width
that comes closest to the run's parameters, the run's number of levels (on
pixels its own four) and of clips a step, the package's squared error in place
of the absolute one (whose best guess, the median, is an empty frame), the
learning rate with the least held-out loss of `--rates` in a tenth of the time
each (not counted), a warm-up and a cosine to zero, gradients clipped to a norm
of one, its average of 0.995 from the start on, latents of a deviation of a
half, and DDIM with the guidance, the noise levels and the eta of the run's
sampler. `--defaults` trains with its absolute error and its constant 1e-4.
"""

import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys

from absl import app
from absl import flags
import common
import scenes

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.config import flag

_RUNS = flags.DEFINE_list('runs', None, 'Finished, one a seed.', required=True)
_PYTHON = flags.DEFINE_string('python', sys.executable, 'It has the peer.')
_SPACES = flags.DEFINE_list('spaces', ['latents'], 'latents, pixels or both.')
_WIDTHS = flags.DEFINE_list(
  'widths', ['8', '12', '16', '24', '32', '48', '64'], 'To choose from.'
)
_RATES = flags.DEFINE_list('rates', ['1e-3', '3e-3', '1e-2'], 'To choose from.')
_DEFAULTS = flags.DEFINE_bool('defaults', False, 'Its own rate, and constant.')
_SHARE = flags.DEFINE_float('share', 1.0, "Of the run's time.")
_MARKS = flags.DEFINE_integer('marks', 1, 'Looks, at equal parts of the time.')
_NUM = flags.DEFINE_integer('num', 128, 'Videos of each.', lower_bound=2)
_THREADS = flags.DEFINE_integer('threads', 1, 'Of torch: as the run had.')
_OUT = flags.DEFINE_string('out', None, 'Folder of the race.', required=True)
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')

CHUNK, SHOWN = 32, 8
SCALE = 0.5  # Of latents, whose deviation is one.


def step_seconds(model):
  """Seconds of the steps of all stages and of the model's own, by the log.

  The median pace of each stage counts: other work on the machine slows some.
  """
  from vdm.training import stages
  from vdm.training import writer

  paces = {
    row['step']: row['seconds_per_step']
    for row in writer.read_rows(model.workdir)
    if 'seconds_per_step' in row
  }
  found = []
  for span in stages.spans(model.config):
    own = [x for step, x in paces.items() if span.start < step <= span.stop]
    found.append(statistics.median(own) * (span.stop - span.start))
  return sum(found), found[-1]


def sigmas(config):
  """Noise over signal at the steps of a `rho` grid, in the peer's units."""
  import numpy as np

  from vdm.diffusion import samplers

  keys = ('rho', 'sigma_min', 'sigma_max')
  options = {key: config.sample[key] for key in keys}
  levels = samplers.make_grid('rho', config.sample.steps, None, **options)
  return (SCALE * np.exp(-np.asarray(levels[:-1]) / 2)).tolist()


def coder(model):
  """Functions from videos to the run's latents, and back."""
  import numpy as np

  from vdm.models import autoencoders
  from vdm.sampling import coders

  codec = autoencoders.make_autoencoder(model.config.autoencoder)
  pair = coders.make(model.config, codec)

  def apply(function):
    return lambda videos: np.concatenate(
      [
        np.asarray(function(model.frozen, videos[i : i + CHUNK]))
        for i in range(0, len(videos), CHUNK)
      ]
    )

  return tuple(map(apply, pair))


def prepare(folder, space, model, real, encode):
  """Writes the clips and labels that the peer reads."""
  import numpy as np

  folder.mkdir(parents=True, exist_ok=True)
  for split, num in (('train', 10**9), ('validation', 256)):
    path = folder / f'{split}_clips.npy'
    if path.exists():
      continue
    clips = real.same(split, num)
    np.save(folder / f'{split}_labels.npy', clips['label'])
    videos = clips['video']
    # A race that is stopped leaves no half of a file.
    partial = path.with_suffix('.partial.npy')
    np.save(partial, videos if space == 'pixels' else encode(videos))
    partial.rename(path)


def call(folder, options):
  """Runs `race_torch.py`, and returns the JSON lines that it prints."""
  path = folder / 'options.json'
  path.write_text(json.dumps(options))
  script = str(common.ROOT / 'benchmarks' / 'race_torch.py')
  done = subprocess.run(
    [_PYTHON.value, script, str(path)], stdout=subprocess.PIPE, text=True
  )
  if done.returncode:
    sys.exit(
      'The peer stopped: see above, and give --python an interpreter that has '
      'torch and video-diffusion-pytorch.'
    )
  return [json.loads(line) for line in done.stdout.splitlines()]


def race(model, space, real, labels):
  """Trains the peer beside a run: its videos at each mark, and facts."""
  import jax
  import numpy as np

  encode, decode = coder(model)
  name = f'{space}_{model.config.seed}'
  folder = pathlib.Path(_OUT.value) / name
  prepare(folder, space, model, real, encode)
  of_all, of_last = step_seconds(model)
  seconds = _SHARE.value * (of_all if space == 'pixels' else of_last)
  config = model.config
  options = {
    'name': 'defaults' if _DEFAULTS.value else 'tuned',
    'folder': str(folder),
    'pixels': space == 'pixels',
    'seed': config.seed,
    'classes': config.model.num_classes,
    'levels': 4 if space == 'pixels' else len(config.model.widths),
    'batch': model.stage.batch,
    'loss': 'l1' if _DEFAULTS.value else 'l2',
    'anneal': not _DEFAULTS.value,
    'scale': SCALE,
    # Beyond what clips have, so that it cuts off errors alone.
    'bound': 1.0 if space == 'pixels' else 3.0,
    'labels': labels.tolist(),
    'sigmas': sigmas(config),
    'guidance': config.sample.guidance,
    'eta': config.sample.eta,
    'threads': _THREADS.value,
  }
  widths = {'width': 8, 'widths': [int(x) for x in _WIDTHS.value]}
  count = sum(x.size for x in jax.tree.leaves(model.params))
  options['width'] = common.closest(
    call(folder, options | widths), 'parameters', count
  )['width']
  rates = [1e-4] if _DEFAULTS.value else [float(x) for x in _RATES.value]
  rate, pilots = rates[0], {}
  if len(rates) > 1:
    pilots = call(folder, options | {'rates': rates, 'seconds': seconds / 10})
    pilots = {float(rate): loss for rate, loss in pilots[0].items()}
    rate = min(pilots, key=pilots.get)
  marks = [seconds * i / _MARKS.value for i in range(1, _MARKS.value)]
  rows = call(
    folder,
    options | {'rate': rate, 'seconds': seconds, 'marks': marks},
  )
  for row in rows:
    path = folder / f'{options["name"]}_{row["seconds"]:.0f}.npz'
    videos = np.load(path)['videos']
    yield (
      videos if space == 'pixels' else decode(videos),
      row
      | {'rate': rate, 'held_out_loss_by_rate': pilots, 'space': space}
      | {'width': options['width']},
    )


def main(argv):
  del argv
  import numpy as np

  from vdm import trained
  from vdm.evaluation import real_clips
  from vdm.media import video_files

  out, rows = pathlib.Path(_OUT.value), []
  for source in _RUNS.value:
    model = trained.load(source)
    clips = real_clips.RealClips(model.config.data, model.stage)
    real = clips.same('validation', _NUM.value)
    videos, labels, _ = scenes.sample(model, {}, _NUM.value)
    shown = {'real': real['video'], 'vdm': videos}
    of_all, _ = step_seconds(model)
    common_row = {'seed': model.config.seed, 'videos': _NUM.value}
    rows.append(
      {'who': 'vdm', 'seconds': of_all, 'steps': model.stage.steps}
      | common_row
      | scenes.measure(model, videos, labels, real['video'])
    )
    for space in _SPACES.value:
      for made, facts in race(model, space, clips, np.asarray(labels)):
        numbers = scenes.measure(model, made, labels, real['video'])
        rows.append({'who': 'lucidrains'} | facts | common_row | numbers)
        shown[f'lucidrains, {space}'] = made
    grid = np.concatenate([x[:SHOWN] for x in shown.values()])
    names = itertools.chain(*([name] * SHOWN for name in shown))
    path = out / f'race_{model.config.seed}'
    video_files.write_grid(path, grid, model.frame_rate, list(names), SHOWN)
    for row in rows:
      found = {k: row.get(k) for k in ('who', 'space', 'seed', *scenes.COLUMNS)}
      print(json.dumps(found))
  common.write(_RECORD.value, {**common.environment(), 'rows': rows})


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
