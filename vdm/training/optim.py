"""AdamW and Muon, with one optimizer state for each parameter.

The state is a dict from parameter path to `Slot`. A parameter that is frozen
is left out of the update, so its moments, its count of updates and its average
do not change; one that joins later starts with a fresh count, for which Adam's
bias correction is right. No masks, no partitions. In a step, parameters with
one history are a group with one `Slot` (`packing`).

Muon (Jordan et al., 2024) updates the hidden matrices, with convolution kernels
as matrices [(kh kw cin) cout]; AdamW updates everything else (embeddings, a
denoiser's first and last layer, norms, biases) at the stage's learning rate.
Weight decay is a share of the parameter times the rate, whatever that is. The
branches of an autoencoder are parallel to its linear skip, so all their
matrices are hidden ones.
"""

from collections.abc import Mapping
import re
from typing import Any, NamedTuple

from etils.array_types import FloatArray
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import optax

from vdm.common import trees
from vdm.training import orthogonal

# First and last layers, tables, and what embeds the noise level and what is
# told are not hidden matrices. The projections of that embedding in the blocks,
# `film`, are.
NOT_HIDDEN = r'^(image/|temporal/|text/)?(stem|head|embed)(_\w+)?(/|$)'


class Slot(NamedTuple):
  """The optimizer state of one parameter.

  Attributes:
    count: int32, updates of this parameter so far.
    moments: state of its optax transformation.
  """

  count: jax.Array
  moments: Any


def is_muon(slot: Slot) -> bool:
  """Returns whether Muon updates a parameter, by its state."""
  return isinstance(slot.moments, optax.contrib.MuonState)


def fields(moments: Any) -> dict[str, Any]:
  """Returns the moments that have a value for each value of a parameter."""
  names = [name for name in ('mu', 'nu') if name in moments._fields]
  return {name: getattr(moments, name) for name in names}


def is_matrix(path: str, param: jax.Array) -> bool:
  """Returns whether Muon updates a parameter."""
  return (
    path.endswith('kernel')
    and param.ndim >= 2
    and not re.search(NOT_HIDDEN, path)
  )


def as_matrix(x: FloatArray['*n cout']) -> FloatArray['m cout']:
  """Returns a kernel as a matrix."""
  return x.reshape(-1, x.shape[-1])


def transformations(
  options: ConfigDict,
) -> tuple[optax.GradientTransformation, optax.GradientTransformation | None]:
  """Returns (Adam, Muon's momentum or None), which map one gradient."""
  adam = optax.scale_by_adam(b1=options.b1, b2=options.b2, eps=options.eps)
  if options.name == 'adamw':
    return adam, None
  # Without iterations: the momentum, of Frobenius norm 1; see `orthogonal`.
  return adam, optax.contrib.scale_by_muon(
    beta=options.muon_momentum, ns_steps=0
  )


def init(options: ConfigDict, params: dict[str, Any]) -> dict[str, Slot]:
  """Returns {path: Slot} of zero moments.

  Args:
    options: `config.optim`.
    params: nested dict of arrays.
  """
  adam, muon = transformations(options)
  slots = {}
  for path, param in trees.flatten(params).items():
    use_muon = muon is not None and is_matrix(path, param)
    moments = muon.init(as_matrix(param)) if use_muon else adam.init(param)
    slots[path] = Slot(jnp.zeros((), jnp.int32), moments)
  return slots


def learning_rate(stage: ConfigDict, n: jax.Array | int) -> FloatArray['']:
  """Returns the factor in [0, 1] on the peak rates at step n, from 0.

  Linear warm-up, constant, linear cool-down to zero over the last `cooldown` of
  the steps.
  """
  step = jnp.asarray(n, jnp.float32) + 1.0
  rise = step / max(1, stage.warmup)
  fall = (stage.steps + 1.0 - step) / max(1.0, stage.cooldown * stage.steps)
  if stage.cooldown == 0:
    fall = jnp.ones_like(step)
  return jnp.clip(jnp.minimum(rise, fall), 0.0, 1.0)


def clip(
  grads: dict[str, jax.Array], norm: FloatArray[''], limit: float
) -> dict[str, jax.Array]:
  """Scales gradients down to a global norm of `limit`; 0: no clipping."""
  if not limit:
    return grads
  scale = jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-12))
  return jax.tree.map(lambda g: g * scale, grads)


def update(
  options: ConfigDict,
  stage: ConfigDict,
  factor: FloatArray[''],
  grads: dict[str, dict[str, jax.Array]],
  slots: dict[str, Slot],
  params: dict[str, dict[str, jax.Array]],
  rates: Mapping[str, float],
) -> tuple[dict[str, dict[str, jax.Array]], dict[str, Slot]]:
  """Updates the parameters in `grads` once.

  Args:
    options: `config.optim`.
    stage: the stage's config, for the peak learning rate.
    factor: see `learning_rate`.
    grads: {group: {name: gradient}}, clipped, of what is trained; `packing`
      says what groups and names are.
    slots: {group: Slot}, of those, each with moments by name.
    params: {group: {name: array}}, of those.
    rates: {group: factor on the peak rate}, of those.

  Returns:
    (params, slots) after it.
  """
  adam, muon = transformations(options)
  new_params, new_slots = {}, {}
  for key, group in grads.items():
    count, moments = slots[key]
    new_params[key], updated = {}, {field: {} for field in fields(moments)}
    for name, grad in group.items():
      param = params[key][name]
      own = {field: tree[name] for field, tree in fields(moments).items()}
      own = moments._replace(**own)
      if is_muon(slots[key]):
        rate = options.muon_learning_rate * rates[key]
        direction, own = muon.update(as_matrix(grad), own, as_matrix(param))
        direction = orthogonal.orthogonalize(direction, own.ns_coeffs)
        # An orthogonal matrix, scaled to change outputs alike for any width.
        rows, columns = direction.shape
        direction = direction.reshape(param.shape)
        direction = max(1.0, columns / rows) ** 0.5 * direction
      else:
        rate = stage.learning_rate * rates[key]
        direction, own = adam.update(grad, own, param)
      if options.weight_decay and param.ndim >= 2:
        direction = direction + options.weight_decay * param
      new_params[key][name] = param - factor * rate * direction
      for field, value in fields(own).items():
        updated[field][name] = value
    new_slots[key] = Slot(count + 1, own._replace(**updated))
  return new_params, new_slots
