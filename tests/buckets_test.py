"""What reads and writes a run's files does so in an emulated bucket."""

import importlib
import io
import itertools

from absl import flags
from absl.testing import flagsaver
from etils import epath
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
import tiny_config
import tiny_runs

from vdm import request
from vdm import sample
from vdm import trained
from vdm.checkpoints import manager
from vdm.common import buckets
from vdm.common import errors
from vdm.common import files
from vdm.config import check
from vdm.config import serialize
from vdm.evaluation import result_cache
from vdm.media import samples
from vdm.multihost import workdir_lock
from vdm.training import nonfinite
from vdm.training import preflight
from vdm.training import writer
from vdm.training.destinations import background

NUMBERS = itertools.count()


@pytest.fixture
def folder(bucket):
  """A new folder of the bucket."""
  return epath.Path(bucket) / f'run_{next(NUMBERS)}'


def names(folder):
  return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
  'path', ['s3://bucket/run', 'http://host/run', 'hdfs://host/run', 'gs://']
)
def test_what_is_no_bucket_is_refused(path):
  with pytest.raises(errors.UsageError) as raised:
    preflight.check_workdir(path)
  assert str(raised.value) == (
    f'--workdir={path} cannot be used: name a local folder or '
    'gs://BUCKET/FOLDER.'
  )
  with pytest.raises(errors.UsageError, match='gs://BUCKET/FOLDER'):
    trained.load(path)


def test_missing_packages_are_named(monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda x: None if x == 'gcsfs' else find(x)
  )
  with pytest.raises(errors.UsageError, match=r"pip install -e '\.\[gcs\]'"):
    buckets.given('gs://vdm-tests/run', '--workdir')
  # Without the package around it.
  assert not buckets._is_installed('there_is.no_such_package')


def test_a_bucket_that_cannot_be_used(bucket, monkeypatch):
  with pytest.raises(errors.UsageError, match='not-there/run cannot be used'):
    preflight.check_workdir('gs://not-there/run')
  preflight.check_workdir(f'{bucket}/run')

  def forbid(path, text):
    raise OSError(f'Forbidden: {path}')

  monkeypatch.setattr(epath.gpath.PosixGPath, 'write_text', forbid)
  with pytest.raises(errors.UsageError, match='Forbidden: .* written to'):
    preflight.check_workdir(f'{bucket}/run')


@pytest.mark.parametrize('code', [429, 503])
def test_an_outage_is_no_mistake_of_the_command(code, bucket, monkeypatch):
  from gcsfs import retry

  def fails(path, text):
    raise retry.HttpError({'code': code, 'message': 'Backend Error'})

  monkeypatch.setattr(epath.gpath.PosixGPath, 'write_text', fails)
  with pytest.raises(buckets.UnreachableError, match='run the same command'):
    preflight.check_workdir(f'{bucket}/run')
  # Without a server at all.
  buckets._connect.cache_clear()
  monkeypatch.setattr(buckets, '_connect', refused)
  with pytest.raises(buckets.UnreachableError, match='does not answer'):
    buckets.given(f'{bucket}/run')


def refused(bucket):
  import requests

  raise requests.exceptions.ConnectionError(bucket)


@pytest.mark.parametrize('name', ['root', 'source', 'latents', 'manifest'])
def test_data_is_local(name):
  config = tiny_config.make_config('data')
  check.validate(config)
  if name == 'manifest':
    config.data.captions.manifest = 'gs://bucket/captions.csv'
  else:
    config.data[name] = 'gs://bucket/data'
  with pytest.raises(errors.UsageError, match='has to be on a local disk'):
    check.validate(config)


def test_files_appear_whole_or_not_at_all(folder):
  path = folder / 'a.txt'
  with pytest.raises(KeyError), files.replaced(path) as file:
    file.write(b'ne')
    raise KeyError
  assert not path.exists()
  files.write_text(path, 'old')
  with pytest.raises(KeyError), files.replaced(path) as file:
    file.write(b'ne')
    raise KeyError
  assert path.read_text() == 'old'
  files.write_text(path, 'new')
  assert path.read_text() == 'new'
  assert names(folder) == ['a.txt']


