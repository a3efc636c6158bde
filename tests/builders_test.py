"""Datasets of clips: what is stored is what was made, read by two readers."""

import itertools
import json
import multiprocessing
import os
import pathlib
import pickle
import subprocess
import sys
import zlib

import numpy as np
import pytest

from vdm.common import parallel
from vdm.common import progress
from vdm.config import schema
from vdm.data import builders
from vdm.data import coding
from vdm.data.builders import build_plan
from vdm.data.builders import reader
from vdm.data.builders import writer
from vdm.data.synthetic import scenes
from vdm.preparation import datasets

ROOT = pathlib.Path(__file__).resolve().parent.parent


def synthetic_config(root, **changes):
  data = schema.default().data
  data.root, data.resolution = str(root), 16
  data.scenes.update(dict(train=6, validation=2, frames=5))
  data.update(changes)
  return data


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  """A synthetic dataset: (schema.data, directory)."""
  data = synthetic_config(tmp_path_factory.mktemp('data'))
  return data, datasets.ensure(data)


def fake_plan(shots, name='fake', splits=('train', 'validation')):
  return build_plan.Plan(
    name=name,
    config_name='tiny',
    settings=dict(resolution=8, frame_rate=10.0, encoding='webp'),
    label_names=('a', 'b'),
    splits=splits,
    shots=lambda: iter(shots),
  )


def fake_shot(name, n, split='train', label=0, **values):
  frames = [f'{name} {i} '.encode() * 9 for i in range(n)]
  return build_plan.Shot(
    id=name,
    frames=iter(frames),
    n=n,
    frame_rate=10.0,
    height=9,
    width=12,
    splits=(split,),
    label=label,
    **values,
  )


def test_synthetic_frames_and_truth_are_the_renderer_s(built):
  data, directory = built
  options = data.scenes.to_dict()
  train, validation = options.pop('train'), options.pop('validation')
  index = 0
  for split, count in (('train', train), ('validation', validation)):
    source = builders.open_source(directory, split)
    assert len(source) == count
    for position in range(count):
      scene = scenes.render(index, resolution=16, **options)
      row = source.index['row'][position]
      stored = [coding.decode_frame(f) for f in source.frames(row)]
      np.testing.assert_array_equal(np.stack(stored), scene['frames'])
      assert source.index['label'][position] == scene['label']
      truth = source.truth(row)
      assert truth.keys() == scene['truth'].keys()
      for name, array in truth.items():
        np.testing.assert_array_equal(array, scene['truth'][name])
      index += 1


def test_is_a_tfds_dataset(built):
  import tensorflow_datasets as tfds

  _, directory = built
  records_by_tfds = tfds.builder_from_directory(directory).as_data_source(
    'clips'
  )
  table = reader.read_index(directory)
  source = builders.open_source(directory, 'validation')
  assert len(records_by_tfds) == len(table['id']) == 8
  for row, record in enumerate(records_by_tfds):
    assert record['id'].decode() == table['id'][row]
    assert record['label'] == table['label'][row]
    assert record['n'] == len(record['frames']) == table['n'][row]
    assert record['frames'] == source.frames(row)
    centre = source.truth(row)['centre']
    np.testing.assert_array_equal(record['truth']['centre'], centre)
  splits = [record['splits'] for record in records_by_tfds]
  assert splits == [[b'train']] * 6 + [[b'validation']] * 2


def test_neither_building_nor_reading_needs_tensorflow(tmp_path):
  code = """
import importlib.machinery, importlib.util, sys
find = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
  if name.split('.')[0] == 'tensorflow':
    return None  # As if it were not installed.
  return find(name, path, target)
importlib.machinery.PathFinder.find_spec = find_spec
from vdm.config import schema
from vdm.data import builders
from vdm.preparation import datasets
data = schema.default().data
data.root, data.resolution = sys.argv[1], 16
data.scenes.update(dict(train=2, validation=1, frames=2))
directory = datasets.build(data)
import tensorflow_datasets as tfds
source = tfds.builder_from_directory(directory).as_data_source('clips')
assert len(source) == 3 and len(source[2]['frames']) == 2
assert importlib.util.find_spec('tensorflow') is None
"""
  subprocess.run(
    [sys.executable, '-c', code, str(tmp_path)], cwd=ROOT, check=True
  )


