"""I3D against PyTorch, and the names of its public files.

tests/golden/make_i3d.py has made what it is compared with. The weights are by
formula_weights.py, the same on both sides.
"""

import functools
import importlib.util

from conftest import ROOT
from flax import nnx
from flax import traverse_util
import formula_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.models import import_weights
from vdm.models import layers
from vdm.models.features import frames
from vdm.models.features import i3d
from vdm.models.features import i3d_names
from vdm.multihost import arrays
from vdm.sampling import batching
from vdm.training import sharding

GOLDEN = np.load(ROOT / 'tests/golden/i3d.npz')
SCRIPT = ROOT / 'tests/golden/make_i3d.py'
# As in make_i3d.py.
CASES = {
  't9': (9, 224, 224),
  't16': (16, 224, 224),
  't17': (17, 224, 224),
  't32': (32, 224, 224),
  'wide': (9, 230, 226),
}
THROUGH = {'squash': (9, 64, 48), 'center': (9, 48, 64)}
RESIZES = {
  'up': (20, 27, 48, 'squash'),
  'down': (48, 40, 24, 'squash'),
  'wide': (20, 27, 32, 'center'),
  'tall': (45, 31, 17, 'center'),
}


def clip(t, h, w):
  """As in make_i3d.py."""
  random = np.random.RandomState(t + h + w)
  k, y, x = np.mgrid[:t, :h, :w] / 20
  smooth = np.stack([np.sin(x + y + 9 * k), np.cos(x - 5 * k), np.sin(y)], -1)
  noise = random.randint(-30, 31, smooth.shape)
  return np.clip(127.5 + 90 * smooth + noise, 0, 255).astype(np.uint8)


def shapes():
  """{path: shape} of the parameters, from the table of the paper."""
  found = {}

  def unit(name, cin, cout, kernel):
    found[f'{name}/kernel'] = (kernel,) * 3 + (cin, cout)
    for part in ('beta', 'mean', 'variance'):
      found[f'{name}/{part}'] = (cout,)

  unit('conv_1a', 3, 64, 7)
  unit('conv_2b', 64, 64, 1)
  unit('conv_2c', 64, 192, 3)
  cin = 192
  for name, b0, b1a, b1b, b2a, b2b, b3b in (
    ('mixed_3b', 64, 96, 128, 16, 32, 32),
    ('mixed_3c', 128, 128, 192, 32, 96, 64),
    ('mixed_4b', 192, 96, 208, 16, 48, 64),
    ('mixed_4c', 160, 112, 224, 24, 64, 64),
    ('mixed_4d', 128, 128, 256, 24, 64, 64),
    ('mixed_4e', 112, 144, 288, 32, 64, 64),
    ('mixed_4f', 256, 160, 320, 32, 128, 128),
    ('mixed_5b', 256, 160, 320, 32, 128, 128),
    ('mixed_5c', 384, 192, 384, 48, 128, 128),
  ):
    unit(f'{name}/b0', cin, b0, 1)
    unit(f'{name}/b1a', cin, b1a, 1)
    unit(f'{name}/b1b', b1a, b1b, 3)
    unit(f'{name}/b2a', cin, b2a, 1)
    unit(f'{name}/b2b', b2a, b2b, 3)
    unit(f'{name}/b3b', cin, b3b, 1)
    cin = b0 + b1b + b2b + b3b
  found['logits/kernel'] = (1, 1, 1, 1024, 400)
  found['logits/bias'] = (400,)
  return found


@functools.cache
def weights():
  """{name in piergiaj's module: array [out, in, t, h, w] or [c]}."""
  found = {}
  for path, shape in shapes().items():
    name = i3d_names.piergiaj(path)
    if path.endswith('kernel'):
      shape = (shape[4], shape[3], *shape[:3])
    found[name] = formula_weights.draw(name, shape)
  return found


@functools.cache
def parameters():
  return i3d.convert('formula', weights())


def relative(ours, theirs):
  return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_as_in_pytorch(name):
  apply = jax.jit(i3d.network().apply)
  x = clip(*CASES[name])[None].astype(np.float32)
  logits = np.asarray(apply(parameters(), 2.0 * x / 255.0 - 1.0))
  t, h, _ = CASES[name]
  grid = (2, 2) if h > 224 else (1, 1)
  assert logits.shape == (1, {9: 1, 16: 1, 17: 2, 32: 3}[t], *grid, 400)
  assert relative(logits.mean((0, 1, 2, 3)), GOLDEN[name]) < 1e-5


