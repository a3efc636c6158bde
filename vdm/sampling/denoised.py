"""Windows that a denoiser makes, from noise."""

from collections.abc import Callable
import functools
from typing import Any

from etils.array_types import Array, FloatArray
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vdm import models
from vdm.config import guidance_rules
from vdm.diffusion import guidance
from vdm.diffusion import process
from vdm.diffusion import rollouts
from vdm.diffusion import samplers
from vdm.diffusion import schedules
from vdm.models import autoencoders
from vdm.sampling import keys as streams


def make_denoiser(
  config: ConfigDict, codec: autoencoders.Autoencoder
) -> Callable[..., FloatArray['b t h w c']]:
  """Returns (params, z, levels, cond) -> x0 of a run's network."""
  network = models.make_unet(config.model, codec.channels)
  dtype = jnp.dtype(config.train.compute_dtype)

  def denoise(params, z, levels, cond):
    output = network.apply(params, z.astype(dtype), levels, cond)
    kind, sigma_data = config.diffusion.prediction, config.diffusion.sigma_data
    return process.to_x0(kind, output, z, levels, sigma_data)

  return denoise


def guide(
  config: ConfigDict,
  denoise: guidance.Denoiser,
  cond: dict[str, Array['b ...']],
  worse: guidance.Denoiser | None = None,
  history: guidance.History | None = None,
  without_given: Callable[..., Any] | None = None,
) -> guidance.Denoiser:
  """Returns a denoiser for the samplers, guided as `config.sample` says.

  Args:
    config: the run's.
    denoise: (z, levels, cond) -> x0, of `make_denoiser`.
    cond: of the rows.
    worse: likewise, of a network to guide against.
    history: see `guidance.guided`.
    without_given: see `guidance.by_groups`; None where no frame is held.
  """
  options = config.sample
  if worse is None:
    scales = guidance_rules.scales(config.model, options)
    if without_given is None:
      scales.pop(guidance.GIVEN, None)
    contrasts = guidance.by_groups(cond, scales, without_given)
  else:
    contrasts = [guidance.Contrast(options.guidance - 1, cond, predict=worse)]
  return guidance.guided(
    denoise,
    cond,
    contrasts,
    interval=options.guidance_interval,
    rescale=options.guidance_rescale,
    history=history,
  )


def make_windows(
  config: ConfigDict,
  stage: ConfigDict,
  codec: autoencoders.Autoencoder,
  schedule: schedules.Schedule,
  worse: ConfigDict | None,
) -> Callable[..., FloatArray['n t h w c']]:
  """Returns what makes the latents of a window; see the room.

  Args:
    config: the run's.
    stage: the stage's.
    codec: the autoencoder.
    schedule: the stage's.
    worse: the configuration of a network to guide against.
  """
  scales = guidance_rules.scales(config.model, config.sample)
  guides_by_given = guidance.GIVEN in scales
  # Compiled once for all tasks that differ in nothing else.
  compiled = functools.cache(
    functools.partial(_compile, config, codec, schedule, worse)
  )

  def make_window(
    task, window, params, worse_params, cond, seeds, number, known
  ):
    # Where nothing is held, predictions without it would be the same again.
    history, by_given = (1.0, 0.0), False
    if window.held.any():
      history = task.history_guidance, task.history_noise
      by_given = guides_by_given
    run = compiled(history, by_given)
    levels = rollouts.held_levels(task, window, stage.frame_levels)
    return run(
      params,
      worse_params,
      cond,
      seeds,
      number,
      known,
      window.held[None],
      levels,
    )

  return make_window


def _compile(config, codec, schedule, worse, history, by_given):
  """Returns the compiled function that makes a window.

  Args:
    config: see `make_windows`.
    codec: likewise.
    schedule: likewise.
    worse: likewise.
    history: scale and noise of history guidance, see `rollouts.Task`.
    by_given: whether held frames guide.
  """
  options, (history_scale, history_noise) = config.sample, history
  grid = samplers.make_levels(
    options.method,
    options.grid,
    options.steps,
    schedule,
    rho=options.rho,
    sigma_min=options.sigma_min,
    sigma_max=options.sigma_max,
  )
  denoise = make_denoiser(config, codec)
  denoise_worse = make_denoiser(worse, codec) if worse else None

  @jax.jit
  def run(
    params: dict[str, Any],
    worse_params: dict[str, Any],
    cond,
    seeds,
    number,
    known,
    held,
    held_levels,
  ):
    keys = streams.of_window(seeds, number)
    history = None
    if history_scale != 1 or by_given:
      noise = process.noise(process.fold_in(keys, streams.HISTORY), known.shape)
      history = rollouts.history(
        history_scale,
        history_noise,
        noise,
        known,
        held,
        held_levels,
        grid[0],
      )
    guided = guide(
      config,
      functools.partial(denoise, params),
      cond,
      worse=denoise_worse and functools.partial(denoise_worse, worse_params),
      history=history,
      without_given=history.without if by_given else None,
    )
    noise = process.noise(process.fold_in(keys, streams.START), known.shape)
    z = samplers.sample(
      guided,
      rollouts.begin(noise, known, held, held_levels),
      jnp.where(held, held_levels, grid[:, None, None]),
      process.fold_in(keys, streams.STEPS),
      method=options.method,
      eta=options.eta,
    )
    return jnp.where(process.per_frame(held, z), known, z)

  return run
