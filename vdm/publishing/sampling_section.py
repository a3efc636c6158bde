"""The card's section on sampling: a command and Python, for this very model.

What both ask for is what the model can be asked: a caption, a class, frames to
begin with where it has only learned to go on, a smaller video, or nothing.
"""

import shlex

from ml_collections import ConfigDict

from vdm import trained
from vdm.config import cascade_rules
from vdm.models import autoencoders
from vdm.trained import image_models


def text(model: trained.Model, source: str) -> str:
  """Returns the section, without its title.

  Args:
    model: what is exported.
    source: for commands that sample from it.
  """
  flags, cond = _told(model)
  modules, libraries, image, given, task = ['generate'], '', '', '', ''
  if model.reader is not None:
    modules.append('prompts')
  if image_models.is_branches(model):
    flags = f' --image_model IMAGE_MODEL{flags}'
    image = ", image_model='IMAGE_MODEL'"
  if cascade_rules.is_told(model.config.model):
    flags += ' --low clip.mp4'
    small = "np.load('samples.npz')['videos'][:1]  # Of the smaller size."
    cond += f"\ncond['small'] = {small}"
  if _only_goes_on(model.stage):
    frames = autoencoders.make_autoencoder(model.config.autoencoder).factor[0]
    flags += f' --given clip.mp4 --given_frames 0:{frames}'
    given = (
      f'\ntask = rollouts.Task(given=tuple(range({frames})))'
      f"\ngiven = np.load('samples.npz')['videos'][:1, :{frames}]"
    )
    task = ', task=task, given=given'
  worse = ', worse=model.worse' if model.worse is not None else ''
  told = f'model.params, model.frozen, cond, seeds=[0]{task}'
  code = ''.join(
    [
      f'from vdm import {", ".join([*modules, "trained"])}\n',
      'from vdm.diffusion import rollouts\n' if task else '',
      f'\nmodel = trained.load({source!r}{image})\n',
      f'make = generate.make_generator(model.config, model.stage{worse})\n',
      f'cond = {cond}{given}\n',
      _call('videos = make.samples', told),
    ]
  )
  if 'np.' in code:
    libraries = 'import numpy as np\n\n'
  return f"""```bash
python -m vdm.sample --workdir {shlex.quote(source)} --num 8{flags}
```

or from Python, as uint8 arrays [n t h w c]:

```python
{libraries}{code}
```

Both read JSON and safetensors only, check every file's sha256 first, and run no
code of this folder."""


def _call(function: str, arguments: str) -> str:
  """Returns a call as ruff formats it, which reads Markdown, too."""
  line = f'{function}({arguments})'
  return line if len(line) <= 80 else f'{function}(\n  {arguments}\n)'


def _told(model: trained.Model) -> tuple[str, str]:
  """Returns flags, and Python, of what one video is told."""
  if model.reader is not None:
    caption = (*model.config.sample.captions, 'a caption')[0]
    cond = f'prompts.make(model.reader, [-1], [{caption!r}]).cond'
    return f' --caption {shlex.quote(caption)}', cond
  if model.config.model.num_classes:
    return '', "{'label': [0]}"
  return '', '{}  # It can be told nothing.'


def _only_goes_on(stage: ConfigDict) -> bool:
  """Returns whether a network has only seen clips of which frames are given."""
  levels = stage.frame_levels
  return not levels.shared and not levels.independent