def test_as_in_pytorch_from_uint8_to_logits():
  """Resize, network and average; a batch at a time over two devices."""
  video = clip(*THROUGH['squash'])
  apply = i3d.make_apply()
  mesh = sharding.make_mesh(1, jax.devices()[:2])
  params = jax.device_put(parameters(), arrays.replicated(mesh))
  logits = batching.apply(
    lambda rows: apply(params, rows),
    (np.stack([video[::-1], video, video[::-1]]),),
    2,
    mesh,
  )
  assert logits.shape == (3, 400) and logits.dtype == np.float32
  theirs = GOLDEN['through/squash']
  assert relative(logits[1], theirs) < 1e-5
  # Time matters, and the place in the batch does not.
  assert relative(logits[0], theirs) > 1e-3
  assert relative(logits[2], logits[0]) < 1e-5


@pytest.mark.slow
def test_as_in_pytorch_with_the_middle_cut_out():
  logits = i3d.make_apply(crop='center')(
    parameters(), clip(*THROUGH['center'])[None]
  )
  assert relative(logits[0], GOLDEN['through/center']) < 1e-5


@pytest.mark.oracle
def test_golden_arrays_are_what_pytorch_gives():
  pytest.importorskip('torch')
  spec = importlib.util.spec_from_file_location('make_i3d', SCRIPT)
  script = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(script)
  assert script.CASES == CASES and script.THROUGH == THROUGH
  for key, value in script.make(('t9', 'wide')).items():
    if key != 'versions':
      assert relative(GOLDEN[key], value) < 1e-5, key


@pytest.mark.parametrize('name', RESIZES)
def test_frames_are_resized_as_in_pytorch(name):
  h, w, size, crop = RESIZES[name]
  ours = frames.fit(clip(1, h, w), size, crop=crop)
  # Of 255; float32.
  np.testing.assert_allclose(ours[0], GOLDEN[f'resize/{name}'], atol=1e-3)


def test_frames_are_resized_as_in_tensorflow_1():
  x = clip(1, 5, 7)[0].astype(np.float64)
  ours = np.asarray(frames.fit(x, 12, resize='tf1'))
  for i in range(12):
    for j in range(12):
      y, x_ = i * 5 / 12, j * 7 / 12
      top, left = int(y), int(x_)
      below, right = min(top + 1, 4), min(left + 1, 6)
      upper = x[top, left] + (x[top, right] - x[top, left]) * (x_ - left)
      lower = x[below, left] + (x[below, right] - x[below, left]) * (x_ - left)
      np.testing.assert_allclose(
        ours[i, j], upper + (lower - upper) * (y - top), atol=1e-3
      )
  with pytest.raises(ValueError, match='resize is one of torch, tf1'):
    frames.fit(x, 12, resize='bicubic')


def test_epsilon_and_statistics_are_in_the_units():
  """Against float64; ports with epsilon 1e-5 are visibly elsewhere."""
  unit = {
    k.removeprefix('conv_1a/'): v
    for k, v in traverse_util.flatten_dict(parameters(), sep='/').items()
    if k.startswith('conv_1a/')
  }
  x = (2.0 * clip(9, 16, 16)[None] / 255.0 - 1.0).astype(np.float32)
  found = {}
  for epsilon in (1e-3, 1e-5):
    module = i3d.Unit(3, 64, 7, stride=2, epsilon=epsilon)
    found[epsilon] = np.asarray(nnx.merge(nnx.graphdef(module), unit)(x))
    y = np.asarray(layers.conv3d(x, unit['kernel'], 2), np.float64)
    y = (y - unit['mean']) / np.sqrt(unit['variance'] + np.float64(epsilon))
    expected = np.maximum(y + unit['beta'], 0.0)
    assert relative(found[epsilon], expected) < 1e-5
  assert relative(found[1e-5], found[1e-3]) > 5e-4


