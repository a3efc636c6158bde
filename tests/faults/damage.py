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
    self.last, self.before = harness.complete_steps(self.whole)[:-3:-1]
    self.wanted = {s: arrays(self.whole, s) for s in (self.last, self.before)}

  def train(self, workdir):
    """Trains to the end; returns the exit code and the step it began from."""
    from vdm import train
    from vdm.training import writer

    code = train.train(self.config, workdir)
    rows = writer.read_rows(workdir)
    resumed = [row['resumed_from'] for row in rows if 'resumed_from' in row]
    return code, int(resumed[-1]) if resumed else 0

  def run(self, kind, number, train):
    """Damages a copy of the newest checkpoint and goes on from it.

    Args:
      kind: 'flip', 'cut' or 'delete'.
      number: of the case: says which file, and is its seed.
      train: whether to train on to the end; else the state that training would
        go on from is compared, which says the same a hundred times faster.
    """
    rng = np.random.default_rng(number)
    workdir, began = self.folder / 'damaged', time.monotonic()
    shutil.rmtree(workdir, ignore_errors=True)
    if train:
      shutil.copytree(self.whole, workdir)
    else:
      shutil.copytree(self.whole / 'checkpoints', workdir / 'checkpoints')
    checkpoint = workdir / 'checkpoints' / str(self.last)
    files = sorted(p for p in checkpoint.rglob('*') if p.is_file())
    files = [p for p in files if p.stat().st_size]
    path = files[number % len(files)]
    where = damage(path, kind, rng)
    problems = []
    if train:
      code, resumed = self.train(workdir)
      # Where the step was used all the same, its files are still damaged, and
      # what reads them past everything that verifies may stumble.
      end = arrays(workdir) if resumed < self.last else self.restore(workdir)[1]
      if code or end != self.wanted[self.last]:
        problems.append(f'exit code {code}, or other bits at the end')
      aside = workdir / 'checkpoints' / f'{self.last}.damaged-0'
      if aside.exists() != (resumed == self.before):
        problems.append('the damaged step was not kept aside')
    else:
      resumed, found = self.restore(workdir)
      if found != self.wanted[resumed]:
        problems.append('other bits')
    if resumed not in (self.last, self.before):
      problems.append(f'resumed from {resumed}')
    outcome = 'harmless' if resumed == self.last else 'caught'
    return {
      'kind': kind,
      'file': re.sub('[0-9a-f]{32}', '*', str(path.relative_to(checkpoint))),
      'where': where,
      'trained': train,
      'outcome': 'silent' if problems else outcome,
      'problems': problems,
      'seconds': round(time.monotonic() - began, 1),
    }

  def restore(self, workdir):
    """What training would resume from: the step, and its arrays as bytes."""
    import jax

    from vdm.checkpoints import manager
    from vdm.checkpoints import manifest
    from vdm.data import builders
    from vdm.preparation import datasets
    from vdm.training import resume
    from vdm.training import sharding

    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    info = builders.read_info(datasets.ensure(self.config.data))
    with manager.Checkpoints(workdir / 'checkpoints') as store:
      step, _, state, _ = resume.restore(
        self.config, store, mesh, info['fingerprint']
      )
    found = {
      (item, name): (x.dtype.name, x.shape, np.asarray(x).tobytes())
      for item, tree in state._asdict().items()
      for name, x in manifest.named_leaves(tree).items()
    }
    return step, found


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


def arrays(workdir, step=None):
  """{(item, name): (dtype, shape, bytes)} of a checkpoint, as Orbax reads it.

  Read past everything that verifies; by default the newest step.
  """
  import orbax.checkpoint as ocp

  step = step or harness.complete_steps(workdir)[-1]
  found = {}
  for item in ('params', 'opt_state', 'ema'):
    path = pathlib.Path(workdir).resolve() / 'checkpoints' / str(step) / item
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
      tree = reader.restore(path)
    for name, leaf in tree.items():
      array = np.asarray(leaf)
      found[item, name] = (array.dtype.name, array.shape, array.tobytes())
  return found
