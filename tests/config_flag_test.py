"""The command line of the configuration."""

import subprocess
import sys

from conftest import ROOT
import pytest

SCRIPT = """
from absl import app, flags
from vdm.config import flag
flag.define()
flags.DEFINE_string('workdir', 'runs/none', '')
def main(argv):
  config, workdir = flags.FLAGS.config, flags.FLAGS.workdir
  print([config.model.widths, config.optim.clip_norm, config.train.tensorboard,
         config.stages.video.steps, config.is_locked, workdir])
if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
"""
CONFIG = """
from vdm.config import schema
def get_config(variant=''):
  if variant not in ('', 'smoke'):
    raise ValueError(f'{variant!r} is no variant: it takes smoke.')
  config = schema.default()
  config.stages.autoencoder = schema.stage(
    objective='autoencoder', steps=200)
  config.stages.video = schema.stage(
    steps=100 if variant else 200, frames=16)
  config.train.order = ('autoencoder', 'video')
  return config
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('command')
  (folder / 'configs').mkdir()
  (folder / 'configs/synthetic.py').write_text(CONFIG)
  (folder / 'configs/raises.py').write_text('surely_not_defined')
  (folder / 'configs/exits.py').write_text('raise SystemExit(0)')
  (folder / 'configs/number.py').write_text('def get_config(): return 5')
  (folder / 'README.md').write_text('# Title\n\nNo code: at all.\n')
  (folder / 'command.py').write_text(SCRIPT)
  return folder


def run(folder, *arguments):
  return subprocess.run(
    [sys.executable, 'command.py', *arguments],
    cwd=folder,
    env={'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=60,
  )


def test_overrides_reach_the_command(folder):
  result = run(
    folder,
    '--config=configs/synthetic.py:smoke',
    '--config.model.widths=(8,16)',
    '--config.optim.clip_norm=2',
    '--noconfig.train.tensorboard',
    '--workdir',
    'a folder',
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.strip() == "[(8, 16), 2.0, False, 100, True, 'a folder']"


@pytest.mark.parametrize(
  'file',
  [
    ['--config', 'configs/synthetic.py:smoke'],
    ['--config=configs/synthetic.py:smoke'],
  ],
)
def test_overrides_may_come_before_the_file(folder, file):
  result = run(
    folder,
    '--config.optim.clip_norm=2',
    '--workdir=a folder',
    *file,
    '--config.model.widths=(8,16)',
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.strip() == "[(8, 16), 2.0, True, 100, True, 'a folder']"
  result = run(folder, '--config.seed=1', '--config')
  assert (result.returncode, result.stderr.count('\n')) == (2, 1)


@pytest.mark.parametrize(
  'arguments, words',
  [
    ('--config.model.widht=64', 'did you mean --config.model.widths?'),
    ('--config.learning_rate=1', '.video.learning_rate?'),
    ('--config.stages.vidoe.batch=8', '--config.stages.video.batch?'),
    ('--config.stages.video.steps=1e5', 'takes an integer'),
    ('--config.stages.video.steps=2.5', 'takes an integer'),
    ('--config.optim.clip_norm=high', 'takes a number'),
    ('--config.model.widths=8', 'takes a tuple'),
    ('--config.train.tensorboard=maybe', 'takes true or false'),
    ('--config.model=8', '--config.model is a group of keys'),
    ('--config.stages.video.batch=0', 'batch=0 is not positive'),
    ('--model.widths=8', 'did you mean --config.model.widths?'),
    ('--wrkdir=x', 'did you mean --workdir?'),
    ('stray', "'stray' belongs to no flag"),
    ('-- --config.seed=1', 'belongs to no flag'),
    ('--config=configs/synthetik.py', 'did you mean configs/synthetic.py?'),
    ('--config=configs/synthetic.py:smok', "'smok' is no variant"),
    # Nothing is near: what there is, or nothing.
    ('--config=configs/nope.py', "configs/nope.py': there are configs/exits"),
    ('--config.optim.lr=1', '--config.stages.video.learning_rate?'),
    ('--config.optim.qqqq=1', 'is not a key of the configuration.'),
    # Whatever a file that is no configuration does.
    ('--config=README.md', 'is not a configuration, see'),
    ('--config=configs/raises.py', 'NameError'),
    ('--config=configs/exits.py', 'SystemExit'),
    ('--config=configs/number.py', 'get_config returns 5, not a ConfigDict'),
    ('--config=configs', "there is no file 'configs'"),
  ],
)
def test_mistakes_end_in_one_sentence(folder, arguments, words):
  result = run(
    folder, '--config', 'configs/synthetic.py', *arguments.split(' ')
  )
  assert words in result.stderr
  assert result.stderr.count('\n') == 1
  assert result.returncode == 2
  assert result.stdout == ''


def test_config_is_required(folder):
  result = run(folder)
  assert result.stderr.startswith('--config is missing')
  assert (result.returncode, result.stderr.count('\n')) == (2, 1)
