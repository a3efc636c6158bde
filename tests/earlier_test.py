"""A run whose samples are guided against an average of its own early steps."""

import json

from absl.testing import flagsaver
from etils import epath
import jax
import numpy as np
import pytest
import tiny_config

from vdm import fulfil
from vdm import generate
from vdm import prompts
from vdm import request
from vdm import sample
from vdm import train
from vdm import trained
from vdm.common import errors
from vdm.common import trees
from vdm.config import check
from vdm.config import sampling
from vdm.evaluation import run_samples
from vdm.models import safetensors
from vdm.planning import disk
from vdm.publishing import export
from vdm.publishing import run_facts
from vdm.trained import snapshots
from vdm.training import sharding

EARLY, STEPS = 1, 3


def make_config(root):
  """One stage of three steps, whose first is guided against."""
  config = tiny_config.make_config(root)
  config.autoencoder.update(kind='pca')
  config.sample.update(autoguide=EARLY, guidance=3.0)
  config.score.update(every=0, best='none')
  config.train.update(order=('video',), snapshot_every=0, preview_every=1)
  config.stages.video.update(steps=STEPS, image_fraction=0.0, context_noise=0.0)
  config.stages.video.frame_levels.update(
    shared=1.0, context=0.0, independent=0.0
  )
  return config


@pytest.fixture(scope='module')
def made():
  """What videos were guided against, in the order in which they were made."""
  return []


@pytest.fixture(scope='module')
def run(data_root, tmp_path_factory, made):
  """The folder of a run that stopped after its second step and resumed."""
  make = generate.make_generator

  def make_generator(config, stage, mesh, poll, worse=None):
    generator = make(config, stage, mesh, poll, worse)

    def samples(*arguments):
      made.append(worse and worse.step)
      return generator.samples(*arguments)

    return generator._replace(samples=samples)

  workdir = epath.Path(tmp_path_factory.mktemp('earlier'))
  config = make_config(data_root)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(generate, 'make_generator', make_generator)
    assert train.train(config, workdir, stop_at=2) == 0
    assert train.train(config, workdir) == 0
  return workdir


@pytest.fixture(scope='module')
def exported(run, tmp_path_factory):
  out = tmp_path_factory.mktemp('export') / 'earlier'
  export.write(run, out, export.Options(samples=2))
  return epath.Path(out)


def videos_of(folder):
  with np.load(folder / 'samples.npz', allow_pickle=False) as arrays:
    return arrays['videos']


def make_videos(model, num=8, worse=None):
  """On the devices that training has."""
  make = generate.make_generator(
    model.config, model.stage, sharding.make_mesh(), worse=worse
  )
  cond = prompts.for_preview(model.config, None, num).cond
  return make.samples(model.params, model.frozen, cond, np.arange(num))


def test_final_videos_are_guided_against_the_average_of_that_step(run):
  model = trained.load(run)
  assert (model.step, model.worse.step) == (STEPS, EARLY)
  # What the file holds, whoever reads it.
  file = run / f'snapshots/{EARLY:08d}.safetensors'
  width = f'{model.config.sample.ema:.3f}/'
  stored = {
    name.removeprefix(width): x
    for name, x in safetensors.parse(file.read_bytes()).items()
    if name.startswith(width)
  }
  assert trees.flatten(model.worse.params).keys() == stored.keys()
  jax.tree.map(
    np.testing.assert_array_equal, model.worse.params, trees.unflatten(stored)
  )
  final = videos_of(run / 'final')
  worse = generate.Average(model.config, trees.unflatten(stored), EARLY, '')
  np.testing.assert_array_equal(final, make_videos(model, worse=worse))
  alone = trained.load(run, autoguide='none')
  assert alone.worse is None and alone.config.sample.guidance == 3.0
  assert (final != make_videos(alone)).any()
  record = json.loads((run / 'final/samples.json').read_text())
  assert record['autoguide'] == {'run': str(run), 'step': 1, 'ema': 0.1}
  assert record['guidance'] == 3.0


def test_previews_are_guided_so_from_the_step_after(run, made):
  assert made == [None, EARLY, EARLY, EARLY]  # The last are the final videos.
  assert snapshots.steps(run) == [EARLY]


def test_an_early_step_is_guided_by_labels(run, data_root):
  early = trained.load(run, checkpoint=str(EARLY))
  assert early.step == EARLY and early.worse is None
  assert early.config.sample.autoguide == 0
  config = make_config(data_root)
  assert sampling.of_stage(config, config.stages.video) is config
  # An autoencoder makes no videos, however long its stage is.
  assert not sampling.of_stage(
    config, config.stages.autoencoder
  ).sample.autoguide
  config.stages.video.steps = EARLY
  assert not sampling.of_stage(config, config.stages.video).sample.autoguide
  # By nothing, where the null label was never trained.
  config.model.label_dropout = 0.0
  assert sampling.by_conditions(config).sample.guidance == 1.0
  assert config.sample.guidance == 3.0


