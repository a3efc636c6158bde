"""Accelerators by name: `h100`, `h100x8`, `a100-40`, `v5e-8`, `v5e-8x2`.

A GPU's name may be followed by a number of GPUs of one machine. A TPU's name is
its generation and the number that its type has at Google Cloud, which counts
cores (two a chip) for v2 to v5p and chips for v5e and v6e; a second number is
one of slices.

Memory is what a program can use: of a GPU, 0.75 of what nvidia-smi shows, which
is what jax reserves unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise; of a
TPU, what its compiler allows. The GPUs' figures are from the makers' data
sheets, the TPUs' from the compiler of libtpu 0.0.42.
"""

import re
from typing import Any, NamedTuple

from vdm.config import suggest
from vdm.training import flops

GPU_FRACTION = 0.75  # Of a GPU's memory: what jax reserves by default.
_NAME = (
  r'((?:rtx)?[a-z0-9-]+?)(?:x([1-9][0-9]*))?'  # The x of RTX is no number.
)


class Target(NamedTuple):
  """Devices to plan for.

  Attributes:
    name: as on the command line.
    platform: 'gpu' or 'tpu'.
    kind: as `jax.devices()[0].device_kind` says.
    devices: number of them, over all slices.
    memory: bytes of one device that a program can use.
    topology: how the compiler is asked for them, see `compile_step`.
  """

  name: str
  platform: str
  kind: str
  devices: int
  memory: float
  topology: dict[str, Any]

  @property
  def peak(self) -> float | None:
    """bfloat16 operations a second of one device, see `flops.peak_flops`."""
    return flops.peak_flops(self.kind)


class _Gpu(NamedTuple):
  """What XLA's compiler wants to know of a GPU it does not find."""

  kind: str
  capability: tuple[int, int]
  memory_mib: int
  cores: int  # Multiprocessors.
  fpus: int  # float32 units of a multiprocessor.
  threads: int  # Of a multiprocessor, at most.
  shared_kib: int  # Of a multiprocessor.
  l2_mib: float
  bandwidth: float  # Of memory, bytes a second.
  clock_ghz: float

  def description(self) -> str:
    """Returns XLA's target configuration, a text protocol buffer."""
    major, minor = self.capability
    optin = 1024 * (self.shared_kib - 1)  # A block's; 1 KiB is reserved.
    optin = 64 * 1024 if self.capability == (7, 5) else optin
    return f"""
      gpu_device_info {{
        threads_per_block_limit: 1024 threads_per_warp: 32
        shared_memory_per_block: 49152
        shared_memory_per_core: {1024 * self.shared_kib}
        shared_memory_per_block_optin: {optin}
        threads_per_core_limit: {self.threads}
        core_count: {self.cores} fpus_per_core: {self.fpus}
        block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
        block_dim_limit_z: 65535 thread_dim_limit_x: 1024
        thread_dim_limit_y: 1024 thread_dim_limit_z: 64
        registers_per_core_limit: 65536 registers_per_block_limit: 65536
        memory_bandwidth: {int(self.bandwidth)}
        l2_cache_size: {int(self.l2_mib * 2**20)}
        clock_rate_ghz: {self.clock_ghz}
        device_memory_size: {self.memory_mib * 2**20}
        cuda_compute_capability {{ major: {major} minor: {minor} }}
        device_vendor: "NVIDIA Corporation" device_address_bits: 64
        name: "{self.kind}" driver_version: "12.9.0" runtime_version: "12.9.0"
        compile_time_toolkit_version: "12.9.0" dnn_version: "9.10.0"
      }}
      platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }}
      device_description_str: "{self.kind}"
    """


