"""What decides which clips are drawn from a data set, and their shape."""

import dataclasses
import zlib

from vdm.common import sizes
from vdm.data import builders


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipSpec:
  """The clips of a stage.

  Clips to evaluate on are whole frames, never mirrored, and depend on `frames`,
  `stride`, `resolution`, `width` and `max_bad` alone.

  Attributes:
    frames: frames of a clip; 1 for images.
    stride: stored frames from one frame of a clip to the next.
    max_stride: training clips have one from `stride` to this, drawn uniformly,
      or the largest for which their shot is long enough; 0: `stride`.
    resolution: height of a whole frame, px; at most the stored one. Of frames
      stored in another aspect it is the centred part.
    width: of a whole frame, px; 0: as high.
    crop: height and width of the part that a training clip shows, at a random
      place, px; 0: the whole frame.
    zoom: range of how much larger than `resolution` the frame is from which the
      part is cut; drawn uniformly. At most what is stored.
    flip: mirror half of the training clips. Not for labels that have a
      direction, see `builders.directional`.
    batch: clips of a batch, over all processes.
    seed: of the run.
    stage: name of the stage, which has its own order and windows.
    scalars: names of the numbers that come with a clip, see `scalars`.
    max_bad: how many different records may be unreadable before an error.
  """

  frames: int
  stride: int
  resolution: int
  width: int = 0
  max_stride: int = 0
  crop: int = 0
  zoom: tuple[float, float] = (1.0, 1.0)
  flip: bool = False
  batch: int = 1
  seed: int = 0
  stage: str = ''
  scalars: tuple[str, ...] = ()
  max_bad: int = 16

  @property
  def whole(self) -> sizes.Size:
    """Height and width of a whole frame, px."""
    return sizes.of(vars(self))

  @property
  def size(self) -> sizes.Size:
    """Height and width of a training clip, px."""
    return (self.crop, self.crop) if self.crop else self.whole

  @property
  def whole_frames(self) -> bool:
    """Whether training clips show all of a frame."""
    return self.size == self.whole and self.zoom == (1.0, 1.0)

  def span(self, stride: int = 0) -> int:
    """Returns the stored frames from the first of a clip to its last."""
    return (self.frames - 1) * (stride or self.stride) + 1

  @property
  def entropy(self) -> tuple[int, int]:
    """What seed and stage add to every draw."""
    # A stable hash: Python's own differs from process to process.
    return self.seed, zlib.crc32(self.stage.encode())

  def check(self, source: builders.ClipSource) -> None:
    """Raises ValueError if a data set cannot give such clips."""
    if min(self.frames, self.stride, self.batch) < 1:
      raise ValueError(
        'frames, stride and batch must be at least 1, not '
        f'{self.frames}, {self.stride} and {self.batch}.'
      )
    if 0 < self.max_stride < self.stride:
      raise ValueError(
        f'max_stride={self.max_stride} is below stride={self.stride}.'
      )
    stored = sizes.of(source.info)
    if min(self.whole) < 1 or sizes.magnification(stored, self.whole) < 1:
      raise ValueError(
        f'{source.info["name"]} stores {sizes.text(stored)} px, so it has no '
        f'clips of {sizes.text(self.whole)} px: lower resolution, or build it '
        'larger.'
      )
    low, high = self.zoom
    if self.crop > min(self.whole) or not (
      1 <= low <= high <= sizes.magnification(stored, self.whole)
    ):
      raise ValueError(
        f'Crops of {self.crop} px at a zoom of {self.zoom} cannot be cut from '
        f'frames of {sizes.text(self.whole)} px, stored at '
        f'{sizes.text(stored)} px.'
      )
