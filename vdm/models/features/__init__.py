"""Feature networks of metrics, with published weights.

A network is identified by its weights: a metric computed with it records
`Features.protocol`, and is named after the network only as far as the weights
allow. Each network has a module here, with `frames` to resize its input.
`evaluate.py` loads them, and `evaluation` extracts features from many videos
(`vdm.evaluation.feature_extraction.extract`); `metrics` receives arrays of
features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from etils.array_types import FloatArray


class Features(NamedTuple):
  """A network with its weights and its protocol.

  Attributes:
    name: of the network and the family of its weights, as in a metric's name.
    params: nested dict of float32 arrays.
    apply: (params, uint8 [n t h w 3]) -> float32 [n d]; compiled.
    protocol: what numbers depend on: name, kind and sha256 of the weights,
      resize, crop, epsilon. JSON.
  """

  name: str
  params: dict[str, Any]
  apply: Callable[..., FloatArray['n d']]
  protocol: dict[str, Any]
