"""Several processes: they stop together, and another number of them resumes.

`python tests/faults/elastic.py` makes the whole table.
"""

import pathlib
import re
import shutil
import signal
import time
import zlib

import harness
import pytest
import several
import tiny

from vdm.data import builders
from vdm.preparation import datasets
from vdm.training import inputs


def expected_batches(folder):
  """Returns {step: CRCs of the global batch}, from this process alone."""
  config = tiny.get_config()
  config.data.root = str(folder / 'data')
  source = builders.open_source(datasets.ensure(config.data), 'train')
  found = {}
  for span in harness.SPANS:
    with inputs.make_batches(config, source, span, 0) as batches:
      for step, batch in enumerate(batches, span.start + 1):
        found[step] = [
          zlib.crc32(label.tobytes(), zlib.crc32(clip.tobytes()))
          for clip, label in zip(batch['video'], batch['label'])
        ]
  return found


@pytest.mark.slow
def test_two_stop_together_and_one_resumes_with_eight_devices(reference):
  folder, cache, wanted = reference
  workdir = folder / 'two_then_one'
  codes = several.run_case(workdir, cache, (2, 1, 2), stop_at=6)
  assert codes == [75, 75]
  left = harness.evidence(workdir)
  assert left.saved == left.logged >= 6
  for index in (0, 1):
    lines = (workdir / f'crc_{index}.jsonl').read_text().splitlines()
    assert len(lines) == left.saved  # Neither trained a further step.
  found = several.batches(workdir)
  for path in workdir.glob('crc_*'):
    path.unlink()

  assert several.run_case(workdir, cache, (1, 8, 4)) == [0]
  rows = several.rows(workdir)
  assert several.largest_difference(rows, wanted.rows) < several.TOLERANCE
  found |= several.batches(workdir)
  assert found == expected_batches(folder)
  resumed = [
    row['resumed_from']
    for row in harness.writer.read_rows(workdir)
    if 'resumed_from' in row
  ]
  assert resumed == [left.saved]


@pytest.mark.parametrize('victim', [pytest.param(0, marks=pytest.mark.slow), 1])
def test_the_surviving_process_names_the_dead_one_and_stops(victim, reference):
  folder, cache, _ = reference
  workdir = folder / f'alone_without_{victim}'
  runs = several.start_case(
    workdir, cache, (2, 1, 1), '--config.train.peer_seconds=4'
  )
  try:
    several.wait_for_step(runs, workdir, 2)
    runs[victim].kill(signal.SIGKILL)
    start = time.monotonic()
    other = runs[1 - victim]
    code = other.wait(60)
  finally:
    for run in runs:
      run.process.kill()
  assert time.monotonic() - start < 30
  if victim == 0 and code == -signal.SIGABRT:  # jax was first.
    assert 'the leader' in other.printed()
    return
  assert code == 75, other.end()
  assert f'Process {victim} of 2 has not been heard of' in other.printed()
  shutil.rmtree(pathlib.Path(workdir))


def ends(runs):
  """Returns the exit codes and the last line that each process printed."""
  try:
    codes = [run.wait(120) for run in runs]
  finally:
    for run in runs:
      run.process.kill()
  return codes, [run.printed().strip().splitlines()[-1] for run in runs]


def test_a_folder_that_is_not_shared_is_found_out(reference):
  """As on two hosts that each have a disk of their own."""
  folder, cache, _ = reference
  workdirs = [folder / 'host_0' / 'run', folder / 'host_1' / 'run']
  codes, said = ends(
    several.start_case(
      workdirs,
      cache,
      (2, 1, 1),
      f'--config.data.root={folder / "data"}',
      VDM_FAULTS_VISIBLE='1',
    )
  )
  assert codes == [2, 2], said
  for line in said:
    assert line.startswith('Process 1 of 2 (')
    assert f'does not see what process 0 has written to {folder}' in line
  assert not (workdirs[0] / 'lock.json').exists()


@pytest.mark.slow
def test_another_data_set_on_one_host_is_found_out(reference):
  folder, cache, _ = reference
  roots = [folder / 'data', folder / 'other_data']
  shutil.copytree(roots[0], roots[1])
  (path,) = roots[1].rglob('clips.json')
  text = path.read_text()
  assert text.count('"fingerprint": "') == 1
  path.write_text(text.replace('"fingerprint": "', '"fingerprint": "0'))
  codes, said = ends(
    several.start_case(
      folder / 'two_data_sets',
      cache,
      (2, 1, 1),
      each=[[f'--config.data.root={root}'] for root in roots],
    )
  )
  assert codes == [2, 2], said
  for line in said:
    assert line.startswith('Process 1 of 2 has another data set in')
  assert not (folder / 'two_data_sets' / 'config.json').exists()


@pytest.mark.slow
def test_another_configuration_on_one_host_is_found_out(reference):
  folder, cache, _ = reference
  codes, said = ends(
    several.start_case(
      folder / 'two_configurations',
      cache,
      (2, 1, 1),
      each=[[], ['--config.stages.video.batch=4']],
    )
  )
  assert codes == [2, 2], said
  for line in said:
    assert 'config.stages.video.batch=4, not 8' in line


@pytest.mark.slow
def test_a_second_start_is_refused_and_the_first_goes_on(reference):
  folder, cache, wanted = reference
  workdir = folder / 'started_twice'
  (first,) = several.start_case(workdir, cache, (1, 1, 1))
  several.wait_for_step([first], workdir, 1)
  (second,) = several.start_case(workdir, cache, (1, 1, 1))
  codes, said = ends([second, first])
  assert codes == [2, 0], said
  assert f'in use by process {first.process.pid} on' in second.printed()
  rows = several.rows(workdir)
  assert several.largest_difference(rows, wanted.rows) < several.TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
  'log_every, message',
  [
    (1, "Process 1 of 2 did not reach 'counting bad records' within 24 s"),
    # No barrier before the next checkpoint: the devices wait in a collective.
    (100, 'No step or part has finished for 24 s'),
  ],
)
def test_a_process_that_waits_for_a_live_one_says_where_it_is(
  log_every, message, reference
):
  """No process is dead or silent: one never reaches its part of a step."""
  folder, cache, _ = reference
  runs = several.start_case(
    folder / f'hung_{log_every}',
    cache,
    (2, 1, 1),
    '--config.train.barrier_minutes=0.4',
    f'--config.train.log_every={log_every}',
    VDM_FAULTS_HANG='1:8',
  )
  try:
    codes = [run.wait(300) for run in runs]
  finally:
    for run in runs:
      run.process.kill()
  # jax aborts process 1 when process 0, which has the store, has exited.
  assert 75 in codes and set(codes) <= {75, -signal.SIGABRT}, codes
  said = ''.join(run.printed() for run in runs)
  assert message in said
  assert re.search(r'process 1: .* in vdm/training/train_step\.py:\d+', said)
