"""The notebooks of colabs/: in step with their sources, and executed in small.

The slow tests make an environment like Colab's, which takes PyPI and
python3.13, and train for real:

  bash launch/test.sh -m slow tests/colabs_test.py
"""

import ast
import json
import re
import shutil
import subprocess
import sys

from conftest import ROOT
import jupytext
import notebooks
import numpy as np
import pytest

from vdm import trained

NAMES = ('sample', 'train')
# The .venv/bin/python of a copy of the repository: installs nothing, and takes
# `vdm.main` from a script. Everything else is this Python.
PYTHON = """#!/bin/bash
case "$1 $2 ${{3:-}}" in
  '-m pip install') ;;
  '-m vdm.main '*) exec {python} {script} "${{@:3}}" ;;
  *) exec {python} "$@" ;;
esac
"""
# In the place of vdm.main: first a mistake, then training that somebody stops,
# then the rest of a run. Pressing the stop button is SIGINT to the kernel,
# which is this process's parent.
TRAINER = """
import os, pathlib, shutil, signal, sys, time
run, workdir = pathlib.Path({run!r}), pathlib.Path(sys.argv[4])
assert sys.argv[1:] == ['--config', 'configs/synthetic.py', '--workdir',
                        str(workdir), '--config.seed=1'], sys.argv
starts = workdir.with_suffix('.starts')
number = len(starts.read_text()) if starts.exists() else 0
starts.write_text('x' * (number + 1))
if number == 0:
  print('The configuration has no key seeed.')
  sys.exit(2)
if number == 1:
  workdir.mkdir()
  rows = (run / 'metrics.jsonl').read_text().splitlines()[:4]
  (workdir / 'metrics.jsonl').write_text('\\n'.join(rows) + '\\n')
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
  print('training', flush=True)
  time.sleep(1)
  os.kill(os.getppid(), signal.SIGINT)
  time.sleep(60)
  sys.exit(1)
shutil.copytree(run, workdir, dirs_exist_ok=True)
print('trained')
"""
# Presses the panel's button. What is shown goes to the cell: nbclient waits for
# ever for a cell that writes into an Output widget.
PRESS = """
import contextlib

class Here(contextlib.nullcontext):
  clear_output = staticmethod(lambda: None)

videos_here = Here()
controls['number'].value = 2
button.click()
"""


def copy(folder, script='-m vdm.main'):
  """A copy of the repository, in which `script` is what vdm.main does."""
  root = folder / 'a copy'
  (root / '.venv/bin').mkdir(parents=True)
  for name in ('vdm', 'configs', 'requirements.txt', 'pyproject.toml'):
    (root / name).symlink_to(ROOT / name)
  shutil.copytree(ROOT / 'launch', root / 'launch')
  python = root / '.venv/bin/python'
  python.write_text(PYTHON.format(python=sys.executable, script=script))
  python.chmod(0o755)
  (root / '.venv/bin/pip').touch()
  return root


@pytest.mark.parametrize('name', NAMES)
def test_notebook_is_what_its_source_says_and_has_no_outputs(name):
  source = jupytext.read(notebooks.FOLDER / f'{name}.py')
  notebook = notebooks.read(name)
  found = [(x.cell_type, x.source, x.metadata) for x in notebook.cells]
  made = [(x.cell_type, x.source, x.metadata) for x in source.cells]
  assert found == made, (
    'Run python -m jupytext --update --to ipynb colabs/*.py.'
  )
  for key in ('accelerator', 'colab', 'kernelspec'):
    assert notebook.metadata.get(key) == source.metadata.get(key)
  code = [x for x in notebook.cells if x.cell_type == 'code']
  assert not any(x.outputs or x.execution_count for x in code)


@pytest.mark.parametrize('name', NAMES)
def test_forms_are_what_colab_reads(name):
  """A literal, then a list of choices, options or both, as JSON."""
  text = (notebooks.FOLDER / f'{name}.py').read_text()
  fields = re.findall(r'^(.*?) *# @param(.*)$', text, re.M)
  assert len(fields) >= 5
  for line, form in fields:
    value = ast.literal_eval(re.fullmatch(r'\w+ = (.*)', line)[1])
    choices, options = re.fullmatch(r' ?(\[.*\])? ?({.*})?', form).groups()
    options = json.loads(options or '{}')
    if choices:
      raw = options.get('type') == 'raw'
      assert (repr(value) if raw else value) in json.loads(choices)
    else:
      kinds = {'string': str, 'integer': int, 'boolean': bool}
      assert type(value) is kinds[options['type']]


