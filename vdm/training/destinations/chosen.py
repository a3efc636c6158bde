"""The destinations that a configuration chooses."""

import functools
import secrets

from etils import epath
from ml_collections import ConfigDict

from vdm.common import errors
from vdm.common import files
from vdm.config import serialize
from vdm.multihost import coordination
from vdm.training.destinations import background
from vdm.training.destinations import tensorboard
from vdm.training.destinations import trackio_run
from vdm.training.destinations import wandb_run

RUN_ID = 'run_id.txt'
CLOSE_SECONDS = 90.0  # The end of a run waits no longer for a tracker.

_TRACKERS = {'wandb': wandb_run, 'trackio': trackio_run}  # By key of `log`.


def check(options: ConfigDict) -> None:
  """Checks that the trackers of `config.log` can be used, on all processes.

  Raises:
    UsageError: one is not installed, or has no account.
  """
  wanted = [_TRACKERS[name] for name, project in options.items() if project]
  if not wanted:
    return
  problems = []
  if coordination.is_first():  # The only one that will use them.
    problems = [text for tracker in wanted if (text := tracker.problem())]
  found = coordination.gather('checking the trackers', ' '.join(problems))[0]
  if found:
    raise errors.UsageError(found)


def start(
  config: ConfigDict, workdir: epath.Path
) -> list[background.Background]:
  """Returns the destinations of a run, on their threads.

  Args:
    config: the run's; `log` and `train.tensorboard` choose, and the trackers
      are told all of it.
    workdir: the run's folder.
  """
  started = []
  if config.train.tensorboard:
    make = functools.partial(tensorboard.TensorBoard, workdir)
    started.append(background.Background('TensorBoard', make))
  for name, project in config.log.items():
    if project:
      tracker = _TRACKERS[name]
      make = functools.partial(
        tracker.Run,
        project,
        run_id(workdir),
        workdir,
        serialize.to_dict(config),
      )
      started.append(
        background.Background(tracker.TITLE, make, wait=CLOSE_SECONDS)
      )
  return started


def run_id(workdir: epath.Path) -> str:
  """Returns the name of a run at the trackers, which the first call makes."""
  path = workdir / RUN_ID
  if not path.exists():
    files.write_text(path, secrets.token_hex(4) + '\n')
  return path.read_text().strip()
