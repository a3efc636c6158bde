"""The other side of `peers.py`: a PyTorch network that is timed on request.

It runs in an interpreter of its own, which needs torch and the peer and not
this package. The first argument is a JSON object (see `peers.py`); with
`widths` it prints what networks of these widths cost and ends, otherwise it
answers every number n on its input with the seconds of n steps.

  lucidrains  Unet3D of video-diffusion-pytorch
  diffusers   UNet3DConditionModel

Weights are random and inputs noise: neither changes how long a step takes.
"""

import copy
import json
import sys
import time

import torch
from torch.utils import flop_counter


def lucidrains(width, channels, levels):
  """Returns a network, and a function (network, x, t) -> its output."""
  from video_diffusion_pytorch import Unet3D

  network = Unet3D(
    dim=width,
    channels=channels,
    dim_mults=tuple(2**i for i in range(levels)),
  )
  return network, lambda net, x, t: net(x, t)


def diffusers(width, channels, levels):
  """Likewise; one token of text, which it cannot do without."""
  from diffusers import UNet3DConditionModel

  down = ['CrossAttnDownBlock3D'] * (levels - 1) + ['DownBlock3D']
  up = ['UpBlock3D'] + ['CrossAttnUpBlock3D'] * (levels - 1)
  network = UNet3DConditionModel(
    in_channels=channels,
    out_channels=channels,
    down_block_types=tuple(down),
    up_block_types=tuple(up),
    block_out_channels=tuple(width * 2**i for i in range(levels)),
    norm_num_groups=8,
    cross_attention_dim=32,
    attention_head_dim=min(32, width),
  )

  def apply(net, x, t):
    text = torch.zeros(len(x), 1, 32, device=x.device, dtype=x.dtype)
    return net(x, t, encoder_hidden_states=text).sample

  return network, apply


PEERS = {'lucidrains': lucidrains, 'diffusers': diffusers}


def loss_of(network, apply, x, t, noise):
  """The squared error of the noise, as both peers train by default."""
  return torch.nn.functional.mse_loss(apply(network, x + noise, t), noise)


def count(options, width):
  """Parameters, and operations of a step: those of one clip, times the batch.

  The networks ask for values of tensors, so shapes alone are not enough.
  """
  rows, *shape = options['shape']
  network, apply = PEERS[options['peer']](width, shape[0], options['levels'])
  x, t = torch.zeros(1, *shape), torch.zeros(1, dtype=torch.long)
  with flop_counter.FlopCounterMode(display=False) as counter:
    if options['what'] == 'train':
      loss_of(network, apply, x, t, torch.ones_like(x)).backward()
    else:
      with torch.no_grad():
        apply(network, x, t)
  return {
    'width': width,
    'parameters': sum(p.numel() for p in network.parameters()),
    'operations': rows * counter.get_total_flops(),
  }


def make_step(options, device, dtype):
  """Returns a function that does one step and waits for it."""
  make = PEERS[options['peer']]
  network, apply = make(
    options['width'], options['shape'][1], options['levels']
  )
  network = network.to(device)
  x = torch.randn(options['shape'], device=device)
  t = torch.full((len(x),), 500, dtype=torch.long, device=device)
  called = torch.compile(network) if options['compile'] else network

  def cast():
    return torch.autocast(device.type, dtype, dtype != torch.float32)

  def wait():
    if device.type == 'cuda':
      torch.cuda.synchronize()

  if options['what'] == 'sample':
    network.eval()

    def step():
      with torch.no_grad(), cast():
        apply(called, x, t)
      wait()

    return step

  average = copy.deepcopy(network)
  parameters = list(network.parameters())
  averages = list(average.parameters())
  optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

  def step():
    noise = torch.randn_like(x)
    with cast():
      loss = loss_of(called, apply, x, t, noise)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    with torch.no_grad():
      torch._foreach_lerp_(averages, parameters, 1e-3)
    loss.item()
    wait()

  return step


def main():
  options = json.loads(sys.argv[1])
  if 'widths' in options:
    for width in options['widths']:
      print(json.dumps(count(options, width)), flush=True)
    return
  device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
  if options['threads']:
    torch.set_num_threads(options['threads'])
  dtype = getattr(torch, options['dtype'])
  step = make_step(options, device, dtype)
  step()
  print(json.dumps({'torch': torch.__version__}), flush=True)
  for line in sys.stdin:
    began = time.perf_counter()
    for _ in range(int(line)):
      step()
    print(json.dumps(time.perf_counter() - began), flush=True)


if __name__ == '__main__':
  main()