_GPUS = {
  't4': _Gpu(
    kind='Tesla T4',
    capability=(7, 5),
    memory_mib=15360,
    cores=40,
    fpus=64,
    threads=1024,
    shared_kib=64,
    l2_mib=4,
    bandwidth=320e9,
    clock_ghz=1.59,
  ),
  'l4': _Gpu(
    kind='NVIDIA L4',
    capability=(8, 9),
    memory_mib=23034,
    cores=58,
    fpus=128,
    threads=1536,
    shared_kib=100,
    l2_mib=48,
    bandwidth=300e9,
    clock_ghz=2.04,
  ),
  'rtx3090': _Gpu(
    kind='NVIDIA GeForce RTX 3090',
    capability=(8, 6),
    memory_mib=24576,
    cores=82,
    fpus=128,
    threads=1536,
    shared_kib=100,
    l2_mib=6,
    bandwidth=936e9,
    clock_ghz=1.70,
  ),
  'rtx4090': _Gpu(
    kind='NVIDIA GeForce RTX 4090',
    capability=(8, 9),
    memory_mib=24564,
    cores=128,
    fpus=128,
    threads=1536,
    shared_kib=100,
    l2_mib=72,
    bandwidth=1008e9,
    clock_ghz=2.52,
  ),
  'l40s': _Gpu(
    kind='NVIDIA L40S',
    capability=(8, 9),
    memory_mib=46068,
    cores=142,
    fpus=128,
    threads=1536,
    shared_kib=100,
    l2_mib=96,
    bandwidth=864e9,
    clock_ghz=2.52,
  ),
  'a100-40': _Gpu(
    kind='NVIDIA A100-SXM4-40GB',
    capability=(8, 0),
    memory_mib=40960,
    cores=108,
    fpus=64,
    threads=2048,
    shared_kib=164,
    l2_mib=40,
    bandwidth=1555e9,
    clock_ghz=1.41,
  ),
  'a100-80': _Gpu(
    kind='NVIDIA A100-SXM4-80GB',
    capability=(8, 0),
    memory_mib=81920,
    cores=108,
    fpus=64,
    threads=2048,
    shared_kib=164,
    l2_mib=40,
    bandwidth=2039e9,
    clock_ghz=1.41,
  ),
  'h100': _Gpu(
    kind='NVIDIA H100 80GB HBM3',
    capability=(9, 0),
    memory_mib=81559,
    cores=132,
    fpus=128,
    threads=2048,
    shared_kib=228,
    l2_mib=50,
    bandwidth=3352e9,
    clock_ghz=1.98,
  ),
  'h200': _Gpu(
    kind='NVIDIA H200',
    capability=(9, 0),
    memory_mib=143771,
    cores=132,
    fpus=128,
    threads=2048,
    shared_kib=228,
    l2_mib=50,
    bandwidth=4800e9,
    clock_ghz=1.98,
  ),
}

# Generation: device kind, GiB of a device, the topology's prefix, and
# {number in the name: (topology, devices)}.
_TPUS = {
  'v2': ('TPU v2', 7.48, 'v2', {8: ('2x2', 8), 32: ('4x4', 32)}),
  'v3': ('TPU v3', 15.48, 'v3', {8: ('2x2', 8), 32: ('4x4', 32)}),
  'v4': (
    'TPU v4',
    30.75,
    'v4',
    {8: ('2x2x1', 4), 16: ('2x2x2', 8), 32: ('2x2x4', 16)},
  ),
  'v5p': (
    'TPU v5',
    95.74,
    'v5',
    {8: ('2x2x1', 4), 16: ('2x2x2', 8), 32: ('2x2x4', 16)},
  ),
  'v5e': (
    'TPU v5 lite',
    15.75,
    'v5e',
    {1: ('1x1', 1), 4: ('2x2', 4), 8: ('2x4', 8), 16: ('4x4', 16)},
  ),
  'v6e': (
    'TPU v6 lite',
    31.25,
    'v6e',
    {1: ('1x1', 1), 4: ('2x2', 4), 8: ('2x4', 8), 16: ('4x4', 16)},
  ),
}


def parse(name: str) -> Target:
  """Returns the target of a name; see the module's docstring.

  Raises:
    ValueError: there is none; names the nearest, or all.
  """
  match = re.fullmatch(_NAME, name)
  base, count = (match[1], int(match[2] or 1)) if match else (name, 1)
  if base in _GPUS:
    gpu = _GPUS[base]
    return Target(
      name=name,
      platform='gpu',
      kind=gpu.kind,
      devices=count,
      memory=GPU_FRACTION * gpu.memory_mib * 2**20,
      topology={'name': f'1x1x{count}', 'gpu': gpu.description()},
    )
  generation, _, size = base.partition('-')
  kind, gib, prefix, sizes = _TPUS.get(generation, ('', 0.0, '', {}))
  if size.isdigit() and int(size) in sizes:
    shape, devices = sizes[int(size)]
    topology: dict[str, Any] = {'name': f'{prefix}:{shape}'}
    if count > 1:
      topology['num_slices'] = count
    if generation in ('v4', 'v5p'):  # The two cores of a chip are one device.
      topology['chip_config_name'] = 'megacore'
    if shape == '2x4':  # One host of eight chips; the default is two of four.
      topology['chips_per_host_bounds'] = (2, 4, 1)
    memory = gib * 2**30
    return Target(name, 'tpu', kind, devices * count, memory, topology)
  known = names()
  raise ValueError(
    f'There is no target {name!r}{suggest.hint(name, known)} A number of GPUs '
    'follows an x, as in h100x8, and a number of TPU slices, as in v5e-8x2.'
  )


def names() -> list[str]:
  """Returns the names without numbers of GPUs or slices."""
  return [
    *_GPUS,
    *(f'{name}-{size}' for name, tpu in _TPUS.items() for size in tpu[3]),
  ]
