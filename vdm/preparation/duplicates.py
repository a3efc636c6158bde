"""Near-duplicates of shots: re-encoded, rescaled, shifted or mirrored copies.

A frame's hash has a bit for the sign of each of 63 low frequencies of its
brightness (a DCT of 32 x 32 area means), which re-encoding and rescaling do not
change. Mirroring flips the sign of the odd horizontal frequencies, so the hash
of the mirrored frame follows from the hash.

A shot is represented by the sequence of its sampled hashes. Candidates are
pairs of shots that share a band of bits in some frame, found by sorting bands,
so that the work grows with the number of shots and not with its square. The
positions of the shared frames give the shift in time, so that a part of a
longer video is found too; every candidate is then verified on whole sequences.
"""

import collections
from collections.abc import Iterator, Sequence
import itertools

import cv2
from etils.array_types import BoolArray, ui8, ui64
import numpy as np

_SIDE = 32  # Px of the picture that is transformed.
_LOW = 8  # Frequencies in each direction; the mean is left out.
_BANDS = 3  # Of 21 bits: frames two bits apart share one for certain.
_MAX_SHARED = 64  # A band that more frames share is not informative.
_MIN_OVERLAP = 0.7  # Of the shorter sequence.
_UNRELATED = 0.5  # Of the differences in changing bits expected by chance.
_FEW = 4  # Fewer changing bits are not informative.
BITS = _LOW * _LOW - 1
# The bits of odd horizontal frequencies.
_MIRROR = sum(1 << i for i in range(BITS) if (i + 1) % _LOW % 2)


def perceptual_hash(grey: ui8['h w']) -> int:
  """Returns 63 bits, of which near-duplicates share almost all."""
  small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
  low = cv2.dct(small.astype(np.float32))[:_LOW, :_LOW].ravel()[1:]
  bits = np.packbits(low > 0, bitorder='little')
  return int.from_bytes(bits.tobytes(), 'little')


def mirrored(hashes: ui64[' n']) -> ui64[' n']:
  """Returns the hashes of the mirrored frames."""
  return np.asarray(hashes, np.uint64) ^ np.uint64(_MIRROR)


def distance(a: ui64[' n'], b: ui64[' m'], shift: int = 0) -> float:
  """Returns the share of bits in which two shots differ, 0 to 1.

  Two moments of one scene share what is static. So the bits that change in
  either shot count on their own: where they differ about as often as by chance,
  the distance is 1, however much is static.

  Args:
    a: hashes.
    b: hashes, at the same sampling rate.
    shift: index in `a` of the first of `b`. Where too little of the shorter
      one overlaps, the distance is 1.
  """
  a, b = a[max(shift, 0) :], b[max(-shift, 0) :]
  shorter = min(len(a) + max(shift, 0), len(b) + max(-shift, 0))
  n = min(len(a), len(b))
  if n < max(1.0, _MIN_OVERLAP * shorter):
    return 1.0
  a, b = _bits(a[:n]), _bits(b[:n])
  changing = (a != a[:1]).any(0) | (b != b[:1]).any(0)
  differs, (p, q) = (a != b).mean(0), (a.mean(0), b.mean(0))
  by_chance = p * (1 - q) + q * (1 - p)  # If they were independent.
  if changing.sum() >= _FEW and (
    differs[changing].sum() > _UNRELATED * by_chance[changing].sum()
  ):
    return 1.0
  return float(differs.mean())


def _bits(hashes: ui64[' n']) -> BoolArray['n 63']:
  """Returns the bits of hashes."""
  places = np.arange(BITS, dtype=np.uint64)
  return (hashes[:, None] >> places & np.uint64(1)).astype(bool)


def find(
  sequences: Sequence[ui64[' n']], *, threshold: float
) -> Iterator[tuple[int, int, float]]:
  """Yields pairs of near-duplicates as (i, j, distance), i < j, in order.

  Args:
    sequences: the hashes of each shot; a shot without any has no duplicate.
    threshold: greatest distance of near-duplicates.
  """
  for (i, j), shifts in sorted(_candidates(sequences).items()):
    apart = 1.0
    for shift, is_mirror in shifts:
      other = mirrored(sequences[j]) if is_mirror else sequences[j]
      apart = min(apart, distance(sequences[i], other, shift))
    if apart <= threshold:
      yield i, j, apart


def _candidates(
  sequences: Sequence[ui64[' n']],
) -> dict[tuple[int, int], set[tuple[int, bool]]]:
  """Returns pairs that share a band, each with its (shift, is mirrored)."""
  columns = []
  for number, sequence in enumerate(sequences):
    own, place = np.unique(np.asarray(sequence, np.uint64), return_index=True)
    for is_mirror, values in enumerate((own, mirrored(own))):
      owner = np.full(len(own), number)
      columns.append((values, owner, place, np.full(len(own), is_mirror)))
  pairs = collections.defaultdict(set)
  if not columns:
    return pairs
  hashes, owner, place, is_mirror = map(np.concatenate, zip(*columns))
  edges = np.linspace(0, BITS, _BANDS + 1).astype(int)
  for low, high in itertools.pairwise(edges):
    mask = np.uint64((1 << int(high - low)) - 1)
    band = (hashes >> np.uint64(low)) & mask
    order = np.argsort(band, kind='stable')
    ends = np.flatnonzero(np.diff(band[order])) + 1
    starts, stops = np.append(0, ends), np.append(ends, len(order))
    sizes = stops - starts
    for which in np.flatnonzero((sizes > 1) & (sizes <= _MAX_SHARED)):
      group = order[starts[which] : stops[which]].tolist()
      for one, two in itertools.product(group, group):
        # The earlier shot as it is, the later one possibly mirrored.
        if owner[one] < owner[two] and not is_mirror[one]:
          shift = int(place[one] - place[two])
          pair = int(owner[one]), int(owner[two])
          pairs[pair].add((shift, bool(is_mirror[two])))
  return pairs