@pytest.mark.parametrize('k, s', [(7, 2), (3, 2), (3, 1), (2, 2), (1, 1)])
def test_padding_is_tensorflows(k, s):
  x = np.arange(1.0, 21.0, dtype=np.float32)
  kernel = np.arange(1.0, k + 1, dtype=np.float32)
  for n in (*range(1, 5), 7, 8, 9, 16, 17, 20):
    total = max(k - s, 0) if n % s == 0 else max(k - n % s, 0)
    padded = np.pad(x[:n], (total // 2, total - total // 2))
    windows = [padded[i : i + k] for i in range(0, len(padded) - k + 1, s)]
    video = jnp.asarray(x[:n].reshape(1, n, 1, 1, 1))
    ours = layers.conv3d(video, jnp.asarray(kernel.reshape(k, 1, 1, 1, 1)), s)
    np.testing.assert_array_equal(ours.ravel(), [w @ kernel for w in windows])
    pooled = layers.max_pool3d(video, (k, 1, 1), (s, 1, 1)).ravel()
    np.testing.assert_array_equal(pooled, [w.max() for w in windows])


def test_the_table_of_layers(monkeypatch):
  """Shapes around every pool, of 16 frames of 224 x 224."""
  found, pool = [], layers.max_pool3d

  def recorded(x, window, stride):
    y = pool(x, window, stride)
    if max(stride) > 1:
      found.append((x.shape[1:], y.shape[1:]))
    return y

  monkeypatch.setattr(layers, 'max_pool3d', recorded)
  params = i3d.network().abstract_params()
  x = jax.ShapeDtypeStruct((1, 16, 224, 224, 3), jnp.float32)
  y = jax.eval_shape(i3d.network().apply, params, x)
  assert found == [
    ((8, 112, 112, 64), (8, 56, 56, 64)),
    ((8, 56, 56, 192), (8, 28, 28, 192)),
    ((8, 28, 28, 480), (4, 14, 14, 480)),
    ((4, 14, 14, 832), (2, 7, 7, 832)),
  ]
  assert y.shape == (1, 1, 1, 1, 400)


def test_the_number_of_parameters():
  abstract = i3d.network().abstract_params()
  found = traverse_util.flatten_dict(abstract, sep='/')
  assert {k: v.shape for k, v in found.items()} == shapes()
  assert len(found) == 230
  sizes = {k: int(np.prod(v)) for k, v in shapes().items()}
  trained = sum(
    n for k, n in sizes.items() if not k.endswith(('mean', 'variance'))
  )
  assert trained == 12_689_984
  # With PyTorch's scales, one for each channel of the 57 norms.
  betas = [n for k, n in sizes.items() if k.endswith('beta')]
  assert len(betas) == 57
  assert trained + sum(betas) == 12_697_264


STYLES = (i3d_names.tensorflow, i3d_names.piergiaj, i3d_names.hassony)


def test_names_are_one_to_one():
  for style in STYLES:
    assert len({style(path) for path in shapes()}) == 230


@pytest.mark.parametrize(
  'path, names',
  [
    (
      'conv_1a/kernel',
      (
        'RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w',
        'Conv3d_1a_7x7.conv3d.weight',
        'conv3d_1a_7x7.conv3d.weight',
      ),
    ),
    (
      'mixed_3b/b0/mean',
      (
        'RGB/inception_i3d/Mixed_3b/Branch_0/Conv3d_0a_1x1/'
        'batch_norm/moving_mean',
        'Mixed_3b.b0.bn.running_mean',
        'mixed_3b.branch_0.batch3d.running_mean',
      ),
    ),
    (
      'mixed_5b/b2b/variance',  # The misspelt one.
      (
        'RGB/inception_i3d/Mixed_5b/Branch_2/Conv3d_0a_3x3/'
        'batch_norm/moving_variance',
        'Mixed_5b.b2b.bn.running_var',
        'mixed_5b.branch_2.1.batch3d.running_var',
      ),
    ),
    (
      'mixed_5c/b3b/beta',
      (
        'RGB/inception_i3d/Mixed_5c/Branch_3/Conv3d_0b_1x1/batch_norm/beta',
        'Mixed_5c.b3b.bn.bias',
        'mixed_5c.branch_3.1.batch3d.bias',
      ),
    ),
    (
      'logits/kernel',
      (
        'RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d/w',
        'logits.conv3d.weight',
        'conv3d_0c_1x1.conv3d.weight',
      ),
    ),
    (
      'logits/bias',
      (
        'RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d/b',
        'logits.conv3d.bias',
        'conv3d_0c_1x1.conv3d.bias',
      ),
    ),
  ],
)
def test_names_are_those_of_the_files(path, names):
  assert tuple(style(path) for style in STYLES) == names


def as_in(style, beta_axes=5):
  """The weights as a file of another style has them."""
  found = {}
  for path, shape in shapes().items():
    array = weights()[i3d_names.piergiaj(path)]
    if style is i3d_names.tensorflow:
      if path.endswith('kernel'):
        array = array.transpose(2, 3, 4, 1, 0)
      elif beta_axes == 5 and not path.startswith('logits'):
        array = array.reshape(1, 1, 1, 1, -1)
    elif path.endswith('beta'):
      norm = style(path).removesuffix('bias')
      found[f'{norm}weight'] = np.ones(shape, np.float32)
      found[f'{norm}num_batches_tracked'] = np.array(0)
    found[style(path)] = array
  return found


@pytest.mark.parametrize('style', STYLES)
def test_all_formats_are_the_same_network(style):
  found = i3d.convert('a file', as_in(style))
  jax.tree.map(np.testing.assert_array_equal, found, parameters())


def test_the_kind_of_weights_is_what_the_file_or_the_user_says(tmp_path):
  hub, repository, torch, script = (
    import_weights.Weights(tensors, '', layout)
    for tensors, layout in (
      (as_in(i3d_names.tensorflow), 'npz'),
      (as_in(i3d_names.tensorflow, beta_axes=1), 'npz'),
      (as_in(i3d_names.piergiaj), 'torch'),
      (as_in(i3d_names.hassony), 'torchscript'),
    )
  )
  assert [i3d.infer_kind(w) for w in (hub, script)] == ['kinetics400'] * 2
  assert [i3d.infer_kind(w) for w in (repository, torch)] == [None] * 2

  path = tmp_path / 'i3d.npz'
  np.savez(path, **torch.tensors)
  sha256 = import_weights.read(path).sha256
  with pytest.raises(import_weights.WeightsError, match='give the kind'):
    i3d.load(path)
  with pytest.raises(import_weights.WeightsError, match="not 'imagnet'"):
    i3d.load(path, 'imagnet')
  with pytest.raises(import_weights.WeightsError, match='has sha256'):
    i3d.load(path, 'imagenet', sha256='0' * 64)
  found = i3d.load(path, 'imagenet', resize='tf1', sha256=sha256)
  assert found.name == 'i3d_imagenet'  # Not the one of the published numbers.
  assert found.protocol == {
    'network': 'i3d_imagenet',
    'weights_kind': 'imagenet',
    'weights_sha256': sha256,
    'resize': 'tf1',
    'crop': 'squash',
    'epsilon': 1e-3,
  }
  jax.tree.map(np.testing.assert_array_equal, found.params, parameters())
  assert i3d.load(path, 'kinetics400').name == 'i3d'


def test_what_is_no_i3d_is_one_sentence():
  good = as_in(i3d_names.piergiaj)

  def refused(changed, words):
    with pytest.raises(import_weights.WeightsError, match=words) as error:
      i3d.convert('a file', changed)
    assert '\n' not in str(error.value)

  refused({'weight': np.zeros(3)}, 'weight is not a tensor of I3D')
  refused(good | {'more': np.zeros(3)}, 'more is not a tensor of I3D')
  scale = {'Mixed_3b.b0.bn.weight': np.full(64, 2.0)}
  refused(good | scale, 'Mixed_3b.b0.bn.weight is not one')
  missing = {k: v for k, v in good.items() if k != 'Mixed_4c.b0.bn.bias'}
  refused(missing, 'mixed_4c/b0/beta is missing')
  kinetics600 = {'logits.conv3d.bias': np.zeros(600, np.float32)}
  refused(good | kinetics600, r'logits/bias is \(600,\), not \(400,\)')
  with pytest.raises(ValueError, match='at least 9 frames, not 8'):
    i3d.make_apply()(parameters(), np.zeros((1, 8, 8, 8, 3), np.uint8))
