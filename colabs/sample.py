# ---
# jupyter:
#   colab:
#     name: sample.ipynb
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Sample videos from a trained model
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/vdm/blob/main/colabs/sample.ipynb)
#
# Makes videos with the small models that the repository ships, with a run of
# yours or with a model from the Hugging Face hub, plays them here and saves
# them. It runs with the jax, Flax and Orbax that Colab has, on a CPU, GPU or
# TPU: run the cells from top to bottom.

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

# %%
# @title Versions and devices
import platform

import flax
import jax

from vdm.common import errors
from vdm.common import sizes

if jax.version.__version_info__ < (0, 7, 2):
  raise errors.UsageError(
    f'jax {jax.__version__} is too old: vdm needs 0.7.2 or newer, as in '
    "Colab's newest runtime (Runtime > Change runtime type)."
  )
# What was compiled once is read the next time.
cache = pathlib.Path.home() / '.cache' / 'vdm' / 'jax'
if not jax.config.jax_compilation_cache_dir:
  jax.config.update('jax_compilation_cache_dir', str(cache))
devices = jax.devices()
print(
  f'Python {platform.python_version()}, jax {jax.__version__},',
  f'flax {flax.__version__}, {len(devices)} x {devices[0].device_kind}',
)

# %%
# @title Choose a model
# @markdown The folder of an export or of a run, or `hf://owner/name@revision`.
source = 'colabs/cascade/key_frames'  # @param {"type": "string"}
# @markdown Optional follow-up models (super-resolution or frame interpolation),
# @markdown comma-separated, applied in order. Leave empty for a single-stage model
# @markdown such as `colabs/demo`.
then = 'colabs/cascade/frames'  # @param {"type": "string"}
# @markdown Of a run: the latest checkpoint, a step, or `best`.
checkpoint = 'latest'  # @param {"type": "string"}
# @markdown Whether the folder is on Google Drive, in `/content/drive/MyDrive`.
on_drive = False  # @param {"type": "boolean"}

from vdm import chain
from vdm import trained

if on_drive:
  from google.colab import drive

  drive.mount('/content/drive')
others = [x.strip() for x in then.split(',') if x.strip()]
try:
  run = trained.load(source, checkpoint=checkpoint)
  enlargers = [trained.load(x) for x in others]
  links = chain.plan(run, run.stage.frames, run.frame_rate, enlargers)
except (OSError, ValueError) as error:
  raise errors.UsageError(error) from None


def introduce(model, frames, rate, size):
  count = sum(x.size for x in jax.tree.leaves(model.params))
  print(
    f'{model.source}: step {model.step}, {count / 1e6:.1f} million parameters,',
    f'videos of {frames} frames, {rate:g} a second, {size[1]} x {size[0]} px.',
  )


introduce(run, run.stage.frames, run.frame_rate, sizes.of(run.stage))
for x in links:
  introduce(x.run, x.task.frames, x.frame_rate, x.size)
names = run.label_names[: run.config.model.num_classes]
print('Labels:', ', '.join(names) or 'none')
print('Captions:', 'yes' if run.reader else 'none')

# %% [markdown]
# ## Sample
#
# Video i depends on seed + i, its label or caption and the settings alone, so any
# one of many can be generated again. The first videos of new settings take
# longer, because the sampler is compiled for them.
#
# - **guidance** trades variety for agreement with the label or caption; 1 is
#   none. `'label=2,text=5'` sets a scale for each.
# - **steps** of the sampler: each evaluates the network once (`heun`: twice).
# - **method**: `ddim` is of first order, `heun` and `dpmpp` are of second;
#   `consistency` is for models of few steps, which have no guidance.
# - **given** frames, and more **frames** than the model was trained on, are for
#   models that have trained them, as are **frame_rate** and **motion** (how much
#   moves). Files can be put into the folder by the panel on the left of Colab.

# %%
# @title Functions
import datetime
import time

from IPython.display import display
from IPython.display import HTML
import numpy as np

from vdm import fulfil
from vdm import generate
from vdm import request
from vdm.config import ranges
from vdm.media import notebook

generators = chain.keeping()  # What was compiled serves all later videos.


