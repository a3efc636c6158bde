"""What TensorBoard, Weights & Biases and Trackio are given, read back."""

import io
import json
import struct
import sys
import threading
import time
import tomllib
import types

import av
from conftest import ROOT
from etils import epath
import jax
import numpy as np
from PIL import Image
import pytest

from vdm.common import errors
from vdm.config import check
from vdm.config import schema
from vdm.media import video_files
from vdm.training import writer
from vdm.training.destinations import background
from vdm.training.destinations import chosen

CLIP = np.stack([np.full((32, 32, 3), 60 * i, np.uint8) for i in range(4)])


def make_config(**trackers):
  config = schema.default()
  config.train.tensorboard = False
  config.log.update(trackers)
  return config


def make_preview(folder):
  """A GIF file's bytes and an mp4 file."""
  video_files.write_mp4(folder / 'grid.mp4', CLIP, 4.0)
  gif = video_files.gif_bytes(CLIP, 4.0)
  return background.Preview(gif, folder / 'grid.mp4')


def make_final(folder):
  """A folder `final/` as `final_score` writes it, as far as it is read."""
  folder.mkdir()
  video_files.write_mp4(folder / 'grid.mp4', CLIP, 4.0)
  metrics = {
    'step': 8,
    'protocol': {'videos': 64},
    'fixed_clips_psnr': {'samples': 31.5},
  }
  (folder / 'metrics.json').write_text(json.dumps(metrics))


def train_twice(workdir, **trackers):
  """A run that is killed after step 5, and resumes from step 3 to the end."""
  config = make_config(**trackers)
  workdir = epath.Path(workdir)
  with writer.make_writer(config, workdir) as log:
    for step in range(1, 6):
      log.write(step, 'video', {'loss': 1 / step})
    log.close(writer.coordination.STOPPED)
  with writer.make_writer(config, workdir) as log:
    log.rewind(3)
    for step in range(4, 9):
      log.write(step, 'video', {'loss': 1 / step})
    log.write(8, 'video', {'val_loss': float('nan')})
    log.write_preview(8, make_preview(workdir))
    make_final(workdir / 'final')
    log.write_final(8, workdir / 'final')


def frames_of(path):
  with av.open(str(path)) as video:
    stream = video.streams.video[0]
    codec = stream.codec_context
    assert (codec.name, codec.pix_fmt) == ('h264', 'yuv420p')
    return sum(1 for _ in video.decode(stream))


def wandb_records(path):
  """The records of a .wandb file, a log in LevelDB's format."""
  from wandb.proto import wandb_internal_pb2

  data, place, parts = path.read_bytes(), 7, b''
  while place + 7 <= len(data):
    left = 32768 - place % 32768
    if left < 7:
      place += left
      continue
    _, size, kind = struct.unpack_from('<IHB', data, place)
    parts += data[place + 7 : place + 7 + size]
    place += 7 + size
    if kind in (1, 4):  # Whole, or the last part.
      yield wandb_internal_pb2.Record.FromString(parts)
      parts = b''


def test_weights_and_biases_offline(tmp_path, monkeypatch):
  wandb = pytest.importorskip('wandb', reason='wandb is not installed')
  monkeypatch.setenv('WANDB_MODE', 'offline')
  monkeypatch.chdir(tmp_path)
  wandb.teardown()  # What it has read of the environment.
  workdir = tmp_path / 'runs' / 'mine'
  try:
    chosen.check(make_config(wandb='clips').log)
    train_twice(workdir, wandb='clips')
  finally:
    wandb.teardown()

  folders = sorted((workdir / 'wandb').glob('offline-run-*'))
  assert len(folders) == 2  # W&B writes one each start, of one run.
  run_id = (workdir / 'run_id.txt').read_text().strip()
  logged, summary, codes, preempted = [], {}, [], []
  for number, folder in enumerate(folders):
    (path,) = folder.glob('*.wandb')
    for record in wandb_records(path):
      kind = record.WhichOneof('record_type')
      if kind == 'run':
        run = record.run
        assert (run.run_id, run.project) == (run_id, 'clips')
        assert run.display_name == 'mine'
        config = {x.key: json.loads(x.value_json) for x in run.config.update}
        assert config['optim']['ema'] == [0.05, 0.1]
      elif kind == 'metric' and record.metric.glob_name:
        axis = record.metric.glob_name, record.metric.step_metric
        assert axis == ('*', 'step')
      elif kind == 'history':
        row = {
          '/'.join(x.nested_key): json.loads(x.value_json)
          for x in record.history.item
        }
        logged.append(row)
      elif kind == 'summary':
        summary |= {x.key: x.value_json for x in record.summary.update}
      elif kind == 'preempting':
        preempted.append(number)
      elif kind == 'exit':
        codes.append(record.exit.exit_code)
  assert (codes, preempted) == ([75, 0], [0])
  rows = [(row['step'], row['loss']) for row in logged if 'loss' in row]
  # The steps since the checkpoint twice, on the same points.
  assert rows == [(s, 1 / s) for s in (*range(1, 6), *range(4, 9))]
  assert all(row['stage'] == 'video' for row in logged if 'loss' in row)
  assert any(np.isnan(row.get('val_loss', 0)) for row in logged)
  # W&B's own counter never goes back within what it is sent.
  for start in (logged[:5], logged[5:]):
    assert [row['_step'] for row in start] == list(range(len(start)))
  assert json.loads(summary['final/fixed_clips_psnr/samples']) == 31.5
  assert not any('protocol' in name for name in summary)
  for name in ('samples', 'final/videos'):
    (row,) = [row for row in logged if f'{name}/path' in row]
    assert (row['step'], row[f'{name}/_type']) == (8, 'video-file')
    assert frames_of(folders[1] / 'files' / row[f'{name}/path']) == 4


