"""I3D: the network of the Fréchet video distance.

Inception-v1 inflated to 3D (Carreira and Zisserman, 1705.07750), trained on
Kinetics-400. Its features are the logits [400], before the softmax, averaged
over the remaining time steps; a clip has at least 9 frames.

  convolution (no bias) - batch norm (epsilon 1e-3, no scale) - ReLU

57 times, 'SAME' padding throughout. Published distances use the weights of
TF-Hub's deepmind/i3d-kinetics-400/1, here kind 'kinetics400'; the weights in
DeepMind's repository, `rgb_imagenet`, are different, and give a metric of
another name.
"""

from collections.abc import Callable
import functools
from typing import Any

from absl import logging
from etils import epath
from etils.array_types import FloatArray
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from vdm import models
from vdm.common import trees
from vdm.models import features
from vdm.models import import_weights
from vdm.models import layers
from vdm.models.features import frames
from vdm.models.features import i3d_names

SIZE = 224  # Height and width of the network's frames, px.
CLASSES = 400
MIN_FRAMES = 9
EPSILON = 1e-3  # Some ports have 1e-5; their logits differ by percents.
NAMES = {
  'kinetics400': 'i3d',
  'imagenet': 'i3d_imagenet',
  'other': 'i3d_other',
}

# Widths of the branches b0, b1a, b1b, b2a, b2b, b3b.
MIXED = {
  'mixed_3b': (64, 96, 128, 16, 32, 32),
  'mixed_3c': (128, 128, 192, 32, 96, 64),
  'mixed_4b': (192, 96, 208, 16, 48, 64),
  'mixed_4c': (160, 112, 224, 24, 64, 64),
  'mixed_4d': (128, 128, 256, 24, 64, 64),
  'mixed_4e': (112, 144, 288, 32, 64, 64),
  'mixed_4f': (256, 160, 320, 32, 128, 128),
  'mixed_5b': (256, 160, 320, 32, 128, 128),
  'mixed_5c': (384, 192, 384, 48, 128, 128),
}
# Pools (window, stride) by the block after them.
POOLS = {
  'mixed_3b': ((1, 3, 3), (1, 2, 2)),
  'mixed_4b': ((3, 3, 3), (2, 2, 2)),
  'mixed_5b': ((2, 2, 2), (2, 2, 2)),
}


class Unit(nnx.Module):
  """Convolution, batch norm with the statistics of training, ReLU."""

  def __init__(
    self,
    cin: int,
    cout: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    epsilon: float,
  ):
    self.kernel = nnx.Param(jnp.zeros((kernel,) * 3 + (cin, cout)))
    self.beta = nnx.Param(jnp.zeros((cout,)))
    self.mean = nnx.Param(jnp.zeros((cout,)))
    self.variance = nnx.Param(jnp.ones((cout,)))
    self.stride, self.epsilon = stride, epsilon

  def __call__(self, x: FloatArray['n t h w c']) -> FloatArray['n z y x d']:
    scale = jax.lax.rsqrt(self.variance[...] + self.epsilon)
    shift = self.beta[...] - self.mean[...] * scale
    kernel = self.kernel[...]
    kernel = kernel * layers.along_channels(scale, kernel)
    y = layers.conv3d(x, kernel, self.stride)
    return jax.nn.relu(y + layers.along_channels(shift, y))


class Mixed(nnx.Module):
  """Four parallel branches, concatenated."""

  def __init__(self, cin: int, widths: tuple[int, ...], *, epsilon: float):
    b0, b1a, b1b, b2a, b2b, b3b = widths
    self.b0 = Unit(cin, b0, epsilon=epsilon)
    self.b1a = Unit(cin, b1a, epsilon=epsilon)
    self.b1b = Unit(b1a, b1b, 3, epsilon=epsilon)
    self.b2a = Unit(cin, b2a, epsilon=epsilon)
    self.b2b = Unit(b2a, b2b, 3, epsilon=epsilon)
    self.b3b = Unit(cin, b3b, epsilon=epsilon)

  def __call__(self, x: FloatArray['n t h w c']) -> FloatArray['n t h w d']:
    pooled = layers.max_pool3d(x, (3, 3, 3), (1, 1, 1))
    branches = (
      self.b0(x),
      self.b1b(self.b1a(x)),
      self.b2b(self.b2a(x)),
      self.b3b(pooled),
    )
    return jnp.concatenate(branches, axis=-1)


