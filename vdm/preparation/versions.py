"""The version of preparation: raised when the same videos give other content.

It is part of a data set's directory and of its info. A data set of an older
version opens, with a warning that names what was mended since.
"""

VERSION = '1.1.0'

_MENDED = {
  '1.1.0': (
    'a pause in the timestamps ends the shot (motion ran too slow, or stood'
    ' still during the pause); healthy files with edit lists or repeated'
    ' pictures are no longer left out as truncated, and more damaged ones are;'
    ' of two copies the one that its header agrees with is kept; mirroring'
    ' display matrices are applied, HLG and PQ are left out, interlaced'
    ' pictures are deinterlaced, untagged HD is read as BT.709; cuts, fades'
    ' and dissolves between dark pictures are found, lamps and exposure steps'
    ' no longer cut; fades, changing light and hand-held cameras are no longer'
    ' left out as overlays; hidden files and a folder around the classes make'
    ' no classes, GIFs and other suffixes are read'
  ),
}


def key(version: str) -> tuple[int, ...]:
  """Returns what versions are ordered by."""
  return tuple(map(int, version.split('.')))


def mended_since(version: str) -> list[str]:
  """Returns what was mended after a version, oldest first."""
  return [text for later, text in _MENDED.items() if key(later) > key(version)]
