"""Low-rank adapters on the spatial attention of an image model.

    W' = W + alpha / rank * down up,   down [cin rank],   up [rank cout],

for every matrix of queries, keys, values and outputs, where up starts at zero
(LoRA: Hu et al., 2106.09685). W stays frozen. An export has W' alone.
"""

import re
from typing import Any

from etils.array_types import FloatArray
import jax
import jax.numpy as jnp
import numpy as np

from vdm.common import trees
from vdm.models import layers
from vdm.models.image_unets import inflated

GROUP = 'adapters'
ADAPTED = r'_attention/(.*/)?(qkv|q|k|v|out)/kernel$'


def init(key: jax.Array, image: dict[str, Any], rank: int) -> dict[str, Any]:
  """Returns adapters that change nothing yet.

  Args:
    key: of the initial values.
    image: the image model's parameters, or abstract ones.
    rank: of an adapter.
  """
  flat = {}
  for number, (path, kernel) in enumerate(sorted(trees.flatten(image).items())):
    if re.search(ADAPTED, path):
      own, (cin, cout) = jax.random.fold_in(key, number), kernel.shape
      flat[f'{path}/down'] = layers.scaled_normal(own, (cin, rank), cin)
      flat[f'{path}/up'] = jnp.zeros((rank, cout), jnp.float32)
  return trees.unflatten(flat)


def merge(params: dict[str, Any], alpha: float) -> dict[str, Any]:
  """Returns parameters with the adapters added to what they adapt.

  Args:
    params: of a video model with adapters, a nested dict of arrays.
    alpha: `config.model.adapter_alpha`.
  """
  params = dict(params)
  adapters = trees.flatten(params.pop(GROUP))
  image = trees.flatten(params[inflated.GROUP])
  # A set's order differs from process to process, and so would the program.
  for path in sorted({name.rpartition('/')[0] for name in adapters}):
    down, up = adapters[f'{path}/down'], adapters[f'{path}/up']
    image[path] = _adapted(image[path], down, up, alpha)
  return {**params, inflated.GROUP: trees.unflatten(image)}


def _adapted(
  kernel: FloatArray['cin cout'],
  down: FloatArray['cin rank'],
  up: FloatArray['rank cout'],
  alpha: float,
) -> FloatArray['cin cout']:
  return kernel.astype(np.float32) + (alpha / down.shape[1]) * (down @ up)
