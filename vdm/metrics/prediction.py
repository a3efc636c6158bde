"""Clips that were continued or completed, against the truth, frame by frame.

Some frames of a clip are given, the others are free. Beside what a network
makes of them stand rules that know nothing of the world:

  copy        the given frame that is nearest in time
  cross_fade  the blend of the given frames before and after
  linear      the last given frame, moved on along its optical flow

A network that is not above `copy` has learnt no motion.
"""

from collections.abc import Sequence

import cv2
from etils.array_types import FloatArray, ui8
import numpy as np

from vdm.metrics import frame_metrics
from vdm.metrics import optical_flow

MOST_PSNR = 80.0  # Of equal frames, dB.


def copy(clips: ui8['n t h w 3'], given: Sequence[int]) -> ui8['n t h w 3']:
  """Returns clips whose free frames are the given one nearest in time."""
  given = np.asarray(given)
  distance = np.abs(np.arange(clips.shape[1])[:, None] - given)
  return clips[:, given[distance.argmin(1)]]


def cross_fade(
  clips: ui8['n t h w 3'], given: Sequence[int]
) -> ui8['n t h w 3']:
  """Returns clips whose free frames blend the given ones around them."""
  given, index = np.asarray(given), np.arange(clips.shape[1])
  first = given[(np.searchsorted(given, index, 'right') - 1).clip(0)]
  last = given[np.searchsorted(given, index).clip(max=len(given) - 1)]
  share = np.clip((index - first) / np.maximum(last - first, 1), 0, 1)
  share = share[None, :, None, None, None]
  blend = clips[:, first] * (1 - share) + clips[:, last] * share
  return np.rint(blend).astype(np.uint8)


def linear(clips: ui8['n t h w 3'], given: Sequence[int]) -> ui8['n t h w 3']:
  """Returns clips continued at constant velocity from their prefix.

  Pixels of frame l + k are those of the last given frame l, k steps of its flow
  to frame l - 1 away.

  Args:
    clips: of which frames are given.
    given: 0 to l, with l at least 1.
  """
  last = max(given)
  out = clips.copy()
  h, w = clips.shape[2:4]
  for clip, video in zip(clips, out):
    flow = optical_flow.compute(clip[last - 1 : last + 1]).backward[0]
    scale = np.asarray([w / flow.shape[1], h / flow.shape[0]], np.float32)
    # Enlarged by areas, the flow would be that of blocks.
    kind = cv2.INTER_AREA if w < flow.shape[1] else cv2.INTER_LINEAR
    flow = cv2.resize(flow, (w, h), interpolation=kind) * scale
    for k in range(1, len(clip) - last):
      video[last + k] = optical_flow.warp(clip[last], k * flow)
  return out


def errors(
  clips: ui8['n t h w 3'], truth: ui8['n t h w 3']
) -> dict[str, FloatArray['n t']]:
  """Returns 'psnr' of each frame, dB and at most 80, and 'ssim'.

  SSIM is left out for frames that are too small for it.
  """
  n, t = clips.shape[:2]
  frames = [x.reshape(n * t, 1, *x.shape[2:]) for x in (clips, truth)]
  found = {'psnr': np.minimum(frame_metrics.psnr(*frames), MOST_PSNR)}
  if min(clips.shape[2:4]) > 2 * frame_metrics.RADIUS:
    found['ssim'] = frame_metrics.ssim(*frames)
  return {name: values.reshape(n, t) for name, values in found.items()}


def summarise(
  tries: ui8['k n t h w 3'], truth: ui8['n t h w 3'], given: Sequence[int]
) -> dict[str, float | list[float]]:
  """Returns the errors of k clips for each true one.

  Returns:
    Of 'psnr' and 'ssim', over the free frames: the mean of all clips; '_best',
    that of the try with the highest PSNR for each clip; and '_by_frame', the
    mean of each free frame.
  """
  free = np.setdiff1d(np.arange(truth.shape[1]), given)
  measured = [errors(clips[:, free], truth[:, free]) for clips in tries]
  psnr = np.stack([x['psnr'] for x in measured]).mean(-1)  # [k n].
  best = psnr.argmax(0)
  found = {}
  for name in measured[0]:
    values = np.stack([x[name] for x in measured])  # [k n t].
    found[name] = float(values.mean())
    found[f'{name}_best'] = float(values[best, np.arange(len(best))].mean())
    found[f'{name}_by_frame'] = values.mean((0, 1)).tolist()
  return found
