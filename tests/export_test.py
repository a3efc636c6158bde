"""A run is exported with its card and videos, and goes to the hub and back."""

import itertools
import json
import os
import pathlib
import re
import subprocess
import sys

from conftest import ROOT
from etils import epath
import fake_hub
import numpy as np
from PIL import Image
import pytest

from vdm import generate
from vdm import trained
from vdm.common import errors
from vdm.common import trees
from vdm.evaluation import run_samples
from vdm.publishing import export
from vdm.publishing import export_files
from vdm.publishing import run_facts
from vdm.publishing import upload
from vdm.trained import manifest

VIDEOS = [f'samples/seed_{i:06d}.mp4' for i in range(3)]


@pytest.fixture(scope='module')
def folder(finished_run, tmp_path_factory):
  """An export of the tiny run; leave it as it is."""
  folder = epath.Path(tmp_path_factory.mktemp('exports') / 'tiny')
  before = sorted(finished_run.rglob('*'))
  names = export.write(
    finished_run,
    folder,
    export.Options(
      dtype='bfloat16',
      samples=3,
      license_name='apache-2.0',
      notes='Discs look like squares.\n',
    ),
  )
  assert sorted(finished_run.rglob('*')) == before
  assert names == sorted(
    [manifest.CARD, manifest.WEIGHTS, manifest.AUTOENCODER, *VIDEOS]
    + ['samples/grid.gif']
  )
  return folder


@pytest.fixture
def grey(monkeypatch):
  """Videos that cost nothing."""

  def make_generator(config, stage, worse):
    del worse

    def samples(params, frozen, labels, seeds):
      shape = (len(seeds), stage.frames, *2 * (stage.resolution,), 3)
      return np.full(shape, 128, np.uint8)

    return generate.Generator(samples, None)

  monkeypatch.setattr(generate, 'make_generator', make_generator)


def test_every_file_but_the_card_is_listed(folder):
  content = json.loads((folder / manifest.CONFIG).read_text())
  names = {
    path.relative_to(folder).as_posix()
    for path in pathlib.Path(folder).rglob('*')
    if path.is_file()
  }
  assert names == {*content['files'], manifest.CARD, manifest.CONFIG}
  for name, entry in content['files'].items():
    assert manifest.describe((folder / name).read_bytes()) == entry


def test_its_videos_are_those_of_its_weights(folder):
  model = trained.load(folder)
  make = generate.make_generator(model.config, model.stage)
  cond = {'label': [0, 1, 2]}
  videos = make.samples(model.params, model.frozen, cond, range(3))
  for name, expected in zip(VIDEOS, videos):
    shown = read_mp4(folder / name)[: len(expected)]
    # 4:2:0 and quantisation, of very small frames.
    assert np.abs(shown[:, ::2, ::2].astype(int) - expected).mean() < 12
  with Image.open(folder / 'samples/grid.gif') as grid:
    assert grid.n_frames == model.stage.frames


def read_mp4(path):
  import av

  with av.open(os.fspath(path)) as container:
    return np.stack([x.to_ndarray(format='rgb24') for x in container.decode()])


def test_the_card_says_what_the_run_recorded(folder):
  text = (folder / manifest.CARD).read_text()
  front = re.match(r'---\n(.*?)\n---\n', text, re.S)[1].split('\n')
  assert front[:3] == [
    'library_name: vdm',
    'license: "apache-2.0"',
    'pipeline_tag: other',
  ]
  for words in (
    '# tiny\n',
    '4 frames of 16 x 16 px at 25 frames a second (0.16 s)',
    'step 12, the average of width 0.1, in bfloat16',
    'Classes: right, down-right, down,',
    'python -m vdm.sample --workdir THIS_FOLDER',
    '`synthetic_scenes`, version 1.0.0, stored at 16 px',
    '- train: 24 shots, 96 frames',
    '- validation: 8 shots, 32 frames',
    'licence of the data: **to be filled in**',
    '| autoencoder | autoencoder | 3 | 1 | 16 | 8 | 0 min',
    '| video | diffusion | 5 | 4 | 16 | 8 | 0 min',
    'single frames of 16 px (validation 01): PSNR (dB)',
    '8 samples of the run, not selected',
    'label agreement',
    'It was trained on clips of 4 frames of 16 px',
    'Discs look like squares.',
  ):
    assert words in text, words


