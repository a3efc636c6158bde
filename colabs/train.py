# ---
# jupyter:
#   accelerator: GPU
#   colab:
#     gpuType: T4
#     name: train.ipynb
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train the demo, then sample from it
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/vdm/blob/main/colabs/train.ipynb)
#
# Trains an autoencoder and a video-diffusion model on moving shapes, on a GPU,
# TPU or CPU, with curves and samples while it runs, and samples from the
# result. Training needs a newer jax than Colab's: `launch/local.sh` installs it
# in an environment of its own, `.venv`, which takes some minutes once. Nothing
# that is installed is replaced.

# %%
# @title Set up
# @markdown Clones the repository, if this notebook is not in a copy of it, and
# @markdown installs what is missing. Nothing that is installed is replaced.
repository = 'https://github.com/OWNER/vdm'  # @param {"type": "string"}

import importlib.util
import os
import pathlib
import subprocess
import sys

here = pathlib.Path.cwd()
copies = [x for x in (here, *here.parents) if (x / 'vdm/generate.py').exists()]
root = copies[0] if copies else here / 'vdm'
if not root.exists():
  subprocess.run(['git', 'clone', '--depth=1', repository, root], check=True)
os.chdir(root)
sys.path.insert(0, str(root))

packages = {'av': 'av>=17,<19', 'ml_collections': 'ml_collections>=1,<2'}
missing = [
  x for name, x in packages.items() if not importlib.util.find_spec(name)
]
if missing:
  pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps']
  subprocess.run([*pip, *missing], check=True)
  importlib.invalidate_caches()

# %% [markdown]
# ## Train
#
# One configuration file and one folder are a run. **The same cell resumes it**:
# after the stop button of the cell, or in a new session if the folder is on
# Drive. `:smoke` has every stage and every output on a small scale, in minutes
# on a CPU.

# %%
# @title Choose a run
config = 'configs/synthetic.py'  # @param ["configs/synthetic.py", "configs/synthetic.py:smoke"] {"allow-input": true}
workdir = 'runs/colab'  # @param {"type": "string"}
# @markdown Whether the folder is on Google Drive, in `/content/drive/MyDrive`.
on_drive = False  # @param {"type": "boolean"}
# @markdown Other flags, such as `--config.stages.video.steps=4000`.
flags = ''  # @param {"type": "string"}

import shlex

if on_drive:
  from google.colab import drive

  drive.mount('/content/drive')
command = ['bash', 'launch/local.sh', '--config', config, '--workdir', workdir]
command += shlex.split(flags)
print(shlex.join(command))

# %%
# @title What the page shows
import html
import io

from IPython.display import display
from IPython.display import HTML
from matplotlib import figure

from vdm.media import notebook
from vdm.media import page
from vdm.training import writer

log = pathlib.Path(f'{workdir}.log')
log.parent.mkdir(parents=True, exist_ok=True)


def curves(rows):
  """The losses of every stage so far, as a picture."""
  stages = {}  # {stage: {name of a loss: [(step, value)]}}.
  for row in rows:
    losses = stages.setdefault(row['stage'], {})
    for name, value in row.items():
      if name == 'loss' or name.startswith('val_loss/'):
        losses.setdefault(name, []).append((row['step'], value))
  drawing = figure.Figure(figsize=(6 * len(stages), 3), layout='tight')
  for i, (stage, losses) in enumerate(stages.items(), 1):
    axis = drawing.add_subplot(1, len(stages), i, title=stage, xlabel='step')
    axis.set_yscale('log')
    for name, points in losses.items():
      axis.plot(*zip(*points), marker='.', label=name)
    axis.legend(fontsize='small', loc='upper left', bbox_to_anchor=(1, 1))
  data = io.BytesIO()
  drawing.savefig(data, dpi=80)
  return page.picture(data.getvalue(), wide=True)


def preview():
  """The newest samples of the run, or what its autoencoder makes of clips."""
  folders = sorted(pathlib.Path(workdir).glob('samples/step_*'))
  for folder in reversed(folders):
    if (folder / 'grid.mp4').exists():
      return f'<p>{folder.name}</p>{notebook.players([folder / "grid.mp4"])}'
    if (folder / 'sheet.png').exists():
      sheet = (folder / 'sheet.png').read_bytes()
      return page.picture(sheet, folder.name, wide=True)
  return ''


