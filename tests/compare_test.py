"""Verdicts on runs: what differs, at equal budgets, and known or not."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import report_test
from scipy import stats
import written_runs

from vdm.common import errors
from vdm.config import serialize
from vdm.reporting import compare_runs
from vdm.reporting import comparison
from vdm.reporting import comparison_text
from vdm.reporting import groups
from vdm.reporting import run_numbers
from vdm.reporting import run_page
from vdm.reporting import run_record

# Parts of final/metrics.json that `written_runs` does not write.
EVERY_PART = {
  'captions': {
    'samples': {
      'seen': {'clips': 4.0, 'colour': 0.75},
      'held_out': {'clips': 2.0, 'all': 0.5},
    },
    'real': {'seen': {'clips': 4.0, 'colour': 1.0}},
  },
  'given': {
    'image_to_video': {
      'given': [0],
      'clips': 4,
      'tries': 4,
      'sets': {
        'model': {'psnr': 20.0, 'ssim_best': 0.9, 'psnr_by_frame': [20.0]},
        'copy': {'psnr': 10.0},
      },
    },
    'rollout': {
      'given': [0, 1],
      'clips': 4,
      'tries': 4,
      'sets': {'model': {'position_error': 3.0, 'one_object': 1.0}},
      'laws': {'model': {'clips': 16.0, 'tracked': 0.8, 'speed': 2.0}},
    },
  },
  'enlargement': {
    'clips': 8,
    'sets': {
      'model': {'psnr': 30.0, 'flicker': 1.5},
      'lanczos': {'psnr': 28.0},
    },
  },
}


def row_of(rows, number, other=1):
  (found,) = [
    r for r in rows if r['number'] == number and r['groups'] == [0, other]
  ]
  return found


def make_runs(root, effects, seeds=3, key='optim.b1', pictures='', **kind):
  """Writes runs whose losses and agreement differ by effects."""
  folders = []
  for value, effect in effects.items():
    for seed in range(seeds):
      config = written_runs.make_config(seed, **{key.replace('.', '__'): value})
      rng = np.random.default_rng([seed, int(1000 * value)])
      rows = written_runs.rows_of(config, effect + 1e-3 * rng.normal(), **kind)
      agreement = 0.9 - effect + 1e-3 * rng.normal()
      folder = root / f'{key}={value}' / f'seed_{seed}'
      written_runs.write(
        folder, config, rows, agreement=agreement, pictures=pictures
      )
      folders.append(folder)
  return folders


@pytest.fixture(scope='module')
def compared(tmp_path_factory):
  """(folder, runs, content) of a baseline, a better and an equal one."""
  root = tmp_path_factory.mktemp('compare')
  runs = make_runs(root, {0.9: 0.0, 0.8: -0.05, 0.7: 0.0}, pictures='final')
  text = compare_runs.compare(runs, root)
  content = json.loads((root / compare_runs.JSON).read_text())
  return root, runs, content, text


def test_differences_and_groups(compared):
  _, runs, content, _ = compared
  assert [group['differs'] for group in content['groups']] == [
    {'optim.b1': '0.9'},
    {'optim.b1': '0.8'},
    {'optim.b1': '0.7'},
  ]
  assert [group['seeds'] for group in content['groups']] == [[0, 1, 2]] * 3
  assert content['groups'][1]['runs'] == list(map(str, runs[3:6]))
  assert content['primary'] == 'final/truth/label_agreement'


def power(effect, pairs, level):
  """Of a paired t-test, on either side."""
  limit = stats.t.isf(level / 2, pairs - 1)
  found = stats.nct(pairs - 1, effect * pairs**0.5)
  return found.sf(limit) + found.cdf(-limit)


def test_a_known_difference_is_found_and_an_equal_one_is_not(compared):
  rows = compared[2]['numbers']
  assert (
    rows[0]['number'] == 'final/truth/label_agreement' and rows[0]['primary']
  )
  assert rows[0]['verdict'] == 'better' and rows[0]['test'] == 'paired'
  assert rows[0]['difference'] == pytest.approx(0.05, abs=0.01)
  assert rows[0]['tests'] == 2
  assert rows[1]['verdict'] == '3 seeds cannot tell'
  # The first of which a paired test with half of 5 % has a power of 0.8.
  apart = np.subtract(rows[1]['values'][1], rows[1]['values'][0])
  effect = abs(apart.mean()) / apart.std(ddof=1)
  powers = [power(effect, n, 0.025) for n in (22, 23)]
  assert powers[0] < 0.8 < powers[1] and rows[1]['seeds_needed'] == 23
  for budget in run_numbers.BUDGETS:
    better = row_of(rows, f'log/val_loss@{budget}')
    assert better['verdict'] == 'better' and better['p_corrected'] < 0.05
    equal = row_of(rows, f'log/val_loss@{budget}', 2)
    assert equal['verdict'] == '3 seeds cannot tell'
    # The seeds' own effects, which pairs share, are ten times as large.
    assert max(better['half_width']) > better['high'] - better['low']
  assert row_of(rows, 'cost/train_tflop')['verdict'] == 'same'
  assert row_of(rows, 'final/truth/speed_ratio')['verdict'] == 'same'


def test_the_table_says_what_the_json_says(compared):
  text = compared[3]
  lines = [line for line in text.splitlines() if 'final/truth/label' in line]
  assert 'B - A' in lines[0] and lines[0].split()[-1] == 'better'
  assert 'cannot tell' in lines[1]
  assert 'cost/train_tflop' not in text and 'logsnr' not in text
  assert '@steps at step 1,000, @seconds after 500 s' in text


def test_the_page_shows_the_same_seeds_beside_each_other(compared):
  root, _, _, _ = compared
  page = report_test.Reader((root / compare_runs.PAGE).read_text())
  assert page.tags.count('img') == 3  # A picture of all groups for each seed.
  words = ''.join(page.words)
  for found in ('optim.b1', 'better', '3 seeds cannot tell', 'runs of seed 0'):
    assert found in words, found
  assert page.tags.count('figure') >= 2 + 1  # Curves, and the slider.


def spoil(folder, **values):
  """Puts other values into the last half of a run's log."""
  path = folder / 'metrics.jsonl'
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  for row in rows[len(rows) // 2 :]:
    row.update({k: x for k, x in values.items() if k in row})
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


def test_a_run_that_diverges_is_left_out_and_named(tmp_path):
  runs = make_runs(tmp_path, {0.9: 0.0, 0.8: -0.05})
  spoil(runs[4], loss='nan', **{'loss/logsnr_-6_to_-3': 'inf'})
  spoil(runs[5], loss='-inf', grad_norm='nan')
  compare_runs.compare(runs, tmp_path, 'log/loss@steps')
  text = (tmp_path / compare_runs.JSON).read_text()

  def refuse(constant):
    raise ValueError(constant)

  content = json.loads(text, parse_constant=refuse)
  assert 'B, seed 1: log/loss is not finite, and left out.' in content['notes']
  assert (
    'B, seed 2: log/grad_norm, log/loss are not finite, and left out.'
    in content['notes']
  )
  assert [x for x in content['notes'] if 'has no log/loss@steps' in x] == [
    f'{run} has no log/loss@steps.' for run in runs[4:]
  ]
  rows = content['numbers']
  assert rows[0]['n'] == [3, 1]
  assert rows[0]['kind'] == 'unknown'
  assert row_of(rows, 'log/val_loss@steps')['n'] == [3, 3]


def test_a_primary_number_of_one_group_alone_names_the_other_runs(tmp_path):
  runs = make_runs(tmp_path, {0.9: 0.0, 0.8: 0.0}, seeds=2)
  for run in runs[2:]:
    (run / 'final/metrics.json').unlink()
  wanted = f'missing or not finite in {runs[2]}, {runs[3]}. Wait'
  with pytest.raises(errors.UsageError, match=re.escape(wanted)):
    compare_runs.compare(runs, tmp_path)
  # The baseline's is missing: nothing to compare with, either.
  with pytest.raises(errors.UsageError, match='compares nothing'):
    compare_runs.compare(runs[::-1], tmp_path)
  # A run that logged nothing has reached no budget.
  (runs[3] / 'metrics.jsonl').write_text('')
  wanted = f'Nothing is logged yet in {runs[3]}.'
  with pytest.raises(errors.UsageError, match=re.escape(wanted)):
    compare_runs.compare(runs, tmp_path, 'log/val_loss@steps')


def test_all_that_final_videos_are_measured_by_is_compared(tmp_path):
  folder = written_runs.write(tmp_path / 'run', pictures='final')
  path = folder / 'final/metrics.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | EVERY_PART))
  found = run_numbers.of_files(run_record.read(folder))
  wanted = {
    'final/captions/seen/colour': (0.75, 1),
    'final/captions/held_out/all': (0.5, 1),
    'final/given/image_to_video/psnr': (20.0, 1),
    'final/given/image_to_video/ssim_best': (0.9, 1),
    'final/given/rollout/position_error': (3.0, -1),
    'final/given/rollout/one_object': (1.0, 1),
    'final/given/rollout/laws/tracked': (0.8, 1),
    'final/given/rollout/laws/speed': (2.0, 0),
    'final/enlargement/psnr': (30.0, 1),
    'final/enlargement/flicker': (1.5, -1),
  }
  known = ('final/truth/', 'final/laws/')
  assert {
    name: (value, run_numbers.direction(name))
    for name, value in found.items()
    if not name.startswith(known)
  } == wanted
  words = ''.join(
    report_test.Reader(run_page.make(run_record.read(folder))).words
  )
  for title in (
    'Image to video of 4 clips',
    'Rollout of 4 clips: the laws of the scenes',
    'Enlargement of 8 clips',
    'flicker, grey levels',
    'colour, %',
    'position error farthest',
  ):
    assert title in words, title


def test_equal_budgets(tmp_path):
  """One run is slower, and stopped earlier."""
  fast = written_runs.make_config()
  slow = written_runs.make_config(optim__b1=0.5)
  rows = written_runs.rows_of(slow, noise=0.0)
  for row in rows:
    if 'train_seconds' in row:
      row['train_seconds'] *= 2
  rows = [row for row in rows if row['step'] <= 800]
  written_runs.write(tmp_path / 'a', fast, written_runs.rows_of(fast, noise=0))
  written_runs.write(tmp_path / 'b', slow, rows, agreement=0.8)
  (tmp_path / 'b/final/step.txt').unlink()
  records = [run_record.read(tmp_path / name) for name in 'ab']
  budgets = run_numbers.common_budgets(records)
  assert budgets == {'steps': 800, 'seconds': 500, 'tflop': 100}
  ours, theirs = (run_numbers.of_logs(r, budgets) for r in records)

  def loss_at(step):
    return 0.3 + 0.7 * np.exp(-step / 300)

  for name, step in (('steps', 800), ('tflop', 800), ('seconds', 500)):
    found = theirs[f'log/val_loss@{name}']
    assert found == pytest.approx(loss_at(step), rel=1e-6)
  assert ours['log/val_loss@seconds'] == pytest.approx(loss_at(1000), rel=1e-6)
  # Between two evaluations: on the line from one to the other.
  between = run_numbers.of_logs(records[0], {'steps': 750.0})
  expected = (loss_at(700) + loss_at(800)) / 2
  assert between['log/val_loss@steps'] == pytest.approx(expected, rel=1e-6)
  content = comparison.make(records)
  assert any('is at step 800 of 1,000' in note for note in content['notes'])
  assert content['numbers'][0]['verdict'] == '1 seed cannot tell'


def test_old_logs_give_the_same_numbers(tmp_path):
  """Rows of before there were sums have rates."""
  config = written_runs.make_config()
  for name, sums in (('new', True), ('old', False)):
    rows = written_runs.rows_of(config, sums=sums)
    written_runs.write(tmp_path / name, config, rows)
  records = [run_record.read(tmp_path / name) for name in ('new', 'old')]
  budgets = run_numbers.common_budgets(records)
  ours, theirs = (run_numbers.of_logs(r, budgets) for r in records)
  assert ours.keys() == theirs.keys()
  for name in ours:
    assert ours[name] == pytest.approx(theirs[name], rel=1e-6), name


@pytest.mark.parametrize(
  'key, value, number, obstacle',
  [
    ('diffusion.weighting', 'x0', 'log/val_loss@steps', 'weighting'),
    ('model.label_dropout', 0.3, 'log/loss@steps', 'label_dropout'),
    ('model.label_dropout', 0.3, 'log/val_loss@steps', ''),
    ('autoencoder.channels', 8, 'log/val_loss@steps', 'channels'),
    ('autoencoder.channels', 8, 'final/truth/label_agreement', ''),
    ('data.scenes.objects', 2, 'final/truth/label_agreement', 'objects'),
    ('data.scenes.train', 48, 'final/truth/label_agreement', ''),
    ('score.num', 8, 'log/small_score/motion@steps', 'score.num'),
    ('sample.guidance', 3.0, 'final/truth/label_agreement', ''),
    ('model.low.space_factor', 2, 'final/enlargement/psnr', 'space_factor'),
    ('autoencoder.time_factor', 2, 'final/given/prediction/psnr', 'time_fac'),
  ],
)
def test_numbers_that_mean_two_things_get_no_verdict(
  key, value, number, obstacle, tmp_path
):
  records = []
  for name, changes in (('a', {}), ('b', {key: value})):
    config = written_runs.make_config(**changes)
    written_runs.write(tmp_path / name, config, [])
    records.append(run_record.read(tmp_path / name))
  found = groups.make(records)
  assert found[1].values == {key: value}
  said = groups.obstacle(*found, number)
  assert bool(said) == bool(obstacle) and obstacle in said


def test_a_loss_in_latents_of_other_autoencoders_gets_no_verdict(tmp_path):
  def group_of(name, fingerprint, **changes):
    config = written_runs.make_config(**changes)
    folder = written_runs.write(tmp_path / name, config, [])
    (folder / 'autoencoder').mkdir()
    text = json.dumps({'fingerprint': fingerprint})
    (folder / 'autoencoder/config.json').write_text(text)
    return run_record.read(folder)

  base = group_of('a', '1')
  # The optimizer trains the autoencoder too.
  pair = groups.make([base, group_of('b', '2', optim__b1=0.5)])
  assert 'autoencoder' in groups.obstacle(*pair, 'log/val_loss@steps')
  pair = groups.make([base, group_of('c', '1', optim__b1=0.5)])
  assert not groups.obstacle(*pair, 'log/val_loss@steps')
  rate = dict(stages__video__learning_rate=0.5)
  pair = groups.make([base, group_of('d', '2', **rate)])
  assert not groups.obstacle(*pair, 'log/val_loss@steps')


def test_directions_are_known_or_not():
  known = {
    'log/val_loss@steps': -1,
    'log/val_loss_told@steps': -1,
    'log/loss/logsnr_-6_to_-3@tflop': -1,
    'log/accuracy@steps': 1,
    'log/accuracy/masked_0.1_to_0.3@tflop': 1,
    'log/small_score/motion@steps': -1,
    'log/small_score/flow_ratio@steps': 0,
    'log/small_score/kept_from_3.2@steps': 1,
    'log/grad_norm@steps': 0,
    'log/val_psnr@seconds': 1,
    'final/truth/label_agreement': 1,
    'final/truth/residual_percent': -1,
    'final/laws/shape_kept': 1,
    'final/laws/squares': 0,
    'final/laws/on_time': 1,
    'final/laws/crosses': 1,
    'final/laws/meets': 0,
    'final/given/rollout/laws/on_time': 1,
    'final/truth/speed_ratio': 0,
    'card/energy/motion': -1,
    'card/fvd16/frechet': -1,
    'card/inception/score': 1,
    'autoencoder/psnr': 1,
    'cost/clips_per_second': 1,
    'cost/device_peak_gib': -1,
  }
  found = {name: run_numbers.direction(name) for name in known}
  assert found == known


def test_unknown_directions_only_differ_and_other_seeds_are_not_paired():
  rng = np.random.default_rng(0)
  first = {s: {'log/grad_norm@steps': rng.normal()} for s in range(4)}
  second = {s: {'log/grad_norm@steps': 50 + rng.normal()} for s in range(5, 8)}
  (row,) = comparison.judge([first, second], 'log/grad_norm@steps')
  assert (row['test'], row['verdict'], row['n']) == ('welch', 'differs', [4, 3])


def test_equal_configurations_get_no_verdict_more_often_than_promised():
  """The whole of it, with 12 numbers: 250 comparisons, in at most 1 of 20."""
  names = [f'final/{i}' for i in range(12)]
  rng, primary, others = np.random.default_rng(3), 0, 0
  for _ in range(250):
    own = rng.normal(size=(3, 12))
    values = [
      {s: dict(zip(names, own[s] + rng.normal(size=12))) for s in range(3)}
      for _ in range(2)
    ]
    rows = comparison.judge(values, names[0])
    found = ['cannot tell' not in row['verdict'] for row in rows]
    primary, others = primary + found[0], others + any(found[1:])
  most = 250 * 0.05 + 4 * (250 * 0.05 * 0.95) ** 0.5
  assert 2 < primary <= most and others <= most


def test_a_seed_twice_counts_once(tmp_path):
  runs = make_runs(tmp_path, {0.9: 0.0, 0.8: 0.1}, seeds=2)
  config = written_runs.make_config(0, optim__b1=0.8)
  again = written_runs.write(tmp_path / 'again', config, agreement=0.5)
  content = comparison.make([run_record.read(run) for run in [*runs, again]])
  assert content['groups'][1]['seeds'] == [0, 0, 1]
  assert content['numbers'][0]['n'] == [2, 2]
  assert any('has a seed twice' in note for note in content['notes'])


def test_what_cannot_be_compared_is_said(tmp_path):
  runs = make_runs(tmp_path / 'runs', {0.9: 0.0}, seeds=2)
  with pytest.raises(errors.UsageError, match='one configuration but for the'):
    compare_runs.compare(runs, tmp_path)
  with pytest.raises(errors.UsageError, match='neither a run nor a folder'):
    compare_runs.find([tmp_path / 'runs/optim.b1=0.9/seed_0/final'])
  with pytest.raises(errors.UsageError, match='There is no folder'):
    compare_runs.find([tmp_path / 'nowhere'])
  assert compare_runs.find([tmp_path / 'runs', runs[0]]) == runs
  other = make_runs(tmp_path / 'runs', {0.8: 0.0}, seeds=1)
  with pytest.raises(errors.UsageError, match='did you mean log/val_loss@st'):
    compare_runs.compare([*runs, *other], tmp_path, 'log/val_lss@steps')


def test_where_files_are_makes_no_configuration(tmp_path):
  config = written_runs.make_config(data__root='/elsewhere', data__threads=7)
  a = written_runs.write(tmp_path / 'a', written_runs.make_config(), [])
  b = written_runs.write(tmp_path / 'b', config, [])
  records = [run_record.read(a), run_record.read(b)]
  assert len(groups.make(records)) == 1
  found = groups.neutral_differences(records)
  assert found == {
    'data.root': ['data', '/elsewhere'],
    'data.threads': ['1', '7'],
  }


def test_every_key_is_neutral_or_not_by_its_present_name():
  """A pattern that fits no key is one that was renamed."""
  keys = serialize.flatten(written_runs.make_config())
  text = ' '.join(filter(groups._NEUTRAL.match, keys))
  for name in ('log.wandb', 'data.root', 'data.limits.', 'train.keep_every'):
    assert name in text
  assert 'train.eval_clips' not in text and 'train.compute_dtype' not in text


def test_the_command_prints_the_table(compared):
  root = compared[0]
  command = [sys.executable, '-m', 'vdm.compare', str(root)]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.count('final/truth/label_agreement') == 2
  assert (
    comparison_text.text(json.loads((root / compare_runs.JSON).read_text()))
    == done.stdout
  )
