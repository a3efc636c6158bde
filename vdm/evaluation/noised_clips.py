"""What a model keeps of held-out clips that are noised and sampled from there.

From pure noise a model invents everything, and until late in training the share
of clips whose objects keep their shape stands at zero. From clips with noise of
sigma / alpha = s it moves earlier: below s of about 1.5 single frames still
show the shape; from 3 on only many frames together do, and what happens there
is what a model of videos has to learn. The share at each s says from which
noise on it loses what an object is.
"""

from collections.abc import Callable
import functools
from typing import Any

from etils.array_types import ui8
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from vdm import generate
from vdm.config import cascade_rules
from vdm.diffusion import conditions
from vdm.diffusion import process
from vdm.diffusion import samplers
from vdm.evaluation import synthetic_score
from vdm.metrics import laws
from vdm.models import autoencoders
from vdm.multihost import coordination
from vdm.sampling import batching
from vdm.sampling import coders
from vdm.sampling import denoised
from vdm.sampling import keys as streams

SIGMAS = (1.6, 3.2, 8.0)  # Of sigma / alpha.
STEPS = 10  # From each of them; samples from pure noise have about twice that.


def make(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh | None = None,
  poll: Callable[[], None] = lambda: None,
) -> Callable[..., list[ui8['n t h w 3']]]:
  """Returns (params, frozen, clips) -> clips sampled on from each of SIGMAS.

  Args:
    config: the run's; `config.sample` says how.
    stage: whose clips they are.
    mesh: devices to split the clips over.
    poll: called after every batch; may raise.

  Returns:
    A function with a result [videos of SIGMAS[0], ...].
  """
  options, method, steps = config.sample, 'ddim', STEPS
  if stage.objective == 'consistency':
    method, steps = options.method, options.steps
  codec = autoencoders.make_autoencoder(config.autoencoder)
  encode, decode = coders.make(config, codec)
  denoise = denoised.make_denoiser(config, codec)
  schedule = generate.make_schedule(config.diffusion, codec, stage)

  @jax.jit
  def sample(params, x0, cond, seeds, grid):
    levels = jnp.broadcast_to(grid[:, None, None], (len(grid), 1, x0.shape[1]))
    keys = jax.vmap(jax.random.key)(seeds)
    keys, later = (
      process.fold_in(keys, x) for x in (streams.START, streams.STEPS)
    )
    noise = process.noise(keys, x0.shape)
    guided = denoised.guide(config, functools.partial(denoise, params), cond)
    return samplers.sample(
      guided,
      process.add_noise(x0, noise, levels[0]),
      levels,
      later,
      method=method,
    )

  def restore(params, frozen, clips):
    grids = [
      samplers.make_levels(
        method,
        'rho',
        steps,
        schedule,
        rho=options.rho,
        sigma_min=options.sigma_min,
        sigma_max=sigma,
      )
      for sigma in SIGMAS
    ]

    def run(video, cond, seeds):
      x0 = encode(frozen, video)
      return [
        decode(frozen, sample(params, x0, cond, seeds, grid)) for grid in grids
      ]

    count = len(clips['video'])
    rows = (
      clips['video'],
      conditions.of(clips),
      np.arange(options.seed, options.seed + count, dtype=np.uint32),
    )
    return batching.apply(run, rows, options.batch, mesh, poll)

  return restore


def make_shape_score(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh | None = None,
  poll: Callable[[], None] = lambda: None,
) -> Callable[..., dict[str, float]] | None:
  """Returns (params, frozen, clips) -> {'kept_from_1.6': share, ...}.

  The shares, in percent, are of clips whose objects keep their shape, see
  `persistence`. None unless the data are synthetic scenes, and for networks
  that enlarge: what they are told shows it. Only the first process measures;
  the others get zeros.

  Args:
    config: see `make`, like the others.
    stage: likewise.
    mesh: likewise.
    poll: likewise.
  """
  # Masked tokens are never noised.
  if stage.objective == 'tokens' or cascade_rules.is_told(config.model):
    return None
  if not synthetic_score.is_synthetic(config.data):
    return None
  # When it is needed first: not every stage has small scores.
  restore = functools.cache(lambda: make(config, stage, mesh, poll))
  world = synthetic_score.world(config.data, stage)

  def score(params: dict[str, Any], frozen: dict[str, Any], clips):
    shares = {}
    for sigma, videos in zip(SIGMAS, restore()(params, frozen, clips)):
      kept = 0.0
      if coordination.is_first():
        # Left out where noise leaves no object that could be judged.
        found = laws.summarise(laws.measure(videos, world))
        kept = 100 * found.get('shape_kept', 0.0)
      shares[f'kept_from_{sigma:g}'] = kept
    return shares

  return score
