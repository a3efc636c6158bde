"""Times the ways to compute a factorised space-time convolution.

  python benchmarks/convolutions.py

Each line is forward and backward of one convolution at a shape of the demo's
network, as a ratio to the one that `vdm.models.layers` uses: the same
program, interleaved, so that a busy machine slows all of them alike.
"""

import os
import statistics
import sys
import time

import jax
import jax.numpy as jnp

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.models import layers


def windows(x, size):
  """Shifted copies of [n, h, w, c] under a kernel of `size` (kh, kw)."""
  kh, kw = size
  n, h, w, c = x.shape
  padded = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
  return [
    jax.lax.slice(padded, (0, i, j, 0), (n, i + h, j + w, c))
    for i in range(kh)
    for j in range(kw)
  ]


def one_product(x, kernel):
  """im2col: one product of all copies side by side."""
  columns = jnp.concatenate(windows(x, kernel.shape[:2]), axis=-1)
  return columns @ kernel.reshape(-1, kernel.shape[-1])


def a_product_each(x, kernel):
  """A product for each shift, summed."""
  taps = kernel.reshape(-1, *kernel.shape[-2:])
  return sum(
    copy @ tap for copy, tap in zip(windows(x, kernel.shape[:2]), taps)
  )


FORMS = {
  'lax convolution': layers.conv2d,
  'one product (im2col)': one_product,
  'a product for each shift': a_product_each,
}

# What: folded input [n, h, w, c], kernel (kh, kw).
SHAPES = {
  'space, 8 x 8 x 32': ((256, 8, 8, 32), (3, 3)),
  'space, 4 x 4 x 64': ((256, 4, 4, 64), (3, 3)),
  'time, 16 x (8 8) x 32': ((16, 16, 64, 32), (3, 1)),
  'time, 16 x (4 4) x 64': ((16, 16, 16, 64), (3, 1)),
}


def make(form, shape, size):
  """A compiled gradient of two convolutions, and its arguments."""
  key = jax.random.key(0)
  x = jax.random.normal(key, shape)
  kernel = 0.05 * jax.random.normal(key, (*size, shape[-1], shape[-1]))

  def total(kernel, x):
    return jnp.sum(form(jnp.tanh(form(x, kernel)), kernel))

  function = jax.jit(jax.grad(total, argnums=(0, 1)))
  return function.lower(kernel, x).compile(), (kernel, x)


def main():
  device = jax.devices()[0]
  print(f'jax {jax.__version__}, {device.device_kind}, {os.cpu_count()} cores')
  for what, (shape, size) in SHAPES.items():
    made = {name: make(form, shape, size) for name, form in FORMS.items()}
    seconds = {name: [] for name in made}
    for _ in range(12):  # The first two warm up.
      for name, (function, arguments) in made.items():
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds[name].append(time.perf_counter() - began)
    medians = {k: statistics.median(v[2:]) for k, v in seconds.items()}
    base = medians['lax convolution']
    for name, value in medians.items():
      print(
        f'{what:24s} {name:26s} {value * 1e3:7.2f} ms  {value / base:5.2f} x'
      )


if __name__ == '__main__':
  main()
