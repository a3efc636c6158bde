"""The sizes of an image U-Net, and the places that follow from them.

Everything that is made for each block is made for each of its `places`: layers
in `skeleton`, published names in `names`, temporal branches in `inflated`.
"""

import functools
from typing import NamedTuple


class Sizes(NamedTuple):
  """The sizes of a network.

  Attributes:
    channels: of its input and output.
    features: sinusoids of time.
    widths: channels of each level, finest first.
    blocks: residual blocks of each level on the way down.
    down_attention: whether the blocks of a level have attention, on the way
      down,
    up_attention: and on the way up.
    middle: residual blocks between both, with attention after the first if
      there are two; 0: nothing.
    classes: labels of its embedding; 0: it takes none.
    groups: of every norm.
    epsilon: of the norms of residual blocks.
    scale_shift: whether the embedding scales and shifts, or is added.
    residual_resampling: whether a residual block resamples, or a convolution.
    cosine_first: whether the features of time are cosines, then sines.
    frequency_shift: of these features, see `time_features`.
  """

  channels: int
  features: int
  widths: tuple[int, ...]
  blocks: tuple[int, ...]
  down_attention: tuple[bool, ...]
  up_attention: tuple[bool, ...]
  middle: int = 2
  classes: int = 0
  groups: int = 32
  epsilon: float = 1e-5
  scale_shift: bool = False
  residual_resampling: bool = False
  cosine_first: bool = True
  frequency_shift: float = 0.0

  @property
  def embed_width(self) -> int:
    """Width of the embedding of time and label."""
    return 4 * self.features


class Place(NamedTuple):
  """One step of the way through a network.

  Attributes:
    name: of the module, 'down_0_block_1' or 'up_2_resample'.
    part: 'down', 'middle' or 'up'.
    level: whose grid its output has; of a resampling, the level it leaves.
    index: of a block in its level; -1 for a resampling.
    cin: channels of its input, with those of a skip.
    cout: channels of its output.
    attention: whether attention follows.
  """

  name: str
  part: str
  level: int
  index: int
  cin: int
  cout: int
  attention: bool = False

  @property
  def is_block(self) -> bool:
    """Whether it is a block, and not a resampling."""
    return self.index >= 0


@functools.cache
def places(sizes: Sizes) -> tuple[Place, ...]:
  """Returns the places of a network in the order in which they run."""
  found, levels, width = [], len(sizes.widths), sizes.widths[0]
  skips = [width]
  for level, cout in enumerate(sizes.widths):
    for i in range(sizes.blocks[level]):
      name, attends = f'down_{level}_block_{i}', sizes.down_attention[level]
      found.append(Place(name, 'down', level, i, width, cout, attends))
      width = cout
      skips.append(width)
    if level < levels - 1:
      name = f'down_{level}_resample'
      found.append(Place(name, 'down', level, -1, width, width))
      skips.append(width)
  for i in range(sizes.middle):
    attends = i == 0 and sizes.middle > 1
    name = f'middle_block_{i}'
    found.append(Place(name, 'middle', levels - 1, i, width, width, attends))
  for level in reversed(range(levels)):
    cout, attends = sizes.widths[level], sizes.up_attention[level]
    for i in range(sizes.blocks[level] + 1):
      name, cin = f'up_{level}_block_{i}', width + skips.pop()
      found.append(Place(name, 'up', level, i, cin, cout, attends))
      width = cout
    if level > 0:
      found.append(Place(f'up_{level}_resample', 'up', level, -1, width, width))
  return tuple(found)