def make_videos(seed=0, number=4, steps=None, method=None, **asked):
  """Makes videos, writes them to a new folder and plays them here.

  What is asked is named as the flags of vdm.sample are.
  """
  now = datetime.datetime.now().strftime('%Y%m%d_%H%M%S_%f')
  folder = pathlib.Path(save_in) / now
  # A field that is empty is left to the model.
  asked = {name: x for name, x in asked.items() if x not in (None, '')}
  with errors.as_usage():  # A mistake is one sentence.
    numbers = {x: float(asked[x]) for x in ranges.UNITS if x in asked}
    asked |= numbers  # Of the panel they are text.
    options = request.Options(
      chain=(str(run.source), *others), out=str(folder), num=number, **asked
    )
    wanted = request.read(options, [run, *enlargers])
    changes = {'steps': steps, 'method': method, 'guidance': wanted.guidance}
    generate.change_sampler(
      wanted.run.config.sample,
      {name: x for name, x in changes.items() if x is not None},
    )
    started, seeds = time.time(), seed + np.arange(number)
    videos, records = fulfil.make_videos(wanted, generators, seeds)
  print(f'{number} videos in {time.time() - started:.1f} s')
  fulfil.write(wanted, videos, records, seeds)
  display(HTML(notebook.players(sorted(folder.glob(f'seed_*.{show}')))))
  display(HTML(notebook.download(folder)))


# %%
# @title Sample with a form
# @markdown A label by name or number; empty: one after the other.
label = ''  # @param {"type": "string"}
# @markdown What is to be seen, of a run that reads captions, such as "a red disc
# @markdown moves up"; empty: the captions of the run's previews.
caption = ''  # @param {"type": "string"}
seed = 0  # @param {"type": "integer"}
number = 4  # @param {"type": "integer"}
# @markdown `None` is what the run was configured with.
steps = None  # @param ["None", "10", "20", "50", "100"] {"type": "raw", "allow-input": true}
guidance = None  # @param ["None", "1.0", "2.0", "4.0"] {"type": "raw", "allow-input": true}
method = None  # @param ["None", "'ddim'", "'heun'", "'dpmpp'", "'consistency'"] {"type": "raw"}
# @markdown A picture or a video to begin with, and which of its frames the new
# @markdown videos have: `0`, `0:4`, or `0,-1` for the first and the last.
given = ''  # @param {"type": "string"}
given_frames = '0'  # @param {"type": "string"}
# @markdown How many frames are generated, and their frame rate and motion.
frames = None  # @param ["None", "32", "64", "128"] {"type": "raw", "allow-input": true}
frame_rate = None  # @param ["None", "6.25", "12.5", "25.0"] {"type": "raw", "allow-input": true}
motion = None  # @param ["None", "0.1", "0.2", "0.4"] {"type": "raw", "allow-input": true}
# @markdown Where folders of videos go, and what is played on this page.
save_in = 'runs/samples'  # @param {"type": "string"}
show = 'mp4'  # @param ["mp4", "gif"]

how = {'steps': steps, 'guidance': guidance, 'method': method}
begin = {'given': given, 'given_frames': given_frames, 'frames': frames}
told = {'frame_rate': frame_rate, 'motion': motion}
make_videos(seed, number, label=label, caption=caption, **how, **begin, **told)

# %%
# @title Sample with a panel
import ipywidgets as widgets

options = run.config.sample
labels = [('one after the other', ''), *((name, name) for name in names)]
controls = {
  'label': widgets.Dropdown(options=labels),
  'caption': widgets.Text(),
  'seed': widgets.BoundedIntText(0, min=0, max=2**31 - 1),
  'number': widgets.IntSlider(4, min=1, max=16),
  'steps': widgets.IntSlider(options.steps, min=1, max=max(100, options.steps)),
  'guidance': widgets.Text(options.guidance_by)
  if options.guidance_by  # Scales by group are text.
  else widgets.FloatSlider(options.guidance, min=0, max=10, step=0.25),
  'method': widgets.Dropdown(
    # Its own is the first: masked tokens have no other.
    options=list(
      dict.fromkeys((options.method, 'ddim', 'heun', 'dpmpp', 'consistency'))
    ),
  ),
}
for name in run.config.model.scalars:  # Empty: as the model chooses.
  controls[name] = widgets.Text()
if not (names or run.reader) or run.stage.objective == 'consistency':
  del controls['guidance']
if not names:
  del controls['label']
if not run.reader:
  del controls['caption']
for name, control in controls.items():
  control.description = name
button = widgets.Button(description='Sample', button_style='primary')
videos_here = widgets.Output()


def on_click(_):
  button.disabled, button.description = True, 'Sampling ...'
  videos_here.clear_output()
  try:
    with videos_here:
      make_videos(**{name: x.value for name, x in controls.items()})
  finally:
    button.disabled, button.description = False, 'Sample'


button.on_click(on_click)
display(widgets.VBox([*controls.values(), button, videos_here]))
