"""A panel of fourteen measures of motion and consistency, without weights.

No measure is better when higher, or when lower: a frozen clip is the most
consistent of all, and VBench's flicker score rates it best. Each is compared
with its distribution over real clips, two-sided; see `suite.py`.

With x_t a frame, F_t the flow from it to the next and p a pixel:

  flow            mean |F_t|
  top_flow        mean |F_t| of the fastest 5 % of the pixels
  acceleration    mean |F_t+1(p + F_t) - F_t| / (flow + 0.05), over valid pixels
  warp_error      mean |x_t+1(p + F_t) - x_t|, over valid pixels
  flow_failure    share of pixels that fail the forward-backward check
  high_frequency  share of the temporal energy (Hann window, 8 x 8 means) above
                  a quarter of the frame rate
  second_ratio    mean |x_t+1 - 2 x_t + x_t-1| / mean |x_t+1 - x_t|
  shimmer         mean |x_t+1 - x_t| of the quietest tenth of the pixels
  luma_jitter     mean |second difference| of the frames' mean
  freeze_rate     share of steps that change less than 0.3 grey levels
  cut_rate        share of steps that change more than 4 x the clip's median +
                  8 grey levels and whose colour histograms agree by less than
                  0.9
  colours_first   agreement of the colour histogram with the first frame's
  shapes_first    agreement of the gradient orientations with the first frame's
  shapes_before   the same with the previous frame's
"""

import cv2
from etils.array_types import ui8
import numpy as np

from vdm.metrics import optical_flow

# Title and unit of each measure.
PANEL = {
  'flow': ('flow', 'px at 128'),
  'top_flow': ('flow, fastest 5 %', 'px at 128'),
  'acceleration': ('acceleration / flow', ''),
  'warp_error': ('warp error', 'grey levels'),
  'flow_failure': ('inconsistent flow', 'share'),
  'high_frequency': ('fast changes', 'share'),
  'second_ratio': ('second / first difference', ''),
  'shimmer': ('change of the quietest 10 %', 'grey levels'),
  'luma_jitter': ('brightness jitter', 'grey levels'),
  'freeze_rate': ('frozen steps', 'share'),
  'cut_rate': ('cuts', 'share'),
  'colours_first': ('colours, to the first frame', 'agreement'),
  'shapes_first': ('shapes, to the first frame', 'agreement'),
  'shapes_before': ('shapes, to the previous frame', 'agreement'),
}
LEAST_FRAMES = 3

_STILL = 0.3  # Mean change of a frozen step, grey levels.
_BINS = (8, 4, 4)  # Hue, saturation, value.


def measure(video: ui8['t h w 3'], flow: optical_flow.Flow) -> dict[str, float]:
  """Returns the panel of a clip of at least 3 frames; every value is finite.

  Args:
    video: the clip.
    flow: its optical flow.
  """
  frames = video.astype(np.float32)
  first = np.abs(np.diff(frames, axis=0))
  change = first.mean((1, 2, 3))
  second = np.abs(np.diff(frames, n=2, axis=0)).mean()
  colours = _colour_histograms(video)
  shapes = _orientations(optical_flow.grey_frames(video, 64))
  return {
    **_flow_measures(flow),
    'high_frequency': _high_frequency(frames),
    'second_ratio': _ratio(second, change.mean()),
    'shimmer': _shimmer(first),
    'luma_jitter': np.abs(np.diff(frames.mean((1, 2, 3)), n=2)).mean(),
    'freeze_rate': (change < _STILL).mean(),
    'cut_rate': _cuts(change, colours).mean(),
    'colours_first': _agreement(colours[:1], colours[1:]).mean(),
    'shapes_first': _cosine(shapes[:1], shapes[1:]).mean(),
    'shapes_before': _cosine(shapes[:-1], shapes[1:]).mean(),
  }


def _colour_histograms(video: np.ndarray) -> np.ndarray:
  """Returns joint histograms of hue, saturation and value [t 8 4 4], sum 1."""
  histograms = []
  for image in video:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    histogram = cv2.calcHist(
      [hsv], [0, 1, 2], None, list(_BINS), [0, 180, 0, 256, 0, 256]
    )
    histograms.append(histogram / histogram.sum())
  return np.stack(histograms)


