"""Checkpoints: restored bit for bit, or named as corrupt and skipped."""

import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import ml_dtypes
import numpy as np
import optax
import pytest

from vdm.checkpoints import manager
from vdm.checkpoints import manifest
from vdm.checkpoints import reader

# Reads that Orbax aborts leave coroutines that pytest complains about.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


def _mesh(data, fsdp):
  return jax.make_mesh(
    (data, fsdp),
    ('data', 'fsdp'),
    axis_types=(AxisType.Auto,) * 2,
    devices=jax.devices()[: data * fsdp],
  )


def _items(step=0, mesh=None):
  """Returns a small training state with the shapes of a real one."""
  rng = np.random.default_rng(step)

  def array(*shape):
    return rng.standard_normal(shape, dtype=np.float32)

  params = {
    'down_0': {
      'conv': {'kernel': array(3, 3, 4, 16), 'bias': array(16)},
      'norm': {'scale': array(16).astype(ml_dtypes.bfloat16)},
    },
    'out': {'kernel': array(16, 8)},
  }
  # optax states by parameter path, empty states and None among them.
  transform = optax.chain(
    optax.scale_by_adam(), optax.identity(), optax.scale(0.1)
  )
  opt_state = {
    'down_0/conv/kernel': transform.init(params['down_0']['conv']['kernel']),
    'out/kernel': (transform.init(params['out']['kernel']), None),
  }
  ema = {'0.05': jax.tree.map(lambda x: x * 2, params)}
  items = {'params': params, 'opt_state': opt_state, 'ema': ema}
  return _put(items, mesh or _mesh(1, 1))


def _put(tree, mesh):
  return jax.tree.map(
    lambda x, struct: jax.device_put(x, struct.sharding),
    tree,
    _abstract(tree, mesh),
  )


def _abstract(tree, mesh=None):
  """Structs of `tree`; the last axis sharded over fsdp where it divides."""
  mesh = mesh or _mesh(1, 1)

  def struct(x):
    spec = [None] * x.ndim
    if x.ndim and x.shape[-1] % mesh.shape['fsdp'] == 0:
      spec[-1] = 'fsdp'
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  return jax.tree.map(struct, tree)


def _bits(tree):
  """Returns {name: dtype, shape, bytes}: equal only if every bit is."""
  return {
    name: (str(x.dtype), x.shape, np.asarray(x).tobytes())
    for name, x in manifest.named_leaves(tree).items()
  }


def _write(directory, steps, **options):
  with manager.Checkpoints(directory, **options) as saver:
    for step in steps:
      assert saver.save(step, _items(step), {'seed': step})
  return pathlib.Path(directory)


@pytest.fixture(scope='module')
def two_steps(tmp_path_factory):
  """A directory with steps 10 and 20; tests change copies of it."""
  return _write(tmp_path_factory.mktemp('run') / 'checkpoints', [10, 20])


@pytest.fixture
def run(two_steps, tmp_path):
  return pathlib.Path(shutil.copytree(two_steps, tmp_path / 'checkpoints'))


def _restored(directory):
  """Restores from `directory`, proves the bits, returns the step."""
  store = manager.Checkpoints(directory, read_only=True)
  step, items, meta = store.restore(_abstract(_items()))
  assert meta == {'seed': step}
  assert _bits(items) == _bits(_items(step))
  assert jax.tree.structure(items) == jax.tree.structure(_items(step))
  return step


def test_saved_on_one_mesh_restores_on_others_bit_for_bit(tmp_path):
  items = _items(1, _mesh(4, 2))
  with manager.Checkpoints(tmp_path) as saver:
    saver.save(1, items, {'stage': 'video', 'rate': 0.1})
    for shape in [(4, 2), (1, 1), (8, 1), (2, 4)]:
      abstract = _abstract(items, _mesh(*shape))
      step, found, meta = saver.restore(abstract)
      assert (step, meta) == (1, {'stage': 'video', 'rate': 0.1})
      assert _bits(found) == _bits(items)
      for x, struct in zip(jax.tree.leaves(found), jax.tree.leaves(abstract)):
        assert x.sharding == struct.sharding