def last_lines(number=3):
  """The end of what the trainer has printed."""
  return '\n'.join(log.read_text(errors='replace').splitlines()[-number:])


# %%
# @title How the trainer starts, is watched and stops
import atexit
import signal
import time

import jax

from vdm.common import errors

trainer = None
sampled = False  # Whether this session has used the device itself.


def make_venv():
  """Makes .venv where Python has no ensurepip, as in Colab."""
  if importlib.util.find_spec('ensurepip') or os.path.exists('.venv/bin/pip'):
    return
  python = [sys.executable, '-m']
  subprocess.run([*python, 'venv', '--without-pip', '.venv'], check=True)
  pip = [*python, 'pip', '--python', '.venv/bin/python', 'install', '--quiet']
  subprocess.run([*pip, 'pip'], check=True)


def watch():
  """Shows curves, samples and the end of the log until the trainer ends."""
  names = ('curves', 'preview', 'log')
  places = {name: display(HTML(''), display_id=True) for name in names}
  shown, ended = {}, False
  while not ended:
    ended = trainer.poll() is not None  # First: the last look shows all.
    rows = writer.read_rows(workdir)
    text = html.escape(last_lines())
    parts = {
      'curves': curves(rows) if rows else '',
      'preview': preview(),
      'log': f'<pre style="white-space: pre-wrap">{text}</pre>',
    }
    for name, part in parts.items():
      if part != shown.get(name):
        places[name].update(HTML(part))
    shown = parts
    if not ended:
      time.sleep(3)


def train():
  """Runs the trainer until it ends or the cell is stopped; returns its code."""
  global trainer
  if sampled and jax.default_backend() != 'cpu':
    raise errors.UsageError(
      'This session holds the device, because it has sampled: restart it '
      '(Runtime > Restart session) and run the cells again to resume.'
    )
  make_venv()
  if trainer is None or trainer.poll() is not None:
    with log.open('ab') as file:
      # In a session of its own, so that the stop button stops this cell alone.
      trainer = subprocess.Popen(
        command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
      )
    atexit.register(trainer.terminate)
  try:
    watch()
  except KeyboardInterrupt:
    print('Stopping: the trainer saves a checkpoint first.')
    trainer.terminate()
  return trainer.wait()


# %%
# @title Train or resume
code = train()
if code in (75, -signal.SIGTERM):
  print('Stopped: run this cell again to resume.')
elif code:
  raise errors.UsageError(f'Training ended with code {code}:\n{last_lines(20)}')
else:
  print(f'Finished: final videos and their scores are in {workdir}/final.')

# %% [markdown]
# ## Sample
#
# The trainer has let go of the device, so this session samples by itself, with
# the jax that Colab has. The notebook `sample.ipynb` has all settings: give it
# the folder of this run.

# %%
# @title Sample from the run
label = ''  # @param {"type": "string"}
# @markdown What is to be seen, of a run that reads captions.
caption = ''  # @param {"type": "string"}
seed = 0  # @param {"type": "integer"}
number = 4  # @param {"type": "integer"}

os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
import numpy as np

from vdm import chain
from vdm import fulfil
from vdm import request

sampled = True
folder = pathlib.Path(f'{workdir}_samples') / time.strftime('%Y%m%d_%H%M%S')
seeds = seed + np.arange(number)
options = request.Options(
  workdir=workdir,
  out=str(folder),
  num=number,
  # A field that is empty is left to the model.
  label=label or None,
  caption=caption or None,
)
try:
  wanted = request.read(options)
except (OSError, ValueError) as error:
  raise errors.UsageError(error) from None
videos, records = fulfil.make_videos(wanted, chain.keeping(), seeds)
fulfil.write(wanted, videos, records, seeds)
display(HTML(notebook.players(sorted(folder.glob('seed_*.mp4')))))
display(HTML(notebook.download(folder)))
