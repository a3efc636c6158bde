"""Makes videos from a network's parameters; `trained` reads these.

Video i depends on its own seed, label and the settings alone, so that any one
of many can be made again by itself, whatever the batch size, up to float
rounding.
"""

from collections.abc import Callable, Iterator, Sequence
import functools
from typing import Any, NamedTuple

from etils import epath
from etils.array_types import FloatArray, IntArray, ui8
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from vdm import models
from vdm.config import rules
from vdm.diffusion import guidance
from vdm.diffusion import process
from vdm.diffusion import samplers
from vdm.diffusion import schedules
from vdm.models import autoencoders
from vdm.models.autoencoders import latents
from vdm.multihost import arrays

START, STEPS = 0, 1  # Streams of a video's key.


class Generator(NamedTuple):
  """The functions that make videos, each over any number of them.

  Attributes:
    samples: (params, frozen, labels [n], seeds [n]) -> uint8 [n t h w 3].
    reconstruct: (frozen, uint8 [n t h w 3]) -> the same, through the
      autoencoder.
  """

  samples: Callable[..., np.ndarray]
  reconstruct: Callable[..., np.ndarray]


def to_float(video: ui8['*b 3']) -> FloatArray['*b 3']:
  """Returns uint8 frames as float32 in [-1, 1]."""
  return video.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(x: FloatArray['*b 3']) -> ui8['*b 3']:
  """Returns frames in [-1, 1], clipped, as uint8."""
  x = jnp.clip(x.astype(jnp.float32), -1.0, 1.0)
  return jnp.round((x + 1.0) * 127.5).astype(jnp.uint8)


def latent_shape(
  codec: autoencoders.Autoencoder, frames: int, resolution: int
) -> tuple[int, int, int, int]:
  """Returns (t, h, w, c) of the latents of a clip."""
  t, h, w = codec.factor
  return (
    frames // t if frames > 1 else 1,
    resolution // h,
    resolution // w,
    codec.channels,
  )


def make_schedule(
  options: ConfigDict, codec: autoencoders.Autoencoder, stage: ConfigDict
) -> schedules.Schedule:
  """Returns a stage's noise schedule, shifted for the size of its latents.

  Args:
    options: `config.diffusion`.
    codec: the autoencoder.
    stage: the stage's config.
  """
  shape = latent_shape(codec, stage.frames, stage.resolution)
  return schedules.make_schedule(
    options.schedule,
    logsnr_min=options.logsnr_min,
    logsnr_max=options.logsnr_max,
    shift=schedules.shift_for(*shape[:3], options.shift_base),
  )


def preview_labels(num_classes: int, num: int) -> IntArray[' num']:
  """Returns the labels in turn; all null (-1) without classes."""
  return np.arange(num) % num_classes if num_classes else np.full(num, -1)


def make_generator(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh | None = None,
  poll: Callable[[], None] = lambda: None,
) -> Generator:
  """Returns the functions that make a stage's videos.

  Args:
    config: the run's; `config.sample` says how.
    stage: whose frames and resolution the videos have.
    mesh: devices to split the videos over; None: all rows on one device.
    poll: called after every batch of videos; may raise.

  Raises:
    ValueError: the network cannot be guided as `config.sample` says.
  """
  for problem in rules.guidance_problems(config.model, config.sample):
    raise ValueError(problem)
  codec = autoencoders.make_autoencoder(config.autoencoder)
  network = models.make_unet(config.model, codec.channels)
  dtype = jnp.dtype(config.train.compute_dtype)
  shape = latent_shape(codec, stage.frames, stage.resolution)
  options = config.sample
  grid = samplers.make_grid(
    options.grid,
    options.steps,
    make_schedule(config.diffusion, codec, stage),
    rho=options.rho,
    sigma_min=options.sigma_min,
    sigma_max=options.sigma_max,
  )
  scale = options.guidance if config.model.num_classes else 1.0

  def denoise(params, z, levels, cond):
    output = network.apply(params, z.astype(dtype), levels, cond)
    return process.to_x0(config.diffusion.prediction, output, z, levels)

  def decode(frozen, z):
    z = latents.denormalise(z, frozen['stats']).astype(dtype)
    return to_uint8(codec.decode(frozen['params'], z))

  @jax.jit
  def sample(params, frozen, labels, seeds):
    keys = jax.vmap(jax.random.key)(seeds)
    cond = {'label': labels}
    guided = guidance.guided(
      functools.partial(denoise, params),
      cond,
      {'label': jnp.full_like(labels, -1)},
      scale=scale,
      interval=options.guidance_interval,
      rescale=options.guidance_rescale,
    )
    levels = jnp.broadcast_to(grid[:, None, None], (len(grid), 1, shape[0]))
    z = process.noise(process.fold_in(keys, START), (len(labels), *shape))
    z = samplers.sample(
      guided,
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
    make = functools.partial(sample, params, frozen)
    return batched(make, (labels, seeds), options.batch, mesh, poll)

  def reconstructions(frozen, video):
    make = functools.partial(reconstruct, frozen)
    return batched(make, (video,), options.batch, mesh, poll)

  return Generator(samples, reconstructions)


def change_sampler(options: ConfigDict, changes: dict[str, Any]) -> None:
  """Changes `config.sample` in place; eta is of ddim and not of others."""
  options.update(changes)
  if options.method != 'ddim':
    options.eta = 0.0


def describe_samples(
  config: ConfigDict, source: epath.PathLike, step: int
) -> dict[str, Any]:
  """Returns what made samples, for their record.

  Args:
    config: the run's, `sample` as it was used.
    source: the run's folder, or what else the model was read from.
    step: global step of the checkpoint.
  """
  counts = ('num', 'batch', 'final', 'seed')
  options = {k: v for k, v in config.sample.items() if k not in counts}
  if not config.model.num_classes:
    options['guidance'] = 1.0
  return {'run': str(source), 'step': int(step), **options}


def batched(
  function: Callable[..., Any],
  inputs: Sequence[np.ndarray],
  size: int,
  mesh: jax.sharding.Mesh | None = None,
  poll: Callable[[], None] = lambda: None,
) -> Any:
  """Applies a compiled function to arrays, `size` rows at a time.

  Args:
    function: of rows of the arrays; its results have as many rows.
    inputs: the arrays, whole on every process.
    size: rows of a call, see `chunks`.
    mesh: devices to split the rows over; None: all on one device.
    poll: called after every call; may raise.

  Returns:
    What the function returns of all rows, as NumPy arrays.
  """
  outputs = []
  for rows, n in chunks(inputs, size, mesh):
    output = arrays.to_host(function(*rows))
    outputs.append(jax.tree.map(lambda x, n=n: x[:n], output))
    poll()
  return jax.tree.map(lambda *x: np.concatenate(x), *outputs)


def chunks(
  inputs: Sequence[np.ndarray],
  size: int,
  mesh: jax.sharding.Mesh | None = None,
) -> Iterator[tuple[list[Any], int]]:
  """Yields (rows of each array, how many of them are real), chunk by chunk.

  Every chunk has the same shape: `size` rows, rounded up to the devices. The
  last one is filled with copies of the last row.
  """
  devices = mesh.size if mesh is not None else 1
  total = len(inputs[0])
  size = -(-min(size, total) // devices) * devices
  for start in range(0, total, size):
    index = np.minimum(np.arange(start, start + size), total - 1)
    rows = [array[index] for array in inputs]
    if mesh is not None:
      rows = [arrays.split(mesh, x) for x in rows]
    yield rows, min(size, total - start)
