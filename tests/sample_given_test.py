"""The command that continues, completes and prolongs, on a trained run."""

import json

from absl.testing import flagsaver
from conftest import ROOT
import numpy as np
from PIL import Image
import pytest

from vdm import generate
from vdm import sample
from vdm import trained
from vdm.diffusion import rollouts
from vdm.sampling import task_plan


@pytest.fixture(scope='module')
def clips(finished_run):
  """The run's own final samples: 8 clips of 4 frames and 16 px."""
  return finished_run / 'final/samples.npz'


@pytest.fixture
def command(finished_run, tmp_path):
  """Runs the command, and returns (record, arrays)."""

  def run(**values):
    out = tmp_path / f'out_{len(list(tmp_path.iterdir()))}'
    with flagsaver.flagsaver(workdir=str(finished_run), out=str(out), **values):
      sample.main([])
    with np.load(out / 'samples.npz', allow_pickle=False) as file:
      arrays = dict(file)
    return json.loads((out / 'samples.json').read_text()), arrays

  return run


def test_given_frames_come_back_as_their_latents_decode(
  command, clips, finished_run
):
  record, arrays = command(given=str(clips), given_frames='0,-1')
  with np.load(clips, allow_pickle=False) as file:
    originals, labels = file['videos'], file['labels']
  assert arrays['videos'].shape == (8, 4, 16, 16, 3)  # One for each.
  np.testing.assert_array_equal(arrays['labels'], labels)
  assert record['given'] == {
    'source': str(clips),
    'frames': [0, 3],
    'files': [f'samples.npz/{i}' for i in range(8)],
    'shown_as': 'decoded latents',
  }
  run = trained.load(finished_run)
  decoded = generate.make_generator(run.config, run.stage).reconstruct(
    run.frozen, originals
  )
  given, made = [0, 3], [1, 2]
  np.testing.assert_array_equal(arrays['videos'][:, given], decoded[:, given])
  assert (arrays['videos'][:, made] != decoded[:, made]).any((1, 2, 3, 4)).all()


def test_a_long_video_guided_by_its_history_and_a_worse_model(
  command, tmp_path
):
  path = tmp_path / 'first.png'
  image = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
  Image.fromarray(image).save(path)
  record, arrays = command(
    given=str(path),
    frames=9,
    overlap=1,
    num=2,
    history_guidance=1.5,
    history_noise=0.5,
    autoguide='11',
    guidance=1.25,
  )
  assert arrays['videos'].shape == (2, 9, 16, 16, 3)
  np.testing.assert_array_equal(*arrays['videos'][:, 0])
  assert (arrays['videos'][0, 1:] != arrays['videos'][1, 1:]).any()
  assert record['given']['files'] == ['first.png'] * 2
  assert record['labels'] == [-1, -1] and record['guidance'] == 1.25
  assert record['task'] == {
    'frames': 9,
    'overlap': 1,
    'context_noise': 0.1,
    'history_guidance': 1.5,
    'history_noise': 0.5,
  }
  assert record['autoguide']['step'] == 11


def test_labels_and_given_frames_guide_by_scales_of_their_own(command, clips):
  values = dict(given=str(clips), num=1, steps=2, label='right')
  record, arrays = command(**values, guidance='label=3,given=1.5')
  assert record['guidance_by'] == 'given=1.5,label=3'
  # Given frames are told and guide nothing, by their name as without.
  _, one = command(**values, guidance='3')
  _, same = command(**values, guidance='given=1,label=3')
  np.testing.assert_array_equal(one['videos'], same['videos'])
  assert (arrays['videos'] != one['videos']).any()


@pytest.mark.parametrize(
  'values, words',
  [
    (dict(frames=3), 'fewer than the 4'),
    (dict(frames=6, overlap=4), 'none of 1 to 3'),
    (dict(history_guidance=2.0), 'there are none'),
    (dict(frames=6, history_noise=0.5), 'leave the noise at 0'),
    (dict(given='gone.mp4'), 'no file or folder gone.mp4'),
    (dict(given='{clips}', given_frames='4'), 'and 4 is none'),
    (dict(given='{clips}', given_frames=':'), 'nothing is left'),
    (dict(guidance='given=2'), 'the videos are told none: give --given'),
    (dict(guidance='text=2'), 'the videos are told none: give --caption'),
    (dict(guidance='strong'), 'is neither a number nor scales by group'),
    (dict(autoguide='8'), 'keeps the steps'),
    (dict(autoguide='runs/gone'), 'holds no run'),
    (dict(autoguide=str(ROOT / 'colabs/demo')), 'cannot guide: at step'),
  ],
)
def test_what_cannot_be_done_is_one_sentence(
  command, clips, values, words, capsys
):
  values = {
    k: v.format(clips=clips) if isinstance(v, str) else v
    for k, v in values.items()
  }
  with pytest.raises(SystemExit) as error:
    command(**values)
  assert error.value.code == 2
  said = capsys.readouterr().err.strip()
  assert words in said and '\n' not in said


def test_null_labels_have_nothing_to_be_guided_by(command, tmp_path, capsys):
  path = tmp_path / 'first.png'
  Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path)
  with pytest.raises(SystemExit):
    command(given=str(path), guidance=3.0)
  assert 'give --label' in capsys.readouterr().err


def test_a_run_shows_and_scores_given_frames(finished_run):
  preview = finished_run / 'samples/step_00000012'
  for name in ('given.mp4', 'given.gif'):
    assert (preview / name).exists()
  # Stages of images train no given frames.
  assert not (finished_run / 'samples/step_00000005/given.mp4').exists()
  scores = json.loads((finished_run / 'final/metrics.json').read_text())[
    'given'
  ]
  rules = {'prediction': 'linear', 'interpolation': 'cross_fade'}
  assert set(scores) == set(rules)
  for name, rule in rules.items():
    assert (finished_run / f'final/{name}.mp4').exists()
    found = scores[name]
    assert found['clips'] == 8 and found['tries'] == 4
    assert set(found['sets']) == {'model', 'copy', rule, 'autoencoder'}
    for row in found['sets'].values():
      assert len(row['psnr_by_frame']) == len(row['ssim_by_frame']) == 2
      assert row['psnr_best'] >= row['psnr'] - 1e-9
      assert np.isfinite(row['psnr']) and row['ssim'] <= 1
  assert scores['prediction']['given'] == [0, 1]
  assert scores['interpolation']['given'] == [0, 3]


def test_tasks_are_those_that_a_stage_trains(finished_run):
  run = trained.load(finished_run)
  tasks = task_plan.trained(run.config, run.stage)
  assert tasks['prediction'] == rollouts.Task(given=(0, 1))
  run.stage.frame_levels.context = 0.0
  assert task_plan.trained(run.config, run.stage) == {}
  run.stage.frame_levels.first = 0.5
  tasks = task_plan.trained(run.config, run.stage)
  assert tasks == {'image_to_video': rollouts.Task(given=(0,))}
