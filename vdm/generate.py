"""Makes videos from a network's parameters, or from a run's folder.

Video i depends on its own seed, label and the settings alone, so that any one
of many can be made again by itself, whatever the batch size, up to float
rounding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from vdm import models
from vdm.checkpoints import manager
from vdm.config import schema
from vdm.config import serialize
from vdm.diffusion import guidance
from vdm.diffusion import process
from vdm.diffusion import samplers
from vdm.diffusion import schedules
from vdm.models import autoencoders
from vdm.models.autoencoders import files
from vdm.models.autoencoders import latents
from vdm.multihost import arrays

START, STEPS = 0, 1  # Streams of a video's key.


class Run(NamedTuple):
  """A trained model.

  Attributes:
    config: the run's.
    stage: config of the diffusion stage it is in.
    step: global step of the checkpoint.
    params: nested dict of arrays: an average of the network's parameters.
    frozen: the autoencoder: {'params', 'stats'}.
    label_names: of the classes, [] where there are none.
    frame_rate: of its videos, frames a second.
  """

  config: Any
  stage: Any
  step: int
  params: Any
  frozen: Any
  label_names: list[str]
  frame_rate: float


class Generator(NamedTuple):
  """The functions that make videos, each over any number of them.

  Attributes:
    samples: (params, frozen, labels [n], seeds [n]) -> uint8 [n, t, h, w, 3].
    reconstruct: (frozen, uint8 [n, t, h, w, 3]) -> the same, through the
      autoencoder.
  """

  samples: Callable[..., np.ndarray]
  reconstruct: Callable[..., np.ndarray]


def to_float(video):
  """uint8 -> float32 in [-1, 1]."""
  return video.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(x):
  """Float in [-1, 1], clipped -> uint8."""
  x = jnp.clip(x.astype(jnp.float32), -1.0, 1.0)
  return jnp.round((x + 1.0) * 127.5).astype(jnp.uint8)


def latent_shape(codec, frames, resolution):
  """(t, h, w, c) of the latents of a clip."""
  t, h, w = codec.factor
  return (
    frames // t if frames > 1 else 1,
    resolution // h,
    resolution // w,
    codec.channels,
  )


def make_schedule(config, codec, stage):
  """The noise schedule of a stage, shifted for the size of its latents."""
  shape = latent_shape(codec, stage.frames, stage.resolution)
  options = config.diffusion
  return schedules.make_schedule(
    options.schedule,
    logsnr_min=options.logsnr_min,
    logsnr_max=options.logsnr_max,
    shift=schedules.shift_for(*shape[:3], options.shift_base),
  )


def preview_labels(config, num):
  """One label after the other; all null without classes."""
  classes = config.model.num_classes
  return np.arange(num) % classes if classes else np.full(num, -1)


def make_generator(config, stage, mesh=None, poll=lambda: None):
  """Builds the functions that make a stage's videos.

  Args:
    config: the run's; `config.sample` says how.
    stage: whose frames and resolution the videos have.
    mesh: devices to split the videos over; all rows on one device without.
    poll: called after every batch of videos; may raise.
  """
  codec = autoencoders.make_autoencoder(config.autoencoder)
  network = models.make_unet(config.model, codec.channels)
  dtype = jnp.dtype(config.train.compute_dtype)
  shape = latent_shape(codec, stage.frames, stage.resolution)
  options = config.sample
  grid = samplers.make_grid(
    options.grid,
    options.steps,
    make_schedule(config, codec, stage),
    rho=options.rho,
    sigma_min=options.sigma_min,
    sigma_max=options.sigma_max,
  )
  scale = options.guidance if config.model.num_classes else 1.0

  def denoiser(params):
    def denoise(z, levels, cond):
      output = network.apply(params, z.astype(dtype), levels, cond)
      return process.to_x0(config.diffusion.prediction, output, z, levels)

    return denoise

  def decode(frozen, z):
    z = latents.denormalise(z, frozen['stats']).astype(dtype)
    return to_uint8(codec.decode(frozen['params'], z))

  @jax.jit
  def sample(params, frozen, labels, seeds):
    keys = jax.vmap(jax.random.key)(seeds)
    cond = {'label': labels}
    denoise = guidance.guided(
      denoiser(params),
      cond,
      {'label': jnp.full_like(labels, -1)},
      scale=scale,
      interval=options.guidance_interval,
      rescale=options.guidance_rescale,
    )
    levels = jnp.broadcast_to(grid[:, None, None], (len(grid), 1, shape[0]))
    z = process.noise(process.fold_in(keys, START), (len(labels), *shape))
    z = samplers.sample(
      denoise,
      z,
      levels,
      process.fold_in(keys, STEPS),
      method=options.method,
      eta=options.eta,
    )
    return decode(frozen, z)

  @jax.jit
  def reconstruct(frozen, video):
    mean, _ = codec.encode(frozen['params'], to_float(video).astype(dtype))
    # As diffusion sees it: through the statistics and back.
    return decode(
      frozen, latents.normalise(mean.astype(jnp.float32), frozen['stats'])
    )

  def samples(params, frozen, labels, seeds):
    labels, seeds = np.asarray(labels, np.int32), np.asarray(seeds, np.uint32)
    return batched(
      lambda *rows: sample(params, frozen, *rows),
      (labels, seeds),
      options.batch,
      mesh,
      poll,
    )

  def reconstructions(frozen, video):
    return batched(
      lambda rows: reconstruct(frozen, rows),
      (video,),
      options.batch,
      mesh,
      poll,
    )

  return Generator(samples, reconstructions)


def batched(function, inputs, size, mesh=None, poll=lambda: None):
  """Applies a compiled function to arrays, `size` rows at a time.

  Every call has the same shape, rounded up to the devices: the last one is
  filled with copies of the last row.
  """
  devices = mesh.size if mesh is not None else 1
  total = len(inputs[0])
  size = -(-min(size, total) // devices) * devices
  outputs = []
  for start in range(0, total, size):
    index = np.minimum(np.arange(start, start + size), total - 1)
    rows = [array[index] for array in inputs]
    if mesh is not None:
      rows = [arrays.split(mesh, x) for x in rows]
    outputs.append(arrays.to_host(function(*rows))[: total - start])
    poll()
  return np.concatenate(outputs)


def load_run(workdir, ema=None, checkpoint='latest'):
  """Reads what sampling needs from a run's folder, and nothing else.

  Args:
    workdir: of the run.
    ema: width of the average to take; by default `config.sample.ema`.
    checkpoint: 'latest'; 'best', the one with the least small score; or a step.

  Raises:
    FileNotFoundError: there is no run, none far enough to sample from, or no
      such checkpoint.
  """
  workdir = epath.Path(workdir)
  if not (workdir / 'config.json').exists():
    raise FileNotFoundError(
      f'{workdir} holds no run: give the folder that training printed.'
    )
  config = schema.complete(serialize.load(workdir / 'config.json'))
  with manager.Checkpoints(workdir / 'checkpoints', read_only=True) as store:
    found = store.restore_item('ema', step=choose_step(store, checkpoint))
  if found is None or 'autoencoder' == found[2]['objective']:
    raise FileNotFoundError(
      f'{workdir} has no diffusion model yet: train it further first.'
    )
  step, averages, meta = found
  name = f'{config.sample.ema if ema is None else ema:.3f}'
  if name not in averages:
    raise ValueError(
      f'The run keeps averages of width {", ".join(averages)}, not {name}.'
    )
  _, params, stats, _ = files.load(workdir / 'autoencoder')
  return Run(
    config=config,
    stage=config.stages[meta['stage']],
    step=step,
    params=files.nested(averages[name]),
    frozen={'params': params, 'stats': stats},
    label_names=serialize.load_label_names(workdir / 'config.json'),
    frame_rate=config.data.frame_rate / config.data.stride,
  )


def choose_step(store, checkpoint):
  """The step that 'latest' (None), 'best' or a number names.

  Raises:
    FileNotFoundError: the run does not keep it.
    ValueError: it names nothing.
  """
  if checkpoint == 'latest':
    return None
  if checkpoint == 'best':
    if (step := store.best()) is None:
      raise FileNotFoundError(
        f'No checkpoint in {store.directory} has a score: take the latest, or '
        'train with config.score.every set.'
      )
    return step
  if not str(checkpoint).isdigit():
    raise ValueError(
      f'{checkpoint!r} names no checkpoint: latest, best or a step.'
    )
  if int(checkpoint) not in store.steps():
    raise FileNotFoundError(
      f'{store.directory} keeps the steps '
      f'{", ".join(map(str, store.steps()))}, not {checkpoint}.'
    )
  return int(checkpoint)