def test_it_names_no_folder_of_the_machine(folder, finished_run, data_root):
  for name in (manifest.CARD, manifest.CONFIG):
    text = (folder / name).read_text()
    for path in (finished_run, data_root, folder.parent):
      assert os.fspath(path) not in text


def test_facts_of_other_data_and_of_no_data_are_left_out(finished_run, caplog):
  model = trained.load(finished_run)
  facts = run_facts.collect(model)
  assert facts['dataset']['splits']['train'] == {'shots': 24, 'frames': 96}
  assert [x['name'] for x in facts['stages']][-1] == 'video'
  model.config.data.root = 'nowhere'
  found = run_facts.collect(model)['dataset']
  assert found.keys() == {'name', 'fingerprint'}
  assert found['fingerprint'] == facts['dataset']['fingerprint']


def test_numbers_of_another_step_or_average_are_left_out(finished_run):
  model = trained.load(finished_run)
  assert run_facts.measured(model).keys() == {
    run_facts.FINAL,
    run_facts.AUTOENCODER,
  }
  other = trained.load(finished_run, ema=0.05)
  for changed in (model._replace(step=7), other):
    assert run_facts.measured(changed).keys() == {run_facts.AUTOENCODER}


def test_an_interrupted_export_leaves_what_was_there(
  finished_run, tmp_path, monkeypatch, grey
):
  out = tmp_path / 'out'

  def stop(*_):
    raise KeyboardInterrupt

  def interrupted(source, **options):
    with monkeypatch.context() as patch:
      patch.setattr(export_files, 'write_manifest', stop)
      with pytest.raises(KeyboardInterrupt):
        export.write(source, out, export.Options(samples=1, **options))

  interrupted(finished_run)
  assert not out.exists()
  # The same command again; nothing says that it was interrupted.
  names = export.write(finished_run, out, export.Options(samples=2))
  assert [x for x in names if x.endswith('.mp4')] == VIDEOS[:2]
  assert [x.name for x in tmp_path.iterdir()] == ['out']
  (out / 'mine.txt').write_text('stays')
  with pytest.raises(
    FileExistsError, match='already holds an export.*or --ove'
  ):
    export.write(finished_run, out, export.Options())

  # In place of itself, with another sampler: it is both source and target.
  before = {x: x.read_bytes() for x in out.rglob('*') if x.is_file()}
  again = dict(overwrite=True, sampler={'steps': 2})
  interrupted(out, **again)
  assert before == {x: x.read_bytes() for x in out.rglob('*') if x.is_file()}
  names = export.write(out, out, export.Options(samples=1, **again))
  assert [x for x in names if x.endswith('.mp4')] == [VIDEOS[0]]
  model = trained.load(out)
  assert model.step == 12 and model.config.sample.steps == 2
  assert (out / 'mine.txt').read_text() == 'stays'
  assert not (out / VIDEOS[1]).exists()


def test_files_in_the_way_are_named(tmp_path):
  folder = epath.Path(tmp_path)
  (folder / 'README.md').write_text('mine')
  (folder / 'samples').mkdir()
  (folder / 'samples/a.png').write_bytes(b'mine')
  with pytest.raises(FileExistsError, match='holds README.md, samples/a.png:'):
    export_files.check_room(folder, overwrite=False)


