"""Rows of metrics.jsonl."""

import json
import math

import numpy as np
import pytest

from vdm.training import writer


def write_steps(workdir, steps, **kwargs):
  with writer.Writer(workdir, **kwargs) as log:
    for step in steps:
      log.write(step, 'video', {'loss': 1 / step})
      log.flush()


def steps_of(workdir):
  return [row['step'] for row in writer.read_rows(workdir)]


def test_rows_are_json_and_read_back_as_floats(tmp_path):
  values = {
    'loss': np.float32(0.1),
    'nan': float('nan'),
    'high': np.inf,
    'low': -np.inf,
    'array': np.ones((1,)),
  }
  with writer.Writer(tmp_path / 'run') as log:
    log.write(np.int64(3), 'video', values)
    # In the file before anything is flushed or closed.
    text = (tmp_path / 'run/metrics.jsonl').read_text()

  def refuse(name):
    raise AssertionError(f'{name} is not JSON')

  row = json.loads(text, parse_constant=refuse)
  assert row['nan'] == 'nan' and row['high'] == 'inf' and row['low'] == '-inf'
  (row,) = writer.read_rows(tmp_path / 'run')
  assert row['step'] == 3 and row['stage'] == 'video'
  assert row['loss'] == float(np.float32(0.1))
  assert math.isnan(row['nan'])
  assert (row['high'], row['low'], row['array']) == (math.inf, -math.inf, 1.0)


@pytest.mark.parametrize('append', [True, False])
def test_rewind_drops_rows_past_the_step(tmp_path, append):
  write_steps(tmp_path, range(1, 6), append=append)
  with writer.Writer(tmp_path, append=append) as log:
    log.write(6, 'video', {'loss': float('nan')})
    log.rewind(3)
    log.write(4, 'video', {'loss': 7.0})
  assert steps_of(tmp_path) == [1, 2, 3, 4]
  assert writer.read_rows(tmp_path)[-1]['loss'] == 7.0
  assert not list(tmp_path.glob('*.part'))


def test_rewind_keeps_values_exactly(tmp_path):
  write_steps(tmp_path, [3, 7])
  before = (tmp_path / 'metrics.jsonl').read_text()
  with writer.Writer(tmp_path) as log:
    log.rewind(7)
  assert (tmp_path / 'metrics.jsonl').read_text() == before


@pytest.mark.parametrize('torn', ['{"step": 3, "sta', '{"step": 3}'])
def test_torn_last_line_is_dropped(tmp_path, torn):
  write_steps(tmp_path, [1, 2])
  path = tmp_path / 'metrics.jsonl'
  with path.open('a') as file:
    file.write(torn)
  assert steps_of(tmp_path) == [1, 2]
  write_steps(tmp_path, [3])
  assert steps_of(tmp_path) == [1, 2, 3]


def test_damage_elsewhere_is_named(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1, \n{"step": 2}\n')
  with pytest.raises(ValueError, match='line 1, is damaged'):
    writer.read_rows(tmp_path)


def test_each_writer_on_an_object_store_has_a_segment(tmp_path):
  write_steps(tmp_path, [1, 2], append=False)
  write_steps(tmp_path, [3], append=False)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'metrics.jsonl.00000',
    'metrics.jsonl.00001',
  ]
  assert steps_of(tmp_path) == [1, 2, 3]