def _flow_measures(flow: optical_flow.Flow) -> dict[str, float]:
  speed = optical_flow.lengths(flow.forward).reshape(len(flow.forward), -1)
  top = max(1, speed.shape[1] // 20)
  mean = speed.mean()
  steps = range(len(flow.forward))
  errors, pixels = 0.0, 0
  for t in steps:
    warped = optical_flow.warp(flow.grey[t + 1], flow.forward[t])
    error = cv2.absdiff(warped, flow.grey[t])[flow.valid[t]]
    errors, pixels = errors + float(error.sum()), pixels + error.size
  changes, vectors = 0.0, 0
  for t in steps[:-1]:
    following = optical_flow.warp(flow.forward[t + 1], flow.forward[t])
    change = optical_flow.lengths(following - flow.forward[t])[flow.valid[t]]
    changes, vectors = changes + float(change.sum()), vectors + change.size
  return {
    'flow': mean,
    'top_flow': np.partition(speed, -top, axis=1)[:, -top:].mean(),
    'acceleration': changes / max(vectors, 1) / (mean + 0.05),
    'warp_error': errors / max(pixels, 1),
    'flow_failure': 1 - flow.valid.mean(),
  }


def _high_frequency(frames: np.ndarray) -> float:
  """Returns the share of energy at high frequencies, 0 of a frozen clip."""
  small = np.stack(
    [cv2.resize(x, (8, 8), interpolation=cv2.INTER_AREA) for x in frames]
  ).reshape(len(frames), -1)
  # Without the two ends of the window, which are zero.
  window = np.hanning(len(frames) + 2)[1:-1, None]
  power = np.square(
    np.abs(np.fft.rfft((small - small.mean(0)) * window, axis=0))
  )
  power = power.sum(1)[1:]
  frequency = np.fft.rfftfreq(len(frames))[1:]
  # Rounding errors of a frozen clip are no change.
  total = power.sum()
  return _ratio(power[frequency > 0.25].sum(), total) if total > 1e-3 else 0.0


def _shimmer(changes: np.ndarray) -> float:
  """Returns the mean of changes [t-1 h w 3] over the quietest pixels."""
  pixels = changes.mean((0, 3)).reshape(-1)
  quiet = max(1, len(pixels) // 10)
  return float(np.partition(pixels, quiet - 1)[:quiet].mean())


def _cuts(change: np.ndarray, colours: np.ndarray) -> np.ndarray:
  agreement = _agreement(colours[:-1], colours[1:])
  return (change > 4 * np.median(change) + 8) & (agreement < 0.9)


def _agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns the Bhattacharyya coefficients of histograms [t ...]."""
  return np.sqrt(a * b).sum(tuple(range(1, a.ndim)))


def _orientations(grey: np.ndarray) -> np.ndarray:
  """Returns histograms [t 128] of 8 gradient orientations in 4 x 4 cells."""
  t, h, w = grey.shape
  frames = grey.astype(np.float32)
  x = frames[:, 1:-1, 2:] - frames[:, 1:-1, :-2]
  y = frames[:, 2:, 1:-1] - frames[:, :-2, 1:-1]
  size = np.hypot(x, y)
  angle = (np.arctan2(y, x) / np.pi % 1 * 8).astype(int) % 8
  rows = (np.arange(1, h - 1) * 4 // h)[:, None]
  columns = (np.arange(1, w - 1) * 4 // w)[None]
  bins = ((np.arange(t)[:, None, None] * 4 + rows) * 4 + columns) * 8 + angle
  counts = np.bincount(
    bins.reshape(-1), weights=size.reshape(-1), minlength=t * 128
  )
  return counts.reshape(t, 128)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns cosines of rows: 1 of two empty rows, 0 of one empty row."""
  a, b = np.broadcast_arrays(a, b)
  sizes = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
  empty = ~(a.any(-1) | b.any(-1))
  return np.where(
    sizes > 0, (a * b).sum(-1) / np.where(sizes > 0, sizes, 1), 1.0 * empty
  )


def _ratio(a: float, b: float) -> float:
  """Returns a / b, 0 where nothing changes."""
  return float(a / b) if b > 0 else 0.0
