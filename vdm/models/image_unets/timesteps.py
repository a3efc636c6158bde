"""From log-SNR to the timestep that a published network was trained with.

A network of DDPM's kind has a table of T betas; at timestep n its noise has

    alpha^2 = prod_{i <= n} (1 - beta_i),   l = log(alpha^2 / (1 - alpha^2)).

The process is variance preserving like `vdm.diffusion.process`, so z is what
the network knows. Between the table's levels the timestep is interpolated, a
number that is not whole; beyond them it is that of the table's end.
"""

import functools
import math
from typing import NamedTuple

from etils.array_types import FloatArray
import jax.numpy as jnp
import numpy as np

from vdm.models.image_unets import description

# Of a table, which is made in memory; published networks have 1000 or 4000.
MAX_STEPS = 100_000


class Noise(NamedTuple):
  """A table of betas.

  Attributes:
    kind: 'linear', 'scaled_linear' (linear in the square root), 'cosine'.
    steps: T.
    start: the first beta, of the first two kinds.
    end: the last one.
  """

  kind: str
  steps: int
  start: float = 0.0
  end: float = 0.0


def make_noise(
  kind: str, steps: int, start: float = 0.0, end: float = 0.0
) -> Noise:
  """Returns a table's description, validated.

  Args:
    kind: of `Noise`; or 'ddpm', the linear table of Ho et al. (2006.11239),
      scaled to T steps.
    steps: T.
    start: the first beta.
    end: the last one.

  Raises:
    DescriptionError: there is no such table.
  """
  if not 2 <= steps <= MAX_STEPS:
    description.refuse('diffusion_steps', steps)
  if kind == 'ddpm':
    return Noise('linear', steps, 0.1 / steps, 20.0 / steps)
  if kind == 'cosine':
    return Noise('cosine', steps)
  if kind not in ('linear', 'scaled_linear'):
    description.refuse('noise_schedule', kind)
  if not 0 < start <= end < 1:
    description.refuse('beta_start, beta_end', (start, end))
  return Noise(kind, steps, start, end)


@functools.cache
def table(noise: Noise) -> FloatArray[' steps']:
  """Returns the log-SNR of every timestep, float64, falling."""
  if noise.kind == 'cosine':  # Nichol & Dhariwal, 2102.09672.
    time = np.arange(noise.steps + 1) / noise.steps
    alpha2 = np.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = np.minimum(1 - alpha2[1:] / alpha2[:-1], 0.999)
  elif noise.kind == 'linear':
    betas = np.linspace(noise.start, noise.end, noise.steps)
  else:
    ends = noise.start**0.5, noise.end**0.5
    betas = np.linspace(*ends, noise.steps) ** 2
  log_alpha2 = np.cumsum(np.log1p(-betas))
  return log_alpha2 - np.log(-np.expm1(log_alpha2))


def timestep(noise: Noise, levels: FloatArray['b t']) -> FloatArray['b t']:
  """Returns the timestep, 0 to T - 1, at which the network has a log-SNR."""
  levels = levels.astype(jnp.float32)
  return jnp.interp(
    -levels, -table(noise), np.arange(noise.steps, dtype=np.float64)
  )
