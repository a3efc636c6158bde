"""Measures a run so that what ails it can be told: "loss fine, video bad".

Numbers about the data, the autoencoder, the parameters, single denoising steps
and samples; `ailments` reads them.
"""

from collections.abc import Callable
from typing import Any

from etils import epath
from etils.array_types import FloatArray, ui8
import jax
import numpy as np

from vdm import generate
from vdm import models
from vdm import trained
from vdm.checkpoints import manager
from vdm.common import errors
from vdm.common import files
from vdm.common import trees
from vdm.config import cascade_rules
from vdm.diffusion import conditions
from vdm.evaluation import ailments
from vdm.evaluation import one_step
from vdm.evaluation import real_clips
from vdm.media import video_files
from vdm.metrics import frame_metrics
from vdm.metrics import linear_denoiser
from vdm.metrics import prediction
from vdm.models import autoencoders
from vdm.models import unet
from vdm.sampling import batching
from vdm.sampling import coders
from vdm.trained import run_folder
from vdm.training import inputs

SAMPLES = 16  # Videos made to look at their latents.
SHOWN = 4  # Clips in the picture of single steps.


def diagnose(
  workdir: epath.PathLike,
  *,
  num: int = 64,
  ema: float | None = None,
  report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
  """Measures a run and writes diagnosis.json and diagnosis.png into its folder.

  Args:
    workdir: of a run, which may still train.
    num: held-out clips, at most; four times as many training clips are read.
    ema: width of the average that makes the videos; None for the run's.
    report: called with a line before every part.

  Returns:
    {'step', 'ema', 'clips', 'numbers': see `measure`, 'findings': [{'name',
    'what', 'todo'}]}, as in diagnosis.json.

  Raises:
    FileNotFoundError: there is no run, or no diffusion model in it yet.
  """
  run = trained.load(workdir, ema)
  if run.workdir is None:
    raise errors.UsageError(
      f'{workdir} is an export: give the folder of the run, which has the log '
      'and the parameters that were averaged.'
    )
  if run.stage.objective == 'tokens':
    raise errors.UsageError(
      f'{workdir} fills in masked tokens, and a diagnosis is of single steps '
      'of denoising: look at its losses and accuracies, by vdm.report.'
    )
  if cascade_rules.is_told(run.config.model):
    raise errors.UsageError(
      f'{workdir} enlarges smaller videos, and a diagnosis is of models that '
      'make all of a video: look at its losses and its final/enlarged.mp4.'
    )
  numbers, sheet = measure(run, num, report)
  result = {
    'step': run.step,
    'ema': run.config.sample.ema,
    'clips': numbers.pop('clips'),
    'numbers': numbers,
    'findings': [f._asdict() for f in ailments.judge(numbers)],
  }
  files.write_json(run.workdir / 'diagnosis.json', result, allow_nan=False)
  video_files.write_png(run.workdir / 'diagnosis.png', sheet)
  return result


def measure(
  run: trained.Model, num: int, report: Callable[[str], None]
) -> tuple[dict[str, Any], ui8['h w 3']]:
  """Returns the numbers of a run, and a picture of single denoising steps.

  Returns:
    ({key of `ailments.LINES`: number, 'clips': how many were held out,
    'levels': {log-SNR: `one_step.compare`}}, the picture): rows of the middle
    frames of clips: clean, then for every level noised and denoised.
  """
  config = run.config
  report('the data')
  real = real_clips.RealClips(config.data, run.stage)
  scalars = inputs.scalars_of(config.model, run.stage)
  train, held_out = (
    real.same('train', 4 * num),
    real.same('validation', num, run.reader, scalars),
  )
  numbers = of_data(train['video'])
  report('the autoencoder')
  codec = autoencoders.make_autoencoder(config.autoencoder)
  encode, decode = coders.make(config, codec)

  def batched(function, x):
    return batching.apply(
      lambda rows: function(run.frozen, rows), (x,), config.sample.batch
    )

  latents = batched(encode, held_out['video'])
  restored = batched(decode, latents)
  numbers |= {
    'clips': len(latents),
    'autoencoder_psnr': of_restored(restored, held_out['video']),
    'latent_rms': float(np.sqrt(np.square(latents).mean())),
  }
  report('the parameters')
  raw = _raw_parameters(run)
  numbers |= of_parameters(config, codec, raw)
  report('single steps of denoising')
  denoise = one_step.make(config)
  clips = one_step.make_clips(latents, conditions.of(held_out))
  levels = list(config.diffusion.eval_levels)

  def step(params):
    return {level: denoise(params, clips, level) for level in levels}

  def errors_of(steps):
    return np.array(
      [one_step.error(x0, latents).mean() for x0 in steps.values()]
    )

  steps_of_raw, steps = step(raw), step(run.params)
  of_raw, of_average = errors_of(steps_of_raw), errors_of(steps)
  numbers['raw_over_average'] = _mean_ratio(of_raw, of_average)
  # What follows is about what was learned, whatever the average does to it.
  params = run.params
  if of_raw.mean() < of_average.mean():
    params, steps = raw, steps_of_raw
  linear = linear_denoiser.fit(
    batched(encode, train['video']).reshape(len(train['video']), -1)
  )
  by_level = {
    level: one_step.compare(
      denoise,
      params,
      clips,
      level,
      x0,
      classes=config.model.num_classes,
      linear=linear,
    )
    for level, x0 in steps.items()
  }
  numbers |= of_steps(by_level)
  sheet = _strips(clips, steps, batched, decode)
  report('samples')
  numbers['overshoot'] = _overshoot(run, held_out, latents, batched, encode)
  numbers['levels'] = {f'{k:+g}': v for k, v in by_level.items()}
  return numbers, sheet


def of_data(videos: ui8['n t h w 3']) -> dict[str, float]:
  """Returns whether clips move, and whether their frames are in order."""
  x = videos.astype(np.float32)
  t = x.shape[1]
  if t < 3:
    return {}
  far = max(2, t // 2)
  axes = (1, 2, 3, 4)
  near = np.square(np.diff(x, axis=1)).mean(axis=axes)
  apart = np.square(x[:, far:] - x[:, :-far]).mean(axis=axes)
  change = np.abs(x - x[:, :1]).mean(axis=(2, 3, 4)).max(axis=1)
  moving = change > 0.25  # Grey levels, over the whole picture.
  numbers = {'static_share': float(1 - moving.mean())}
  if moving.any():
    numbers['order'] = float(
      near[moving].sum() / max(apart[moving].sum(), 1e-12)
    )
  return numbers


def of_restored(restored: ui8['n t h w 3'], videos: ui8['n t h w 3']) -> float:
  """Returns the mean PSNR of clips through the autoencoder, dB.

  An exact one counts as `prediction.MOST_PSNR`: without loss it is infinite.
  """
  quality = frame_metrics.psnr(restored, videos)
  return float(np.minimum(quality, prediction.MOST_PSNR).mean())


def of_parameters(config, codec, params: dict[str, Any]) -> dict[str, float]:
  """Returns how far layers that start at zero have grown, and the precision.

  A layer's size is the RMS of its kernel times the root of its inputs, 1 for a
  layer that keeps the variance of its input.
  """
  network = models.make_unet(config.model, codec.channels)
  initial = trees.flatten(jax.jit(network.init)(jax.random.key(0)))
  sizes, temporal, rounded, total = [], [], 0, 0
  for path, leaf in trees.flatten(params).items():
    x = np.asarray(leaf, np.float32)
    if leaf.dtype == np.float32:  # Others are frozen, and rounded once.
      bits = x.view(np.uint32) & 0xFFFF
      rounded += int(((bits == 0) & (x != 0)).sum())
      total += int((x != 0).sum())
    if path.endswith('kernel') and not np.any(np.asarray(initial[path])):
      size = np.sqrt(np.square(x).mean() * np.prod(x.shape[:-1]))
      sizes.append(float(size))
      if unet.TEMPORAL in path:
        temporal.append(float(size))
  numbers = {'rounded_share': rounded / max(total, 1)}
  if sizes:
    numbers['zero_init_size'] = float(np.max(sizes))
  if temporal:
    numbers['temporal_size'] = float(np.max(temporal))
  return numbers


def of_steps(levels: dict[float, dict[str, float]]) -> dict[str, float]:
  """Returns what the errors at the noise levels say together.

  Args:
    levels: {log-SNR: `one_step.compare`}.
  """
  rows = list(levels.values())
  least, most = levels[max(levels)], levels[min(levels)]

  def gain(worse, better):
    return max(1 - row[better] / max(row[worse], 1e-30) for row in rows)

  numbers = {
    'over_linear': _mean_ratio(
      np.array([row['error'] for row in rows]),
      np.array([row['linear'] for row in rows]),
    ),
    'over_identity': least['error'] / least['identity'],
    'over_zero': most['error'],
  }
  if 'wrong_label' in least:
    numbers['label_gain'] = gain('wrong_label', 'error')
  if 'strangers' in least:
    numbers['company_gain'] = gain('strangers', 'own_frames')
  return numbers


def _mean_ratio(a, b):
  """The geometric mean over levels, which weighs each alike."""
  return float(np.exp(np.mean(np.log(np.maximum(a, 1e-30) / b))))


def _raw_parameters(run):
  with manager.Checkpoints(
    run.workdir / run_folder.STATES, read_only=True
  ) as store:
    return store.restore_item('params', step=run.step)[1]


def _overshoot(run, held_out, latents, batched, encode):
  cond = conditions.of({k: x[:SAMPLES] for k, x in held_out.items()})
  make = generate.make_generator(run.config, run.stage, worse=run.worse)
  seeds = run.config.sample.seed + np.arange(len(cond['label']))
  videos = make.samples(run.params, run.frozen, cond, seeds)

  def rms(z: FloatArray['*b']) -> float:
    return float(np.sqrt(np.square(z).mean()))

  return rms(batched(encode, videos)) / rms(latents[:SAMPLES])


def _strips(clips, steps, batched, decode):
  """A column for each clip: its middle frame, noised and denoised."""
  few = jax.tree.map(lambda x: x[:SHOWN], clips)
  middle = few.latents.shape[1] // 2
  rows, names = [few.latents], ['clean']
  for level, x0 in sorted(steps.items(), reverse=True):
    rows += [one_step.noised(few, level), x0[:SHOWN]]
    names += [f'{level:+g}', 'one step']
  decoded = [batched(decode, row) for row in rows]
  # A latent may hold several frames.
  middle *= decoded[0].shape[1] // few.latents.shape[1]
  frames = np.stack([clips[:, middle] for clips in decoded])
  videos = frames.reshape(-1, 1, *frames.shape[2:])
  captions = [name for name in names for _ in range(frames.shape[1])]
  grid = video_files.tile(
    video_files.enlarge(videos, 2), columns=frames.shape[1], captions=captions
  )
  return grid[0]