def test_both_notebooks_begin_alike():
  first, second = (
    notebooks.cell(notebooks.read(name), 'Set up').source for name in NAMES
  )
  assert first == second


def test_badges_and_cells_name_the_address_of_the_project():
  text = (ROOT / 'pyproject.toml').read_text()
  (address,) = re.findall(
    r"^repository = '(https://github.com/.*)'", text, re.M
  )
  place = address.removeprefix('https://github.com/')
  readme = (ROOT / 'README.md').read_text()
  for name in NAMES:
    source = (notebooks.FOLDER / f'{name}.py').read_text()
    badge = f'research.google.com/github/{place}/blob/main/colabs/{name}.ipynb'
    assert badge in source and badge in readme
    assert f"repository = '{address}'" in source


def test_the_model_of_the_notebook_is_in_the_repository():
  source = notebooks.field(notebooks.read('sample'), 'source')
  model = trained.load(ROOT / source)
  assert model.config.model.num_classes == len(model.label_names) == 8


def test_sampling_in_a_notebook(finished_run, tmp_path):
  notebook = notebooks.read('sample')
  notebooks.set_fields(
    notebook, source=str(finished_run), number=2, seed=3, label='left', steps=2
  )
  notebooks.set_fields(notebook, then='', save_in=str(tmp_path / 'samples'))
  notebook.cells += [notebooks.code(PRESS), notebooks.code('button.click()')]
  notebooks.client(notebook, notebooks.FOLDER).execute()
  assert 'Labels: right, ' in notebooks.output(
    notebooks.cell(notebook, 'Choose a model')
  )
  form = notebooks.output(notebooks.cell(notebook, 'Sample with a form'))
  assert form.count('<video ') == 2 and '.zip' in form
  first, second, third = sorted((tmp_path / 'samples').iterdir())
  made = [json.loads((x / 'samples.json').read_text()) for x in (first, second)]
  assert made[0]['seeds'] == [3, 4] and made[0]['labels'] == [4, 4]
  assert made[1]['seeds'] == [0, 1] and made[1]['labels'] == [0, 1]
  assert made[0]['run'] == str(finished_run)
  with np.load(finished_run / 'final/samples.npz', allow_pickle=False) as file:
    expected = file['videos'][:2].astype(int)
  with np.load(second / 'samples.npz', allow_pickle=False) as file:
    # Another batch size may round otherwise.
    assert np.abs(file['videos'] - expected).max() <= 1
  shown = notebooks.output(notebook.cells[-1])
  assert shown.count('<video ') == 2 and third.name in shown


def test_the_models_of_the_notebook_sample_one_after_the_other(tmp_path):
  notebook = notebooks.read('sample')
  notebooks.set_fields(
    notebook, number=1, label='up', steps=1, save_in=str(tmp_path)
  )
  panel = notebooks.cell(notebook, 'Sample with a panel')
  notebook.cells.remove(panel)
  notebooks.client(notebook, notebooks.FOLDER).execute()
  said = notebooks.output(notebooks.cell(notebook, 'Choose a model'))
  assert 'videos of 4 frames, 6.25 a second' in said
  assert 'videos of 16 frames, 25 a second' in said
  (folder,) = tmp_path.iterdir()
  with np.load(folder / 'samples.npz', allow_pickle=False) as file:
    assert file['videos'].shape == (1, 16, 64, 64, 3)
  made = json.loads((folder / 'samples.json').read_text())
  assert made['frame_rate'] == 25 and made['labels'] == [6]
  assert [x['frames'] for x in made['chain']] == [16]


def test_mistakes_in_a_notebook_are_one_sentence(tmp_path):
  notebook = notebooks.read('sample')
  notebooks.set_fields(notebook, source=str(tmp_path))
  titles = ('Set up', 'Versions and devices', 'Choose a model')
  notebook.cells = [notebooks.cell(notebook, title) for title in titles]
  # As on a runtime of Colab's past.
  old = notebooks.code('jax.version.__version_info__ = (0, 7, 1)')
  notebook.cells[1:1] = [notebooks.code('import jax'), old]
  for i in (3, 4):
    notebook.cells[i].metadata.tags = ['raises-exception']
  notebooks.client(notebook, notebooks.FOLDER).execute()
  said = [notebooks.traceback(notebook.cells[i]) for i in (3, 4)]
  assert said[0].startswith('jax ') and said[0].endswith('runtime type).')
  assert said[1] == (
    f'{tmp_path} holds no run: give the folder that training printed.'
  )


