"""Data sets by name: the version of preparation, and older ones."""

import json
import os
import pathlib

from absl import logging
import pytest
from screening_test import pan
from video_folder_test import folder_config

from tests import tiny_videos
from vdm.data import builders
from vdm.preparation import datasets
from vdm.preparation import versions


@pytest.fixture(scope='module')
def older(tmp_path_factory):
  """The settings and the directory of a data set of version 1.0.0."""
  folder = tmp_path_factory.mktemp('older')
  (folder / 'videos').mkdir()
  for number in range(2):
    path = folder / 'videos' / f'{number}.mp4'
    tiny_videos.write_video(path, pan(20, seed=number))
  data = folder_config(folder, folder / 'videos')
  directory = pathlib.Path(datasets.build(data))
  assert directory.name == versions.VERSION
  assert builders.read_info(directory)['version'] == versions.VERSION
  old = directory.parent / '1.0.0'
  os.rename(directory, old)
  info = json.loads((old / 'clips.json').read_text())
  (old / 'clips.json').write_text(json.dumps(info | {'version': '1.0.0'}))
  return data, str(old)


def test_an_older_version_opens_with_one_warning(older, monkeypatch):
  data, old = older
  said = []
  monkeypatch.setattr(
    logging, 'warning', lambda text, *values: said.append(text % values)
  )
  assert datasets.ensure(data) == old
  assert datasets.ensure(data) == old
  assert len(builders.open_source(old, 'train'))
  (text,) = said
  assert '1.0.0' in text and versions.VERSION in text
  for mended in versions.mended_since('1.0.0'):
    assert mended in text
  assert 'pause' in text


def test_preparing_anew_replaces_it(older):
  data, old = older
  directory = datasets.build(data)
  assert directory != old
  assert datasets.ensure(data) == directory


def test_every_version_says_what_it_mended():
  assert versions.mended_since(versions.VERSION) == []
  assert versions.mended_since('1.0.0')
  assert versions.key('1.10.0') > versions.key('1.9.0')
