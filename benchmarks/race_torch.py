"""The other side of `race.py`: a peer in PyTorch is trained and sampled.

The peer is lucidrains' video-diffusion-pytorch. It runs in an interpreter of
its own, which needs that and torch and not this package. The argument is a JSON
file, see `race.py`. With `widths` it prints the parameters of networks of these
widths, with `rates` the held-out loss of each learning rate after `seconds`;
else it trains with `rate`, and writes samples at each of `marks`, seconds of
training.
"""

import copy
import json
import math
import pathlib
import sys
import time

import numpy as np
import torch
from torch.nn import functional as F
from video_diffusion_pytorch import GaussianDiffusion
from video_diffusion_pytorch import Unet3D

DECAY, WARMUP, UNTOLD = 0.995, 50, 0.1


def make(options, clips):
  """The network and its diffusion, as the package makes them."""
  torch.manual_seed(options['seed'])
  channels, frames, size = clips.shape[1:4]
  network = Unet3D(
    dim=options['width'],
    cond_dim=options['classes'],
    channels=channels,
    dim_mults=tuple(2**i for i in range(options['levels'])),
  )
  return GaussianDiffusion(
    network,
    image_size=size,
    num_frames=frames,
    channels=channels,
    loss_type=options['loss'],
  )


def parameters(diffusion):
  """How many the network has."""
  return sum(x.numel() for x in diffusion.denoise_fn.parameters())


def batch_of(clips, labels, rows, options):
  """Clips as the package takes them, in [0, 1] if they are of pixels."""
  x = torch.from_numpy(np.ascontiguousarray(clips[rows])).float()
  x = x / 255 if clips.dtype == np.uint8 else (options['scale'] * x + 1) / 2
  told = F.one_hot(torch.from_numpy(labels[rows]), options['classes']).float()
  return x, told


def held_out_loss(diffusion, clips, labels, options):
  """The squared error of the noise, with the same noise every time."""
  torch.manual_seed(0)
  found = []
  with torch.no_grad():
    for start in range(0, len(clips), options['batch']):
      rows = np.arange(start, min(start + options['batch'], len(clips)))
      x, told = batch_of(clips, labels, rows, options)
      x, t = 2 * x - 1, torch.randint(0, diffusion.num_timesteps, (len(rows),))
      noise = torch.randn_like(x)
      made = diffusion.denoise_fn(diffusion.q_sample(x, t, noise), t, cond=told)
      found.append(F.mse_loss(made, noise).item())
  return float(np.mean(found))


def train(options, clips, labels, rate, seconds, marks=()):
  """Trains for seconds; yields (seconds, steps, average) at each mark."""
  diffusion = make(options, clips)
  average = copy.deepcopy(diffusion).eval()
  ours = list(diffusion.parameters())
  averages = list(average.parameters())
  optimizer = torch.optim.Adam(ours, lr=rate)
  random = np.random.default_rng(options['seed'])
  # On one thread the processor's time is the peer's own, whatever else runs.
  clock = time.process_time if options['threads'] == 1 else time.perf_counter
  spent, steps, marks = 0.0, 0, [*marks, seconds]
  while marks:
    began = clock()
    share = min(spent / seconds, 1.0)
    factor = min((steps + 1) / WARMUP, 1.0)
    if options['anneal']:
      factor *= (1 + math.cos(math.pi * share)) / 2
    optimizer.param_groups[0]['lr'] = rate * factor
    rows = random.integers(0, len(clips), options['batch'])
    x, told = batch_of(clips, labels, rows, options)
    loss = diffusion(x, cond=told, null_cond_prob=UNTOLD)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(ours, 1.0)
    optimizer.step()
    steps += 1
    # Early on, the average of a constant decay would hold the first values.
    decay = min(DECAY, steps / (steps + 10))
    with torch.no_grad():
      torch._foreach_lerp_(averages, ours, 1 - decay)
    spent += clock() - began
    if steps % 20 == 0:
      print(f'{spent:.0f} s, step {steps}: {loss.item():.4f}', file=sys.stderr)
    while marks and spent >= marks[0]:
      yield marks.pop(0), steps, average


def sample(diffusion, options, shape):
  """DDIM from noise level to noise level of the run's sampler.

  A share eta of the noise is drawn anew in each step: 1 is the package's own
  ancestral sampler, in fewer steps.
  """
  torch.manual_seed(options['seed'])
  alphas = diffusion.alphas_cumprod
  sigmas = ((1 - alphas) / alphas).sqrt()
  times = [int((sigmas - x).abs().argmin()) for x in options['sigmas']]
  labels = torch.tensor(options['labels'])
  made = []
  with torch.inference_mode():
    for rows in labels.split(options['batch']):
      told = F.one_hot(rows, options['classes']).float()
      x = torch.randn(len(rows), *shape)
      for i, time_ in enumerate(times):
        t = torch.full((len(rows),), time_)
        noise = diffusion.denoise_fn.forward_with_cond_scale(
          x, t, cond=told, cond_scale=options['guidance']
        )
        clean = diffusion.predict_start_from_noise(x, t, noise)
        clean = clean.clamp(-options['bound'], options['bound'])
        alpha = alphas[time_]
        noise = (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        later = alphas[times[i + 1]] if i + 1 < len(times) else torch.ones(())
        drawn = options['eta'] ** 2 * (1 - alpha / later)
        drawn = drawn * (1 - later) / (1 - alpha)
        x = later.sqrt() * clean + (1 - later - drawn).sqrt() * noise
        x = x + drawn.sqrt() * torch.randn_like(x)
      made.append(x.numpy())
  made = np.concatenate(made).transpose(0, 2, 3, 4, 1)
  if options['pixels']:
    return np.clip(np.rint((made + 1) * 127.5), 0, 255).astype(np.uint8)
  return made / options['scale']


def main():
  options = json.loads(pathlib.Path(sys.argv[1]).read_text())
  torch.set_num_threads(options['threads'])
  folder = pathlib.Path(options['folder'])

  def load(split):
    clips = np.load(folder / f'{split}_clips.npy', mmap_mode='r')
    labels = np.load(folder / f'{split}_labels.npy').astype(np.int64)
    return clips.transpose(0, 4, 1, 2, 3), labels

  clips, labels = load('train')
  if 'widths' in options:
    for width in options['widths']:
      count = parameters(make(options | {'width': width}, clips))
      print(json.dumps({'width': width, 'parameters': count}))
    return
  held_out = load('validation')
  if 'rates' in options:
    found = {}
    for rate in options['rates']:
      *_, (_, _, average) = train(
        options, clips, labels, rate, options['seconds']
      )
      found[rate] = held_out_loss(average, *held_out, options)
    print(json.dumps(found))
    return
  for mark, steps, average in train(
    options,
    clips,
    labels,
    options['rate'],
    options['seconds'],
    options['marks'],
  ):
    began = time.perf_counter()
    with torch.random.fork_rng():  # What follows is as without a look.
      videos = sample(average, options, clips.shape[1:])
      spent = time.perf_counter() - began
      loss = held_out_loss(average, *held_out, options)
    np.savez(folder / f'{options["name"]}_{mark:.0f}.npz', videos=videos)
    weights = {k: x.numpy() for k, x in average.state_dict().items()}
    np.savez(folder / f'{options["name"]}_weights.npz', **weights)
    row = {
      'seconds': mark,
      'steps': steps,
      'held_out_loss': loss,
      'parameters': parameters(average),
      'sampling_seconds': spent,
      'torch': torch.__version__,
    }
    print(json.dumps(row), flush=True)


if __name__ == '__main__':
  main()