def test_reading_imports_nothing_heavy(built):
  code = """
import sys
from vdm.data import builders
from vdm.preparation import datasets
source = builders.open_source(sys.argv[1], 'train')
assert len(source.frames(0, 1, 3)) == 2 and source.truth(0)
heavy = {'jax', 'tensorflow', 'tensorflow_datasets', 'flax'}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
  subprocess.run([sys.executable, '-c', code, built[1]], cwd=ROOT, check=True)


def read_first(source):
  return source.frames(int(source.index['row'][0]), 1, 3)


def test_source_survives_pickling_and_other_processes(built):
  source = builders.open_source(built[1], 'validation')
  expected = read_first(source)  # The files are open when it is pickled.
  copy = pickle.loads(pickle.dumps(source))
  assert read_first(copy) == expected
  assert len(pickle.dumps(source)) < 1000
  with multiprocessing.get_context('spawn').Pool(1) as pool:
    assert pool.apply(read_first, (source,)) == expected


def test_long_shots_are_cut_and_lose_nothing(tmp_path):
  size = build_plan.RECORD_FRAMES
  n = 2 * size + 3
  truth = {
    'centre': np.arange(2 * n, dtype=np.float32).reshape(n, 2),
    'shape': np.array([4], np.int32),
  }
  plan = build_plan.Plan(
    **{
      **vars(fake_plan([fake_shot('long', n, truth=truth)])),
      'truth': {'centre': ('float32', (None, 2)), 'shape': ('int32', (1,))},
    }
  )
  directory = writer.write(plan, root=str(tmp_path), version='1.0.0')
  source = builders.open_source(directory, 'train')
  assert source.index['n'].tolist() == [size, size, 3]
  assert source.index['start'].tolist() == [0, size, 2 * size]
  assert len(set(source.index['shot'])) == 1
  frames = itertools.chain(*(source.frames(row) for row in range(3)))
  assert list(frames) == list(fake_shot('long', n).frames)
  centres = [source.truth(row)['centre'] for row in range(3)]
  np.testing.assert_array_equal(np.concatenate(centres), truth['centre'])
  assert source.truth(2)['shape'].tolist() == [4]
  assert size <= 128


def test_index_has_every_field(tmp_path):
  shot = fake_shot(
    'x', 3, label=1, caption='a dog', group='g', source_sha256='ab'
  )
  plan = fake_plan([shot, fake_shot('y', 2, 'validation', label=-1)])
  directory = writer.write(plan, root=str(tmp_path), version='1.0.0')
  train = builders.open_source(directory, 'train')
  row = {name: column[0] for name, column in train.index.items()}
  assert row == dict(
    id='x:000000',
    source_sha256='ab',
    shot=0,
    start=0,
    n=3,
    frame_rate=10.0,
    height=9,
    width=12,
    group='g',
    label=1,
    caption='a dog',
    row=0,
  )
  assert train.info['num_classes'] == 2
  held_out = builders.open_source(directory, 'validation')
  assert held_out.index['label'].tolist() == [-1]
  assert held_out.index['row'].tolist() == [1]
  assert held_out.truth(1) is None
  with pytest.raises(ValueError, match='it has train, validation'):
    builders.open_source(directory, 'test')


def test_many_shards(tmp_path, monkeypatch):
  monkeypatch.setattr(writer, '_SHARD_BYTES', 2000)
  shots = [fake_shot(f's{i}', 5) for i in range(40)]
  directory = writer.write(
    fake_plan(shots), root=str(tmp_path), version='1.0.0'
  )
  source = builders.open_source(directory, 'train')
  assert len(source.info['shards']) > 3
  for row in range(40):
    assert source.frames(row) == list(fake_shot(f's{row}', 5).frames)


def test_fingerprint_is_of_the_content_in_any_order(tmp_path):
  def fingerprint(name, shots):
    directory = writer.write(
      fake_plan(shots, name), root=str(tmp_path), version='1.0.0'
    )
    return reader.read_info(directory)['fingerprint']

  def some(**changes):
    return [fake_shot('a', 3), fake_shot('b', 2, **changes)]

  first = fingerprint('first', some())
  assert first == fingerprint('reversed', some()[::-1])
  assert first != fingerprint('label', some(label=1))
  assert first != fingerprint('split', some(split='validation'))
  assert first != fingerprint('longer', [*some(), fake_shot('c', 1)])
  swapped = fake_shot('b', 2)
  frames = list(swapped.frames)[::-1]
  swapped = build_plan.Shot(**{**vars(swapped), 'frames': frames})
  assert first != fingerprint('order', [fake_shot('a', 3), swapped])


def test_fingerprint_and_dataset_do_not_depend_on_threads(tmp_path, built):
  _, directory = built
  options = parallel.ordered_map.__kwdefaults__
  before = dict(options)
  options.update(threads=1, ahead=1)
  try:
    other = datasets.build(synthetic_config(tmp_path))
  finally:
    options.update(before)
  one, two = reader.read_info(directory), reader.read_info(other)
  assert one == two


def test_settings_that_change_the_content_change_the_directory(tmp_path):
  directories = {datasets.dataset_dir(synthetic_config(tmp_path))}
  for changes in (
    dict(resolution=8),
    dict(encoding='jpeg'),
    dict(frame_rate=10.0),
    dict(scenes=dict(walls=True)),
    dict(scenes=dict(seed=1)),
    dict(scenes=dict(train=7)),
  ):
    directories.add(datasets.dataset_dir(synthetic_config(tmp_path, **changes)))
  assert len(directories) == 7
  reading = synthetic_config(tmp_path, flip=True, stride=2, threads=7)
  assert datasets.dataset_dir(reading) in directories


def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path):
  def failing():
    yield fake_shot('a', 3)
    raise RuntimeError('disk on fire')

  plan = build_plan.Plan(**{**vars(fake_plan([])), 'shots': failing})
  with pytest.raises(RuntimeError, match='disk on fire'):
    writer.write(plan, root=str(tmp_path), version='1.0.0')
  assert not list(tmp_path.rglob('*.json'))
  good = fake_plan([fake_shot('a', 3)])
  directory = writer.write(good, root=str(tmp_path), version='1.0.0')
  assert len(builders.open_source(directory, 'train')) == 1


def test_a_killed_build_never_looks_finished(tmp_path):
  code = """