def test_a_relative_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with manager.Checkpoints('runs/one') as store:
    store.save(1, _items(), {})
  with manager.Checkpoints('runs/one', read_only=True) as store:
    assert store.latest() == 1
    step, ema, _ = store.restore_item('ema')
  assert step == 1
  np.testing.assert_array_equal(
    ema['0.05']['out']['kernel'], _items()['ema']['0.05']['out']['kernel']
  )


def test_arrays_may_be_donated_as_soon_as_save_returns(tmp_path):
  overwrite = jax.jit(
    lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0
  )
  items = {'params': {'w': jnp.arange(2.0**18), 'b': jnp.zeros(3)}}
  with manager.Checkpoints(tmp_path, keep=4) as saver:
    for step in range(4):
      saver.save(step, items, {})
      items = overwrite(items)
  store = manager.Checkpoints(tmp_path, read_only=True)
  for step in range(4):
    _, found, _ = store.restore(_abstract(items), step)
    np.testing.assert_array_equal(
      found['params']['w'], np.arange(2.0**18, dtype=np.float32) + step
    )


def test_copies_on_many_devices_are_not_cut_into_parts(tmp_path, caplog):
  """For which a program would be compiled for every shape."""
  items = _items(mesh=_mesh(8, 1))
  manifest.describe(items)  # Digests have programs of their own.
  with manager.Checkpoints(tmp_path) as store, jax.log_compiles():
    store.save(1, items, {})
  assert 'jit(slice)' not in caplog.text
  with manager.Checkpoints(tmp_path, read_only=True) as store:
    _, found, _ = store.restore({'params': None})
  jax.tree.map(
    np.testing.assert_array_equal,
    found['params'],
    jax.tree.map(np.asarray, items['params']),
  )


def test_every_kind_of_leaf_comes_back(tmp_path):
  tree = {
    'a/b~c': {'d': np.int64(2**40)},
    'a': {'b~c': {'d': np.float64(np.pi)}},  # Another leaf than the one before.
    'mask': jnp.array([True, False, True]),
    'half': jnp.arange(3, dtype=jnp.float16),
    'byte': np.arange(3, dtype=np.uint8),
    'none': (None, optax.EmptyState(), ()),
    'no_elements': np.zeros((0, 4), np.float32),
    **{str(i): np.int32(i) for i in range(12)},  # '10' sorts before '2'.
  }
  key = jax.random.split(jax.random.key(3), 2)
  with manager.Checkpoints(tmp_path) as saver:
    saver.save(0, {'tree': tree, 'keys': {'k': key}, 'empty': {}}, {})
    abstract = {
      'tree': jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree
      ),
      'keys': _abstract({'k': key}),
      'empty': {},
    }
    _, found, _ = saver.restore(abstract)
  assert _bits(found['tree']) == _bits(tree)
  assert jax.tree.structure(found['tree']) == jax.tree.structure(tree)
  assert found['empty'] == {}
  np.testing.assert_array_equal(
    jax.random.normal(found['keys']['k'][1]), jax.random.normal(key[1])
  )
  with pytest.raises(TypeError, match='non-empty str'):
    manifest.named_leaves({3: np.zeros(1)})


def test_ema_alone_is_read_without_knowing_the_model(run):
  shutil.rmtree(run / '20' / 'opt_state' / 'd')  # Not read.
  store = manager.Checkpoints(run, read_only=True)
  step, ema, meta = store.restore_item('ema')
  expected = _items(20)['ema']
  assert (step, meta) == (20, {'seed': 20})
  assert jax.tree.structure(ema) == jax.tree.structure(expected)
  assert _bits(ema) == _bits(expected)
  assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(ema))
  on_device = _abstract(expected, _mesh(2, 2))
  assert _bits(store.restore_item('ema', on_device)[1]) == _bits(expected)
  with pytest.raises(reader.CheckpointMismatch, match='critic'):
    store.restore_item('critic')


def test_nothing_saved_restores_nothing(tmp_path):
  store = manager.Checkpoints(tmp_path / 'none', read_only=True)
  assert store.restore({}) is None
  assert store.restore_item() is None
  assert store.latest() is None
  assert store.read_meta() is None
  assert not (tmp_path / 'none').exists()


