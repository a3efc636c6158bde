"""Networks that metrics see videos through, with published weights.

A network is found by nobody's name but its weights': whoever computes a metric
with it records `Features.protocol`, and calls it what the weights allow.
"""

from collections.abc import Callable
from typing import Any, NamedTuple


class Features(NamedTuple):
  """A network with its weights and the way videos are given to it.

  Of many videos, a batch at a time and split over devices:

    params = jax.device_put(features.params, sharding.replicated(mesh))
    generate.batched(
      lambda rows: features.apply(params, rows), (videos,), 16, mesh
    )

  Attributes:
    name: of the network and the family of its weights, as in a metric's name.
    params: nested dict of float32 arrays.
    apply: (params, uint8 [n, t, h, w, 3]) -> float32 [n, d]; compiled.
    protocol: what numbers depend on: name, kind and sha256 of the weights,
      resize, crop, epsilon. JSON.
  """

  name: str
  params: Any
  apply: Callable[..., Any]
  protocol: dict[str, Any]
