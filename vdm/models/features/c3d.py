"""C3D on UCF101: the network of the video Inception Score.

Eight 3 x 3 x 3 convolutions and three linear layers (Tran et al., 1412.0767),
trained on Sports-1M and then on the first training list of UCF101, as in TGANv2
(Saito et al., 1811.09245). Features are the logits [101] of 16 frames, in BGR,
resized to 112 x 112 with aligned corners, minus the mean of the training
videos.
"""

import functools
from typing import Any

from absl import logging
from etils.array_types import FloatArray, ui8
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from vdm import models
from vdm.models import features
from vdm.models import import_weights
from vdm.models import layers
from vdm.models.features import frames

FRAMES, SIZE, CLASSES = 16, 112, 101
# Convolutions in their order, and the pools after some of them: the first one
# pools space alone.
CONVOLUTIONS = ('1a', '2a', '3a', '3b', '4a', '4b', '5a', '5b')
POOLS = {'1a': (1, 2, 2)} | dict.fromkeys(('2a', '3b', '4b', '5b'), (2, 2, 2))
WIDTHS = (64, 128, 256, 256, 512, 512, 512, 512)
HIDDEN = 4096
MEAN = (1, 3, FRAMES, 128, 171)  # Of mean2.npz, BGR.


class C3D(nnx.Module):
  """BGR frames in [0, 255] to logits.

  Sizes other than the published ones are for tests.
  """

  def __init__(
    self,
    widths: tuple[int, ...] = WIDTHS,
    hidden: int = HIDDEN,
    *,
    rngs: nnx.Rngs,
  ):
    self.mean = nnx.Param(jnp.zeros((FRAMES, SIZE, SIZE, 3)))
    cin = 3
    for name, width in zip(CONVOLUTIONS, widths):
      setattr(self, f'conv{name}', layers.Conv3D(cin, width, 3))
      cin = width
    self.fc6 = layers.Linear(16 * cin, hidden, rngs=rngs)
    self.fc7 = layers.Linear(hidden, hidden, rngs=rngs)
    self.fc8 = layers.Linear(hidden, CLASSES, rngs=rngs)

  def __call__(self, x: FloatArray['n 16 112 112 3']) -> FloatArray['n 101']:
    x = x - self.mean[...][None]
    for name in CONVOLUTIONS:
      x = jax.nn.relu(getattr(self, f'conv{name}')(x))
      if name in POOLS:
        x = layers.max_pool3d(x, POOLS[name], POOLS[name])
    # The input of the linear layers has channels first.
    x = x.transpose(0, 4, 1, 2, 3).reshape(len(x), -1)
    return self.fc8(jax.nn.relu(self.fc7(jax.nn.relu(self.fc6(x)))))


@functools.cache
def network(
  widths: tuple[int, ...] = WIDTHS, hidden: int = HIDDEN
) -> models.Network:
  """Returns the functions of the network; `init` is only for the shapes."""
  return models.functional(C3D, widths, hidden)


@jax.jit
def apply(
  params: dict[str, Any], videos: ui8['n 16 h w 3']
) -> FloatArray['n 101']:
  """Returns the float32 logits of videos."""
  if videos.shape[1] != FRAMES:
    raise ValueError(
      f'C3D takes clips of {FRAMES} frames, not of {videos.shape[1]}.'
    )
  widths = tuple(
    params[f'conv{name}']['kernel'].shape[-1] for name in CONVOLUTIONS
  )
  hidden = params['fc7']['kernel'].shape[0]
  # Not the lower default precision of an accelerator.
  with jax.default_matmul_precision('float32'):
    x = frames.fit(videos, SIZE, resize='corners')
    return network(widths, hidden).apply(params, x[..., ::-1])


def load(weights: str, *, sha256: str = '') -> features.Features:
  """Reads the weights that TGANv2 published.

  Args:
    weights: two files joined by a comma, conv3d_deepnetA_ucf.npz and mean2.npz,
      see `import_weights.read`.
    sha256: their hashes joined by a comma; '' accepts any.

  Raises:
    WeightsError: the files are not those of C3D.
  """
  if weights.count(',') != 1:
    raise import_weights.WeightsError(
      'C3D has two files: conv3d_deepnetA_ucf.npz,mean2.npz.'
    )
  files = import_weights.read_files(weights, sha256)
  flat = convert(files[0].tensors | files[1].tensors)
  params = import_weights.match(weights, flat, network().abstract_params())
  logging.info('C3D %s: metric names get c3d_ucf101', weights)
  protocol = {
    'network': 'c3d_ucf101',
    'weights_sha256': ','.join(file.sha256 for file in files),
    'resize': 'corners',
    'crop': 'squash',
  }
  return features.Features('c3d_ucf101', params, apply, protocol)


def convert(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Converts Chainer's names and layouts to those of `C3D`.

  Args:
    tensors: {'conv1a/W': [out in t h w], 'fc6/W': [out in], .../b} and
      {'mean': [1 3 16 128 171], BGR}.

  Returns:
    {'/'-joined path: array}.

  Raises:
    WeightsError: the mean has another shape.
  """
  flat = {}
  for name, array in tensors.items():
    if name == 'mean':
      if array.shape != MEAN:
        raise import_weights.WeightsError(
          f'The mean of C3D is {MEAN}, not {array.shape}.'
        )
      # The crop of 112 x 112 of TGANv2.
      array = array[0, :, :, 8 : 8 + SIZE, 8 : 8 + SIZE]
      flat['mean'] = array.transpose(1, 2, 3, 0)
    elif name.endswith('/W') and array.ndim == 5:
      flat[name.removesuffix('W') + 'kernel'] = array.transpose(2, 3, 4, 1, 0)
    elif name.endswith('/W'):
      flat[name.removesuffix('W') + 'kernel'] = array.T
    else:
      flat[name.removesuffix('/b') + '/bias'] = array
  return flat
