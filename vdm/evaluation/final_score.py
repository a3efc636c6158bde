"""Makes the last videos of a run and puts numbers to them."""

import functools
import json

from absl import logging
import jax
import numpy as np

from vdm import generate
from vdm.data.synthetic import paths
from vdm.media import video_files
from vdm.metrics import corruptions
from vdm.metrics import laws
from vdm.metrics import motion
from vdm.metrics import suite
from vdm.metrics import synthetic_truth
from vdm.multihost import coordination

DONE = 'step.txt'  # Written last: the step that the folder is complete for.
FEWEST = 4  # Clips that a small score compares.
GRID = 64  # Videos of the grid; all of them are in samples.npz.


def final(
  config, stage, params, frozen, source, clips, mesh, folder, step, poll
):
  """Writes `final/`: samples.npz, the videos, metrics.json.

  The samples are unselected: video i has seed `sample.seed` + i and label
  i mod classes, or that of training clip i where those are fixed.

  Args:
    config: the run's.
    stage: the last stage's.
    params: the average that makes the videos.
    frozen: the autoencoder, {'params', 'stats'}.
    source: data set of the clips to put beside them.
    clips: () -> those clips; see `eval_clips.load_clips`.
    mesh: devices to split the work over.
    folder: where to.
    step: global step of the parameters.
    poll: called after every batch of videos; may raise.
  """
  num = config.sample.final
  how = protocol(config, stage, source, num)
  if coordination.first_says('the last videos', is_made(folder, step, how)):
    logging.info('Finished before: the videos are in %s.', folder)
    return
  logging.info('Making the %d videos of %s', num, folder)
  real = clips()
  labels = generate.preview_labels(config.model.num_classes, num)
  if config.data.fixed_clips:
    labels = np.resize(real['label'], num)
  seeds = config.sample.seed + np.arange(num)
  make = generate.make_generator(config, stage, mesh, poll)
  samples = make.samples(params, frozen, labels, seeds)
  reconstruction = make.reconstruct(frozen, real['video'])
  if not coordination.is_first():
    return
  frame_rate = source.info['frame_rate'] / config.data.stride
  write_samples(
    folder, samples, labels, source.info['label_names'], seeds, frame_rate
  )
  metrics = {'step': step, 'protocol': how}
  if is_straight(config):
    name, judges = 'synthetic_truth', synthetic_truth
    measure = synthetic_truth.measure
  elif is_synthetic(config):
    name, judges = 'laws', laws
    measure = functools.partial(laws.measure, world=world(config, stage))
  if is_synthetic(config):
    rows = judge(
      measure, judges.summarise, samples, labels, real, reconstruction
    )
    metrics[name] = rows
    logging.info('\n%s', judges.table(rows))
  if config.data.fixed_clips:
    metrics['fixed_clips_psnr'] = {
      'samples': nearest_psnr(samples, real['video']),
      'reconstruction': nearest_psnr(reconstruction, real['video']),
    }
    logging.info('PSNR, dB: %s', metrics['fixed_clips_psnr'])
  (folder / 'metrics.json').write_text(json.dumps(metrics, indent=2) + '\n')
  (folder / DONE).write_text(str(step))
  logging.info('Finished: the videos are in %s; see grid.mp4.', folder)


def is_made(folder, step, how):
  """Whether `final` has written a folder for this step in just this way."""
  if not (folder / DONE).exists():
    return False
  metrics = json.loads((folder / 'metrics.json').read_text())
  how = json.loads(json.dumps(how))  # JSON's lists are tuples.
  done = (folder / DONE).read_text() == str(step)
  return done and metrics['protocol'] == how