def test_an_export_gets_another_sampler(folder, tmp_path, monkeypatch, grey):
  monkeypatch.chdir(tmp_path)  # Where numbers of exports go, in outputs/.
  before = trained.load(folder)
  names = export.write(
    folder,
    'again',
    export.Options(
      dtype='bfloat16', samples=1, sampler={'eta': 1.0, 'guidance': '3'}
    ),
  )
  assert VIDEOS[0] in names and VIDEOS[1] not in names
  after = trained.load('again')
  assert (after.config.sample.eta, after.config.sample.guidance) == (1.0, 3.0)
  after.config.sample.update(
    eta=before.config.sample.eta, guidance=before.config.sample.guidance
  )
  assert after.config == before.config
  assert after.fingerprint == before.fingerprint
  old, new = trees.flatten(before.params), trees.flatten(after.params)
  assert old.keys() == new.keys()
  for name, x in old.items():
    np.testing.assert_array_equal(new[name], x, err_msg=name)
  old, new = (
    json.loads((epath.Path(x) / manifest.CONFIG).read_text())
    for x in (folder, 'again')
  )
  assert new['run']['stages'] == old['run']['stages']
  assert new['run']['dataset'] == old['run']['dataset']
  text = pathlib.Path('again', manifest.CARD).read_text()
  assert 'noise (eta 1), ' in text and 'guidance 3)' in text
  assert 'were not measured before' in text  # Of this sampler.


def test_an_impossible_sampler_leaves_an_export_as_it_is(folder, tmp_path):
  export.write(
    folder, tmp_path, export.Options(samples=1, sampler={'steps': 2})
  )
  before = (tmp_path / manifest.CONFIG).read_bytes()
  for sampler, words in (
    ({'eta': 1.0, 'method': 'heun'}, 'is of ddim'),
    ({'guidance': 'text=3'}, 'text'),
  ):
    options = export.Options(sampler=sampler, overwrite=True)
    with pytest.raises(ValueError, match=words):
      export.write(folder, tmp_path, options)
  assert (tmp_path / manifest.CONFIG).read_bytes() == before


