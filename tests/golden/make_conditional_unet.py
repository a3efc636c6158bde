"""Runs diffusers' UNet2DConditionModel with weights by a formula.

    PYTHONPATH=tests python tests/golden/make_conditional_unet.py

writes `conditional_unet.npz` beside this file: per network of
`image_unet_cases.CONDITIONAL` its output `y` [2 h w c] for the frames, text and
label there, at the timesteps of the levels there by its scheduler; `y_null` for
the empty prompt there; and `shapes`, the names and shapes of its parameters as
JSON. Needs torch and diffusers, in an environment of their own.
"""

import json
import pathlib

import diffusers
import formula_weights
import image_unet_cases as cases
import numpy as np
import torch

PATH = pathlib.Path(__file__).resolve().with_name('conditional_unet.npz')


def build(description):
  """(network, scheduler) of a description."""
  own = {k: v for k, v in description.items() if k not in scheduler_keys()}
  network = diffusers.UNet2DConditionModel(**own)
  scheduler = diffusers.DDPMScheduler(
    **cases.SCHEDULER | {k: description[k] for k in description.keys() - own}
  )
  return formula_weights.fill(network), scheduler


def scheduler_keys():
  return {*cases.SCHEDULER, 'prediction_type'}


@torch.no_grad()
def run(network, scheduler, x, tokens, mask):
  """The output for frames [n h w c] at the levels of the cases."""
  labels = None
  if network.config.num_class_embeds:
    labels = torch.tensor([cases.LABEL] * len(x))
  t = [cases.timestep(scheduler.alphas_cumprod, n) for n in cases.LEVELS]
  y = network(
    torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))),
    torch.tensor(t, dtype=torch.float32),
    torch.from_numpy(tokens).expand(len(x), -1, -1),
    class_labels=labels,
    encoder_attention_mask=torch.from_numpy(mask).expand(len(x), -1),
  ).sample
  return y.numpy().transpose(0, 2, 3, 1)


def make():
  """All golden arrays."""
  arrays = {}
  for name, description in cases.CONDITIONAL.items():
    network, scheduler = build(description)
    shapes = {k: list(v.shape) for k, v in network.state_dict().items()}
    null = cases.null_text()[None]
    for key, text in (
      ('y', cases.text()),
      ('y_null', (null, np.ones(null.shape[:2], bool))),
    ):
      arrays[f'{name}/{key}'] = run(network, scheduler, cases.frames(4), *text)
    arrays[f'{name}/shapes'] = np.array(json.dumps(shapes))
  versions = [
    f'diffusers {diffusers.__version__}',
    f'torch {torch.__version__}',
  ]
  return arrays | {'versions': np.array(versions)}


if __name__ == '__main__':
  np.savez_compressed(PATH, **make())
