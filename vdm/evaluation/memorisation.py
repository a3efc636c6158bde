"""The nearest training clip of each sample: is it learned by heart?"""

import itertools

import numpy as np

from vdm import generate
from vdm.common import progress
from vdm.data import clip_reader
from vdm.data import eval_clips
from vdm.data import windowing
from vdm.evaluation import metrics_card
from vdm.media import video_files
from vdm.metrics import neighbours

PIECE = 64  # Training clips read at a time.
SHOWN = 8  # Samples beside their nearest training clips.


def compare(
  run: generate.Run,
  source,
  windows: windowing.Windows,
  videos: np.ndarray,
  samples: metrics_card.Clips,
  reference: metrics_card.Clips,
  *,
  num: int,
  out,
) -> dict[str, float]:
  """Looks for each sample's nearest training clip and shows the nearest pairs.

  Args:
    run: the trained model.
    source: clips that it was trained on.
    windows: that the source offers.
    videos: the samples, uint8 [n t h w 3].
    samples: what is known of them.
    reference: the same of held-out clips.
    num: training clips to look at, one of each video before any other.
    out: folder for nearest.png and nearest.mp4.

  Returns:
    See `neighbours.summarise`.
  """
  order = list(
    itertools.islice(windowing.sampled_order(windows, 'middle', 0), num)
  )
  found, floor = (
    neighbours.Nearest(clips.small) for clips in (samples, reference)
  )
  report = progress.reporter('Training clips', len(order))
  clips = eval_clips.read_clips(source, windows, order)
  places = []
  while piece := list(itertools.islice(clips, PIECE)):
    rows = np.stack([clip for _, _, clip in piece])
    numbers = len(places) + np.arange(len(rows))
    places += [(shot, start) for shot, start, _ in piece]
    for view in (rows, neighbours.mirror(rows))[: 1 + run.config.data.flip]:
      described = neighbours.describe(view)
      found.add(described, numbers)
      floor.add(described, numbers)
    report(len(places))
  pairs, names = [], []
  for i in np.argsort(found.distance, kind='stable')[:SHOWN]:
    shot, start = places[found.index[i]]
    pairs += [
      videos[i],
      clip_reader.read_window(source, windows, shot, start),
    ]
    names += [f'sample {i}', f'training\n{found.distance[i]:.1f} off']
  write_pairs(out, np.stack(pairs), names, run.frame_rate)
  return neighbours.summarise(found, floor)


def write_pairs(out, pairs, names, frame_rate) -> None:
  """Writes samples beside their nearest training clips.

  Args:
    out: folder for nearest.png and nearest.mp4.
    pairs: uint8 [2 n t h w 3], a sample and a training clip in turn.
    names: of each.
    frame_rate: frames a second.
  """
  video_files.write_png(
    out / 'nearest.png', video_files.contact_sheet(pairs, names, upscale=2)
  )
  grid = video_files.tile(video_files.enlarge(pairs, 2), 4, captions=names)
  video_files.write_mp4(out / 'nearest.mp4', grid, frame_rate)