def test_trackio(tmp_path, monkeypatch):
  monkeypatch.setenv('TRACKIO_DIR', str(tmp_path / 'trackio'))
  pytest.importorskip('trackio', reason='trackio is not installed')
  from trackio import sqlite_storage

  workdir = tmp_path / 'runs' / 'mine'
  chosen.check(make_config(trackio='clips').log)
  train_twice(workdir, trackio='clips')
  store = sqlite_storage.SQLiteStorage
  run_id = (workdir / 'run_id.txt').read_text().strip()
  assert store.get_runs('clips') == [f'mine-{run_id}']
  logged = store.get_logs('clips', f'mine-{run_id}')
  rows = [(row['step'], row['loss']) for row in logged if 'loss' in row]
  assert sorted(rows) == sorted(
    (s, 1 / s) for s in (*range(1, 6), *range(4, 9))
  )
  config = store.get_run_config('clips', f'mine-{run_id}')
  assert config['optim']['ema'] == [0.05, 0.1]
  (last,) = [row for row in logged if 'final/videos' in row]
  assert last['final/fixed_clips_psnr/samples'] == 31.5
  (preview,) = [row['samples'] for row in logged if 'samples' in row]
  assert frames_of(tmp_path / 'trackio' / 'media' / preview['file_path']) == 4


class FakeTrackio(types.ModuleType):
  """The calls of Trackio that are used, recorded."""

  def __init__(self):
    super().__init__('trackio')
    self.started, self.rows, self.finished = [], [], 0

  def init(self, **options):
    self.started.append(options)
    return self

  def log(self, values, step):
    self.rows.append((step, values))

  def finish(self):
    self.finished += 1

  def Video(self, path):
    return 'video', path

  def Image(self, path):
    return 'image', path


@pytest.fixture
def trackio(monkeypatch):
  fake = FakeTrackio()
  monkeypatch.setitem(sys.modules, 'trackio', fake)
  return fake


def test_a_run_that_resumes_is_the_same_one(tmp_path, trackio):
  train_twice(tmp_path / 'mine', trackio='clips')
  first, second = trackio.started
  assert first['name'] == second['name'] and first['name'].startswith('mine-')
  assert (first['project'], first['resume']) == ('clips', 'allow')
  assert first['config']['train']['log_every'] == 10
  assert trackio.finished == 2
  losses = [step for step, values in trackio.rows if 'loss' in values]
  assert losses == [*range(1, 6), *range(4, 9)]
  step, values = trackio.rows[-1]
  assert (step, values['final/fixed_clips_psnr/samples']) == (8, 31.5)
  grid = str(tmp_path / 'mine' / 'final' / 'grid.mp4')
  assert values['final/videos'] == ('video', grid)


def test_images_go_as_images(tmp_path, trackio):
  sheet = epath.Path(tmp_path) / 'sheet.png'
  video_files.write_png(sheet, CLIP[0])
  config = make_config(trackio='clips')
  with writer.make_writer(config, tmp_path) as log:
    log.write_preview(3, background.Preview(b'', sheet))
  assert trackio.rows == [(3, {'frames': ('image', str(sheet))})]


def test_only_the_first_process_writes(tmp_path, trackio, monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  with writer.make_writer(make_config(trackio='clips'), tmp_path) as log:
    log.write(1, 'video', {'loss': 1.0})
    log.close(0)
  assert not trackio.started and not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['wandb', 'trackio'])
def test_a_package_that_is_missing_is_one_sentence(name, monkeypatch):
  monkeypatch.setitem(sys.modules, name, None)  # An import then fails.
  with pytest.raises(errors.UsageError) as raised:
    chosen.check(make_config(**{name: 'clips'}).log)
  extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project'][
    'optional-dependencies'
  ]
  (wanted,) = extras[name]
  assert str(raised.value) == (
    f"log.{name} needs the package {name}: pip install '{wanted}'."
  )
  chosen.check(make_config().log)