def test_numbers_of_an_export_are_those_of_its_parameters(
  folder, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  model = trained.load(folder)
  samples = {'step': model.step, **run_samples.key(model)}
  card = pathlib.Path('outputs/tiny', run_facts.CARD)
  card.parent.mkdir(parents=True)

  def measured():
    card.write_text(json.dumps({'protocol': {'samples': samples}}))
    return [*run_facts.measured(model)]

  assert measured() == [run_facts.CARD]
  samples['params'] = 'of another export of that name'
  assert measured() == []


def test_an_export_that_does_not_come_back_is_an_error(folder):
  model = trained.load(folder)
  export._check(folder, model)
  name, first = next(iter(trees.flatten(model.params).items()))
  params = trees.flatten(model.params) | {name: first + 1}
  model = model._replace(params=trees.unflatten(params))
  with pytest.raises(errors.UsageError, match='does not come back'):
    export._check(folder, model)


# In a process of its own: no two commands can be imported together.
MISTAKES = """
import json, sys
from absl import flags
from absl.testing import flagsaver
from vdm import export
flags.FLAGS.mark_as_parsed()
for values in json.loads(sys.argv[1]):
  try:
    with flagsaver.flagsaver(**values):
      export.main([])
  except SystemExit as stop:
    print(stop.code, file=sys.stderr)
"""


def test_mistakes_are_one_line(folder, finished_run, tmp_path):
  pytest.importorskip(
    'huggingface_hub', reason='the extra hub is not installed'
  )
  out, run = str(tmp_path / 'out'), str(finished_run)
  cases = [
    ({'workdir': run}, '--out is missing'),
    ({'workdir': out, 'out': out}, 'holds no run'),
    ({'workdir': str(folder), 'out': out}, 'is an export already'),
    ({'workdir': run, 'out': run}, "is no export's"),
    ({'workdir': run, 'out': out, 'checkpoint': '8'}, 'keeps the steps'),
    ({'workdir': run, 'out': out, 'notes': out}, 'No such file'),
    ({'workdir': run, 'out': out, 'push': 'owner/name'}, 'set HF_TOKEN'),
    ({'workdir': run, 'out': out, 'push': 'name'}, 'give owner/name'),
    ({'workdir': run, 'out': out, 'push': 'hf://a/b'}, 'give owner/name'),
    ({'workdir': run, 'out': out, 'public': True}, 'add --push'),
    (
      {'workdir': run, 'out': 'gs://bucket/out', 'push': 'owner/name'},
      'sends a local folder',
    ),
  ]
  done = subprocess.run(
    [sys.executable, '-c', MISTAKES, json.dumps([x for x, _ in cases])],
    cwd=ROOT,
    env={k: v for k, v in os.environ.items() if k != 'HF_TOKEN'},
    capture_output=True,
    text=True,
    timeout=300,
  )
  lines = done.stderr.splitlines()
  said = [line for line, code in itertools.pairwise(lines) if code == '2']
  assert len(said) == len(cases), done.stderr
  for line, (_, words) in zip(said, cases):
    assert words in line
  assert not (tmp_path / 'out').exists()


# In a process of its own: the library reads HF_ENDPOINT when it is imported.
SHARE = """
import sys
from absl import logging
import numpy as np
from etils import epath
from vdm import trained
from vdm.common import trees
from vdm.publishing import export_files, upload
logging.set_verbosity(logging.INFO)
folder = epath.Path(sys.argv[1])
upload.check('owner/tiny', folder)
names = export_files.written(folder)
first = upload.push(folder, 'owner/tiny', names, public=False)
again = upload.push(folder, 'owner/tiny', names, public=True)
local, remote = trained.load(folder), trained.load('hf://owner/tiny')
print(first, remote.source)
named = trained.load(first)
assert named.source == first, named.source
assert remote.fingerprint == local.fingerprint
new = trees.flatten(remote.params)
for name, x in trees.flatten(local.params).items():
  np.testing.assert_array_equal(new[name], x)
for wrong in ('hf://owner/tiny@v9', 'hf://owner/other@main', 'hf://tiny'):
  try:
    trained.load(wrong)
  except ValueError as error:
    assert '\\n' not in str(error)
    print('refused:', error)
"""


def test_it_goes_to_the_hub_and_comes_back(folder, tmp_path):
  pytest.importorskip(
    'huggingface_hub', reason='the extra hub is not installed'
  )
  hub = fake_hub.Hub()
  try:
    done = subprocess.run(
      [sys.executable, '-c', SHARE, os.fspath(folder)],
      cwd=ROOT,
      env=os.environ
      | {
        'HF_ENDPOINT': hub.url,
        'HF_HOME': str(tmp_path / 'cache'),
        'HF_HUB_DISABLE_XET': '1',
        'HF_HUB_DISABLE_TELEMETRY': '1',
        'HF_TOKEN': hub.token,
      },
      capture_output=True,
      text=True,
      timeout=300,
    )
  finally:
    hub.close()
  assert done.returncode == 0, done.stderr
  assert hub.token not in done.stdout + done.stderr
  repo = hub.repos['owner/tiny']
  assert repo['private']  # Not changed by a second upload either.
  sha, files = next(iter(repo['commits'].items()))
  assert files.keys() == {*export_files.written(folder), manifest.CONFIG}
  assert files[manifest.WEIGHTS] == (folder / manifest.WEIGHTS).read_bytes()
  lines = done.stdout.splitlines()
  assert lines[0].split()[0] == f'hf://owner/tiny@{sha}'
  assert len([x for x in lines if x.startswith('refused:')]) == 3
  # What is named by a branch is logged with its commit.
  assert re.search(r'hf://owner/tiny is commit [0-9a-f]{40}', done.stderr)
  # Nothing but what reading takes was downloaded.
  fetched = {
    path.split('/')[-1]
    for method, path, _ in hub.requests
    if method == 'GET' and '/resolve/' in path
  }
  assert fetched == {
    manifest.CONFIG,
    manifest.WEIGHTS,
    manifest.AUTOENCODER,
  }


def test_a_push_that_fails_is_one_sentence(folder, tmp_path, monkeypatch):
  hub_library = pytest.importorskip(
    'huggingface_hub', reason='the extra hub is not installed'
  )

  class Refusing:
    def __init__(self, token):
      assert token == 'secret'

    def create_repo(self, repo, private, exist_ok):
      raise OSError(f'403 for {repo}\nmore')

  monkeypatch.setenv('HF_TOKEN', 'secret')
  monkeypatch.setattr(hub_library, 'HfApi', Refusing)
  with pytest.raises(errors.UsageError, match='was not sent') as raised:
    upload.push(folder, 'owner/tiny', [], public=False)
  assert '\n' not in str(raised.value) and 'secret' not in str(raised.value)