class SmallScore:
  """How far a few samples are from a few held-out clips, while a run trains.

  The offline suite's energy distances in percent, and the flow beside the real
  one's. Of so few clips they say whether a run goes up or down; no number that
  anybody publishes is made so, and none has such a name.
  """

  def __init__(self, make, clips):
    """Remembers what to do.

    Args:
      make: (params, frozen, clips) -> uint8 [n, t, h, w, 3], one a clip.
      clips: {'video', 'label'}, held out.
    """
    self._make, self._clips, self._reference = make, clips, None

  def __call__(self, params, frozen):
    """Returns {'small_score/...': number}, the same on every process."""
    samples = self._make(params, frozen, self._clips)
    names = [f'small_score/{name}' for name in (*suite.SUMMARY, 'flow_ratio')]
    values = np.zeros(len(names))
    if jax.process_index() == 0:
      if self._reference is None:
        self._reference = suite.measure(self._clips['video'])
      measured = suite.measure(samples)
      rows = suite.summarise(self._reference, measured)
      flows = [np.mean(m.panel['flow']) for m in (measured, self._reference)]
      values[:-1] = [100 * rows[name]['energy'] for name in suite.SUMMARY]
      values[-1] = flows[0] / max(flows[1], 1e-6)
    # As text: every digit of a float comes back.
    said = coordination.gather('the small score', json.dumps(values.tolist()))
    return dict(zip(names, json.loads(said[0]), strict=True))


def make_small_score(config, stage, objective, clips):
  """A `SmallScore` of a stage's samples; None where there is none to make.

  Args:
    config: the run's.
    stage: config of the stage.
    objective: see `objectives.Objective`.
    clips: () -> {'video', 'label'}, held out.
  """
  if not config.score.every or objective.samples is None:
    return None
  if stage.frames < motion.LEAST_FRAMES:
    return None
  clips = clips()
  if len(clips['video']) < FEWEST:
    logging.info('No small score: it takes %d held-out clips.', FEWEST)
    return None
  return SmallScore(objective.samples, clips)


def write_samples(
  folder, samples, labels, label_names, seeds, frame_rate, each=False
):
  """Writes samples.npz, a contact sheet and a grid to watch.

  Args:
    folder: where to.
    samples: uint8 [n, t, h, w, 3].
    labels: [n], -1 for none.
    label_names: of the classes.
    seeds: [n].
    frame_rate: frames a second.
    each: whether every video gets an mp4 of its own, too.
  """
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
  video_files.write_png(
    folder / 'sheet.png',
    video_files.contact_sheet(shown[:16], names[:16][: len(shown)], upscale=2),
  )
  video_files.write_mp4(
    folder / 'grid.mp4', video_files.tile(shown), frame_rate, upscale=2
  )
  for video, seed in zip(samples, seeds) if each else ():
    path = folder / f'seed_{seed:06d}.mp4'
    video_files.write_mp4(path, video, frame_rate, upscale=None)


def nearest_psnr(samples, clips):
  """Mean over samples of the PSNR with the clip each comes nearest to, dB."""
  errors = [
    np.square(clips.astype(np.float64) - sample).mean(axis=(1, 2, 3, 4)).min()
    for sample in samples
  ]
  peak = 10 * np.log10(255.0**2 / np.maximum(errors, 1e-3))
  return float(np.mean(peak))


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
  """Whether the clips are scenes, whose laws are known."""
  return config.data.name == 'synthetic_scenes'


def is_straight(config):
  """Whether they show one straight mover, of which more can be told."""
  scenes = config.data.scenes
  return (
    is_synthetic(config)
    and scenes.objects == 1
    and scenes.motion == 'straight'
    and not scenes.walls
  )


def world(config, stage):
  """The laws that a run's scenes are under, as its clips show them."""
  options = config.data.scenes
  pull = 0.0
  if options.motion == 'gravity':
    pull = paths.gravity(
      resolution=stage.resolution,
      frames=options.frames,
      walls=options.walls,
      crossings=options.crossings,
    )
  return laws.World(
    options.objects, pull * config.data.stride**2, options.walls
  )


def judge(measure, summarise, samples, labels, real, reconstruction):
  """Summaries of the samples, of what they aim at and of what would fail.

  Args:
    measure: uint8 [n, t, h, w, 3] -> what a judge says of each clip.
    summarise: (that, labels, that of real clips) -> {name: number}.
    samples: uint8 [n, t, h, w, 3].
    labels: of the samples [n].
    real: {'video', 'label'}, held out.
    reconstruction: the real clips through the autoencoder.
  """
  reference = measure(real['video'])
  clips = {
    'samples': (samples, labels),
    'real': (real['video'], real['label']),
    'reconstruction': (reconstruction, real['label']),
    'shuffled': (
      corruptions.shuffle_frames(real['video'], seed=0),
      real['label'],
    ),
    'mixed': (corruptions.mix_clips(real['video'], seed=0), real['label']),
  }
  return {
    name: summarise(measure(video), label, reference)
    for name, (video, label) in clips.items()
  }
