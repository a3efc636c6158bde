"""Which clip is which: the k-th of a stage, as a function of its number.

All that is random about a clip is drawn from the stage's name, the seed and the
clip's own number, `n * batch + row` of batch n: its shot, start, mirroring and
crop. Every shot comes once an epoch, in an order shuffled anew, with a start
drawn uniformly over its legal ones. A window that cannot be read is replaced by
one of the next shot in the data set's order, drawn from the same number.

Worker processes import this module: neither jax nor TensorFlow here.
"""

import dataclasses
import functools
import zlib

import numpy as np

from vdm.data import latent_cache
from vdm.data import windowing


@functools.lru_cache(maxsize=8)
def _order(entropy: tuple[int, int], epoch: int, shots: int) -> np.ndarray:
  """Returns the order of the shots in one epoch."""
  return np.random.default_rng((*entropy, 0, epoch)).permutation(shots)


@dataclasses.dataclass(frozen=True, eq=False)
class Clips:
  """The clips of this host's rows, in order: the source that Grain reads.

  Grain's own `shuffle` is not used: it searches some 2**16 places for its
  next index, 10 ms and more a clip where there are only a few shots.

  Attributes:
    entropy: what seed and stage add to every draw.
    batch: clips of a global batch.
    own: of those, how many are this host's.
    first: number of this host's first clip, in the endless order of all.
    steps: batches until the end.
    cache: latents to take in place of frames; None for frames.
    posterior: whether their log-variances are wanted, too.
  """

  source: object
  windows: windowing.Windows
  resolution: int
  crop: int
  zoom: tuple[float, float]
  flip: bool
  max_bad: int
  entropy: tuple[int, int]
  batch: int
  own: int
  first: int
  steps: int
  cache: latent_cache.Cache | None
  posterior: bool

  def __len__(self) -> int:
    return self.steps * self.own

  def __getitem__(self, index: int) -> dict:
    step, row = divmod(int(index), self.own)
    return self.read(self.first + step * self.batch + row)

  def read(self, number: int) -> dict:
    """Returns clip `number` of the stage, or one of the next shot it can."""
    shots = len(self.windows)
    epoch, place = divmod(number, shots)
    first = int(_order(self.entropy, epoch, shots)[place])
    rng = np.random.default_rng((*self.entropy, 1, number))
    mirrored = rng.random() < 0.5
    region = self._region(rng)
    bad = []
    for turn in range(shots):
      shot = (first + turn) % shots
      start = int(rng.integers(self.windows.starts[shot]))
      try:
        arrays = self._window(shot, start, self.flip and mirrored, region)
      except windowing.UnreadableError as error:
        bad.append((error.entry, error.reason))
        if len(bad) > self.max_bad:
          break
        continue
      entry = self.windows.entries[self.windows.bounds[shot]]
      label = self.source.index['label'][entry]
      place = (shot, start)
      return {**arrays, 'label': label, 'bad': bad, 'place': place}
    raise windowing.too_many_bad(self.source, bad)

  def _window(self, shot, start, mirrored, region) -> dict[str, np.ndarray]:
    if self.cache is not None:
      return latent_cache.read_window(
        self.cache,
        self.windows,
        shot,
        start,
        mirrored=mirrored,
        posterior=self.posterior,
      )
    clip = windowing.read_window(
      self.source, self.windows, shot, start, self.crop, region
    )
    return {'video': clip[:, :, ::-1] if mirrored else clip}

  def _region(self, rng) -> tuple[int, int, int] | None:
    """Draws the part of the stored frames that a clip shows."""
    if self.crop == self.resolution and self.zoom == (1.0, 1.0):
      return None
    stored = self.source.info['resolution']
    zoom = rng.uniform(*self.zoom)
    side = round(self.crop * stored / (self.resolution * zoom))
    side = min(max(side, self.crop), stored)
    top, left = rng.integers(stored - side + 1, size=2)
    return int(top), int(left), side


def make_clips(
  source,
  *,
  frames: int,
  stride: int,
  resolution: int,
  crop: int,
  zoom: tuple[float, float],
  batch: int,
  seed: int,
  stage: str,
  flip: bool,
  max_bad: int,
  own: int,
  first: int,
  steps: int,
  cache: latent_cache.Cache | None = None,
  posterior: bool = False,
) -> Clips:
  """Returns a host's clips; see `pipeline.make_batches` and `Clips`."""
  windowing.check_resolution(source, resolution)
  stored = source.info['resolution']
  if not (
    crop <= resolution and 1 <= zoom[0] <= zoom[1] <= stored / resolution
  ):
    raise ValueError(
      f'Crops of {crop} px at a zoom of {zoom} cannot be had from frames of '
      f'{resolution} px, stored at {stored} px.'
    )
  windows = windowing.find_windows(source, frames=frames, stride=stride)
  # A stable hash: Python's own differs from process to process.
  entropy = (seed, zlib.crc32(stage.encode()))
  return Clips(
    source,
    windows,
    resolution,
    crop or resolution,
    tuple(zoom),
    flip,
    max_bad,
    entropy=entropy,
    batch=batch,
    own=own,
    first=first,
    steps=steps,
    cache=cache,
    posterior=posterior,
  )


def name_clips(source, *, n: int, batch: int, **which) -> list[dict]:
  """Returns where the clips of global batch n come from, row by row.

  Args:
    source: a clip source.
    n: which batch of the stage.
    batch: clips of a batch, over all hosts.
    **which: as for `make_batches`: frames, stride, resolution, crop, zoom,
      seed, stage, flip, max_bad.

  Returns:
    [{'id', 'start'}]: the record in which a clip begins, and at which of its
    frames.
  """
  clips = make_clips(
    source, batch=batch, own=batch, first=n * batch, steps=1, **which
  )
  names = []
  for row in range(batch):
    shot, start = clips[row]['place']
    entry, frames = clips.windows.locate(shot, start)[0]
    names.append(
      {'id': str(source.index['id'][entry]), 'start': int(frames[0])}
    )
  return names
