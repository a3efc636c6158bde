"""The latent cache: the same windows, after kills and damage, or a refusal."""

from concurrent import futures
import json
import os
import pathlib
import pickle
import threading

import killed_build
import numpy as np
import pytest
from tiny_source import LENGTHS
from tiny_source import SIZE
from tiny_source import Source
from tiny_source import take

from vdm.common import vocabulary
from vdm.data import cache_folder
from vdm.data import clip_spec
from vdm.data import latent_cache
from vdm.data import latent_cache_writer

BATCH = 7  # Frames encoded at once: no shard is a multiple.


class Described(Source):
  """A clip source with all that a cache asks of it."""

  split, split_list = 'train', '01'

  def __init__(self, lengths=LENGTHS, **options):
    super().__init__(lengths, **options)
    self.info |= {'version': '1.0.0', 'fingerprint': 'f' * 64}


def encode(frames):
  """Mean and log-variance that tell frames, rows and columns apart."""
  assert frames.shape == (BATCH, SIZE, SIZE, 3) and frames.dtype == np.uint8
  n, half = len(frames), SIZE // 2
  mean = frames.reshape(n, half, 2, half, 2, 3).mean(axis=(2, 4)) / 64.0
  return mean, -1.0 - mean


def make(folder, source=None, *, mirrored=True, encode=encode, **changes):
  """Writes a cache and returns the folder as text."""
  source = source or Described()
  plan = latent_cache_writer.make_plan(
    source,
    autoencoder='a' * 64,
    shape=(4, 4, 3),
    size=(SIZE, SIZE),
    mirrored=mirrored,
  )
  latent_cache_writer.write(
    str(folder), plan, source, encode, batch=BATCH, **changes
  )
  return str(folder)


def open_cache(folder, source=None, **changes):
  autoencoder = changes.pop('autoencoder', 'a' * 64)
  wanted = dict(frames=1, stride=1, resolution=SIZE, flip=True)
  spec = clip_spec.ClipSpec(**{**wanted, **changes})
  source = source or Described()
  return latent_cache.open_cache(str(folder), source, spec, autoencoder)