def test_an_account_that_is_missing_is_one_sentence(tmp_path, monkeypatch):
  wandb = pytest.importorskip('wandb', reason='wandb is not installed')
  for name in ('WANDB_API_KEY', 'WANDB_IDENTITY_TOKEN_FILE', 'WANDB_MODE'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('NETRC', str(tmp_path / 'netrc'))
  monkeypatch.setenv('WANDB_CONFIG_DIR', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  wandb.teardown()
  try:
    with pytest.raises(errors.UsageError, match='set WANDB_API_KEY'):
      chosen.check(make_config(wandb='clips').log)
  finally:
    wandb.teardown()


@pytest.mark.parametrize('name', ['wandb', 'trackio'])
def test_names_of_projects(name):
  config = make_config()
  config.stages.video = schema.stage(steps=200)
  config.train.order = ('video',)
  config.autoencoder.kind = 'identity'
  for good in ('', 'my clips_2.1'):
    config.log[name] = good
    check.validate(config)
  config.log[name] = 'team/clips'
  with pytest.raises(errors.UsageError, match=f'config.log.{name}='):
    check.validate(config)


class Slow:
  """A destination whose server does not answer before it is told to."""

  def __init__(self):
    self.free, self.rows = threading.Event(), []

  def write(self, step, stage, values):
    self.free.wait(10)
    self.rows.append(step)

  def close(self, code):
    self.rows.append('closed')


def test_no_call_waits_for_a_slow_server():
  slow = Slow()
  thread = background.Background('Slow', lambda: slow, wait=0.2)
  started = time.monotonic()
  for step in range(100):
    thread.call('write', step, 'video', {})
  thread.flush()
  assert time.monotonic() - started < 0.2
  thread.close(0)  # Waits no longer than it is told to.
  assert 0.2 <= time.monotonic() - started < 5
  assert slow.rows == []
  slow.free.set()
  thread._thread.join(10)
  assert slow.rows == [*range(100), 'closed']


def test_a_call_that_fails_is_left_out_with_one_warning(caplog):
  rows = []

  class Failing:
    def write(self, step, stage, values):
      if step < 3:
        raise OSError('no route to the server')
      rows.append(step)

    def close(self, code):
      rows.append(code)

  thread = background.Background('Failing', Failing)
  with caplog.at_level('WARNING', logger='absl'):
    for step in range(1, 5):
      thread.call('write', step, 'video', {})
    thread.close(75)
  assert rows == [3, 4, 75]
  (record,) = caplog.records
  assert 'Failing misses rows of this run' in record.message
  assert 'no route to the server' in record.message


def test_a_destination_that_cannot_be_opened_is_dropped(caplog, tmp_path):
  opened = []

  def fail():
    opened.append(1)
    raise ImportError('no TensorFlow')

  thread = background.Background('Broken', fail)
  caplog.set_level('WARNING', logger='absl')
  with writer.Writer(tmp_path, [thread]) as log:
    for step in (1, 2):
      log.write(step, 'video', {'loss': 0.5})
  assert [row['step'] for row in writer.read_rows(tmp_path)] == [1, 2]
  assert len(opened) == 1
  assert len(caplog.records) == 1


def test_tensorboard_reads_scalars_and_animations(tmp_path):
  config = make_config()
  config.train.tensorboard = True
  preview = make_preview(epath.Path(tmp_path))
  make_final(tmp_path / 'final')
  with writer.make_writer(config, tmp_path) as log:
    log.write(5, 'video', {'loss': 0.25})
    log.write(10, 'video', {'loss': 0.125})
    log.write_preview(10, preview)
    log.write_final(10, epath.Path(tmp_path) / 'final')

  from tensorboard.backend.event_processing import event_accumulator
  from tensorboard.util import tensor_util

  events = event_accumulator.EventAccumulator(
    str(tmp_path), size_guidance={'tensors': 0}
  ).Reload()
  tensors = events.Tensors('loss')
  assert [event.step for event in tensors] == [5, 10]
  values = [tensor_util.make_ndarray(event.tensor_proto) for event in tensors]
  assert values == [0.25, 0.125]
  (event,) = events.Tensors('final/fixed_clips_psnr/samples')
  assert tensor_util.make_ndarray(event.tensor_proto) == 31.5
  plugin = events.SummaryMetadata('samples').plugin_data.plugin_name
  assert plugin == 'images'
  (event,) = events.Tensors('samples')
  content = event.tensor_proto.string_val[2]
  assert content == preview.gif
  assert Image.open(io.BytesIO(content)).n_frames == 4
