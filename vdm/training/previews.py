"""What a person looks at while a run trains."""

import numpy as np

from vdm.media import video_files
from vdm.multihost import coordination


def write(folder, clips, frame_rate):
  """Writes a contact sheet and, of videos, a grid to watch.

  Args:
    folder: `<workdir>/samples/step_XXXXXXXX`.
    clips: {what they are: uint8 [n, t, h, w, 3]}.
    frame_rate: frames a second.

  Returns:
    The grid as a GIF, for TensorBoard; None on all processes but the first.
  """
  if not coordination.is_first():
    return None
  rows = np.concatenate(list(clips.values()))
  names = [f'{name} {i}' for name, c in clips.items() for i in range(len(c))]
  sheet = video_files.contact_sheet(rows, names, upscale=2)
  video_files.write_png(folder / 'sheet.png', sheet)
  # One column for each clip and what was made beside it.
  grid = video_files.tile(rows, columns=max(map(len, clips.values())))
  if len(grid) > 1:
    video_files.write_mp4(folder / 'grid.mp4', grid, frame_rate, upscale=2)
  return video_files.gif_bytes(grid, frame_rate)