def test_what_another_process_writes_is_seen(folder, bucket):
  import fsspec

  files.write_text(folder / 'a', '')
  assert names(folder) == ['a']
  stranger = fsspec.filesystem('gcs', skip_instance_cache=True)
  stranger.pipe(f'{folder}/b', b'')
  assert names(folder) == ['a', 'b']
  assert (folder / 'b').exists()


TREE = {'w': np.arange(12.0, dtype=np.float32).reshape(3, 4)}


def save(store, step, **meta):
  tree = {'w': jnp.asarray(TREE['w']) + step, 'n': np.int32(step)}
  store.save(step, {'params': tree}, meta)
  store.wait()


def test_checkpoints_are_kept_and_restored(folder):
  with manager.Checkpoints(folder / 'best', by_score=True) as store:
    assert store.steps() == [] and store.restore({'params': None}) is None
    for step, value in enumerate([3.0, 1.0], start=1):
      save(store, step, score={'measure': 'm', 'value': value})
    store.forget_after(2)
  with manager.Checkpoints(folder / 'states', keep=1) as store:
    for step in (1, 2, 3):
      save(store, step)
    store.forget_after(2)
    save(store, 3)
  with manager.Checkpoints(folder / 'best', read_only=True) as store:
    assert store.steps() == [2] and store.best() == 2
  with manager.Checkpoints(folder / 'states', read_only=True) as store:
    assert store.steps() == [3]
    step, trees, _ = store.restore({'params': None}, 3)
  assert step == 3
  np.testing.assert_array_equal(trees['params']['w'], TREE['w'] + 3)


def test_an_interrupted_save_is_removed(folder, caplog):
  with manager.Checkpoints(folder) as store:
    save(store, 1)
    save(store, 2)
  (folder / '2' / 'commit_success.txt').unlink()
  with manager.Checkpoints(folder, read_only=True) as store:
    assert store.steps() == [1]
  with manager.Checkpoints(folder) as store:
    assert f'{folder}/2 is a save that was interrupted' in caplog.text
    assert store.latest() == 1 and names(folder) == ['1']
    save(store, 2)
    assert store.steps() == [1, 2]


def test_a_failed_save_leaves_nothing(folder, monkeypatch):
  with manager.Checkpoints(folder) as store:
    save(store, 1)

    def fail(*args, **kwargs):
      (folder / '2').mkdir()
      (folder / '2' / 'part').write_text('')
      raise OSError('the network is gone')

    monkeypatch.setattr(store._manager, 'save', fail)
    with pytest.raises(manager.CheckpointError, match='network is gone'):
      save(store, 2)
  assert names(folder) == ['1']


def test_a_corrupt_step_is_named_skipped_and_set_aside(folder, caplog):
  with manager.Checkpoints(folder) as store:
    save(store, 1)
    save(store, 2)
  paths = (folder / '2' / 'params' / 'd').iterdir()
  path = max(paths, key=lambda path: path.stat().length)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 4
  path.write_bytes(bytes(content))
  with manager.Checkpoints(folder) as store:
    step, trees, _ = store.restore({'params': None})
    assert step == 1
    np.testing.assert_array_equal(trees['params']['w'], TREE['w'] + 1)
    assert f'Checkpoint {folder}/2 ' in caplog.text
    assert 'it is skipped and left in place' in caplog.text
    save(store, 2)
    assert store.steps() == [1, 2]
  assert names(folder) == ['1', '2', '2.damaged-0']
  assert 'commit_success.txt' in names(folder / '2.damaged-0')
  with manager.Checkpoints(folder) as store:
    assert store.restore({'params': None})[0] == 2
  assert '2.damaged-0' in names(folder)


def test_an_error_of_the_network_is_no_corrupt_step(folder, monkeypatch):
  with manager.Checkpoints(folder) as store:
    save(store, 1)

    def fail(path):
      raise ConnectionResetError('the network is gone')

    with monkeypatch.context() as patch:
      patch.setattr(epath.gpath.PosixGPath, 'read_text', fail)
      with pytest.raises(ConnectionResetError):
        store.latest()
    assert store.latest() == 1


