"""Trains an autoencoder on some videos and measures it on others.

  python benchmarks/autoencoder.py --workdir runs/autoencoder_benchmark \
      --train CLIPS/natural,CLIPS/raw_mpeg4 \
      --exclude='^tc_(av1|h265|var)|^psd_fades' \
      --test CLIPS/ucf101/UCF-101,CLIPS/driving \
      --taef2 WEIGHTS/taef2_encoder.pth,WEIGHTS/taef2_decoder.pth

Training is a run of configs/ucf101_autoencoder.py:cpu (or --variants) on
frames stored at twice its resolution, so that parts of them are seen at
several scales. A training file of a UCF101 group that is tested on is left
out, and here are test patterns. Tested are windows of 16 frames of 64 px: of
every shot the middle one, then others. Beside it: PCA of the same size, fitted
on the same training clips, and taef2 where its weights are given. The same
command resumes.

Prints a line a clip and a record with --record; the time is that of the
processor, over all threads, so that a shared machine counts the same.
"""

import json
import os
import pathlib
import re
import sys
import time

from absl import app
from absl import flags
import common

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_WORKDIR = flags.DEFINE_string('workdir', None, 'Of the run.', required=True)
_TRAIN = flags.DEFINE_list('train', None, 'Files and folders.', required=True)
_EXCLUDE = flags.DEFINE_string(
  'exclude', '', 'Training files left out: a pattern over their names.'
)
_TEST = flags.DEFINE_list('test', None, 'Files and folders.', required=True)
_TAEF2 = flags.DEFINE_string('taef2', '', "Its encoder's file,its decoder's.")
_VARIANTS = flags.DEFINE_string('variants', 'cpu', 'Of the configuration.')
_STEPS = flags.DEFINE_integer('steps', 0, "In place of the config's.")
_WINDOWS = flags.DEFINE_integer('windows', 3, 'To test on, a shot, on average.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


def files(paths):
  """All files under the paths, by name."""
  found = {}
  for path in map(pathlib.Path, paths):
    for file in sorted(path.rglob('*')) if path.is_dir() else [path]:
      if file.is_file():
        found[file.name] = file.resolve()
  return found


def group(name):
  """The recording a UCF101 clip is cut from, '' for other files."""
  match = re.match(r'v_(\w+)_g(\d+)_c\d+', name)
  return match[0].rpartition('_')[0] if match else ''


def dataset(config, folder, found, resolution):
  """Builds a data set of files, linked into one folder."""
  from vdm.data import builders
  from vdm.preparation import datasets

  source = folder / 'videos'
  source.mkdir(parents=True, exist_ok=True)
  for name, path in found.items():
    if not (source / name).exists():
      (source / name).symlink_to(path)
  config.data.update(
    name='video_folder',
    source=str(source),
    root=str(folder / 'data'),
    resolution=resolution,
  )
  return builders.open_source(datasets.build(config.data), 'train')


def main(argv):
  del argv
  import numpy as np

  from vdm import train
  from vdm.common import console
  from vdm.common import sizes
  from vdm.data import builders
  from vdm.evaluation import reconstruction
  from vdm.metrics import frame_metrics
  from vdm.metrics import latent_statistics
  from vdm.models import autoencoders
  from vdm.models.autoencoders import files as autoencoder_files
  from vdm.models.autoencoders import pca
  from vdm.models.autoencoders import pretrained

  console.start()
  workdir = pathlib.Path(_WORKDIR.value)
  config = common.load_config('ucf101_autoencoder', _VARIANTS.value)
  stage = config.stages.autoencoder
  if _STEPS.value:
    stage.steps = _STEPS.value
  tested = files(_TEST.value)
  groups = {group(name) for name in tested} - {''}
  trained = {
    name: path
    for name, path in files(_TRAIN.value).items()
    if name not in tested
    and group(name) not in groups
    and not (_EXCLUDE.value and re.search(_EXCLUDE.value, name))
  }
  test_config = config.copy_and_resolve_references()
  test_source = dataset(test_config, workdir / 'test', tested, stage.resolution)
  train_source = dataset(
    config, workdir / 'train', trained, 2 * stage.resolution
  )
  stage.zoom = (1.0, 2.0)

  began, cpu = time.perf_counter(), time.process_time()
  code = train.train(config, workdir / 'run')
  seconds = add_seconds(
    workdir / 'seconds.json',
    wall=time.perf_counter() - began,
    processor=time.process_time() - cpu,
  )
  if code:
    sys.exit(code)

  pieces, names = [], []
  for split in ('train', 'validation'):  # All of them are new to the run.
    source = builders.open_source(test_source.directory, split)
    if not len(source):
      continue
    shots = len(set(source.index['shot'].tolist()))
    clips = reconstruction.choose(
      source,
      _WINDOWS.value * shots,
      sizes.of(stage),
      config.data.stride,
    )
    pieces.append(clips['video'])
    names += [n.split(':')[0] for n in reconstruction.names(source, clips)]
  video = np.concatenate(pieces)
  settings, params, _, fingerprint = autoencoder_files.load(
    workdir / 'run/autoencoder'
  )
  # PCA is fitted on the clips that the run's own linear part is fitted on.
  methods = {
    'ours': (autoencoders.make_autoencoder(settings), params),
    'PCA': (
      autoencoders.Autoencoder(
        (1, settings.factor, settings.factor),
        settings.channels,
        *pca.make(settings.factor, settings.channels),
      ),
      params['pca'],
    ),
  }
  if _TAEF2.value:
    other = settings.copy_and_resolve_references()
    other.update(kind='tiny', factor=8, channels=32, weights=_TAEF2.value)
    other.weights_sha256 = ''
    weights, _ = pretrained.load(other)
    methods['taef2'] = (autoencoders.make_autoencoder(other), weights)

  def sharpness(video):
    return latent_statistics.spectrum_share(video.reshape(-1, *video.shape[2:]))

  rows, latents = {}, {}
  texture = {'clips': sharpness(video)}
  for method, (codec, values) in methods.items():
    z, reconstructed = reconstruction.reconstruct(codec, values, video)
    numbers = frame_metrics.compare(reconstructed, video)
    latents[method] = latent_statistics.summary(
      np.asarray(z, np.float64).reshape(-1, *z.shape[2:])
    )
    texture[method] = sharpness(reconstructed)
    for clip in [*dict.fromkeys(names), 'all']:
      own = [i for i, name in enumerate(names) if clip in (name, 'all')]
      rows.setdefault(clip, {})[method] = {
        k: float(np.nanmean(v[own])) for k, v in numbers.items()
      }
  print(table(rows, methods))
  for method, values in latents.items():
    print(
      f'{method}: {100 * values["spectrum_share"]:.1f} % above half Nyquist, '
      f'neighbours {values["neighbour_correlation"]:.2f}'
    )
  shares = ', '.join(f'{k} {100 * v:.2f} %' for k, v in texture.items())
  print(f'energy of frames above half Nyquist: {shares}')
  print(f'trained on {len(trained)} files: {seconds}')
  record = {
    **common.environment(),
    'seconds': seconds,
    'steps': stage.steps,
    'parameters': count(params),
    'settings': settings.to_dict(),
    'autoencoder': fingerprint,
    'trained_on': {
      'files': sorted(trained),
      'frames': int(train_source.index['n'].sum()),
    },
    'windows': len(video),
    'rows': rows,
    'latents': latents,
    'texture': texture,
  }
  common.write(_RECORD.value, record)


def count(params):
  """Number of values."""
  import jax

  return sum(x.size for x in jax.tree.leaves(params))


def add_seconds(path, **more):
  """Adds to what earlier, stopped calls took; returns the sums."""
  before = json.loads(path.read_text()) if path.exists() else {}
  total = {name: before.get(name, 0.0) + more[name] for name in more}
  path.write_text(json.dumps(total))
  return total


def table(rows, methods):
  """A line a clip: PSNR, SSIM and flicker of every method."""
  head = ''.join(f'{name:>24}' for name in methods)
  lines = [f'{"":40}{"flicker in":>10}{head}']
  for clip, values in rows.items():
    cells = ''.join(
      f'{v["psnr"]:12.2f}{v["ssim"]:6.3f}{v["flicker_out"]:6.2f}'
      for v in values.values()
    )
    source = next(iter(values.values()))['flicker_in']
    lines.append(f'{clip[:40]:40}{source:10.2f}{cells}')
  return '\n'.join(lines)


if __name__ == '__main__':
  app.run(main)
