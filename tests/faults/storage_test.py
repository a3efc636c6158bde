"""Damaged checkpoints and full disks, through the real command.

`python tests/faults/flips.py` damages every file of a checkpoint.
"""

import contextlib
import re
import shutil

import damage
import harness
import numpy as np
import pytest


def start(folder, cache, workdir, **settings):
  return harness.Trainer(
    workdir,
    f'--config.data.root={folder / "data"}',
    JAX_COMPILATION_CACHE_DIR=str(cache),
    **settings,
  )


def test_a_flipped_bit_is_named_and_skipped(reference):
  folder, cache, wanted = reference
  workdir = folder / 'flipped'
  shutil.copytree(folder / 'alone', workdir)
  *_, before, last = harness.complete_steps(workdir)
  assert damage.arrays(workdir)
  files = (workdir / 'checkpoints' / str(last) / 'params' / 'd').iterdir()
  path = max(files, key=lambda path: path.stat().st_size)
  damage.damage(path, 'flip', np.random.default_rng(0))
  run = start(folder, cache, workdir)
  assert run.wait() == 0, run.end()
  assert harness.resumed_from(run) == before
  # A flip changes what is read, or prevents reading, depending on the file.
  named = rf'checkpoints/{last} (is not what|cannot be read).*is skipped'
  assert re.search(named, run.printed())
  assert not harness.problems_of_result(harness.result(workdir), wanted)
  assert (workdir / f'checkpoints/{last}.damaged-0').exists()


@pytest.mark.slow
def test_a_full_disk_stops_the_run_which_resumes_when_there_is_room(
  mount, reference, tmp_path
):
  folder, cache, wanted = reference
  disk = mount('48m')
  workdir, log = disk / 'run', tmp_path / 'log.txt'
  run = start(folder, cache, workdir, log=log)
  while run.process.poll() is None and not harness.complete_steps(workdir):
    pass
  filler = disk / 'filler'
  with contextlib.suppress(OSError):  # The run uses some of it meanwhile.
    filler.write_bytes(bytes(shutil.disk_usage(disk).free))
  assert run.wait() == 1, run.end()
  assert 'make room' in run.printed()  # Orbax's threads may print more.
  saved = harness.complete_steps(workdir)
  assert saved and saved[-1] < harness.SPANS[-1].stop
  filler.unlink()
  run = start(folder, cache, workdir, log=log)
  assert run.wait() == 0, run.end()
  assert harness.resumed_from(run) == saved[-1]
  assert not harness.problems_of_result(harness.result(workdir), wanted)
