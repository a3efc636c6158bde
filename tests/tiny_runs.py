"""A run small enough for a test: the middle of a U-Net on clips of 4 x 4 px.

Compiling takes nearly all of a step's time, and grows with the blocks.
"""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from vdm.common import trees
from vdm.config import schema
from vdm.multihost import arrays
from vdm.training import objectives
from vdm.training import packing
from vdm.training import sharding
from vdm.training import train_state
from vdm.training import train_step

FRAMES, SIZE, CLASSES = 3, 4, 4


def make_config(**stage):
  """A pixel-space diffusion run with one stage, 'video'."""
  config = schema.default()
  config.autoencoder.update(kind='identity')
  config.model.update(
    widths=(8,),
    blocks=(0,),
    attention_levels=(),
    temporal_levels=(0,),
    temporal_attention_levels=(),
    head_size=8,
    embed_width=8,
    num_classes=CLASSES,
  )
  config.data.update(name='synthetic_scenes', resolution=SIZE)
  config.sample.update(num=2, batch=8, steps=2)
  values = dict(frames=FRAMES, resolution=SIZE, batch=8, steps=10, warmup=2)
  config.stages.video = schema.stage(**values | stage)
  config.train.order = ('video',)
  return config


def batch(rows=8, frames=FRAMES, size=SIZE, seed=0):
  """Random clips and labels."""
  generator = np.random.default_rng(seed)
  shape = (rows, frames, size, size, 3)
  return {
    'video': generator.integers(0, 256, shape, np.uint8),
    'label': generator.integers(0, CLASSES, rows, np.int32),
  }


def autoencoder():
  """The frozen autoencoder of `make_config`: pixels, nearly normalised."""
  stats = {'mean': np.zeros(3, np.float32), 'scale': np.full(3, 0.5, 'f')}
  return {'params': {}, 'stats': stats}


def randomise(params, seed=1, scale=0.3):
  """Parameters of which none is zero, as after training.

  Args:
    params: nested dict of arrays, abstract or not.
    seed: of the values.
    scale: of what a layer adds to its input, about.
  """
  generator = np.random.default_rng(seed)

  def draw(path, leaf):
    fan_in = max(1, np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 1
    value = generator.normal(size=leaf.shape) * scale / fan_in**0.5
    return np.float32(value + path.endswith('scale'))

  flat = {path: draw(path, x) for path, x in trees.flatten(params).items()}
  return trees.unflatten(flat)


def random_module(build):
  """A module `build(rngs)` with random parameters, and these by name."""
  module = build(nnx.Rngs(params=jax.random.key(0)))
  params = randomise(nnx.to_pure_dict(nnx.state(module)), scale=1.0)
  leaves = jax.tree.map(jnp.asarray, params)
  return nnx.merge(nnx.graphdef(module), leaves), params


class Run:
  """The compiled step of a run's stage, on some devices.

  Attributes:
    initial: TrainState of host arrays that every run of steps begins from;
      whoever changes it calls `build`.
  """

  def __init__(self, config, params=None, *, devices=1, fsdp=1, trained=None):
    self.stage = config.stages.video
    self.mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])
    self.objective = objectives.make_objective(config, self.stage, self.mesh)
    if params is None:
      params = randomise(self.objective.abstract_params())
    self.initial = jax.tree.map(
      np.asarray, train_state.create(config.optim, params)
    )
    self.config, self.frozen = config, autoencoder()
    if self.stage.objective == 'consistency':
      self.frozen['teacher'] = jax.tree.map(np.asarray, params)
    self.trained = list(trees.flatten(params)) if trained is None else trained
    self.copies = arrays.replicated(self.mesh)
    self.build()

  def build(self):
    """Makes the step for the initial state."""
    self.layout = packing.plan(self.initial, [self.trained])
    packed = packing.pack(self.layout, self.initial)
    self.shardings = sharding.tree_sharding(self.mesh, packed)
    self.step = train_step.make_train_step(
      self.config.optim,
      self.stage,
      self.objective,
      self.layout,
      0,
      self.mesh,
      packed,
    )

  def begin(self):
    """A new packed copy of the initial state on the devices."""
    packed = packing.pack(self.layout, self.initial)
    # A donated buffer must not be the caller's.
    return jax.device_put(jax.tree.map(np.array, packed), self.shardings)

  def unpack(self, state):
    """A packed state on the host, as it is stored."""
    return jax.tree.map(np.asarray, packing.unpack(self.layout, state))

  def arguments(self, state, batch, n):
    """The arguments of `step`."""
    rows = arrays.to_global(self.mesh, batch)
    others = (self.frozen, np.int32(n), jax.random.key(7))
    frozen, n, key = jax.device_put(others, self.copies)
    return state, frozen, rows, n, key

  def train(self, batches):
    """State and metrics on the host after one step on each batch."""
    state, metrics = self.begin(), []
    for n, rows in enumerate(batches):
      state, values = self.step(*self.arguments(state, rows, n))
      metrics.append(jax.tree.map(np.asarray, values))
    return self.unpack(state), metrics
