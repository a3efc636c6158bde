"""A tiny run that learns captions, from its data set to `vdm.sample`."""

import json
import subprocess
import sys

from absl import flags
from absl.testing import flagsaver
from conftest import ROOT
from etils import epath
import numpy as np
import pytest
import tiny_config

from vdm import prompts
from vdm import sample
from vdm import train
from vdm import trained
from vdm.common import errors
from vdm.config import condition_rules
from vdm.config import rules
from vdm.config import schema
from vdm.publishing import export
from vdm.trained import run_folder
from vdm.training import inputs
from vdm.training import stages
from vdm.training import texts

PROMPTS = ('a red disc moves up', 'a blue square moves to the left')


def make_config(root):
  """One stage of two steps."""
  config = tiny_config.make_config(root)
  config.data.scenes.update(train=32, validation=16, captions=True)
  config.autoencoder.update(kind='pca')
  config.model.update(num_classes=0)
  config.model.text.update(
    encoder='learned', length=16, width=8, layers=1, vocabulary=64
  )
  config.sample.captions = PROMPTS
  config.score.every = 0
  config.train.snapshot_every = 0
  config.train.order = ('video',)
  config.stages.video.update(steps=2, image_fraction=0.0, context_noise=0.0)
  config.stages.video.frame_levels.update(
    shared=1.0, context=0.0, independent=0.0
  )
  return config


@pytest.fixture(scope='module')
def run(data_root, tmp_path_factory):
  workdir = epath.Path(tmp_path_factory.mktemp('words'))
  assert train.train(make_config(data_root), workdir) == 0
  return workdir


