"""Damages the newest checkpoint of a run, and resumes from it."""

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
    """Trains the run, unless `folder` has it already."""
    self.folder, self.intact = folder, folder / 'whole'
    self.config = tiny.get_config()
    self.config.data.root = str(folder / 'data')
    if not (self.intact / 'final/step.txt').exists():
      self.train(self.intact)
    self.last, self.before = harness.complete_steps(self.intact)[:-3:-1]
    self.wanted = {s: arrays(self.intact, s) for s in (self.last, self.before)}

  def train(self, workdir):
    """Trains to the end; returns the exit code and the step it resumed from."""
    from vdm import train
    from vdm.training import writer

    code = train.train(self.config, workdir)
    rows = writer.read_rows(workdir)
    resumed = [row['resumed_from'] for row in rows if 'resumed_from' in row]
    return code, int(resumed[-1]) if resumed else 0

  def run(self, kind, number, train):
    """Damages a copy of the newest checkpoint and resumes from it.

    Args:
      kind: 'flip', 'cut' or 'delete'.
      number: of the case: selects the file, and is the seed.
      train: whether to train to the end; otherwise the state that training
        would resume from is compared, which is as strict and a hundred times
        faster.
    """
    rng = np.random.default_rng(number)
    workdir, start = self.folder / 'damaged', time.monotonic()
    shutil.rmtree(workdir, ignore_errors=True)
    if train:
      shutil.copytree(self.intact, workdir)
    else:
      shutil.copytree(self.intact / 'checkpoints', workdir / 'checkpoints')
    checkpoint = workdir / 'checkpoints' / str(self.last)
    files = sorted(p for p in checkpoint.rglob('*') if p.is_file())
    files = [p for p in files if p.stat().st_size]
    path = files[number % len(files)]
    where = damage(path, kind, rng)
    problems = []
    if train:
      code, resumed = self.train(workdir)
      # If the damaged step was used, its files are still damaged, and reading
      # them without verification may fail.
      end = arrays(workdir) if resumed < self.last else self.restore(workdir)[1]
      if code or end != self.wanted[self.last]:
        problems.append(f'exit code {code}, or other bits at the end')
      renamed = workdir / 'checkpoints' / f'{self.last}.damaged-0'
      if renamed.exists() != (resumed == self.before):
        problems.append('the damaged step was not renamed')
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
      'seconds': round(time.monotonic() - start, 1),
    }

  def restore(self, workdir):
    """Returns the step that training would resume from, and its arrays."""
    import jax

    from vdm.checkpoints import manager
    from vdm.checkpoints import manifest
    from vdm.data import builders
    from vdm.preparation import datasets
    from vdm.training import objectives
    from vdm.training import resume
    from vdm.training import sharding
    from vdm.training import stages

    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    info = builders.read_info(datasets.ensure(self.config.data))
    with manager.Checkpoints(workdir / 'checkpoints') as store:
      made = {
        span.name: objectives.make_objective(self.config, span.stage, mesh)
        for span in stages.spans(self.config)
      }
      step, _, state, _ = resume.restore(
        self.config, made, store, mesh, info['fingerprint']
      )
    found = {
      (item, name): (x.dtype.name, x.shape, np.asarray(x).tobytes())
      for item, tree in state._asdict().items()
      for name, x in manifest.named_leaves(tree).items()
    }
    return step, found


def damage(path, kind, rng):
  """Flips a bit of a file, truncates it or deletes it; returns where."""
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
  """Returns {(item, name): (dtype, shape, bytes)} as Orbax reads a checkpoint.

  Read without verification; by default the newest step.
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
