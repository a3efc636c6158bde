"""The page of a run: whole, bounded, harmless, and of whatever there is."""

import base64
import hashlib
import html.parser
import json
import re
import shutil
import subprocess
import sys

import charts_test
from etils import epath
import numpy as np
import pytest
import written_runs

from vdm.common import errors
from vdm.config import serialize
from vdm.media import chart_script
from vdm.media import samples
from vdm.reporting import curves
from vdm.reporting import run_page
from vdm.reporting import run_record
from vdm.training import starts

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'


class Reader(html.parser.HTMLParser):
  """Gathers elements, attributes and what the scripts say."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.attributes, self.scripts, self.words = [], [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs

  def handle_data(self, data):
    inside = self.scripts if self.tags[-1:] == ['script'] else self.words
    inside.append(data)

  def handle_endtag(self, tag):
    self.tags.append(f'/{tag}')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run with hostile words wherever a person can write some."""
  config = written_runs.make_config(data__source=EVIL)
  rows = written_runs.rows_of(config)
  rows[3][EVIL] = 1.0
  rows[5]['loss'] = 'nan'
  rows.insert(9, {'step': 80, 'stage': 'autoencoder', 'resumed_from': 80})
  folder = tmp_path_factory.mktemp('report') / 'run'
  written_runs.write(folder, config, rows, pictures=True)
  serialize.save(config, folder / 'config.json', [EVIL, *'abcdefg'])
  start = {'time': '2026-01-01', 'step': 80, 'command': ['--config', EVIL]}
  start |= {'dataset': 'f00', 'versions': {'jax': EVIL}, 'code': 'abc'}
  (folder / starts.NAME).write_text(json.dumps([start]))
  return folder


def words_of(text):
  return ''.join(Reader(text).words)


def test_the_page_is_whole_and_runs_its_own_script_only(run):
  text = run_page.make(run_record.read(run))
  page = Reader(text)
  assert page.scripts == [chart_script.SCRIPT]
  assert page.tags.count('img') == 3 + 1  # Previews, and the final videos.
  digest = hashlib.sha256(chart_script.SCRIPT.encode()).digest()
  policy = dict(page.attributes)['content'] and text
  assert f"script-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
  assert "default-src 'none'" in text
  names = {name for name, _ in page.attributes}
  assert not names & {'onerror', 'onload', 'onclick', 'href'}
  sources = [value for name, value in page.attributes if name == 'src']
  assert all(value.startswith('data:image/webp;base64,') for value in sources)
  assert not re.search(r'https?://(?!www.w3.org/2000/svg)|@import|url\(', text)
  words = ''.join(page.words)
  assert words.count(EVIL) >= 4  # Chart, versions, command, configuration.
  for found in ('finished, 1,000 steps', 'label agreement', 'resumed1 times'):
    assert found in words, found


def test_shares_that_are_kept_are_no_distances():
  names = {'small_score/motion', 'small_score/kept_from_8'}
  distances, kept = curves.panels_of(names)
  assert not re.match(distances.pattern, 'small_score/kept_from_8')
  assert re.match(kept.pattern, 'small_score/kept_from_8')[1] == '8'
  assert 'distance' in distances.title and 'kept' in kept.title


def test_every_logged_value_is_drawn_once(run):
  record = run_record.read(run)
  panels = curves.panels_of({name for row in record.rows for name in row})
  titles = [panel.title for panel in panels]
  assert len(set(titles)) == len(titles) and titles[-1] == EVIL
  drawn = [charts_test.content_of(c) for c in curves.charts_of(record)]
  by_title = dict(zip(titles, drawn, strict=True))
  losses = by_title['training loss']['series']
  assert [line['name'] for line in losses] == ['autoencoder', 'video']
  assert losses[0]['y'].count(None) == 1
  (title,) = (x for x in titles if x.startswith('validation loss by noise'))
  validation = by_title[title]['series']
  # The noisiest level first; beside each, what predicting zero gives.
  assert [line['name'] for line in validation[:2]] == ['-6', '-3']
  zeros = [line for line in validation if line['dashed']]
  assert len(zeros) == 5 and set(zeros[0]['y']) == {1}
  assert [line['colour'] for line in zeros] == list(range(5))
  line = validation[0]
  at = line['x']['step'].index(500)
  assert line['x']['hours'][at] == pytest.approx(250 / 3600, rel=1e-4)
  assert line['x']['TFLOP'][at] == 62.5


