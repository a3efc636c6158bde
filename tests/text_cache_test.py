"""The text cache: what was encoded, after kills and damage, or a refusal."""

import json
import pathlib
import pickle
import subprocess
import sys

from conftest import ROOT
import killed_build
import numpy as np
import pytest
import tiny_runs
from tiny_source import LENGTHS
from tiny_source import Source
from tiny_source import take

from vdm.common import trees
from vdm.config import schema
from vdm.data import cache_folder
from vdm.data import text_cache
from vdm.data import text_cache_writer

CAPTIONS = [f'a clip of {i} birds' for i in range(9)] + ['one']
ENCODER = dict(name='tiny', revision='1', sha256='a' * 64, length=5, features=3)


def encode(captions):
  """A token a word, of its letters."""
  return [
    np.array([[len(w), ord(w[0]), ord(w[-1])] for w in x.split()], np.float32)
    / 128
    for x in captions
  ]


def count(captions):
  return [len(x.split()) for x in captions]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
  monkeypatch.setattr(text_cache, 'SHARD', 4)


def make(folder, captions=CAPTIONS, encode=encode, **changes):
  text_cache_writer.write(
    str(folder), ENCODER | changes, captions, encode, count, batch=3
  )
  return str(folder)


def text(**changes):
  options = schema.default().model.text
  options.update(name='tiny', revision='1', length=5, features=3)
  options.update(changes)
  return options


def test_every_caption_comes_back(tmp_path):
  folder = make(tmp_path, [*CAPTIONS, '', 'one'])
  texts = text_cache.open_cache(folder, text(), 'a' * 64)
  assert texts.plan['captions'] == len(CAPTIONS)
  for caption in CAPTIONS:
    found, (wanted,) = texts.read(caption), encode([caption])
    n = len(wanted)
    np.testing.assert_array_equal(found['text'][:n], np.float16(wanted))
    assert not found['text'][n:].any() and found['text'].dtype == np.float32
    assert found['text_mask'].tolist() == [True] * n + [False] * (5 - n)
  nothing = texts.read('')
  assert not nothing['text'].any() and not nothing['text_mask'].any()
  again = pickle.loads(pickle.dumps(texts))
  np.testing.assert_array_equal(
    again.read('one')['text'], texts.read('one')['text']
  )


def test_captions_that_are_not_there_are_named(tmp_path):
  texts = text_cache.Texts(make(tmp_path))
  assert texts.lacking(['one', 'two', '']) == ['two']
  texts.check('one')
  for ask in (texts.check, texts.read):
    words = "lacks the caption 'two'"
    with pytest.raises(cache_folder.CacheError, match=words):
      ask('two')


@pytest.mark.parametrize(
  'changes', [{'name': 'b'}, {'revision': '2'}, {'length': 6}, {'features': 4}]
)
def test_another_encoder_is_refused(changes, tmp_path):
  folder = make(tmp_path)
  (name,) = changes
  with pytest.raises(cache_folder.CacheError, match=f'with {name} '):
    text_cache.open_cache(folder, text(**changes))
  with pytest.raises(cache_folder.CacheError, match='with sha256 '):
    text_cache.open_cache(folder, text(), 'b' * 64)
  with pytest.raises(cache_folder.CacheError, match=f'another {name} '):
    make(tmp_path, **changes)


def test_a_killed_build_resumes(tmp_path):
  prepare = 'test.text_cache.SHARD = 4'
  killed_build.kill('text_cache_test', prepare, 4, tmp_path / 'a')
  with pytest.raises(cache_folder.CacheError, match='an unfinished text cache'):
    text_cache.Texts(str(tmp_path / 'a'))
  calls = []

  def counting(captions):
    calls.append(captions)
    return encode(captions)

  make(tmp_path / 'a', encode=counting)
  assert len(calls) == 3  # Two of the second shard, one of the third.
  make(tmp_path / 'b')
  for path in (tmp_path / 'b').iterdir():
    assert path.read_bytes() == (tmp_path / 'a' / path.name).read_bytes()


def test_what_is_encoded_is_not_tokenised_for_its_length_too(tmp_path):
  def count(captions):
    raise AssertionError(captions)

  args = (CAPTIONS, encode, count)
  text_cache_writer.write(str(tmp_path / 'a'), ENCODER, *args, batch=3)
  make(tmp_path / 'b')
  name = text_cache.OFFSETS
  found, wanted = ((tmp_path / x / name).read_bytes() for x in 'ab')
  assert found == wanted


def test_damage_is_noticed(tmp_path):
  folder = make(tmp_path)
  path = pathlib.Path(cache_folder.shard_path(folder, 1))
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(data)
  texts, bad = text_cache.Texts(folder), 0
  for caption in CAPTIONS:
    try:
      texts.read(caption)
    except ValueError as error:
      assert 'not what was written' in str(error)
      bad += 1
  assert bad == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path):
  (tmp_path / 'mine').write_text('x')
  with pytest.raises(cache_folder.CacheError, match='holds other files'):
    make(tmp_path)
  with pytest.raises(cache_folder.CacheError, match='There is no text cache'):
    text_cache.Texts(str(tmp_path))


def test_batches_carry_the_tokens_of_their_clips(tmp_path):
  source = Source(LENGTHS)
  told = source.index['caption'].tolist()
  texts = text_cache.Texts(make(tmp_path, told))
  for options in ({}, {'workers': 1}):
    (batch,), _ = take(source, 1, texts=texts, **options)
    for i, shot in enumerate(batch['video'][:, 0, 0, 0, 0]):
      wanted = texts.read(f'clip of shot{shot}')
      for name, x in wanted.items():
        np.testing.assert_array_equal(batch[name][i], x)


def test_a_step_on_encoded_captions_trains_what_reads_them(tmp_path):
  texts = text_cache.Texts(make(tmp_path))
  config = tiny_runs.make_config()
  config.model.update(num_classes=0)
  config.model.text.update(
    *(),
    **text(encoder='pretrained', width=8, layers=1, dropout=0.5).to_dict(),
  )
  run = tiny_runs.Run(config)
  batch = tiny_runs.batch()
  rows = [texts.read(CAPTIONS[i]) for i in range(8)]
  batch |= {name: np.stack([row[name] for row in rows]) for name in rows[0]}
  state, metrics = run.train([batch])
  assert np.isfinite(metrics[0]['loss'][0])
  for path, x in trees.flatten(run.initial.params).items():
    if path.startswith('text/') or '/text/' in path:
      assert (trees.flatten(state.params)[path] != x).any(), path


def test_reading_imports_no_torch(tmp_path):
  folder = make(tmp_path)
  code = (
    'import sys; from vdm.data import text_cache; from vdm import trained; '
    f'text_cache.Texts({folder!r}).read("one"); '
    'assert not {"torch", "transformers"} & sys.modules.keys()'
  )
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def test_the_plan_says_which_encoder(tmp_path):
  plan = json.loads((pathlib.Path(make(tmp_path)) / 'texts.json').read_text())
  assert {k: plan[k] for k in ENCODER} == ENCODER