def test_training_is_stopped_resumed_and_sampled(finished_run, tmp_path):
  script = tmp_path / 'trainer.py'
  script.write_text(TRAINER.format(run=str(finished_run)))
  root = copy(tmp_path, script)
  notebook = notebooks.read('train')
  notebooks.set_fields(notebook, number=2, flags='--config.seed=1')
  train = notebooks.cell(notebook, 'Train or resume')
  stopped = notebooks.code(train.source)
  mistaken = notebooks.code(train.source)
  mistaken.metadata.tags = ['raises-exception']
  at = notebook.cells.index(train)
  notebook.cells[at:at] = [mistaken, stopped]
  notebooks.client(notebook, root).execute()
  assert 'has no key seeed' in notebooks.traceback(mistaken)
  shown = notebooks.output(stopped)
  assert 'the trainer saves a checkpoint first' in shown
  assert 'run this cell again to resume' in shown
  shown = notebooks.output(train)
  assert 'Finished: ' in shown and 'trained</pre>' in shown
  assert 'data:image/png;base64' in shown
  assert '<p>step_00000012</p>' in shown and '<video ' in shown
  shown = notebooks.output(notebooks.cell(notebook, 'Sample from the run'))
  assert shown.count('<video ') == 2
  (samples,) = (root / 'runs/colab_samples').iterdir()
  with (
    np.load(finished_run / 'final/samples.npz', allow_pickle=False) as real,
    np.load(samples / 'samples.npz', allow_pickle=False) as made,
  ):
    difference = made['videos'] - real['videos'][:2].astype(int)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
  'source, words',
  [
    # It adds frames to videos, of which this notebook has none.
    ('colabs/cascade/frames', '--low'),
    (None, 'holds no run'),
  ],
)
def test_runs_that_cannot_be_sampled_are_one_sentence(source, words, tmp_path):
  workdir = tmp_path / 'run'
  if source:
    shutil.copytree(ROOT / source, workdir)
  notebook = notebooks.read('train')
  notebooks.set_fields(notebook, workdir=str(workdir))
  notebook.cells.remove(notebooks.cell(notebook, 'Train or resume'))
  sample = notebooks.cell(notebook, 'Sample from the run')
  sample.metadata.tags = ['raises-exception']
  notebooks.client(notebook, notebooks.FOLDER).execute()
  said = notebooks.traceback(sample)
  assert words in said and '\n' not in said and said.endswith('.')


# Presses the stop button once the first row is written.
STOP = """
import threading

def stop():
  while not writer.read_rows(workdir):
    time.sleep(1)
  os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=stop, daemon=True).start()
"""


@pytest.mark.slow
def test_training_for_real_is_stopped_and_resumed(tmp_path):
  root = copy(tmp_path)
  notebook = notebooks.read('train')
  small = (
    '--config.stages.autoencoder.steps=20 --config.stages.video.steps=20 '
    '--config.sample.final=8 --config.score.every=0'
  )
  notebooks.set_fields(notebook, config='configs/synthetic.py:smoke')
  notebooks.set_fields(notebook, number=2, flags=small)
  train = notebooks.cell(notebook, 'Train or resume')
  stopped = notebooks.code(train.source)
  at = notebook.cells.index(train)
  notebook.cells[at:at] = [notebooks.code(STOP), stopped]
  notebooks.client(notebook, root, seconds=1200).execute()
  assert 'run this cell again to resume' in notebooks.output(stopped)
  assert 'Finished: ' in notebooks.output(train)
  assert '<p>step_' in notebooks.output(train)
  assert (root / 'runs/colab/final/samples.npz').exists()
  shown = notebooks.output(notebooks.cell(notebook, 'Sample from the run'))
  assert shown.count('<video ') == 2