def test_retention_keeps_the_latest_and_the_interval(tmp_path):
  tree = {'params': {'w': np.zeros(2)}}
  with manager.Checkpoints(tmp_path, keep=2, keep_every=4) as saver:
    for step in range(1, 8):
      saver.save(step, tree, {})
    assert not saver.save(7, tree, {})  # Saved just now.
    saver.wait()
    assert saver.steps() == [4, 6, 7]
    assert saver.latest() == 7


def flip_bits(directory, count, seed):
  """Flips single bits of step 20, one at a time; returns how many mattered.

  Each flip is either caught, and step 10 comes back in its place, or harmless:
  step 20 comes back, every bit right.
  """
  rng = np.random.default_rng(seed)
  files = sorted(p for p in (directory / '20').rglob('*') if p.is_file())
  files = [p for p in files if p.stat().st_size]
  caught = 0
  for i in range(count):
    path = files[i % len(files)]
    good = path.read_bytes()
    bad = bytearray(good)
    bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
    path.write_bytes(bad)
    step = _restored(directory)
    caught += step == 10
    path.write_bytes(good)
  return caught


def test_flipped_bits_are_caught_or_harmless(run):
  assert flip_bits(run, 24, seed=0) > 0
  # Where it always matters: in the arrays' own bytes, which Orbax believes.
  for item in ['params', 'opt_state', 'ema']:
    path = max(
      (run / '20' / item / 'd').iterdir(), key=lambda p: p.stat().st_size
    )
    good = path.read_bytes()
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 16
    path.write_bytes(bad)
    assert _restored(run) == 10
    path.write_bytes(good)
  assert _restored(run) == 20


def _empty(path):
  for child in path.iterdir():
    shutil.rmtree(child) if child.is_dir() else child.unlink()