def rows(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_the_vocabulary_is_the_runs(run):
  words = json.loads((run / 'text/vocabulary.json').read_text())
  assert words[0] == 'a' and {'red', 'triangle', 'up'} <= set(words)
  model = trained.load(run)
  assert model.reader.vocabulary == tuple(words)
  assert trained.load_vocabulary(run) == tuple(words)


def test_losses_are_with_captions_and_without(run):
  found = {name for row in rows(run) for name in row}
  assert {'val_loss', 'val_loss_captioned'} <= found
  assert 'val_loss_labelled' not in found
  last = [row for row in rows(run) if 'val_loss' in row][-1]
  assert np.isfinite([last['val_loss'], last['val_loss_captioned']]).all()


def test_final_videos_are_of_the_prompts_and_scored(run):
  record = json.loads((run / 'final/samples.json').read_text())
  assert record['captions'] == list(PROMPTS) * 4
  assert record['labels'] == [-1] * 8 and record['guidance'] == 2.0
  scores = json.loads((run / 'final/metrics.json').read_text())['captions']
  assert {'samples', 'real', 'reconstruction'} <= scores.keys()
  assert scores['samples']['seen']['clips'] == 8
  # Few px, but what is true of real clips is mostly found in them.
  real = scores['real']
  assert real['seen']['direction'] > 0.5 and real['seen']['colour'] > 0.5


def test_a_finished_run_is_not_made_again(run, data_root, tmp_path):
  before = (run / 'final/samples.npz').stat().mtime
  assert train.train(make_config(data_root), run) == 0
  assert (run / 'final/samples.npz').stat().mtime == before
  (run / 'text/vocabulary.json').rename(tmp_path / 'moved')
  try:
    with pytest.raises(errors.UsageError, match='vocabulary.json is missing'):
      trained.load(run)
  finally:
    (tmp_path / 'moved').rename(run / 'text/vocabulary.json')


def test_single_frames_and_clips_get_their_words(run, data_root):
  config = make_config(data_root)
  (span,) = stages.spans(config)
  from vdm.data import builders
  from vdm.preparation import datasets

  source = builders.open_source(datasets.ensure(config.data), 'train')
  begun = run_folder.begun(run)
  reader = texts.make_reader(config, run, {'train': source}, begun)
  with inputs.make_batches(config, source, span, 0, texts=reader) as batches:
    batch = next(batches)
  by_id = dict(zip(source.index['id'].tolist(), source.index['caption']))
  clips = inputs.name_clips(config, source, span, 0)
  wanted = [reader.read(by_id[clip['id']])['words'] for clip in clips]
  np.testing.assert_array_equal(batch['words'], wanted)
  frames = inputs.as_single_frames(batch)
  np.testing.assert_array_equal(frames['words'], np.repeat(wanted, 4, axis=0))
  for single in (False, True):
    told = frames if single else batch
    abstract = inputs.abstract_batch(config, span, single=single)
    assert {k: (x.shape, x.dtype) for k, x in abstract.items()} == {
      k: (x.shape, x.dtype) for k, x in told.items()
    }
  config.data.fixed_clips = 3
  with inputs.make_batches(config, source, span, 0, texts=reader) as batches:
    fixed = next(batches)
  assert fixed.keys() == batch.keys()
  assert fixed['words'].shape == batch['words'].shape


def ask(run, tmp_path, **values):
  flags.FLAGS.mark_as_parsed()
  out = tmp_path / 'out'
  with flagsaver.flagsaver(workdir=str(run), out=str(out), **values):
    sample.main([])
  return json.loads((out / 'samples.json').read_text()), out


def refused(run, tmp_path, capsys, words, **values):
  with pytest.raises(SystemExit) as error:
    ask(run, tmp_path, **values)
  assert error.value.code == 2
  said = capsys.readouterr().err.strip()
  assert words in said and '\n' not in said


def test_a_caption_is_asked_for_and_recorded(run, tmp_path):
  caption = 'a red disc moves up and to the left'
  record, out = ask(run, tmp_path, caption=caption, num=2)
  assert record['captions'] == [caption] * 2
  with np.load(out / 'samples.npz', allow_pickle=False) as file:
    videos = file['videos']
  # A video is that of its seed and caption, from a file of captions as well.
  lines = tmp_path / 'prompts.txt'
  lines.write_text(f'a blue square moves down\n\n  {caption}\n')
  record, out = ask(run, tmp_path, captions=str(lines), overwrite=True)
  assert record['captions'] == ['a blue square moves down', caption]
  with np.load(out / 'samples.npz', allow_pickle=False) as file:
    assert len(file['videos']) == 2
    again = file['videos'][1]
  assert np.abs(again.astype(int) - videos[1]).max() <= 1


def test_prompts_that_make_no_sense_are_refused(run, tmp_path, capsys):
  refused(run, tmp_path, capsys, 'does not know (teal)', caption='a teal disc')
  empty = tmp_path / 'empty.txt'
  empty.write_text('\n')
  refused(run, tmp_path, capsys, 'no line', captions=str(empty))
  refused(run, tmp_path, capsys, 'give one', caption='a', captions=str(empty))
  refused(run, tmp_path, capsys, 'leave --text_encoder out', text_encoder='a')
  missing = str(tmp_path / 'missing.txt')
  refused(run, tmp_path, capsys, 'missing.txt', captions=missing)


def test_an_export_has_the_words(run, tmp_path):
  out = tmp_path / 'export'
  names = export.write(run, out, export.Options(samples=2))
  assert 'vocabulary.json' in names
  model, original = trained.load(out), trained.load(run)
  assert model.reader == original.reader
  assert trained.load_vocabulary(out) == original.reader.vocabulary
  assert "--caption 'a red disc moves up'" in (out / 'README.md').read_text()
  damaged = (out / 'vocabulary.json').read_text().replace('red', 'der')
  (out / 'vocabulary.json').write_text(damaged)
  with pytest.raises(errors.UsageError, match='vocabulary.json is not what'):
    trained.load(out)


def test_a_data_set_without_captions_is_refused(data_root, tmp_path):
  config = make_config(data_root)
  config.data.scenes.captions = False
  with pytest.raises(errors.UsageError, match='has no captions'):
    train.train(config, tmp_path / 'run')


def test_mirrored_directions_are_refused(data_root, tmp_path):
  config = make_config(data_root)
  config.data.flip = True
  with pytest.raises(errors.UsageError, match='words with a direction'):
    train.train(config, tmp_path / 'run')


def test_a_run_that_goes_on_from_another_keeps_its_words(run, data_root):
  """Words keep the rows of the table that were trained for them."""
  config = make_config(data_root)
  config.train.init_from = str(run)
  from vdm.data import builders
  from vdm.preparation import datasets

  source = builders.open_source(datasets.ensure(config.data), 'train')
  source.index['caption'] = np.array(['a zebra moves up'])
  config.sample.captions = ()
  workdir = epath.Path(data_root) / 'other'
  reader = texts.make_reader(config, workdir, {'train': source}, None)
  words = trained.load_vocabulary(run)
  assert reader.vocabulary == (*words, 'zebra')
  # Other captions before the first checkpoint: their words are learned.
  source.index['caption'] = np.array(['a quagga moves up'])
  reader = texts.make_reader(config, workdir, {'train': source}, None)
  assert reader.vocabulary == (*words, 'quagga')


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'model.text.dropout': 0.0}, 'text.dropout=0 leaves captions'),
    ({'model.text.dropout': 1.0}, 'text.dropout=1 replaces every caption'),
    ({'model.text.encoder': 'none'}, 'sample.captions is set'),
    ({'model.text.encoder': 'pretrained'}, 'needs config.model.text.name'),
    ({'model.joint_attention': False}, 'no block attends'),
    ({'model.kind': 'conditional'}, 'learns no words'),
    ({'data.texts': 'x'}, 'encoder=learned reads words'),
  ],
)
def test_keys_that_contradict_each_other(changes, words, data_root):
  config = make_config(data_root)
  assert not list(rules.problems(config))
  config.update_from_flattened_dict(changes)
  assert any(words in problem for problem in rules.problems(config))
  if 'model.text.dropout' in changes:
    assert not list(condition_rules.guidance_problems(config.model, 1.0))