import os, signal, sys
from tests import builders_test
from vdm.data.builders import build_plan, writer
def shots():
  yield builders_test.fake_shot('a', 200)
  os.kill(os.getpid(), signal.SIGKILL)
plan = build_plan.Plan(
    **{**vars(builders_test.fake_plan([])), 'shots': shots})
writer.write(plan, root=sys.argv[1], version='1.0.0')
"""
  result = subprocess.run(
    [sys.executable, '-c', code, str(tmp_path)], cwd=ROOT, check=False
  )
  assert result.returncode == -9
  left = list(tmp_path.rglob(writer._OWNER_FILE))
  assert len(left) == 1  # The killed build was at work.
  assert not list(tmp_path.rglob(reader.INFO_FILE))
  with pytest.raises(builders.MissingDataset):
    builders.open_source(str(tmp_path / 'fake/tiny/1.0.0'), 'train')
  plan = fake_plan([fake_shot('a', 200)])
  directory = writer.write(plan, root=str(tmp_path), version='1.0.0')
  assert os.listdir(tmp_path / 'fake/tiny') == ['1.0.0']
  assert builders.open_source(directory, 'train').info['frames'] == 200


def test_no_clip_at_all_is_an_error(tmp_path):
  plan = fake_plan([build_plan.Skipped('x.avi', 'empty', 'no bytes')])
  with pytest.raises(builders.BuildError, match='1 empty'):
    writer.write(plan, root=str(tmp_path), version='1.0.0')


def test_labels_with_a_direction_are_in_the_info(built, tmp_path):
  _, directory = built
  info = reader.read_info(directory)
  assert info['directional_labels'] == info['label_names']
  # Data sets of earlier versions do not say; a person may empty the list.
  path = tmp_path / 'clips.json'
  del info['directional_labels']
  for changes, labels in (
    ({}, info['label_names']),
    ({'name': 'mine', 'label_names': ['left', 'up']}, ['left']),
    ({'directional_labels': []}, []),
  ):
    path.write_text(json.dumps(info | changes))
    assert reader.read_info(str(tmp_path))['directional_labels'] == labels


def test_skipped_files_are_listed(tmp_path):
  skipped = build_plan.Skipped('x.avi', 'empty', 'no bytes')
  plan = fake_plan([skipped, fake_shot('a', 1)])
  directory = writer.write(plan, root=str(tmp_path), version='1.0.0')
  assert builders.read_skipped(directory) == [vars(skipped)]


def test_a_damaged_record_raises_and_spares_the_others(tmp_path):
  generator = np.random.default_rng(0)
  shots = []
  for number in range(20):
    shot = fake_shot(f's{number}', 1)
    frame = generator.bytes(4000)
    shots.append(build_plan.Shot(**{**vars(shot), 'frames': [frame]}))
  directory = writer.write(
    fake_plan(shots), root=str(tmp_path), version='1.0.0'
  )
  (name, _), *_ = reader.read_info(directory)['shards']
  path = pathlib.Path(directory, name)
  data = bytearray(path.read_bytes())
  data[data.index(shots[7].frames[0][:64]) + 30] ^= 1
  path.write_bytes(data)
  source = builders.open_source(directory, 'train')
  failed = []
  for _ in range(2):
    for row in range(20):
      try:
        assert source.frames(row) == shots[row].frames
      except RuntimeError as error:
        assert f'Record {row} of' in str(error)
        failed.append(row)
  assert failed == [7, 7]


def test_missing_datasets_name_the_command(tmp_path):
  data = schema.default().data
  data.root, data.name = str(tmp_path), 'video_folder'
  command = 'python -m vdm.prepare clips --config'
  with pytest.raises(builders.MissingDataset, match=command):
    datasets.ensure(data)
  (tmp_path / 'videos').mkdir()
  data.source = str(tmp_path / 'videos')
  with pytest.raises(builders.MissingDataset, match=command):
    datasets.ensure(data)
  data.name = 'ucf'
  with pytest.raises(ValueError, match='there are synthetic_scenes, ucf101'):
    datasets.dataset_dir(data)


def test_info_is_readable_json(built):
  data, directory = built
  info = json.loads(pathlib.Path(directory, reader.INFO_FILE).read_text())
  assert info['settings']['scenes']['frames'] == 5
  assert info['label_names'] == list(scenes.LABEL_NAMES)
  assert (info['records'], info['frames']) == (8, 40)
  assert len(info['fingerprint']) == 64
  assert data.resolution == info['resolution']


def test_ordered_map_keeps_order_and_bounds_what_waits():
  started = []

  def work(item):
    return zlib.crc32(bytes(1000 * (item % 3))) * 0 + item

  def items():
    for item in range(50):
      started.append(item)
      yield item

  results = parallel.ordered_map(work, items(), threads=3, ahead=2)
  for expected, result in enumerate(results):
    assert result == expected
    assert len(started) <= expected + 6


def test_ordered_map_raises_what_the_function_raised():
  results = parallel.ordered_map(lambda x: 1 / x, [1, 0, 1], threads=2)
  assert next(results) == 1
  with pytest.raises(ZeroDivisionError):
    next(results)


@pytest.mark.parametrize('is_terminal', [True, False])
def test_track_passes_everything_on(monkeypatch, is_terminal):
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: is_terminal)
  assert list(progress.track(iter('abc'), 3, 'letters', 'letter')) == [*'abc']


def test_two_builds_at_once_agree(tmp_path):
  def plan(shots):
    return build_plan.Plan(**{**vars(fake_plan([])), 'shots': shots})

  def slower():
    yield fake_shot('a', 3)
    quick = plan(lambda: iter([fake_shot('a', 3)]))
    writer.write(quick, root=str(tmp_path), version='1.0.0')

  directory = writer.write(plan(slower), root=str(tmp_path), version='1.0.0')
  assert len(builders.open_source(directory, 'train')) == 1
  assert os.listdir(tmp_path / 'fake/tiny') == ['1.0.0']


def test_a_foreign_directory_is_not_taken_for_a_dataset(tmp_path):
  place = tmp_path / 'fake/tiny/1.0.0'
  place.mkdir(parents=True)
  (place / 'thesis.txt').write_text('keep me')
  plan = fake_plan([fake_shot('a', 3)])
  with pytest.raises((builders.BuildError, OSError)):
    writer.write(plan, root=str(tmp_path), version='1.0.0')
  assert (place / 'thesis.txt').exists()