def test_the_command_takes_it_unless_told_otherwise(run, tmp_path):
  with flagsaver.flagsaver(workdir=str(run), out=str(tmp_path), num=2):
    sample.main([])
  record = json.loads((tmp_path / 'samples.json').read_text())
  assert record['autoguide']['step'] == EARLY
  # On one device, where sums may round in another way.
  made, final = (np.int16(videos_of(x)) for x in (tmp_path, run / 'final'))
  np.testing.assert_allclose(made, final[:2], atol=2)
  for name, worse in ((None, EARLY), ('none', None), ('3', STEPS)):
    options = request.Options(
      workdir=str(run), out=str(tmp_path / 'other'), autoguide=name
    )
    found = request.read(options)
    again = request.read(options, [trained.load(run)])  # As a notebook does.
    for run_of in (found.run, again.run):
      assert (run_of.worse and run_of.worse.step) == worse
    assert ('autoguide' in fulfil.describe(found)) == (worse is not None)


def test_an_export_holds_both(run, exported):
  found, model = trained.load(exported), trained.load(run)
  assert found.worse.step == EARLY
  jax.tree.map(
    np.testing.assert_array_equal, found.worse.params, model.worse.params
  )
  np.testing.assert_array_equal(
    make_videos(found, worse=found.worse), videos_of(run / 'final')
  )
  card = (exported / 'README.md').read_text()
  for words in (
    'guidance 3 against step 1',
    'worse=model.worse',
    '`earlier.safetensors`',
  ):
    assert words in card, words
  assert trained.load(exported, autoguide='none').worse is None


def test_an_export_without_it_is_refused(exported):
  path = exported / 'earlier.safetensors'
  data = path.read_bytes()
  try:
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(errors.UsageError, match='earlier.safetensors is not'):
      trained.load(exported)
    path.unlink()
    with pytest.raises(errors.UsageError, match='earlier.safetensors is miss'):
      trained.load(exported)
    trained.load(exported, autoguide='none')
  finally:
    path.write_bytes(data)


def test_numbers_of_other_samples_are_not_the_cards(run, caplog):
  model = trained.load(run)
  assert run_facts.FINAL in run_facts.measured(model)
  alone = trained.load(run, autoguide='none')
  assert run_facts.FINAL not in run_facts.measured(alone)
  assert 'another autoguide' in caplog.text
  labels = np.arange(8)
  assert run_samples.final_videos(model, labels) is not None
  assert run_samples.final_videos(alone, labels) is None
  key = run_samples.key(model)
  assert key['autoguide']['step'] == EARLY
  assert 'autoguide' not in run_samples.key(alone)


def test_a_snapshot_that_is_gone_is_one_sentence(run, tmp_path):
  folder = run / 'snapshots'
  folder.rename(tmp_path / 'snapshots')
  try:
    with pytest.raises(FileNotFoundError, match='--autoguide none'):
      trained.load(run)
    assert trained.load(run, autoguide='none').step == STEPS
  finally:
    (tmp_path / 'snapshots').rename(folder)
  # One snapshot makes no average of a later step.
  with pytest.raises(ValueError, match='0.050, 0.100, not 0.070'):
    trained.load(run, ema=0.07)


def test_a_finished_run_cannot_be_guided_against_what_it_did_not_keep(
  run, data_root
):
  config = make_config(data_root)
  config.sample.autoguide = EARLY + 1
  with pytest.raises(FileNotFoundError, match='no snapshot of step 2'):
    train.train(config, run)
  assert train.train(make_config(data_root), run) == 0


def test_what_cannot_be_is_said_before_the_first_step(data_root):
  config = make_config(data_root)
  config.sample.autoguide = STEPS
  with pytest.raises(errors.UsageError, match='stage video has 3'):
    check.validate(config)
  config.sample.update(autoguide=EARLY, guidance_by='label=2')
  with pytest.raises(errors.UsageError, match='one scale and no groups'):
    check.validate(config)
  config.sample.guidance_by = ''
  check.validate(config)
  with pytest.raises(ValueError, match='worse=model.worse'):
    generate.make_generator(config, config.stages.video)


def test_the_plan_counts_its_bytes(data_root):
  config = make_config(data_root)
  counted = {'video': 1000}
  one = 4 * 1000 * len(config.optim.ema)
  assert disk.snapshots(config, counted) == one
  config.train.snapshot_every = 1  # It is one of them.
  assert disk.snapshots(config, counted) == 3 * one
  config.train.snapshot_every = 2  # 1, 2 and 3.
  assert disk.snapshots(config, counted) == 3 * one
