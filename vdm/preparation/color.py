"""The colours of a frame: which matrix made them, and whether they are SDR.

The matrix is that of the frame's tag. Without a tag it is guessed as the player
mpv does, by the size: BT.709 from 1280 px of width or above 576 px of height,
else BT.601. High dynamic range (HLG, PQ) and scene-referred curves need tone
mapping to be shown like other videos, which the FFmpeg of PyAV's wheels lacks:
such files are refused.
"""

import av
from av.video.reformatter import Colorspace
from av.video.reformatter import ColorTrc

from vdm.preparation import decoding

_UNSPECIFIED = 2
_HD_WIDTH, _SD_HEIGHT = 1280, 576
_MATRICES = {
  0: 'rgb',
  1: 'bt709',
  4: 'fcc',
  5: 'bt601',
  6: 'bt601',
  7: 'smpte240m',
  9: 'bt2020',
}
_NOT_SDR = {
  ColorTrc.ARIB_STD_B67: 'HLG',
  ColorTrc.SMPTE2084: 'PQ',
  ColorTrc.LINEAR: 'linear light',
  ColorTrc.LOG: 'a logarithmic curve',
  ColorTrc.LOG_SQRT: 'a logarithmic curve',
  ColorTrc.SMPTE428: 'digital cinema',
}


def check(frame: av.VideoFrame) -> None:
  """Raises VideoError if the frame would have to be tone mapped."""
  curve = _NOT_SDR.get(frame.color_trc)
  # Dolby Vision alone (profile 5) names no curve and has a matrix of its own.
  deep = frame.format.components[0].bits > 8  # As it always is.
  untagged = frame.color_trc == _UNSPECIFIED
  if deep and untagged and frame.side_data.get('DOVI_METADATA'):
    curve = 'Dolby Vision'
  if curve:
    raise decoding.VideoError(
      'high_dynamic_range', f'its brightness is coded by {curve}'
    )


def matrix(frame: av.VideoFrame) -> tuple[str, str]:
  """Returns the name of a frame's matrix, and 'file' or 'assumed'."""
  if frame.format.is_rgb:
    return 'rgb', 'file'
  if frame.colorspace == _UNSPECIFIED:
    return ('bt709' if _is_hd(frame) else 'bt601'), 'assumed'
  return _MATRICES.get(frame.colorspace, str(frame.colorspace)), 'file'


def source_colorspace(frame: av.VideoFrame) -> Colorspace | None:
  """Returns what to convert from; None: what the frame says, or BT.601."""
  is_assumed = matrix(frame) == ('bt709', 'assumed')
  return Colorspace.ITU709 if is_assumed else None


def _is_hd(frame: av.VideoFrame) -> bool:
  return frame.width >= _HD_WIDTH or frame.height > _SD_HEIGHT
