"""Searches the training clips for the nearest one of each sample."""

import itertools

from etils import epath
from etils.array_types import ui8
import numpy as np

from vdm import trained
from vdm.common import progress
from vdm.data import builders
from vdm.data import clip_reader
from vdm.data import eval_clips
from vdm.data import windowing
from vdm.evaluation import clip_set
from vdm.media import video_files
from vdm.metrics import neighbours

BATCH = 64  # Training clips read at a time.
SHOWN = 8  # Samples shown beside their nearest training clips.


def compare(
  run: trained.Model,
  source: builders.ClipSource,
  windows: windowing.Windows,
  videos: ui8['n t h w 3'],
  samples: clip_set.ClipSet,
  reference: clip_set.ClipSet,
  *,
  num: int,
  out: epath.Path,
) -> dict[str, float]:
  """Finds the nearest training clips and writes the nearest pairs.

  Args:
    run: the trained model.
    source: the clips that it was trained on.
    windows: of the source.
    videos: the samples.
    samples: their measurements.
    reference: those of held-out clips.
    num: training clips to compare with, one of each video before a second one.
    out: folder for nearest.png and nearest.mp4.

  Returns:
    See `neighbours.summarise`.
  """
  order = list(
    itertools.islice(windowing.sampled_order(windows, 'middle', 0), num)
  )
  nearest, held_out = (
    neighbours.Nearest(clips.small) for clips in (samples, reference)
  )
  report = progress.reporter('Training clips', len(order))
  clips = eval_clips.read_clips(source, windows, order)
  places = []
  while batch := list(itertools.islice(clips, BATCH)):
    rows = np.stack([clip for _, _, clip in batch])
    numbers = len(places) + np.arange(len(rows))
    places += [(shot, start) for shot, start, _ in batch]
    for view in (rows, neighbours.mirror(rows))[: 1 + run.config.data.flip]:
      thumbnails = neighbours.thumbnails(view)
      nearest.add(thumbnails, numbers)
      held_out.add(thumbnails, numbers)
    report(len(places))
  pairs, names = [], []
  for i in np.argsort(nearest.distance, kind='stable')[:SHOWN]:
    shot, start = places[nearest.index[i]]
    pairs += [
      videos[i],
      clip_reader.read_window(source, windows, shot, start),
    ]
    names += [f'sample {i}', f'training\n{nearest.distance[i]:.1f} off']
  sheet = video_files.contact_sheet(np.stack(pairs), names, upscale=2)
  video_files.write_png(out / 'nearest.png', sheet)
  pairs = video_files.enlarge(np.stack(pairs), 2)
  grid = video_files.tile(pairs, columns=4, captions=names)
  video_files.write_loop(out / 'nearest', grid, run.frame_rate)
  return neighbours.summarise(nearest, held_out)