@pytest.fixture(scope='module')
def colab(tmp_path_factory):
  """The Python of an environment with Colab's packages."""
  folder = tmp_path_factory.mktemp('colab')
  try:
    subprocess.run(['python3.13', '-c', 'import ensurepip'], check=True)
  except (OSError, subprocess.CalledProcessError):
    pytest.skip('there is no python3.13 with venv')
  pip = [sys.executable, '-m', 'pip', '--retries=0', '--timeout=15']
  download = [*pip, 'download', '--no-deps', '-d', folder, 'ml_collections']
  if subprocess.run(download).returncode:
    pytest.skip('PyPI cannot be reached')
  (folder / 'colabs').symlink_to(notebooks.FOLDER)
  text = (notebooks.FOLDER / 'constraints.txt').read_text()
  commands = re.findall(r'^#   (.*)$', text, re.M)
  assert len(commands) == 2
  for command in commands:
    subprocess.run(command.split(), cwd=folder, check=True)
  return folder / '.venv_colab/bin/python'


def packages(python):
  command = [python, '-m', 'pip', 'freeze']
  done = subprocess.run(command, check=True, capture_output=True, text=True)
  return set(done.stdout.splitlines())


def run_command(python, source, out, *flags):
  """Makes two videos by the command."""
  command = [python, '-m', 'vdm.sample', '--workdir', source, '--out', out]
  subprocess.run([*command, '--num=2', *flags], cwd=ROOT, check=True)


@pytest.mark.slow
def test_sampling_in_the_environment_of_colab(colab, finished_run, tmp_path):
  before = packages(colab)
  notebook = notebooks.read('sample')
  notebooks.set_fields(notebook, source=str(finished_run), then='', number=2)
  notebooks.set_fields(notebook, save_in=str(tmp_path / 'made'))
  km = notebooks.kernel(colab, tmp_path)
  notebooks.client(notebook, notebooks.FOLDER, km, seconds=600).execute()
  versions = notebooks.output(notebooks.cell(notebook, 'Versions and devices'))
  assert 'Python 3.13.' in versions and 'jax 0.7.2, flax 0.11.2' in versions
  after = packages(colab)
  assert before <= after, 'a package of Colab was replaced'
  assert {x.partition('==')[0] for x in after - before} == {
    'av',
    'ml_collections',
  }
  form = notebooks.output(notebooks.cell(notebook, 'Sample with a form'))
  assert form.count('<video ') == 2
  (folder,) = (tmp_path / 'made').iterdir()
  run_command(colab, finished_run, tmp_path / 'out')
  with np.load(finished_run / 'final/samples.npz', allow_pickle=False) as file:
    expected = file['videos'][:2].astype(int)
  for place in (folder, tmp_path / 'out'):
    with np.load(place / 'samples.npz', allow_pickle=False) as file:
      # Another version of XLA may round otherwise.
      assert np.abs(file['videos'] - expected).max() <= 2


@pytest.mark.slow
def test_the_model_of_the_repository_in_the_environment_of_colab(
  colab, tmp_path
):
  install = [colab, '-m', 'pip', 'install', '--quiet', '--no-deps']
  subprocess.run([*install, 'av>=17,<19', 'ml_collections>=1,<2'], check=True)
  videos = []
  for name, python in (('colab', colab), ('here', sys.executable)):
    run_command(python, ROOT / 'colabs/demo', tmp_path / name, '--steps=5')
    with np.load(tmp_path / name / 'samples.npz', allow_pickle=False) as file:
      videos.append(file['videos'].astype(int))
  assert np.abs(videos[0] - videos[1]).max() <= 2
  assert videos[0].std() > 10  # Something is seen on the black.


@pytest.mark.slow
def test_environment_for_training_without_ensurepip(colab, tmp_path):
  root = copy(tmp_path)
  shutil.rmtree(root / '.venv')
  notebook = notebooks.read('train')
  titles = (
    'Set up',
    'Choose a run',
    'What the page shows',
    'How the trainer starts, is watched and stops',
  )
  notebook.cells = [
    notebooks.code("import sys; sys.modules['ensurepip'] = None"),
    *(notebooks.cell(notebook, title) for title in titles),
    notebooks.code('make_venv()'),
  ]
  km = notebooks.kernel(colab, tmp_path)
  notebooks.client(notebook, root, km, seconds=600).execute()
  # What launch/setup.sh asks of an environment that it keeps.
  check = [root / '.venv/bin/python', '-m', 'pip', '--version']
  subprocess.run(check, check=True)
