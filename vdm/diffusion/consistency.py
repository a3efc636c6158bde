"""Consistency models: from any noise level to the clip in one evaluation.

Along the probability flow, at time t = sigma / alpha, a consistency function
has one value: the clip at the end (Song et al. 2023, arXiv:2303.01469). A
network that was trained to denoise becomes one by Easy Consistency Tuning (Geng
et al. 2024, arXiv:2406.14548): its x0 at t shall be its x0 at an earlier r, on
the same trajectory and without a gradient, while r rises towards t:

    r = t max(0, 1 - n(t) / q^a),   n(t) = 1 + K sigmoid(-B t),   a = 1, 2, ...

with r = 0, the clip itself, where n(t) >= q^a: at first, for q = 2, at all t
below 1.9. Frames with levels of their own move together, each by this rule; a
frame that is given does not.

Where the level is CLEAN the function is z itself. Near it the predictions v,
flow and edm are z but for a term that vanishes with sigma: for v,

    x0 = alpha z - sigma v = (z / alpha) / (1 + t^2) - v t / (1 + t^2)^1/2,

which is the c_skip and c_out of Karras et al. 2022 (arXiv:2206.00364) for data
of deviation 1. A network that predicts x0 could be constant, which is
consistent; in that of one that predicts eps, its error is multiplied by t.
"""

from etils.array_types import FloatArray
import jax
import jax.numpy as jnp

from vdm.diffusion import losses
from vdm.diffusion import process

PREDICTIONS = ('v', 'flow', 'edm')  # Those whose x0 at CLEAN is z.
K, B = 8.0, 1.0  # Of n(t), as in the paper.


def tightness(n: jax.Array, steps: int, times: int) -> jax.Array:
  """Returns a of a step: 1, 2, ... `times`, each for as many steps.

  Args:
    n: which step of the stage, from 0.
    steps: of the stage.
    times: how often q divides the gap.
  """
  return 1 + jnp.minimum(n * times // steps, times - 1)


def earlier(
  levels: FloatArray['b t'],
  loss_mask: FloatArray['b t'],
  a: jax.Array,
  q: float,
) -> FloatArray['b t']:
  """Returns the log-SNR at r of frames whose log-SNR at t is `levels`.

  Args:
    levels: log-SNR.
    loss_mask: 0 for frames that are given, whose level stays.
    a: see `tightness`.
    q: factor by which the gap t - r shrinks.
  """
  t = jnp.exp(-levels / 2)
  kept = 1 - (1 + K * jax.nn.sigmoid(-B * t)) / q**a
  later = levels - 2 * jnp.log(jnp.where(kept > 0, kept, 1))
  later = jnp.minimum(jnp.where(kept > 0, later, process.CLEAN), process.CLEAN)
  return jnp.where(loss_mask > 0, later, levels)


def function(
  kind: str,
  output: FloatArray['b t h w c'],
  z: FloatArray['b t h w c'],
  levels: FloatArray['b t'],
  sigma_data: float = 1.0,
) -> FloatArray['b t h w c']:
  """Returns the value of a consistency function; at CLEAN it is z, exactly.

  Args:
    kind: what `output` predicts, one of PREDICTIONS.
    output: of the network.
    z: its input.
    levels: of z, log-SNR.
    sigma_data: of the prediction edm.
  """
  x0 = process.to_x0(kind, output, z, levels, sigma_data)
  return jnp.where(process.per_frame(levels >= process.CLEAN, z), z, x0)


def loss(
  value: FloatArray['b t h w c'],
  target: FloatArray['b t h w c'],
  levels: FloatArray['b t'],
  loss_mask: FloatArray['b t'],
  weighting: str,
  huber: float,
  sigma_data: float = 1.0,
) -> tuple[FloatArray[''], FloatArray[''], FloatArray['b t']]:
  """Returns the weighted pseudo-Huber distance, as sums that add up.

  The distance is that of a frame, sqrt(e + c^2) - c for the mean square error e
  over its values: with a slope of 1 where the error is far above c, however
  small it is, and with one that vanishes with the error below it. Song &
  Dhariwal 2023 (arXiv:2310.14189) have c = 0.00054 for pixels. The paper
  weights the distance by 1 / t^2 + 1 / sigma_data^2, which of normalised
  latents is the weighting v.

  Args:
    value: at t.
    target: at r, without a gradient.
    levels: log-SNR at t.
    loss_mask: 1 where a frame counts, 0 where it was given.
    weighting: its name, see `losses.log_weight`.
    huber: c.
    sigma_data: of the weighting edm.

  Returns:
    (total, count, frames), as `losses.loss` does.
  """
  counts = loss_mask > 0
  error = jnp.where(process.per_frame(counts, value), value - target, 0)
  square = jnp.mean(error**2, axis=range(2, error.ndim))
  distance = jnp.sqrt(square + huber**2) - huber
  weight = losses.weight(weighting, jnp.where(counts, levels, 0), sigma_data)
  frames = jnp.where(counts, weight * distance, 0)
  return frames.sum(), counts.sum(dtype=frames.dtype), frames
