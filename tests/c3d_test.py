"""C3D against PyTorch, and the files of its weights.

tests/golden/make_c3d.py has made what it is compared with.
"""

import functools
import importlib.util

from conftest import ROOT
from flax import traverse_util
import formula_weights
import jax
import numpy as np
import pytest

from vdm.models import import_weights
from vdm.models.features import c3d
from vdm.models.features import frames

GOLDEN = np.load(ROOT / 'tests/golden/c3d.npz')
SCRIPT = ROOT / 'tests/golden/make_c3d.py'
# As in make_c3d.py.
NETWORKS = {
  'small': (tuple(w // 8 for w in c3d.WIDTHS), 64),
  'full': (c3d.WIDTHS, 4096),
}


def clip(t=16, h=48, w=64):
  """As in make_c3d.py."""
  random = np.random.RandomState(0)
  k, y, x = np.mgrid[:t, :h, :w] / 20
  smooth = np.stack([np.sin(x + y + 9 * k), np.cos(x - 5 * k), np.sin(y)], -1)
  noise = random.randint(-30, 31, smooth.shape)
  return np.clip(127.5 + 90 * smooth + noise, 0, 255).astype(np.uint8)


@functools.cache
def mean():
  """As in make_c3d.py."""
  random = np.random.RandomState(1)
  return (100 + 20 * random.standard_normal((1, 3, 16, 128, 171))).astype('f')


def shapes(name):
  """{name in PyTorch: shape}."""
  widths, hidden = NETWORKS[name]
  found, cin = {}, 3
  for layer, width in zip(
    ('1a', '2a', '3a', '3b', '4a', '4b', '5a', '5b'), widths
  ):
    found[f'conv{layer}.weight'] = (width, cin, 3, 3, 3)
    found[f'conv{layer}.bias'] = (width,)
    cin = width
  for layer, sizes in (
    ('fc6', (hidden, cin * 16)),
    ('fc7', (hidden, hidden)),
    ('fc8', (101, hidden)),
  ):
    found[f'{layer}.weight'] = sizes
    found[f'{layer}.bias'] = sizes[:1]
  return found


def chainer(name, draw=formula_weights.draw):
  """{name in Chainer: array}, and the mean."""
  found = {'mean': mean()}
  for key, shape in shapes(name).items():
    layer, part = key.split('.')
    part = {'weight': 'W', 'bias': 'b'}[part]
    found[f'{layer}/{part}'] = draw(key, shape)
  return found


def parameters(name):
  return traverse_util.unflatten_dict(c3d.convert(chainer(name)), sep='/')


def relative(ours, theirs):
  return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def check(name):
  video = np.stack([clip()[::-1], clip()])
  logits = c3d.apply(parameters(name), video)
  assert logits.shape == (2, 101) and logits.dtype == np.float32
  assert relative(logits[1], GOLDEN[name]) < 1e-5
  assert relative(logits[0], GOLDEN[name]) > 1e-3


def test_as_in_pytorch():
  check('small')


@pytest.mark.slow
def test_the_full_network_as_in_pytorch():
  check('full')


def test_the_input_is_tganv2s():
  """BGR, aligned corners, the cut of the mean: every 997th value."""
  x = np.asarray(frames.fit(clip(), 112, resize='corners'))[..., ::-1]
  flat = c3d.convert({'mean': mean()})
  x = (x - flat['mean']).transpose(3, 0, 1, 2).ravel()[::997]
  np.testing.assert_allclose(x, GOLDEN['input'], atol=1e-3)  # Of 255.


@pytest.mark.oracle
def test_golden_arrays_are_what_pytorch_gives():
  pytest.importorskip('torch')
  spec = importlib.util.spec_from_file_location('make_c3d', SCRIPT)
  script = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(script)
  assert script.NETWORKS == NETWORKS
  for key, value in script.make().items():
    if key != 'versions':
      assert relative(GOLDEN[key], value) < 1e-5, key


def test_files_are_read_and_others_refused(tmp_path):
  zeros = chainer('full', lambda _, shape: np.zeros(shape, np.float32))
  paths = tmp_path / 'weights.npz', tmp_path / 'mean.npz'
  np.savez(paths[1], mean=zeros.pop('mean'))
  np.savez(paths[0], **zeros)
  found = c3d.load(f'{paths[0]}, {paths[1]}')
  assert found.name == 'c3d_ucf101'
  assert sum(x.size for x in jax.tree.leaves(found.params)) == (
    sum(int(np.prod(s)) for s in shapes('full').values()) + 16 * 112 * 112 * 3
  )
  assert found.protocol['weights_sha256'].count(',') == 1
  with pytest.raises(ValueError, match='16 frames, not of 9'):
    c3d.apply(found.params, np.zeros((1, 9, 8, 8, 3), np.uint8))

  # From here on with a small one.
  np.savez(paths[0], **{k: v for k, v in zeros.items() if v.size < 200})
  hashes = ','.join(import_weights.read(path).sha256 for path in paths)

  def refused(words, weights, sha256=''):
    with pytest.raises(import_weights.WeightsError, match=words) as error:
      c3d.load(weights, sha256=sha256)
    assert '\n' not in str(error.value)

  both = f'{paths[0]},{paths[1]}'
  refused('two files', str(paths[0]))
  refused('has sha256', both, ','.join(hashes.split(',')[::-1]))
  refused('conv1a/kernel is missing', both, hashes)
  np.savez(paths[1], mean=np.zeros((1, 3, 16, 112, 112), np.float32))
  refused('The mean of C3D is', both)
  np.savez(paths[1], other=np.zeros(3))
  refused('another network', both)
