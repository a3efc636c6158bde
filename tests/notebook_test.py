"""What the page of a notebook holds: the files themselves, up to a limit."""

import base64
import io
import re
import zipfile

import av
import numpy as np
import pytest

from vdm.media import notebook
from vdm.media import video_files


@pytest.fixture
def folder(tmp_path):
  """A folder of three videos, each as mp4 and GIF."""
  video = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
  for i in range(3):
    video_files.write_loop(tmp_path / f'<b>{i}', video, 8.0)
  return tmp_path


def held(html, kind):
  """The files of a type in a page."""
  found = re.findall(rf'"data:{kind};base64,([^"]+)"', html)
  return [base64.b64decode(text) for text in found]


def test_players_hold_the_files(folder):
  paths = sorted(folder.glob('*.mp4'))
  html = notebook.players(paths)
  assert held(html, 'video/mp4') == [path.read_bytes() for path in paths]
  with av.open(io.BytesIO(held(html, 'video/mp4')[0])) as container:
    assert container.streams.video[0].codec_context.name == 'h264'
  assert html.count('<video ') == 3 and 'autoplay loop muted' in html
  assert '<b>' not in html and 'more are in' not in html


def test_gifs_are_pictures(folder):
  html = notebook.players(sorted(folder.glob('*.gif')))
  assert [x[:6] for x in held(html, 'image/gif')] == [b'GIF89a'] * 3
  assert html.count('<img ') == 3 and '<video' not in html


def test_a_page_holds_no_more_than_the_limit(folder):
  paths = sorted(folder.glob('*.mp4'))
  size = sum(path.stat().st_size for path in paths)
  html = notebook.players(paths, limit=size - 1)
  assert len(held(html, 'video/mp4')) == 2
  assert f'1 more are in {folder}' in html
  assert 'more are in' not in notebook.players(paths, limit=size)
  assert '3 more are in' in notebook.players(paths, limit=0)


def test_other_files_are_refused(tmp_path):
  with pytest.raises(ValueError, match='neither an mp4 nor a GIF'):
    notebook.players([tmp_path / 'samples.npz'])


def test_the_link_is_a_zip_of_the_folder(folder):
  (folder / 'inside').mkdir()
  html = notebook.download(folder)
  (data,) = held(html, 'application/zip')
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    names = {
      f'{folder.name}/<b>{i}.{x}' for i in range(3) for x in ('mp4', 'gif')
    }
    assert set(archive.namelist()) == names
    assert archive.read(min(names)) == (folder / '<b>0.gif').read_bytes()
  assert f'download="{folder.name}.zip"' in html
  small = notebook.download(folder, limit=len(data) - 1)
  assert 'href' not in small and str(folder) in small