def _truncate(item):
  def damage(path):
    target = max(
      (p for p in (path / item).rglob('*') if p.is_file()),
      key=lambda p: p.stat().st_size,
    )
    os.truncate(target, target.stat().st_size // 2)

  return damage


def _edit_meta(path):
  file = path / 'meta' / 'metadata'
  text = file.read_text()
  assert '"seed": 20' in text
  file.write_text(text.replace('"seed": 20', '"seed": 21'))


def _copy_of_another(path):
  shutil.rmtree(path)
  shutil.copytree(path.parent / '10', path)


@pytest.mark.parametrize(
  'damage',
  [
    _empty,
    _truncate('params'),
    _truncate('ema'),
    _truncate('meta'),
    _edit_meta,
    _copy_of_another,
    lambda path: shutil.rmtree(path / 'meta'),
    lambda path: shutil.rmtree(path / 'opt_state'),
    lambda path: shutil.rmtree(path / 'params' / 'd'),
  ],
  ids=[
    'empty',
    'truncated_params',
    'truncated_ema',
    'truncated_meta',
    'edited_meta',
    'copied_step',
    'no_meta',
    'no_opt_state',
    'no_data',
  ],
)
def test_a_corrupt_step_is_named_and_skipped(run, damage, caplog):
  damage(run / '20')
  before = sorted(p for p in run.rglob('*'))
  assert _restored(run) == 10
  assert sorted(p for p in run.rglob('*')) == before
  named = [r for r in caplog.records if r.levelname == 'ERROR']
  assert any(str(run / '20') in r.getMessage() for r in named)


def test_unreadable_everywhere_stops_the_run(run):
  _truncate('params')(run / '10')
  _empty(run / '20')
  saver = manager.Checkpoints(run, read_only=True)
  with pytest.raises(manager.CheckpointError, match=r'20 .*10 '):
    saver.restore(_abstract(_items()))
  with pytest.raises(manager.CheckpointError, match='20'):
    saver.restore(_abstract(_items()), 20)


def test_an_interrupted_save_is_no_step(run):
  shutil.copytree(run / '20', run / '30.orbax-checkpoint-tmp')
  shutil.rmtree(run / '30.orbax-checkpoint-tmp' / 'ema')
  assert _restored(run) == 20  # A reader does not touch the trainer's save.
  assert (run / '30.orbax-checkpoint-tmp').exists()
  with manager.Checkpoints(run) as saver:
    assert saver.latest() == 20
    saver.save(30, _items(30), {'seed': 30})
  assert not (run / '30.orbax-checkpoint-tmp').exists()
  assert _restored(run) == 30


def test_training_saves_again_over_a_corrupt_step(run):
  _truncate('params')(run / '20')
  (run / '40').mkdir()  # Later still, and empty.
  with manager.Checkpoints(run, keep=2) as saver:
    assert saver.restore(_abstract(_items()))[0] == 10
    assert saver.save(15, _items(15), {'seed': 15})
    assert saver.save(20, _items(20), {'seed': 20})
    assert saver.save(40, _items(40), {'seed': 40})
  names = {p.name for p in run.iterdir()}
  # The corrupt ones neither count as kept nor are deleted.
  assert names == {'20', '40', '20.damaged-0', '40.damaged-0'}
  assert _restored(run) == 40


def test_orbax_own_metadata_may_be_garbage(run):
  (run / '20' / '_CHECKPOINT_METADATA').write_bytes(b'\x00{not json')
  with manager.Checkpoints(run) as saver:
    assert saver.restore(_abstract(_items()))[0] == 20
    assert saver.save(30, _items(30), {'seed': 30})
  assert _restored(run) == 30


def test_replacing_a_valid_step_keeps_the_old_one(run):
  with manager.Checkpoints(run) as saver:
    assert saver.restore(_abstract(_items()), 10)[0] == 10
    assert saver.save(20, _items(21), {'seed': 20})  # Another 20 lies there.
    assert not saver.save(20, _items(20), {'seed': 20})
  names = {p.name for p in run.iterdir()}
  assert {'20', '20.replaced-0'} <= names and '20.replaced-1' not in names


def test_another_model_is_refused_by_the_first_difference(run):
  store = manager.Checkpoints(run, read_only=True)

  def refused(change, match):
    abstract = _abstract(_items())
    change(abstract['params'])
    with pytest.raises(reader.CheckpointMismatch, match=match):
      store.restore(abstract)

  other = jax.ShapeDtypeStruct((16, 9), jnp.float32)
  refused(
    lambda p: p['out'].update(kernel=other),
    r'out/kernel of params is float32\[16, 8\] in the checkpoint and '
    r'float32\[16, 9\] in',
  )
  other = jax.ShapeDtypeStruct((16, 8), jnp.bfloat16)
  refused(
    lambda p: p['out'].update(kernel=other), r'bfloat16\[16, 8\] in the model'
  )
  refused(lambda p: p.pop('out'), 'out/kernel of params .* absent in the model')
  refused(lambda p: p.update(new=other), 'new of params is absent in the check')
  assert store.latest() == 20  # Nothing counts as corrupt.


def test_a_full_disk_is_reported_before_saving(run, monkeypatch):
  usage = shutil.disk_usage(run)._replace(free=1000)
  with manager.Checkpoints(run) as saver:
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
    with pytest.raises(manager.CheckpointError, match='0 MiB free'):
      saver.save(30, _items(30), {})
    monkeypatch.undo()
    assert saver.save(30, _items(30), {'seed': 30})
  assert _restored(run) == 30


def test_a_disk_that_fills_while_saving_is_survived(mount, monkeypatch):
  small_disk = mount('4m')
  usage = shutil.disk_usage(small_disk)._replace(free=2**40)
  rng = np.random.default_rng(0)
  big = {'params': {'w': rng.standard_normal(2**18)}}  # 2 MiB, no zeros.
  with manager.Checkpoints(small_disk) as saver:
    assert saver.save(1, big, {})
    saver.wait()
    filler = small_disk / 'filler'
    filler.write_bytes(bytes(2**20))
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
    with pytest.raises(manager.CheckpointError, match=r'step 2 .*make room'):
      saver.save(2, big, {})
      while True:
        saver.check()
    assert saver.latest() == 1
    filler.unlink()
    assert saver.save(2, {'params': {'w': np.ones(4)}}, {})
    saver.wait()
    assert saver.latest() == 2
    assert saver.restore_item('params', step=1)[0] == 1
