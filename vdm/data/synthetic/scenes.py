"""The synthetic world: coloured shapes that move by known rules.

A scene is a pure function of (seed, index) and of the options, and comes with
the exact truth of every frame, so that what a model has learned about motion
and constancy can be measured rather than guessed.

Coordinates are pixels, x right and y down, over a frame that spans
[0, width] x [0, height]: the middle of the top left pixel is (0.5, 0.5).
Motion class k moves at 45 k degrees, hence clockwise on the screen.

Only uniform doubles of PCG64 are drawn, and arithmetic is float64 until the
pixels are rounded: neither the platform nor numpy's release changes a scene.
"""

from typing import Any

import numpy as np

from vdm.data.synthetic import painting
from vdm.data.synthetic import paths
from vdm.data.synthetic import scene_spec

LABEL_NAMES = (
  'right',
  'down-right',
  'down',
  'down-left',
  'left',
  'up-left',
  'up',
  'up-right',
)


def render(index: int, *, seed: int, **options: Any) -> dict[str, Any]:
  """Renders scene `index` of the world `seed`.

  The label is a promise for the whole window: the class of the only object's
  direction if its velocity never changes, else -1. So it is -1 with several
  objects, under gravity, and with `walls` in those clips in which the object
  bounces. Where labels hold, each aligned block of eight indices has every
  class once, in an order of its own: splits are balanced, and a stride over
  the indices does not pick out a class.

  Args:
    index: which scene, from 0.
    seed: which world, from 0.
    **options: see `scene_spec.SceneSpec`.

  Returns:
    'frames' uint8 [t h w 3]; 'label' int; 'truth', a dict of 'centre' float32
    [t k 2] (x, y), 'velocity' float32 [t k 2] px a frame, 'size' float32 [t k]
    (radius of the disc of equal area, px), 'colour' uint8 [t k 3], 'visible'
    float32 [t k] (share of the object that is seen), 'shape' int32 [k] (index
    into `shapes.NAMES`) and 'angle' float32 [t k] (radians, clockwise). Object
    0 is the nearest.

  Raises:
    ValueError: an option is out of its range, or the objects do not fit.
  """
  spec = scene_spec.SceneSpec(**options)
  random = _generator([seed, index])
  direction = _direction(seed, index)
  moving = paths.draw(random, direction, spec)
  colour = painting.draw_colours(random, spec.objects, spec.captions)
  ground = painting.draw_ground(random, spec.ground, spec.size)
  video, visible = painting.paint(moving, colour, ground)

  steady = spec.objects == 1 and spec.motion == 'straight'
  steady = steady and bool((moving.velocity == moving.velocity[0]).all())
  truth = {
    'centre': moving.centre.astype(np.float32),
    'velocity': moving.velocity.astype(np.float32),
    'size': np.tile(moving.size, [spec.frames, 1]).astype(np.float32),
    'colour': np.tile(colour, [spec.frames, 1, 1]),
    'visible': visible.astype(np.float32),
    'shape': moving.shape.astype(np.int32),
    'angle': moving.angle.astype(np.float32),
  }
  return {
    'frames': video,
    'label': direction if steady else -1,
    'truth': truth,
  }


def _generator(entropy: list[int], **options: Any) -> np.random.Generator:
  seeds = np.random.SeedSequence(entropy, **options)
  return np.random.Generator(np.random.PCG64(seeds))


def _direction(seed: int, index: int) -> int:
  """Returns the class of scene `index`: each once in a block of eight."""
  block, place = divmod(index, len(LABEL_NAMES))
  random = _generator([seed, block], spawn_key=(1,))
  return int(np.argsort(random.random(len(LABEL_NAMES)))[place])