def test_what_losses_are_called():
  model = schema.default().model
  assert (
    condition_rules.told_loss(model) == ''
    and condition_rules.guided_by(model) == ()
  )
  model.num_classes = 3
  assert condition_rules.told_loss(model) == 'val_loss_labelled'
  model.text.encoder = 'learned'
  assert condition_rules.told_loss(model) == 'val_loss_captioned'
  assert condition_rules.guided_by(model) == ('label', 'text')


def test_previews_follow_prompts_else_clips():
  config = schema.default()
  clips = {
    'label': np.array([-1, -1, -1], np.int32),
    'words': np.array([[2], [3], [0]], np.int32),
    'caption': np.array(['a', 'b', '']),
  }
  from vdm.common import vocabulary

  reader = vocabulary.Words(('a', 'b', 'c'), 1)
  found = prompts.for_preview(config, reader, 4, clips)
  assert found.captions == ['a', 'b', '', 'a']
  assert found.cond['words'].tolist() == [[2], [3], [0], [2]]
  assert not prompts.for_preview(config, reader, 2).cond['words'].any()
  config.sample.captions = ('c', 'a')
  found = prompts.for_preview(config, reader, 3, clips)
  assert list(found.captions) == ['c', 'a', 'c']
  assert found.cond['words'].tolist() == [[4], [2], [4]]
  assert found.cond['label'].tolist() == [-1, -1, -1]


def test_sampling_from_words_stays_light(run, tmp_path):
  """Neither torch nor what reads data sets; words need none of it."""
  script = (
    'import sys\n'
    'from vdm import generate, prompts, sample, trained\n'
    'model = trained.load(sys.argv[1])\n'
    "captions = prompts.choose_captions(model, 'a red disc')\n"
    'assert prompts.make(model.reader, [-1], captions).cond["words"].any()\n'
    'generate.make_generator(model.config, model.stage)\n'
    "heavy = {'torch', 'transformers', 'tensorflow', 'grain', 'clu'}\n"
    "heavy |= {'tensorflow_datasets', 'array_record'}\n"
    'assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n'
  )
  command = [sys.executable, '-c', script, str(run)]
  subprocess.run(command, check=True, cwd=ROOT)