def test_segments_of_metrics_are_read_in_order(folder):
  for start in (1, 4):  # The second start resumes from step 3.
    with writer.Writer(folder) as log:
      log.rewind(start - 1)
      for step in range(start, start + 4):
        log.write(step, 'video', {'loss': step + start / 8})
        if step % 2:
          log.flush()
  rows = [(row['step'], row['loss']) for row in writer.read_rows(folder)]
  assert rows == [
    *((step, step + 1 / 8) for step in (1, 2, 3)),
    *((step, step + 4 / 8) for step in (4, 5, 6, 7)),
  ]
  assert names(folder) == ['metrics.jsonl.00000', 'metrics.jsonl.00001']


def test_events_of_every_flush_are_in_the_bucket(folder, tmp_path, monkeypatch):
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
  gif = io.BytesIO()
  Image.new('RGB', (8, 8)).save(gif, 'GIF')
  config = tiny_config.make_config('data')
  config.train.tensorboard = True
  with writer.make_writer(config, folder) as log:
    log.write(1, 'video', {'loss': 0.5})
    log.write(2, 'video', {'loss': 0.25})
    log.flush()
    log.flush()  # Nothing new.
    first = [name for name in names(folder) if 'tfevents' in name]
    assert len(first) == 1
    log.write_preview(3, background.Preview(gif.getvalue(), folder / 'x.png'))
  assert not list(tmp_path.iterdir())  # What was staged there.
  copies = tmp_path / 'copies'
  copies.mkdir()
  for path in folder.glob('events*'):
    (copies / path.name).write_bytes(path.read_bytes())
  assert len(list(copies.iterdir())) == 2

  from tensorboard.backend.event_processing import event_accumulator

  events = event_accumulator.EventAccumulator(
    str(copies), size_guidance={'tensors': 0}
  ).Reload()
  assert [event.step for event in events.Tensors('loss')] == [1, 2]
  (event,) = events.Tensors('samples')
  assert event.tensor_proto.string_val[2] == gif.getvalue()


def test_a_run_locks_its_folder(folder):
  with (
    workdir_lock.WorkdirLock(folder),
    pytest.raises(errors.UsageError, match='is in use by process'),
    workdir_lock.WorkdirLock(folder),
  ):
    pass
  assert not folder.exists()


def test_a_bundle_is_read_as_it_was_written(folder):
  config, values = tiny_runs.make_config(), {'batch/label': np.arange(3)}
  nonfinite.write(folder, config, {'step': 3}, values)
  read, report, found = nonfinite.read(folder)
  assert serialize.config_hash(read) == serialize.config_hash(config)
  assert report == {'step': 3}
  np.testing.assert_array_equal(found['batch/label'], np.arange(3))


def test_cached_results(folder):
  computed = []

  def get():
    def compute():
      computed.append(1)
      return {'x': np.arange(3)}

    return result_cache.get(folder, {'a': 1}, compute)['x']

  np.testing.assert_array_equal(get(), get())
  assert len(computed) == 1


def test_videos_and_where_they_may_go(folder):
  videos = np.zeros((2, 4, 16, 16, 3), np.uint8)
  for seed in (0, 5):  # The second call replaces the first one's files.
    samples.write(
      folder, videos, [0, -1], ['a'], [seed, seed + 1], 10.0, {}, each=True
    )
  written = names(folder)
  assert {'samples.npz', 'sheet.png', 'grid.mp4', 'grid.gif'} <= set(written)
  assert [x for x in written if x.startswith('seed') and x.endswith('mp4')] == [
    'seed_000005.mp4',
    'seed_000006.mp4',
  ]
  # The index is at the front, as browsers want it.
  data = (folder / 'grid.mp4').read_bytes()
  assert 0 < data.find(b'moov') < data.find(b'mdat')
  with pytest.raises(FileExistsError, match='already holds samples'):
    request.choose_folder('run', 3, str(folder), overwrite=False)
  assert request.choose_folder('run', 3, str(folder), overwrite=True) == folder


def test_the_command_says_it_in_one_sentence(capsys):
  flags.FLAGS.mark_as_parsed()
  with (
    flagsaver.flagsaver(workdir='s3://bucket/run'),
    pytest.raises(SystemExit) as raised,
  ):
    sample.main([])
  assert raised.value.code == 2
  assert 's3://bucket/run cannot be used' in capsys.readouterr().err
