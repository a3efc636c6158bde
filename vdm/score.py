"""Makes the last videos of a run and puts numbers to them."""

import json

from absl import logging
import jax
import numpy as np

from vdm import generate
from vdm.data import pipeline
from vdm.media import videos
from vdm.metrics import synthetic_truth

GRID = 64  # Videos of the grid; all of them are in samples.npz.


def final(config, stage, params, frozen, source, mesh, folder, step):
  """Writes `final/`: samples.npz, the videos, metrics.json.

  The samples are unselected: video i has label i mod classes and seed
  `sample.seed` + i.

  Args:
    config: the run's.
    stage: the last stage's.
    params: the average that makes the videos.
    frozen: the autoencoder, {'params', 'stats'}.
    source: held-out clips to put beside them.
    mesh: devices to split the work over.
    folder: where to.
    step: global step of the parameters.
  """
  num = config.sample.final
  logging.info('Making the %d videos of %s', num, folder)
  labels = generate.preview_labels(config, num)
  seeds = config.sample.seed + np.arange(num)
  make = generate.make_generator(config, stage, mesh)
  samples = make.samples(params, frozen, labels, seeds)
  real = pipeline.fixed_clips(
      source,
      num=num,
      frames=stage.frames,
      stride=config.data.stride,
      resolution=stage.resolution,
  )
  reconstruction = make.reconstruct(frozen, real['video'])
  if jax.process_index():
    return
  frame_rate = source.info['frame_rate'] / config.data.stride
  write_samples(
      folder, samples, labels, source.info['label_names'], seeds, frame_rate
  )
  metrics = {
      'step': step,
      'protocol': protocol(config, stage, source, num),
  }
  if is_synthetic(config):
    rows = judge(samples, labels, real, reconstruction)
    metrics['synthetic_truth'] = rows
    logging.info('\n%s', synthetic_truth.table(rows))
  (folder / 'metrics.json').write_text(json.dumps(metrics, indent=2) + '\n')
  (folder / f'step_{step:08d}').write_text('')
  logging.info('Finished: the videos are in %s; see grid.mp4.', folder)


def write_samples(folder, samples, labels, label_names, seeds, frame_rate):
  """Writes samples.npz, a grid of them as mp4 and a contact sheet."""
  folder.mkdir(parents=True, exist_ok=True)
  partial = folder / 'samples.npz.partial'
  with partial.open('wb') as file:
    np.savez(
        file,
        videos=samples,
        labels=np.asarray(labels, np.int32),
        label_names=np.asarray(label_names, dtype=np.str_),
        seeds=np.asarray(seeds, np.int64),
    )
  partial.replace(folder / 'samples.npz')
  shown = samples[:GRID]
  names = [
      f'{label_names[label] if label >= 0 else "sample"}\nseed {seed}'
      for label, seed in zip(labels, seeds)
  ]
  videos.write_png(
      folder / 'sheet.png',
      videos.contact_sheet(shown[:16], names[:16][: len(shown)], upscale=2),
  )
  videos.write_mp4(
      folder / 'grid.mp4', videos.tile(shown), frame_rate, upscale=2
  )


def protocol(config, stage, source, num):
  """What a number has to say about where it comes from."""
  return {
      'dataset': source.info['name'],
      'dataset_fingerprint': source.info['fingerprint'],
      'split': source.split,
      'videos': num,
      'frames': stage.frames,
      'stride': config.data.stride,
      'resolution': stage.resolution,
      'sample': config.sample.to_dict(),
  }


def is_synthetic(config):
  """Whether the scenes are those the judge knows: one straight mover."""
  scenes = config.data.scenes
  return (
      config.data.name == 'synthetic_scenes'
      and scenes.objects == 1
      and scenes.motion == 'straight'
      and not scenes.walls
  )


def judge(samples, labels, real, reconstruction):
  """Summaries of the samples, of what they aim at and of what would fail."""
  reference = synthetic_truth.measure(real['video'])
  clips = {
      'samples': (samples, labels),
      'real': (real['video'], real['label']),
      'reconstruction': (reconstruction, real['label']),
      'shuffled': (
          synthetic_truth.shuffle_frames(real['video'], seed=0),
          real['label'],
      ),
      'mixed': (
          synthetic_truth.mix_clips(real['video'], seed=0),
          real['label'],
      ),
  }
  return {
      name: synthetic_truth.summarise(
          synthetic_truth.measure(video), label, reference
      )
      for name, (video, label) in clips.items()
  }
