"""Damages the newest checkpoint of a run, and goes on training from it."""

import pathlib
import re
import shutil
import time

import harness
import numpy as np
import tiny


class Cases:
  """A finished run, and copies of it that are damaged."""

  def __init__(self, folder):
    """Trains the run, where `folder` does not have it yet."""
    self.folder, self.whole = folder, folder / 'whole'
    self.config = tiny.get_config()
    self.config.data.root = str(folder / 'data')
    if not (self.whole / 'final/step.txt').exists():
      self.train(self.whole)
    self.wanted = arrays(self.whole)
    self.last, self.before = harness.complete_steps(self.whole)[:-3:-1]

  def train(self, workdir):
    """Trains to the end; returns the exit code and the step it began from."""
    from vdm import train
    from vdm.training import writer

    code = train.train(self.config, workdir)
    rows = writer.read_rows(workdir)
    resumed = [row['resumed_from'] for row in rows if 'resumed_from' in row]
    return code, int(resumed[-1]) if resumed else 0

  def run(self, kind, number):
    """Damages a copy of the run and goes on with it."""
    rng = np.random.default_rng(number)
    workdir = self.folder / 'damaged'
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(self.whole, workdir)
    checkpoint = workdir / 'checkpoints' / str(self.last)
    files = sorted(p for p in checkpoint.rglob('*') if p.is_file())
    files = [p for p in files if p.stat().st_size]
    path = files[number % len(files)]
    where = damage(path, kind, rng)
    began = time.monotonic()
    code, resumed = self.train(workdir)
    problems = []
    if code or arrays(workdir) != self.wanted:
      problems.append(f'exit code {code}, or other bits at the end')
    aside = (workdir / 'checkpoints' / f'{self.last}.damaged-0').exists()
    if resumed == self.before and aside:
      outcome = 'caught'
    elif resumed == self.last and not aside:
      outcome = 'harmless'
    else:
      outcome = 'silent'
      problems.append(f'resumed from {resumed}')
    return {
      'kind': kind,
      'file': re.sub('[0-9a-f]{32}', '*', str(path.relative_to(checkpoint))),
      'where': where,
      'outcome': 'silent' if problems else outcome,
      'problems': problems,
      'seconds': round(time.monotonic() - began, 1),
    }


def damage(path, kind, rng):
  """Flips a bit of a file, cuts it off or deletes it; returns where."""
  content = bytearray(path.read_bytes())
  where = int(rng.integers(len(content)))
  if kind == 'delete':
    path.unlink()
    return 0
  if kind == 'cut':
    del content[where:]
  else:
    content[where] ^= 1 << int(rng.integers(8))
  path.write_bytes(content)
  return where


def arrays(workdir):
  """{item and name: bytes} of a run's newest checkpoint, as Orbax reads them.

  Read past everything that verifies.
  """
  import jax
  import orbax.checkpoint as ocp

  step = harness.complete_steps(workdir)[-1]
  found = {}
  for item in ('params', 'opt_state', 'ema'):
    path = pathlib.Path(workdir).resolve() / 'checkpoints' / str(step) / item
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
      tree = reader.restore(path)
    for name, leaf in jax.tree_util.tree_leaves_with_path(tree):
      array = np.asarray(leaf)
      key = item + jax.tree_util.keystr(name)
      found[key] = (array.dtype.name, array.shape, array.tobytes())
  return found
