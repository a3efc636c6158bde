"""A trace's kernels are put down to the functions that asked for them."""

from flax import nnx
import jax
import jax.numpy as jnp
import pytest

from benchmarks import traces
from vdm.models import layers

STEPS = 3


@pytest.mark.parametrize(
  'name, kind',
  [
    ('sm90_xmma_dgrad_implicit_gemm_bf16bf16_bf16f32_f32', 'convolutions'),
    ('wrapped_convolution', 'convolutions'),
    ('nvjet_sm90_tst_128x128_64x6_2x1_v_bz_NNT', 'matrix products'),
    ('input_convert_reduce_fusion_4', 'reductions'),
    ('loop_transpose_fusion_16', 'copies, transposes, concatenations'),
    ('memcpy32_post', 'copies, transposes, concatenations'),
    ('loop_convert_fusion_5', 'element by element'),
  ],
)
def test_kinds_are_told_by_names(name, kind):
  assert traces.kind(name) == kind


def test_kernels_are_put_down_to_functions(tmp_path):
  graph, state = nnx.split(layers.GroupNorm(16))

  @jax.jit
  def run(state, x):
    return jnp.cos(nnx.merge(graph, state)(x)) @ jnp.ones((16, 16))

  x = jnp.ones((4, 64, 64, 16))
  compiled = run.lower(state, x).compile()
  with jax.profiler.trace(str(tmp_path)):
    for _ in range(STEPS):
      compiled(state, x).block_until_ready()
  found = traces.kernels(tmp_path)
  functions = traces.sources(compiled.as_text())
  rows = traces.grouped(found, lambda x: functions[traces.spelled(x)], STEPS)
  named = {row['name']: row for row in rows}
  norm = named['models/layers.py GroupNorm.__call__']
  rest = named['nothing of this package']  # This test's own.
  assert norm['kernels'] >= 1 and rest['kernels'] >= 1
  assert sum(row['kernels'] for row in rows) == len(found) / STEPS
  assert sum(row['milliseconds'] for row in rows) == pytest.approx(
    1000 * sum(seconds for _, seconds in found) / STEPS
  )
