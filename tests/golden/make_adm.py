"""Runs the U-Net of guided-diffusion with weights by a formula.

    PYTHONPATH=tests python tests/golden/make_adm.py guided-diffusion/

where the argument is a checkout of https://github.com/openai/guided-diffusion
writes `adm.npz` beside this file: per network of `image_unet_cases.ADM` its
output `y` [2 h w c], of the prediction alone, for the frames and label there,
at the timesteps of the levels there by its table of betas; and `shapes`, the
names and shapes of its parameters as JSON. Needs torch, in an environment of
its own.
"""

import json
import pathlib
import sys

import formula_weights
import image_unet_cases as cases
import numpy as np
import torch

PATH = pathlib.Path(__file__).resolve().with_name('adm.npz')
DEFAULTS = dict(
  image_size=64,
  num_heads=4,
  num_heads_upsample=-1,
  num_head_channels=-1,
  class_cond=False,
  use_new_attention_order=False,
  learn_sigma=False,
  noise_schedule='linear',
)


def build(checkout, description):
  """(network, alphas_cumprod) of a description, by the code of a checkout."""
  if str(checkout) not in sys.path:
    sys.path.insert(0, str(checkout))
  from guided_diffusion import gaussian_diffusion
  from guided_diffusion import script_util

  flags = DEFAULTS | description
  schedule = flags.pop('noise_schedule')
  network = script_util.create_model(**flags)
  betas = gaussian_diffusion.get_named_beta_schedule(schedule, 1000)
  return formula_weights.fill(network), np.cumprod(1 - betas)


@torch.no_grad()
def run(network, alphas_cumprod, x):
  """The prediction for frames [n h w c] at the levels of the cases."""
  labels = None
  if network.num_classes:
    labels = torch.tensor([cases.LABEL] * len(x))
  t = [cases.timestep(alphas_cumprod, level) for level in cases.LEVELS]
  y = network(
    torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))),
    torch.tensor(t, dtype=torch.float32),
    labels,
  )
  return y[:, : x.shape[-1]].numpy().transpose(0, 2, 3, 1)


def make(checkout):
  """All golden arrays."""
  arrays = {}
  for name, description in cases.ADM.items():
    network, alphas_cumprod = build(checkout, description)
    shapes = {k: list(v.shape) for k, v in network.state_dict().items()}
    arrays[f'{name}/y'] = run(network, alphas_cumprod, cases.frames(3))
    arrays[f'{name}/shapes'] = np.array(json.dumps(shapes))
  versions = ['guided-diffusion 22e0df8', f'torch {torch.__version__}']
  return arrays | {'versions': np.array(versions)}


if __name__ == '__main__':
  np.savez_compressed(PATH, **make(pathlib.Path(sys.argv[1]).resolve()))
