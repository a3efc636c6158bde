"""The command that makes videos: where they go, and what is recorded."""

import json

from absl import flags
from absl.testing import flagsaver
import numpy as np
from PIL import Image
import pytest
import tiny_config

from vdm import generate
from vdm import sample
from vdm import trained
from vdm.common import progress
from vdm.config import sampling
from vdm.config import schema
from vdm.diffusion import rollouts

LABELS = ['right', 'left', *'abcdef']


@pytest.fixture
def command(tmp_path, monkeypatch):
  """Runs the command on a run whose videos are grey, and returns its folder."""
  config = tiny_config.make_config('')
  config.sample.update(batch=2, eta=0.5)
  classes = [8]

  def load(source, ema, checkpoint, image_model, autoguide):
    assert autoguide is None
    config.model.num_classes = classes[0]
    stage = schema.stage(frames=4, resolution=16)
    return trained.Model(
      config.copy_and_resolve_references(),
      stage,
      120,
      {},
      {},
      LABELS,
      25.0,
      source=str(source),
    )

  def make_generator(config, stage, poll, worse):
    assert worse is None

    def samples(params, frozen, labels, seeds, task, given):
      assert (task, given) == (rollouts.Task(frames=4), None)
      for _ in range(0, len(seeds), config.sample.batch):
        poll()
      grey = np.asarray(seeds, np.uint8)[:, None, None, None, None]
      return np.broadcast_to(grey, (len(seeds), 4, 16, 16, 3)).copy()

    return generate.Generator(samples, None)

  monkeypatch.setattr(trained, 'load', load)
  monkeypatch.setattr(generate, 'make_generator', make_generator)
  flags.FLAGS.mark_as_parsed()
  workdir = tmp_path / 'run'

  def run(num_classes=8, **values):
    classes[0] = num_classes
    with flagsaver.flagsaver(**{'workdir': str(workdir), 'num': 3} | values):
      sample.main([])
    return workdir / 'samples_from_step_00000120'

  return run


def test_videos_go_into_the_run_with_what_made_them(command):
  folder = command(label='left', seed=5, guidance=3.5, steps=7, ema=0.05)
  record = json.loads((folder / 'samples.json').read_text())
  expected = {
    'run': str(folder.parent),
    'step': 120,
    'ema': 0.05,
    'method': 'ddim',
    'eta': 0.5,
    'steps': 7,
    'guidance': 3.5,
    'seeds': [5, 6, 7],
    'labels': [1, 1, 1],
    'frame_rate': 25.0,
  }
  assert {name: record[name] for name in expected} == expected
  with np.load(folder / 'samples.npz', allow_pickle=False) as file:
    assert file['videos'][:, 0, 0, 0, 0].tolist() == [5, 6, 7]


def test_what_is_not_given_is_recorded_as_it_was_used(command):
  folder = command(num_classes=0)
  record = json.loads((folder / 'samples.json').read_text())
  config = tiny_config.make_config('')
  assert record['guidance'] == 1.0 and record['labels'] == [-1] * 3
  assert record['steps'] == config.sample.steps
  assert record['ema'] == config.sample.ema


def test_the_noise_of_ddim_is_left_out_of_other_samplers(command):
  folder = command(method='heun')
  record = json.loads((folder / 'samples.json').read_text())
  assert (record['method'], record['eta']) == ('heun', 0.0)


def test_noise_in_every_step_is_of_ddim(command, capsys):
  folder = command(eta=1.0)
  record = json.loads((folder / 'samples.json').read_text())
  assert (record['method'], record['eta']) == ('ddim', 1.0)
  other = dict(method='heun', overwrite=True)
  refused(command, capsys, 'eta=1 is of ddim', eta=1.0, **other)


def refused(command, capsys, words, **values):
  with pytest.raises(SystemExit) as error:
    command(**values)
  assert error.value.code == 2
  said = capsys.readouterr().err.strip()
  assert words in said and '\n' not in said


def test_samples_are_never_mixed_with_others(command, capsys, tmp_path):
  folder = command(seed=5)
  before = (folder / 'samples.npz').read_bytes()
  refused(command, capsys, 'already holds samples', seed=90)
  assert (folder / 'samples.npz').read_bytes() == before
  assert command(seed=90, num=1, overwrite=True) == folder
  names = {path.name for path in folder.glob('seed_*')}
  assert names == {'seed_000090.mp4', 'seed_000090.gif'}
  out = tmp_path / 'out'
  command(out=str(out))
  assert (out / 'samples.json').exists()
  (out / 'step.txt').write_text('120')  # As of a run's final videos.
  refused(command, capsys, "a run's final videos", out=str(out), overwrite=True)


def test_guidance_without_classes_is_refused(command, capsys):
  refused(command, capsys, 'knows no classes', num_classes=0, guidance=2.0)


def test_progress_is_reported(command, monkeypatch):
  reports = []

  def reporter(title, total, unit=''):
    return lambda done: reports.append((title, done, total))

  monkeypatch.setattr(progress, 'reporter', reporter)
  command(num=5)
  found = [
    (done, total) for title, done, total in reports if title == 'Sampling'
  ]
  assert found == [(2, 5), (4, 5), (5, 5)]


def test_every_sampler_can_be_chosen_for_a_run_of_noisy_ddim():
  for method, eta in (('ddim', 0.5), ('heun', 0.0), ('dpmpp', 0.0)):
    options = tiny_config.make_config('').sample
    options.eta = 0.5
    generate.change_sampler(options, {'method': method})
    assert (options.method, options.eta) == (method, eta)
    said = sampling.words(options)
    assert said.startswith(method) and ('noise (eta 0.5)' in said) == bool(eta)


def test_runs_without_given_frames_in_training_are_refused(
  command, capsys, tmp_path
):
  path = tmp_path / 'first.png'
  Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path)
  for values in ({'frames': 9}, {'given': str(path)}):
    words = 'frame_levels.context above 0'
    refused(command, capsys, words, **values)


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(frames=8), 'it makes 8 frames of 16 px'),
    (dict(resolution=32), 'it makes 4 frames of 32 px'),
    (dict(fingerprint='b'), 'its autoencoder is not that of runs/a'),
    (dict(num_classes=3), 'it knows 3 classes'),
    (dict(num_classes=0), ''),
    ({}, ''),
  ],
)
def test_a_worse_model_works_in_the_same_latents(changes, words, monkeypatch):
  def load(source, **values):
    config = tiny_config.make_config('')
    config.model.num_classes = 8
    stage = schema.stage(frames=4, resolution=16)
    model = trained.Model(
      config,
      stage,
      120,
      {},
      {},
      LABELS,
      25.0,
      'a',
      source=str(source),
      workdir=source,
    )
    if source == 'runs/b':
      names = ('frames', 'resolution')
      stage.update({k: v for k, v in changes.items() if k in names})
      config.model.update(
        {k: v for k, v in changes.items() if k == 'num_classes'}
      )
      model = model._replace(fingerprint=changes.get('fingerprint', 'a'))
    return model._replace(step=int(values.get('checkpoint', 120)))

  monkeypatch.setattr(trained, 'load', load)
  run = load('runs/a')
  assert trained.load_worse(run, '60').step == 60
  if not words:
    assert trained.load_worse(run, 'runs/b').source == 'runs/b'
    return
  with pytest.raises(ValueError) as error:
    trained.load_worse(run, 'runs/b')
  assert 'runs/b cannot guide' in str(error.value)
  assert words in str(error.value) and '\n' not in str(error.value)