def encoded(videos):
  """What the cache should hold of clips [b t h w 3]: means, float16."""
  b, t, h, w, _ = videos.shape
  x = videos.reshape(b, t, h // 2, 2, w // 2, 2, 3).mean(axis=(3, 5)) / 64.0
  return x.astype(np.float16)


# Two copies of means and log-variances: 12 frames a shard.
SMALL = 12 * 2 * 2 * 4 * 4 * 3 * 2


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
  monkeypatch.setattr(latent_cache, 'SHARD_BYTES', SMALL)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A finished cache; leave it as it is."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(latent_cache, 'SHARD_BYTES', SMALL)
    return make(tmp_path_factory.mktemp('latents') / 'cache')


@pytest.mark.parametrize('frames, stride', [(4, 1), (3, 4), (1, 1)])
def test_batches_are_those_of_the_frames(folder, frames, stride):
  """Windows of any length and stride, over borders of records, mirrored."""
  options = dict(frames=frames, stride=stride, flip=True)
  options['texts'] = vocabulary.Words(('shot0', 'shot1', 'shot2'), 3)
  plain, _ = take(Described(), 4, **options)
  cached, bad = take(
    Described(), 4, cache=open_cache(folder), posterior=True, **options
  )
  assert bad == 0
  for one, other in zip(plain, cached):
    np.testing.assert_array_equal(other['label'], one['label'])
    np.testing.assert_array_equal(other['mean'], encoded(one['video']))
    assert other['mean'].dtype == other['logvar'].dtype == np.float16
    np.testing.assert_allclose(
      other['logvar'], -1.0 - encoded(one['video']), atol=2e-3
    )
    assert 'video' not in other
    np.testing.assert_array_equal(other['words'], one['words'])


def test_few_files_are_open_at_once(folder, monkeypatch):
  monkeypatch.setattr(latent_cache, 'OPEN_SHARDS', 4)
  cache = open_cache(folder)
  plain, _ = take(Described(), 4)
  cached, bad = take(Described(), 4, cache=cache)
  for one, other in zip(plain, cached):
    np.testing.assert_array_equal(other['mean'], encoded(one['video']))
  assert bad == 0 and len(cache._open) == 2


def test_log_variances_are_read_only_when_asked_for(folder):
  (batch,), _ = take(Described(), 1, cache=open_cache(folder))
  assert set(batch) == {'mean', 'label'}


def test_records_may_have_moved(folder):
  """Built anew by another number of workers, a data set has another order."""
  source = Described()
  order = np.random.default_rng(0).permutation(len(source.index['id']))
  source.index = {name: column[order] for name, column in source.index.items()}
  plain, _ = take(source, 2)
  cached, _ = take(source, 2, cache=open_cache(folder, source))
  for one, other in zip(plain, cached):
    np.testing.assert_array_equal(other['mean'], encoded(one['video']))


def test_worker_processes_read_the_same(folder):
  cache = pickle.loads(pickle.dumps(open_cache(folder)))
  found = cache.read(1, np.array([1, 3]), mirrored=True, posterior=True)
  wanted = open_cache(folder).read(
    1, np.array([1, 3]), mirrored=True, posterior=True
  )
  np.testing.assert_array_equal(found, wanted)
  assert found.shape == (2, 2, 4, 4, 3)


def test_processes_write_what_one_would(folder, tmp_path):
  """Two processes, played by two threads."""
  cache, together = tmp_path / 'cache', threading.Barrier(2)
  with futures.ThreadPoolExecutor(2) as pool:
    parts = [
      pool.submit(
        make,
        cache,
        process_index=index,
        process_count=2,
        wait=lambda: together.wait(timeout=60),
      )
      for index in range(2)
    ]
    for part in parts:
      part.result()
  assert same_files(folder, cache) >= 14


def same_files(one, other):
  """Asserts that two caches are the same bytes; returns how many files."""
  names = sorted(os.listdir(one))
  assert names == sorted(os.listdir(other))
  for name in names:
    if name != latent_cache.INDEX:  # A zip file, which holds times.
      contents = [
        pathlib.Path(folder, name).read_bytes() for folder in (one, other)
      ]
      assert contents[0] == contents[1], name
  return len(names)


def test_a_killed_build_resumes(folder, tmp_path):
  cache = tmp_path / 'cache'
  prepare = 'test.latent_cache.SHARD_BYTES = test.SMALL'
  killed_build.kill('latent_cache_test', prepare, 7, cache)
  before = {
    name: (cache / name).stat().st_mtime_ns
    for name in os.listdir(cache)
    if name.endswith('.npy') and '.sums.' not in name
  }
  assert 1 <= len(before) < 6
  with pytest.raises(
    cache_folder.CacheError, match='an unfinished latent cache'
  ):
    open_cache(cache)
  calls = []

  def counting(frames):
    calls.append(len(frames))
    return encode(frames)

  make(cache, encode=counting)
  for name, changed in before.items():
    assert (cache / name).stat().st_mtime_ns == changed, name
  same_files(folder, cache)
  # And a finished one stays as it is.
  done = len(calls)
  make(cache, encode=counting)
  assert done > 0 and len(calls) == done


@pytest.mark.parametrize(
  'changes, info, words',
  [
    (
      dict(autoencoder='b' * 64),
      {},
      'another autoencoder (aaaaaaaaaaaa, not b',
    ),
    (dict(resolution=4), {}, 'another resolution (8 px, not 4 px)'),
    (dict(crop=4), {}, 'whole frames, and stages.<name>.crop'),
    ({}, {'version': '1.0.1'}, 'data set version (1.0.0, not 1.0.1)'),
    ({}, {'fingerprint': 'e' * 64}, 'data set content (ffffffffffff, not e'),
    ({}, {'frame_rate': 12.5}, 'frame rate (25.0 frames/s, not 12.5 frames/s)'),
    ({}, {'resolution': 16}, 'stored resolution (8 px, not 16 px)'),
    ({}, {'name': 'other'}, 'another data set (fake, not other)'),
  ],
)
def test_what_differs_is_named(folder, changes, info, words):
  source = Described()
  source.info |= info
  with pytest.raises(cache_folder.CacheError) as error:
    open_cache(folder, source, **changes)
  assert words in str(error.value) and '\n' not in str(error.value)


def test_another_split_is_named(folder):
  source = Described((*LENGTHS, 9))
  with pytest.raises(
    cache_folder.CacheError, match='lacks 2 of the 17 records'
  ):
    open_cache(folder, source)
  # A part of what was encoded is fine.
  source = Described()
  source.index = {name: column[4:] for name, column in source.index.items()}
  plain, _ = take(source, 1)
  cached, _ = take(source, 1, cache=open_cache(folder, source))
  np.testing.assert_array_equal(cached[0]['mean'], encoded(plain[0]['video']))


def test_mirrored_frames_must_be_there_to_flip(tmp_path):
  folder = make(tmp_path / 'cache', mirrored=False)
  open_cache(folder, flip=False)
  with pytest.raises(cache_folder.CacheError, match='no mirrored frames'):
    open_cache(folder)


def test_no_cache_is_named_with_the_command(tmp_path):
  with pytest.raises(
    cache_folder.CacheError, match='python -m vdm.prepare latents'
  ):
    open_cache(tmp_path / 'nowhere')


def test_a_folder_of_something_else_stays_as_it_is(folder, tmp_path):
  (tmp_path / 'holiday.txt').write_text('sun')
  with pytest.raises(cache_folder.CacheError, match='other files'):
    make(tmp_path)
  assert os.listdir(tmp_path) == ['holiday.txt']
  # And so is a cache of something else.
  with pytest.raises(cache_folder.CacheError, match='mirrored True, not False'):
    make(folder, mirrored=False)
  source = Described()
  source.info['version'] = '2.0.0'
  with pytest.raises(cache_folder.CacheError, match='version'):
    make(folder, source)


def test_unreadable_frames_are_replaced_as_without_a_cache(tmp_path):
  source = Described(broken=(101, 107))
  folder = make(tmp_path / 'cache', source)
  with open(os.path.join(folder, latent_cache.DONE)) as file:
    assert json.load(file)['unreadable'] == sum(
      source.index['n'][np.isin(source.index['row'], (101, 107))]
    )
  plain, replaced = take(source, 4)
  cached, bad = take(source, 4, cache=open_cache(folder, source))
  assert bad == replaced > 0
  for one, other in zip(plain, cached):
    np.testing.assert_array_equal(other['mean'], encoded(one['video']))


def test_corrupt_latents_are_replaced_and_counted(tmp_path):
  folder = make(tmp_path / 'cache')
  path = os.path.join(folder, '00001.npy')
  with open(path, 'r+b') as file:
    file.seek(-1, os.SEEK_END)
    last = file.read(1)
    file.seek(-1, os.SEEK_END)
    file.write(bytes([last[0] ^ 1]))
  # The last byte is a mirrored frame's log-variance: means are valid.
  options = dict(flip=True, cache=open_cache(folder))
  _, bad = take(Described(), 8, **options)
  assert bad == 0
  _, bad = take(Described(), 8, posterior=True, **options)
  assert bad > 0


def test_latents_that_do_not_fit_are_refused(tmp_path):
  def large(frames):
    mean, logvar = encode(frames)
    return 1e6 * mean, logvar

  with pytest.raises(cache_folder.CacheError, match='do not fit float16'):
    make(tmp_path / 'large', encode=large)

  def undefined(frames):
    mean, logvar = encode(frames)
    return mean * np.nan, logvar

  with pytest.raises(cache_folder.CacheError, match='do not fit float16'):
    make(tmp_path / 'nan', encode=undefined)
