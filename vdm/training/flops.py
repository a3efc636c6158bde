"""Floating-point operations of a function, and what devices can do of them.

XLA's own cost analysis counts the body of a loop once and is empty on GPUs.
The jaxpr is exact for what matters: products of matrices and convolutions,
which are all but a few per cent of a network's work. A multiplication and an
addition are two operations. What rematerialisation computes again is counted,
because it is in the jaxpr of the gradient: this is the work done ("hardware
FLOPs"), so count with remat off to get the model's own.
"""

from collections.abc import Callable
import math
from typing import Any

import jax
from jax.extend import core


def count_flops(fn: Callable[..., Any], *args: Any) -> float:
  """Counts the operations of `fn(*args)` without running it.

  Loops count their body as often as it runs. `jax.lax.while_loop`, whose
  count is not known, counts its body once; of the branches of `jax.lax.cond`
  and `switch` the most expensive counts. Element-wise work, reductions and
  custom kernels count nothing.

  Args:
    fn: traceable function; jit, remat, grad, vmap and scan are looked into.
    *args: arrays or `jax.ShapeDtypeStruct`s, in pytrees.

  Returns:
    Floating-point operations, over all devices.
  """
  return _count(jax.make_jaxpr(fn)(*args).jaxpr)


def _count(jaxpr: core.Jaxpr) -> float:
  total = 0.0
  for equation in jaxpr.eqns:
    name = equation.primitive.name
    if name == 'dot_general':
      total += _dot(equation)
    elif name == 'conv_general_dilated':
      total += _convolution(equation)
    elif name == 'cond':
      total += max(_count(b.jaxpr) for b in equation.params['branches'])
    elif name == 'scan':
      length = equation.params['length']
      total += length * _count(equation.params['jaxpr'].jaxpr)
    elif name == 'while':
      total += _count(equation.params['body_jaxpr'].jaxpr)
    elif name == 'shard_map':
      # Its body is what one device does.
      inner = _count(equation.params['jaxpr'])
      total += inner * equation.params['mesh'].size
    elif name != 'pallas_call':
      # jit, remat, custom_jvp, custom_vjp and the like hold one jaxpr each.
      total += sum(_count(inner) for inner in inner_jaxprs(equation.params))
  return total


def inner_jaxprs(params: dict[str, Any]) -> list[core.Jaxpr]:
  """Returns the jaxprs among an equation's parameters."""
  found = []
  for value in params.values():
    if isinstance(value, core.ClosedJaxpr):
      found.append(value.jaxpr)
    elif isinstance(value, core.Jaxpr):
      found.append(value)
  return found


def _dot(equation: core.JaxprEqn) -> float:
  """Two operations for each output and each contracted index."""
  (contracted, _), _ = equation.params['dimension_numbers']
  left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
  return 2.0 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _convolution(equation: core.JaxprEqn) -> float:
  """Two operations for each output, kernel place and input feature.

  Places where the kernel lies on padding, or on the zeros that dilation puts
  between the values (the gradient of a stride), count as work, except that
  of a dilated input only the values do: without that, the gradient of a
  strided convolution would count stride^2 times its products.
  """
  kernel = equation.invars[1].aval.shape
  out = equation.outvars[0].aval.shape
  spec = equation.params['dimension_numbers'].rhs_spec  # (out, in, *space).
  places = math.prod(kernel[axis] for axis in spec[2:])
  dilation = math.prod(equation.params['lhs_dilation'])
  # The kernel's input features are already divided by feature_group_count.
  return 2.0 * math.prod(out) * places * kernel[spec[1]] / dilation


# Dense peaks in bfloat16 (float16 on the T4, which has no bfloat16 units), in
# operations a second, from the makers' data sheets; sparsity is not counted.
# A TPU of version 2, 3 or 7 shows two devices a chip, each with half.
_PEAKS = (
  ('NVIDIA H200 NVL', 835e12),
  ('NVIDIA H200', 989e12),
  ('NVIDIA H100 NVL', 835e12),
  ('NVIDIA H100 PCIe', 756e12),
  ('NVIDIA H100', 989e12),  # SXM.
  ('NVIDIA A100', 312e12),
  ('NVIDIA L40S', 362e12),
  ('NVIDIA L4', 121e12),
  ('NVIDIA GeForce RTX 4090', 165e12),  # With float32 accumulation.
  ('NVIDIA GeForce RTX 3090', 71e12),  # The same.
  ('Tesla T4', 65e12),
  ('NVIDIA T4', 65e12),
  ('TPU v2', 23e12),
  ('TPU v3', 61.5e12),
  ('TPU v4 lite', 138e12),
  ('TPU v4', 275e12),
  ('TPU v5 lite', 197e12),
  ('TPU v5e', 197e12),
  ('TPU v5', 459e12),  # v5p.
  ('TPU v6', 918e12),  # v6e, which is also called "TPU v6 lite".
  ('TPU7x', 1153.5e12),
  ('TPU v7', 1153.5e12),
)


def peak_flops(device_kind: str, dtype: str = 'bfloat16') -> float | None:
  """Returns the peak of one device, as `jax.devices()` lists devices.

  Args:
    device_kind: `jax.devices()[0].device_kind`.
    dtype: of the computation; peaks are known for 'bfloat16' alone, since
      float32 runs at the speed that the matmul precision chooses.

  Returns:
    Operations a second, or None where no figure is known.
  """
  if dtype != 'bfloat16':
    return None
  for name, peak in _PEAKS:
    if device_kind.startswith(name):
      return peak
  return None
