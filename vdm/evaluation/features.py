"""Networks whose features sets of clips are compared by; see models/features.

Without one, every measure that needs none is computed all the same.
"""

import jax
import numpy as np

from vdm import generate
from vdm.multihost import arrays
from vdm.training import sharding

WHERE = (
  'No FVD: it takes the weights of I3D, as --features i3d:PATH; README.md says '
  'where they are.'
)


def metric(network) -> str:
  """Returns what the Frechet distance of a network's features is called.

  'fvd' is that on the weights that the field quotes, and nothing else.
  """
  return 'fvd' if network.name == 'i3d' else f'fvd_{network.name}'


def extract(network, videos: np.ndarray, batch: int = 8) -> np.ndarray:
  """Returns a network's features of clips [n d], over all devices.

  Args:
    network: `models.features.Features`.
    videos: uint8 [n t h w 3].
    batch: clips a device at a time.
  """
  mesh = sharding.make_mesh()
  params = jax.device_put(network.params, arrays.replicated(mesh))
  return generate.batched(
    lambda rows: network.apply(params, rows),
    (videos,),
    batch * mesh.size,
    mesh,
  )
