"""C3D on UCF101: the network of the video Inception Score.

Eight 3 x 3 x 3 convolutions and three matrices (Tran et al., 1412.0767),
trained on Sports-1M and then on UCF101's first training list, as TGANv2 uses
it (Saito et al., 1811.09245). Features are the logits [101] of 16 frames, in
BGR, resized to 112 x 112 with aligned corners, less the mean of the training
videos.
"""

import functools

from absl import logging
from flax import nnx
import jax
import jax.numpy as jnp

from vdm import models
from vdm.models import features
from vdm.models import import_weights
from vdm.models import layers
from vdm.models.features import frames

FRAMES, SIZE, CLASSES = 16, 112, 101
# Convolutions in their order, and after which of them space and time halve;
# after the first, space alone does.
CONVOLUTIONS = ('1a', '2a', '3a', '3b', '4a', '4b', '5a', '5b')
POOLS = {'1a': (1, 2, 2)} | dict.fromkeys(('2a', '3b', '4b', '5b'), (2, 2, 2))
WIDTHS = (64, 128, 256, 256, 512, 512, 512, 512)
HIDDEN = 4096
MEAN = (1, 3, FRAMES, 128, 171)  # Of mean2.npz, BGR.


class Convolution(nnx.Module):
  """3 x 3 x 3, with a bias and a ReLU."""

  def __init__(self, cin, cout):
    self.kernel = nnx.Param(jnp.zeros((3, 3, 3, cin, cout)))
    self.bias = nnx.Param(jnp.zeros((cout,)))

  def __call__(self, x):
    y = layers.conv3d(x, self.kernel[...])
    return jax.nn.relu(y + layers.along_channels(self.bias[...], y))


class C3D(nnx.Module):
  """[n, 16, 112, 112, 3], BGR in [0, 255] -> logits [n, 101].

  Sizes other than the published ones serve tests.
  """

  def __init__(self, widths=WIDTHS, hidden=HIDDEN, *, rngs):
    self.mean = nnx.Param(jnp.zeros((FRAMES, SIZE, SIZE, 3)))
    cin = 3
    for name, width in zip(CONVOLUTIONS, widths):
      setattr(self, f'conv{name}', Convolution(cin, width))
      cin = width
    self.fc6 = layers.Linear(16 * cin, hidden, rngs=rngs)
    self.fc7 = layers.Linear(hidden, hidden, rngs=rngs)
    self.fc8 = layers.Linear(hidden, CLASSES, rngs=rngs)

  def __call__(self, x):
    x = x - self.mean[...][None]
    for name in CONVOLUTIONS:
      x = getattr(self, f'conv{name}')(x)
      if name in POOLS:
        x = layers.max_pool3d(x, POOLS[name], POOLS[name])
    # Channels are the slowest in the matrices' input.
    x = x.transpose(0, 4, 1, 2, 3).reshape(len(x), -1)
    return self.fc8(jax.nn.relu(self.fc7(jax.nn.relu(self.fc6(x)))))


@functools.cache
def network(widths=WIDTHS, hidden=HIDDEN):
  """The functions of the network; `init` serves the shapes."""
  return models.functional(
    lambda key: C3D(widths, hidden, rngs=nnx.Rngs(params=key))
  )


@jax.jit
def apply(params, videos):
  """(params, uint8 [n, 16, h, w, 3]) -> float32 logits [n, 101]."""
  if videos.shape[1] != FRAMES:
    raise ValueError(
      f'C3D takes clips of {FRAMES} frames, not of {videos.shape[1]}.'
    )
  widths = tuple(
    params[f'conv{name}']['kernel'].shape[-1] for name in CONVOLUTIONS
  )
  hidden = params['fc7']['kernel'].shape[0]
  # Full float32, also where an accelerator would take less.
  with jax.default_matmul_precision('float32'):
    x = frames.fit(videos, SIZE, resize='corners')
    return network(widths, hidden).apply(params, x[..., ::-1])


def load(weights, *, sha256='') -> features.Features:
  """Reads the weights that TGANv2 published.

  Args:
    weights: two files with a comma, conv3d_deepnetA_ucf.npz and mean2.npz, see
      `import_weights.read`.
    sha256: what theirs must be, with a comma; '' to take any.

  Raises:
    WeightsError: the files are not C3D's.
  """
  paths = [path.strip() for path in weights.split(',')]
  hashes = [part.strip() for part in sha256.split(',')] if sha256 else ['', '']
  if len(paths) != 2 or len(hashes) != 2:
    raise import_weights.WeightsError(
      'C3D has two files, and two hashes if any: '
      'conv3d_deepnetA_ucf.npz,mean2.npz.'
    )
  files = [import_weights.read(*pair) for pair in zip(paths, hashes)]
  abstract = jax.eval_shape(network().init, jax.random.key(0))
  flat = convert(files[0].tensors | files[1].tensors)
  params = import_weights.match(weights, flat, abstract)
  logging.info('C3D %s: metric names get c3d_ucf101', weights)
  protocol = {
    'network': 'c3d_ucf101',
    'weights_sha256': ','.join(file.sha256 for file in files),
    'resize': 'corners',
    'crop': 'squash',
  }
  return features.Features('c3d_ucf101', params, apply, protocol)


def convert(tensors):
  """Chainer's names and layouts -> those of `C3D`.

  Args:
    tensors: {'conv1a/W': [out, in, t, h, w], 'fc6/W': [out, in], .../b} and
      {'mean': [1, 3, 16, 128, 171], BGR}.

  Returns:
    {path: array}.

  Raises:
    WeightsError: the mean is another one's.
  """
  flat = {}
  for name, array in tensors.items():
    if name == 'mean':
      if array.shape != MEAN:
        raise import_weights.WeightsError(
          f'The mean of C3D is {MEAN}, not {array.shape}.'
        )
      # 112 x 112 of it, cut out where TGANv2 does.
      array = array[0, :, :, 8 : 8 + SIZE, 8 : 8 + SIZE]
      flat['mean'] = array.transpose(1, 2, 3, 0)
    elif name.endswith('/W') and array.ndim == 5:
      flat[name.removesuffix('W') + 'kernel'] = array.transpose(2, 3, 4, 1, 0)
    elif name.endswith('/W'):
      flat[name.removesuffix('W') + 'kernel'] = array.T
    else:
      flat[name.removesuffix('/b') + '/bias'] = array
  return flat
