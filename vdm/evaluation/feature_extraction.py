"""Features of sets of clips, from the networks of `models/features`.

Without a network, all metrics that need none are still computed.
"""

from collections.abc import Callable
from typing import Any

from absl import logging
from etils import epath
from etils.array_types import FloatArray, ui8
import jax
import numpy as np

from vdm.evaluation import result_cache
from vdm.models import features
from vdm.multihost import arrays
from vdm.sampling import batching
from vdm.training import sharding

NO_NETWORK = (
  'No FVD: it takes the weights of I3D, as --features i3d:PATH; '
  'docs/evaluation.md says where to find them.'
)


def metric_name(network: features.Features) -> str:
  """Returns the name of the Frechet distance of a network's features.

  'fvd' is reserved for the weights that published numbers use.
  """
  return 'fvd' if network.name == 'i3d' else f'fvd_{network.name}'


def extract(
  network: features.Features, videos: ui8['n t h w 3'], batch: int = 8
) -> FloatArray['n d']:
  """Returns a network's features of clips, computed on all devices.

  Args:
    network: with its weights.
    videos: the clips.
    batch: clips per device at a time.
  """
  mesh = sharding.make_mesh()
  params = jax.device_put(network.params, arrays.replicated(mesh))
  return batching.apply(
    lambda rows: network.apply(params, rows),
    (videos,),
    batch * mesh.size,
    mesh,
  )


def cached(
  folder: epath.Path,
  key: dict[str, Any],
  read: Callable[..., tuple],
  network: features.Features,
  name: str,
) -> dict[str, np.ndarray] | None:
  """Returns {name: features}, from the cache or computed; see `result_cache`.

  Args:
    folder: of the cache.
    key: what the clips depend on.
    read: () -> a tuple, the videos first.
    network: with its weights.
    name: 'features' or 'logits'.
  """

  def compute():
    videos = read()[0]
    logging.info('%s: %s of %d clips.', network.name, name, len(videos))
    return {name: extract(network, videos)}

  return result_cache.get(
    folder, {**key, 'features': network.protocol}, compute
  )