def test_pages_of_long_runs_are_small(tmp_path):
  config = written_runs.make_config(stages__video__steps=60_000)
  rows = written_runs.rows_of(config, every=10)
  rows[4321]['grad_norm'] = 12345.0
  folder = written_runs.write(tmp_path / 'run', config, rows)
  text = run_page.make(run_record.read(folder))
  assert len(text) < 1.5e6
  assert '12345' in text  # A spike of one row of thousands.


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
  config = written_runs.make_config()
  serialize.save(config, tmp_path / 'config.json')
  words = words_of(run_page.make(run_record.read(tmp_path)))
  for found in (
    'at step 0 of 1,000',
    'has logged nothing yet',
    'no preview yet',
    'no final videos yet',
    'no final/metrics.json',
    'makes evaluation/run/',
    'no autoencoder/report.json',
    'earlier version',
  ):
    assert found in words, found


def test_what_cannot_be_read_is_said_and_the_rest_is_shown(run, tmp_path):
  folder = tmp_path / 'run'
  shutil.copytree(run, folder)
  with (folder / 'metrics.jsonl').open('a') as file:
    file.write('{"step": oh\n')
  (folder / 'final/metrics.json').write_text('{')
  (folder / 'final/samples.npz').write_bytes(b'PK broken')
  (folder / 'final/real.npz').unlink()
  (folder / 'samples/step_00000100/grid.gif').write_bytes(b'GIF8 broken')
  (folder / starts.NAME).write_text('[')
  text = run_page.make(run_record.read(folder))
  words = words_of(text)
  assert 'The log cannot be read' in words and 'is damaged' in words
  assert 'final/metrics.json cannot be read' in words
  assert 'final/samples.npz cannot be read' in words
  # The preview's mp4 stands in for its GIF.
  assert Reader(text).tags.count('img') == 3


def test_damaged_real_clips_are_said_and_the_samples_shown(run, tmp_path):
  folder = tmp_path / 'run'
  shutil.copytree(run, folder)
  path = folder / 'final' / samples.REAL
  path.write_bytes(path.read_bytes()[:99])
  page = Reader(run_page.make(run_record.read(folder)))
  assert f'final/{samples.REAL} cannot be read' in ''.join(page.words)
  assert page.tags.count('img') == 3 + 1


def test_the_command_writes_the_page(run):
  command = [sys.executable, '-m', 'vdm.report', '--workdir']
  done = subprocess.run([*command, run], capture_output=True, text=True)
  assert done.returncode == 0 and 'report.html' in done.stderr
  text = (run / run_page.NAME).read_text()
  assert text.startswith('<!doctype html>')


def test_a_folder_without_a_run_is_refused(tmp_path):
  with pytest.raises(errors.UsageError, match='it has no config.json'):
    run_record.read(tmp_path)
  with pytest.raises(errors.UsageError, match='cannot be used'):
    run_record.read('s3://a/b')


def test_a_run_in_a_bucket_has_its_page_there(run, bucket):
  workdir = epath.Path(bucket) / 'report'
  for path in run.rglob('*'):
    if path.is_file() and path.name != run_page.NAME:
      target = workdir / path.relative_to(run).as_posix()
      target.write_bytes(path.read_bytes())
  record = run_record.read(workdir)
  assert run_page.write(record) == len((workdir / run_page.NAME).read_bytes())
  assert Reader((workdir / run_page.NAME).read_text()).tags.count('img') == 4


def test_the_first_samples_are_read_without_the_others(tmp_path):
  made = written_runs.videos(6)
  labels, seeds = np.arange(6) % 2, np.arange(6) + 7
  names = ['a', 'b']
  samples.write(tmp_path, made, labels, names, seeds, 12.5, {})
  videos, found, numbers = samples.read_first(tmp_path, 4)
  np.testing.assert_array_equal(videos, made[:4])
  assert (found.tolist(), numbers.tolist()) == ([0, 1, 0, 1], [7, 8, 9, 10])
  assert samples.frame_rate(tmp_path) == 12.5
  assert len(samples.read_first(tmp_path, 99)[0]) == 6
  np.savez(tmp_path / samples.ARRAYS, videos=np.zeros((2, 3)))
  with pytest.raises(ValueError, match='are no videos'):
    samples.read_first(tmp_path, 1)