class I3D(nnx.Module):
  """Frames in [-1, 1] to logits.

  y = x = 1 for frames of 224 x 224, and z = 1 for 9 to 16 frames.
  """

  def __init__(self, epsilon: float = EPSILON, *, rngs: nnx.Rngs):
    del rngs  # Parameters are loaded.
    self.conv_1a = Unit(3, 64, 7, stride=2, epsilon=epsilon)
    self.conv_2b = Unit(64, 64, epsilon=epsilon)
    self.conv_2c = Unit(64, 192, 3, epsilon=epsilon)
    cin = 192
    for name, widths in MIXED.items():
      setattr(self, name, Mixed(cin, widths, epsilon=epsilon))
      cin = widths[0] + widths[2] + widths[4] + widths[5]
    self.logits = layers.Conv3D(cin, CLASSES, 1)

  def __call__(self, x: FloatArray['n t h w 3']) -> FloatArray['n z y x 400']:
    x = layers.max_pool3d(self.conv_1a(x), (1, 3, 3), (1, 2, 2))
    x = self.conv_2c(self.conv_2b(x))
    for name in MIXED:
      if name in POOLS:
        x = layers.max_pool3d(x, *POOLS[name])
      x = getattr(self, name)(x)
    x = jax.lax.reduce_window(
      x, 0.0, jax.lax.add, (1, 2, 7, 7, 1), (1,) * 5, 'VALID'
    )
    return self.logits(x / (2 * 7 * 7))


@functools.cache
def network(epsilon: float = EPSILON) -> models.Network:
  """Returns the functions of the network; `init` is only for the shapes."""
  return models.functional(I3D, epsilon)


def make_apply(
  *, resize: str = 'torch', crop: str = 'squash', epsilon: float = EPSILON
) -> Callable[..., FloatArray['n 400']]:
  """Returns (params, uint8 [n t h w 3]) -> float32 logits [n 400].

  Args:
    resize: how frames are resized to 224 x 224, see `frames.fit`.
    crop: of the same.
    epsilon: of the batch norms.
  """

  @jax.jit
  def apply(params, videos):
    if videos.shape[1] < MIN_FRAMES:
      raise ValueError(
        f'I3D takes clips of at least {MIN_FRAMES} frames, not '
        f'{videos.shape[1]}.'
      )
    # Not the lower default precision of an accelerator.
    with jax.default_matmul_precision('float32'):
      x = frames.fit(videos, SIZE, resize=resize, crop=crop)
      logits = network(epsilon).apply(params, 2.0 * x / 255.0 - 1.0)
    return logits.mean(axis=(1, 2, 3))

  return apply


def load(
  path: epath.PathLike,
  kind: str | None = None,
  *,
  sha256: str = '',
  resize: str = 'torch',
  crop: str = 'squash',
  epsilon: float = EPSILON,
) -> features.Features:
  """Reads published weights of I3D.

  Args:
    path: of the file, see `import_weights.read`: StyleGAN-V's TorchScript, a
      PyTorch state dict, or TensorFlow's variables in an .npz.
    kind: kinetics400 | imagenet | other; needed where the file does not tell,
      since the weights have the same names.
    sha256: expected of the file; '' accepts any.
    resize: see `make_apply`.
    crop: see `make_apply`.
    epsilon: see `make_apply`.

  Raises:
    WeightsError: the file is not one of I3D, or its kind is not known.
  """
  weights = import_weights.read(path, sha256)
  params = convert(path, weights.tensors)
  kind = kind or infer_kind(weights)
  if kind not in NAMES:
    raise import_weights.WeightsError(
      f'{path} does not say which weights it holds: give the kind, kinetics400 '
      '(TF-Hub, i3d_pretrained_400.pt) or imagenet (rgb_imagenet).'
      if kind is None
      else f'The kind of {path} is one of {", ".join(NAMES)}, not {kind!r}.'
    )
  name = NAMES[kind]
  logging.info('I3D %s, weights %s: metric names get %s', path, kind, name)
  protocol = {
    'network': name,
    'weights_kind': kind,
    'weights_sha256': weights.sha256,
    'resize': resize,
    'crop': crop,
    'epsilon': epsilon,
  }
  apply = make_apply(resize=resize, crop=crop, epsilon=epsilon)
  return features.Features(name, params, apply, protocol)


def convert(
  source: epath.PathLike, tensors: dict[str, np.ndarray]
) -> dict[str, Any]:
  """Converts the tensors of a public file to parameters of the network."""
  abstract = network().abstract_params()
  flat = i3d_names.convert(tensors, trees.flatten(abstract))
  return import_weights.match(source, flat, abstract)


def infer_kind(weights: import_weights.Weights) -> str | None:
  """Returns the kind of a file whose layout determines it, or None."""
  if weights.layout == 'torchscript':
    return 'kinetics400'  # StyleGAN-V's i3d_torchscript.pt.
  beta = weights.tensors.get(i3d_names.tensorflow('conv_1a/beta'))
  # The hub's variables are [1, 1, 1, 1, c], those of the repository [c].
  return 'kinetics400' if beta is not None and beta.ndim == 5 else None
