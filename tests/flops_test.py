"""Counts against products worked out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.training import flops


def struct(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_matrix_products():
  # Each of 5 x 7 outputs is a sum over 3.
  assert flops.count_flops(jnp.matmul, struct(5, 3), struct(3, 7)) == 210
  batched = flops.count_flops(
    lambda a, b: jnp.einsum('bij,bjk->bik', a, b),
    struct(4, 5, 3),
    struct(4, 3, 7),
  )
  assert batched == 4 * 210


def convolve(stride=1, groups=1, spatial=2):
  letters = 'DHW'[3 - spatial :]

  def fn(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride,) * spatial,
      'SAME',
      dimension_numbers=(f'N{letters}C', f'{letters}IO', f'N{letters}C'),
      feature_group_count=groups,
    )

  return fn


@pytest.mark.parametrize(
  'stride, groups, x, kernel, expected',
  [
    (1, 1, (2, 8, 8, 4), (3, 3, 4, 6), 2 * (2 * 64 * 6) * 9 * 4),
    (2, 1, (2, 8, 8, 4), (3, 3, 4, 6), 2 * (2 * 16 * 6) * 9 * 4),
    (1, 2, (2, 8, 8, 4), (3, 3, 2, 6), 2 * (2 * 64 * 6) * 9 * 2),
    (1, 1, (2, 4, 8, 8, 4), (3, 3, 3, 4, 6), 2 * (2 * 256 * 6) * 27 * 4),
  ],
)
def test_convolutions_and_their_gradients(stride, groups, x, kernel, expected):
  fn = convolve(stride, groups, len(x) - 2)
  x, kernel = struct(*x), struct(*kernel)
  assert flops.count_flops(fn, x, kernel) == expected

  def loss(x, kernel):
    return jnp.sum(fn(x, kernel) ** 2)

  # Forward, gradient of the input, gradient of the kernel: alike.
  gradient = jax.grad(loss, argnums=(0, 1))
  assert flops.count_flops(gradient, x, kernel) == 3 * expected


def test_loops_and_branches():
  def step(x, weight):
    return jnp.tanh(x @ weight), None

  def scanned(x, weights):
    return jax.lax.scan(step, x, weights)[0]

  one = 2 * 5 * 3 * 3
  x, weights = struct(5, 3), struct(10, 3, 3)
  assert flops.count_flops(scanned, x, weights) == 10 * one

  def branch(choose, x, weights):
    return jax.lax.cond(
      choose, lambda: scanned(x, weights), lambda: x @ weights[0]
    )

  flag = jax.ShapeDtypeStruct((), jnp.bool_)
  assert flops.count_flops(branch, flag, x, weights) == 10 * one

  def repeated(x, weight):
    return jax.lax.while_loop(lambda x: jnp.sum(x) < 1, lambda x: x @ weight, x)

  assert flops.count_flops(repeated, x, struct(3, 3)) == one


def test_looks_into_jit_remat_and_custom_derivatives():
  one = 2 * 5 * 3 * 3
  x, weight = struct(5, 3), struct(3, 3)

  @jax.custom_vjp
  def product(x, weight):
    return x @ weight

  def forward(x, weight):
    return product(x, weight), (x, weight)

  def backward(residuals, g):
    x, weight = residuals
    return g @ weight.T, x.T @ g

  product.defvjp(forward, backward)
  assert flops.count_flops(jax.jit(product), x, weight) == one

  def loss(layer, x, weight):
    return jnp.sum(layer(jnp.tanh(x @ weight), weight) ** 2)

  # Two products forward, and for each two gradients.
  gradient = jax.grad(functools.partial(loss, product), argnums=(0, 1))
  assert flops.count_flops(gradient, x, weight) == 6 * one

  def block(x, weight):
    return jnp.tanh(jnp.tanh(x @ weight) @ weight)

  # Remat computes both products again (the second's value is used by tanh).
  gradient = jax.grad(
    functools.partial(loss, jax.checkpoint(block)), argnums=(0, 1)
  )
  assert flops.count_flops(gradient, x, weight) == (3 * 3 + 2) * one


def test_accepts_arrays_and_trees():
  params = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}
  count = flops.count_flops(
    lambda p, x: x @ p['a'] @ p['b'], params, np.ones((5, 3), np.float32)
  )
  assert count == 2 * 5 * 4 * 3 + 2 * 5 * 2 * 4


@pytest.mark.parametrize(
  'kind, tera',
  [
    ('NVIDIA A100-SXM4-80GB', 312),
    ('NVIDIA H100 80GB HBM3', 989),
    ('NVIDIA H100 PCIe', 756),
    ('NVIDIA H200', 989),
    ('NVIDIA GeForce RTX 4090', 165),
    ('NVIDIA L4', 121),
    ('NVIDIA L40S', 362),
    ('Tesla T4', 65),
    ('TPU v3', 61.5),
    ('TPU v4', 275),
    ('TPU v5 lite', 197),
    ('TPU v5p', 459),
    ('TPU v5', 459),
    ('TPU v6 lite', 918),
    ('TPU7x', 1153.5),
  ],
)
def test_peaks(kind, tera):
  assert flops.peak_flops(kind, 'bfloat16') == tera * 1e12


def test_unknown_peaks_are_none():
  assert flops.peak_flops('cpu', 'bfloat16') is None
  assert flops.peak_flops('NVIDIA H100 80GB HBM3', 'float32') is None
