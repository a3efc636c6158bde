"""Runs diffusers' schedulers on a denoiser known in closed form.

    python tests/golden/make_diffusers_schedulers.py

writes `diffusers_schedulers.npz` beside this file: per sampler the log-SNR
`levels` of the scheduler's own tables, the variance preserving states `z`
[steps + 1, n] at those levels, and the `noise` [steps, n] it was given. Needs
torch and diffusers, in an environment of their own; the arrays hold their
versions.

The denoiser is exact for x0 ~ (N(-1, s^2) + N(1, s^2)) / 2 with s = 0.3.
"""

import pathlib

import diffusers
import numpy as np
import torch

PATH = pathlib.Path(__file__).with_name('diffusers_schedulers.npz')
CLEAN = 40.0


def denoise(z, alpha, sigma):
  """Returns E[x0 | z = alpha x0 + sigma eps]."""
  variance = (0.3 * alpha) ** 2 + sigma**2
  bend = torch.tanh(alpha * z / variance)
  return (0.09 * alpha * z + sigma**2 * bend) / variance


def to_levels(alpha, sigma):
  """Returns log-SNR within [-40, 40], where a table reaches 0 or 1."""
  with np.errstate(divide='ignore'):
    return np.clip(2 * (np.log(alpha) - np.log(sigma)), -CLEAN, CLEAN)


def run(scheduler, state, table, predict, **kwargs):
  """Steps a scheduler down its grid.

  Args:
    scheduler: of diffusers, its timesteps set.
    state: float32 [n], in the scheduler's coordinates.
    table: index of a step -> (alpha, sigma) of those coordinates.
    predict: (state, alpha, sigma) -> the output the scheduler expects.
    **kwargs: name -> one value a step, handed to the scheduler.
  """
  states, levels = [], []
  for i, timestep in enumerate(scheduler.timesteps):
    alpha, sigma = table(i)
    scale = (alpha**2 + sigma**2) ** 0.5
    states.append(state / scale)
    levels.append(to_levels(alpha, sigma))
    output = predict(state, alpha, sigma)
    extra = {name: values[i] for name, values in kwargs.items()}
    state = scheduler.step(output, timestep, state, **extra).prev_sample
  return dict(
    z=np.stack([*states, state]).astype(np.float32),
    levels=np.array([*levels, CLEAN]),
  )


def eps_of(state, alpha, sigma):
  """Returns what a network that predicts eps would."""
  return (state - alpha * denoise(state, alpha, sigma)) / sigma


def v_of(state, alpha, sigma):
  """Returns what a network that predicts v would."""
  x0 = denoise(state, alpha, sigma)
  return alpha * (state - alpha * x0) / sigma - sigma * x0


def flow_of(state, alpha, sigma):
  """Returns what a flow matching network would, where alpha = 1 - sigma."""
  return (state - denoise(state, alpha, sigma)) / sigma


def ddpm_table(scheduler):
  """Returns (alpha, sigma) of a scheduler that indexes DDPM's table."""
  products = scheduler.alphas_cumprod.double().numpy()
  times = scheduler.timesteps.numpy()
  return lambda i: (products[times[i]] ** 0.5, (1 - products[times[i]]) ** 0.5)


def make():
  """Returns {'sampler/array': values}."""
  generator = np.random.default_rng(0)
  start = torch.tensor(generator.normal(size=16), dtype=torch.float32)
  linear = dict(
    beta_start=1e-4,
    beta_end=0.02,
    beta_schedule='linear',
    timestep_spacing='trailing',
  )
  runs = {}

  scheduler = diffusers.DDIMScheduler(**linear, clip_sample=False)
  products = scheduler.alphas_cumprod.double().numpy()
  table = np.log(products) - np.log1p(-products)
  scheduler.set_timesteps(10)
  draws = torch.tensor(generator.normal(size=(10, 16)), dtype=torch.float32)
  args = (scheduler, start, ddpm_table(scheduler), eps_of)
  runs['ddim'] = run(*args)
  runs['ancestral'] = run(*args, eta=[1.0] * 10, variance_noise=draws)
  runs['ancestral']['noise'] = draws.numpy()

  scheduler = diffusers.DDIMScheduler(
    **linear,
    clip_sample=False,
    rescale_betas_zero_snr=True,
    prediction_type='v_prediction',
  )
  scheduler.set_timesteps(10)
  runs['zero_snr'] = run(scheduler, start, ddpm_table(scheduler), v_of)

  scheduler = diffusers.DPMSolverMultistepScheduler(
    **linear, algorithm_type='dpmsolver++', final_sigmas_type='zero'
  )
  scheduler.set_timesteps(20)
  sigmas = scheduler.sigmas.double().numpy()  # Of sigma / alpha.
  runs['dpmpp'] = run(
    scheduler,
    start,
    lambda i: np.array([1, sigmas[i]]) / np.hypot(1, sigmas[i]),
    eps_of,
  )

  # EDM's coordinates z / alpha, on its own grid (rho = 7).
  scheduler = diffusers.EulerDiscreteScheduler(**linear, use_karras_sigmas=True)
  scheduler.set_timesteps(10)
  sigmas_edm = scheduler.sigmas.double().numpy()
  scheduler.scale_model_input(start, scheduler.timesteps[0])
  runs['edm_euler'] = run(
    scheduler,
    start * float(np.hypot(1, sigmas_edm[0])),
    lambda i: (1.0, sigmas_edm[i]),
    eps_of,
  )

  # Flow's coordinates z / (alpha + sigma), shifted by 3, from pure noise.
  scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
  scheduler.set_timesteps(10)
  sigmas_flow = scheduler.sigmas.double().numpy()
  runs['flow_euler'] = run(
    scheduler, start, lambda i: (1 - sigmas_flow[i], sigmas_flow[i]), flow_of
  )

  # Two calls a step, but one for the last: every other state is a step's.
  scheduler = diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)
  scheduler.set_timesteps(10)
  sigmas_heun = scheduler.sigmas.double().numpy()
  calls = run(
    scheduler, start, lambda i: (1 - sigmas_heun[i], sigmas_heun[i]), flow_of
  )
  runs['flow_heun'] = {
    name: np.append(values[:-1:2], values[-1:], axis=0)
    for name, values in calls.items()
  }

  arrays = {
    f'{name}/{key}': values
    for name, arrays in runs.items()
    for key, values in arrays.items()
  }
  return arrays | {
    'linear_logsnr': table,
    'edm_sigmas': sigmas_edm,
    'versions': np.array(
      [
        f'diffusers {diffusers.__version__}',
        f'torch {torch.__version__}',
        f'numpy {np.__version__}',
      ]
    ),
  }


if __name__ == '__main__':
  np.savez_compressed(PATH, **make())
