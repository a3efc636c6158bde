"""AdamW and Muon, with one optimizer state for each parameter.

The state is a dict from parameter path to `Slot`. A parameter that is frozen
is left out of the update, and with that its moments, its count of updates and
its average stand still; one that joins later starts with a fresh count and
Adam's bias correction is right for it. No masks, no partitions.

Muon (Jordan et al., 2024) takes the hidden matrices, with convolution kernels
as matrices [kh kw cin, cout]; everything else (embeddings, the U-Net's first
and last layer, norms, biases) takes AdamW at the stage's learning rate. The
branches of an autoencoder lie beside its linear skip, so all their matrices
are hidden ones.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

# First and last layers, tables and projections of the noise level are not
# hidden matrices.
NOT_HIDDEN = r'^(stem|head_|embed_)'


class Slot(NamedTuple):
  """The optimizer state of one parameter.

  Attributes:
    count: int32, updates of this parameter so far.
    moments: state of its optax transformation.
  """

  count: jax.Array
  moments: Any


def flatten(params):
  """Nested dict of arrays -> {'/'-joined path: array}, in sorted order."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return {'/'.join(entry.key for entry in path): leaf for path, leaf in leaves}


def unflatten(flat, like):
  """Inverts `flatten`, given a tree of the same structure."""
  return jax.tree.unflatten(
    jax.tree.structure(like), [flat[path] for path in flatten(like)]
  )


def is_matrix(path, param):
  """Whether Muon updates a parameter."""
  return (
    path.endswith('kernel')
    and param.ndim >= 2
    and not re.search(NOT_HIDDEN, path)
  )


def as_matrix(x):
  """[..., cout] -> [n, cout]."""
  return x.reshape(-1, x.shape[-1])


def transformations(config):
  """(adam, muon or None): what turns one gradient into one direction."""
  adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
  if config.name == 'adamw':
    return adam, None
  return adam, optax.contrib.scale_by_muon(beta=config.muon_momentum)


def init(config, params):
  """{path: Slot} of zero moments."""
  adam, muon = transformations(config)
  slots = {}
  for path, param in flatten(params).items():
    use_muon = muon is not None and is_matrix(path, param)
    moments = muon.init(as_matrix(param)) if use_muon else adam.init(param)
    slots[path] = Slot(jnp.zeros((), jnp.int32), moments)
  return slots


def learning_rate(stage, n):
  """Factor in [0, 1] on the peak rates, for step n (from 0) of a stage.

  Linear warm-up, hold, linear cool-down to zero over the last `cooldown` of
  the steps.
  """
  step = jnp.asarray(n, jnp.float32) + 1.0
  rise = step / max(1, stage.warmup)
  fall = (stage.steps + 1.0 - step) / max(1.0, stage.cooldown * stage.steps)
  if stage.cooldown == 0:
    fall = jnp.ones_like(step)
  return jnp.clip(jnp.minimum(rise, fall), 0.0, 1.0)


def clip(grads, norm, limit):
  """Scales gradients down to a global norm of `limit`; 0: not at all."""
  if not limit:
    return grads
  scale = jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-12))
  return jax.tree.map(lambda g: g * scale, grads)


def update(config, stage, factor, grads, slots, params):
  """One update of the parameters in `grads`.

  Args:
    config: `config.optim`.
    stage: the stage's config, for the peak learning rate.
    factor: see `learning_rate`.
    grads: {path: gradient}, clipped, of the parameters that are trained.
    slots: {path: Slot}, of those.
    params: {path: array}, of those.

  Returns:
    (params, slots) after it.
  """
  adam, muon = transformations(config)
  new_params, new_slots = {}, {}
  for path, grad in grads.items():
    param, (count, moments) = params[path], slots[path]
    if muon is not None and is_matrix(path, param):
      rate = config.muon_learning_rate
      direction, moments = muon.update(
        as_matrix(grad), moments, as_matrix(param)
      )
      # An orthogonal matrix, scaled to change outputs alike for any width.
      rows, columns = direction.shape
      direction = direction.reshape(param.shape)
      direction = max(1.0, columns / rows) ** 0.5 * direction
    else:
      rate = stage.learning_rate
      direction, moments = adam.update(grad, moments, param)
    if config.weight_decay and param.ndim >= 2:
      direction = direction + config.weight_decay * param
    new_params[path] = param - factor * rate * direction
    new_slots[path] = Slot(count + 1, moments)
  return new_params, new_slots
