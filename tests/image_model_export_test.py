"""The image model of a run, as files of published ones.

What is written is compared with the tensors that the other libraries' networks
have, and read by diffusers in an oracle test.
"""

import json
import subprocess
import sys

from conftest import ROOT
import image_unet_cases as cases
import image_unets_test as nets
import jax
import numpy as np
import pytest

from vdm import trained
from vdm.common import errors
from vdm.common import trees
from vdm.config import schema
from vdm.models import safetensors
from vdm.models.image_unets import adapters
from vdm.models.image_unets import inflated
from vdm.models.image_unets import published
from vdm.publishing import image_model


def model_of(kind, name):
  """A trained model with the published weights of a case."""
  config = schema.default()
  config.model = nets.options(kind, name)
  return trained.Model(
    config, None, 7, nets.params(kind, name), {}, [], 12.5, source='runs/a'
  )


@pytest.fixture
def load(monkeypatch):
  """Says which model is read."""

  def choose(model):
    monkeypatch.setattr(trained, 'load', lambda *_: model)
    return model

  return choose


@pytest.mark.parametrize('kind, name', nets.ALL)
def test_files_are_those_of_the_published_model(tmp_path, load, kind, name):
  load(model_of(kind, name))
  out = tmp_path / 'weights'
  weights, *texts = image_model.write('runs/a', out)
  if kind == 'adm':
    assert not json.loads((out / texts[0]).read_text())['learn_sigma']
  found = safetensors.parse((out / weights).read_bytes())
  wanted = dict(nets.tensors(kind, name))
  if kind == 'adm' and cases.ADM[name].get('learn_sigma'):
    # Half of the outputs are a variance, which is dropped.
    for tensor in ('out.2.weight', 'out.2.bias'):
      wanted[tensor] = wanted[tensor][: nets.CHANNELS[kind]]
  assert found.keys() == wanted.keys()
  for tensor, array in wanted.items():
    np.testing.assert_array_equal(found[tensor], array, err_msg=tensor)
  # Read again, it is the same network with the same weights.
  options = schema.default().model
  options.update(kind=kind, weights=str(out / weights))
  options = published.resolve(options)
  again = inflated.parse(kind, options.architecture)
  before = inflated.parse(kind, nets.options(kind, name).architecture)
  if kind == 'adm':
    before = before._replace(variance=False)
  assert again == before
  image = published.load(options, trees.unflatten(nets.abstract(kind, name)))
  jax.tree.map(
    np.testing.assert_array_equal, image, nets.params(kind, name)['image']
  )
  assert all((out / text).exists() for text in texts)
  with pytest.raises(FileExistsError, match='--overwrite'):
    image_model.write('runs/a', out)
  image_model.write('runs/a', out, overwrite=True, dtype='bfloat16')
  half = safetensors.parse((out / weights).read_bytes())
  assert {x.dtype.name for x in half.values()} == {'bfloat16'}
  for ours in ({'hash': ''}, {'format': '', 'sha256': ''}):
    (out / 'config.json').write_text(json.dumps(ours))
    with pytest.raises(FileExistsError, match='holds a run or an export'):
      image_model.write('runs/a', out, overwrite=True)
    assert json.loads((out / 'config.json').read_text()) == ours


def test_adapters_are_part_of_what_is_written(tmp_path, load):
  model = load(model_of('adm', 'mixed'))
  model.config.model.update(adapter_rank=2, adapter_alpha=4.0)
  added = adapters.init(jax.random.key(0), model.params['image'], 2)
  model.params['adapters'] = jax.tree.map(lambda x: x + 0.1, added)
  weights, _ = image_model.write('runs/a', tmp_path)
  found = safetensors.parse((tmp_path / weights).read_bytes())
  wanted = nets.tensors('adm', 'mixed')
  changed = {k for k, x in wanted.items() if not np.array_equal(found[k], x)}
  assert changed and all('qkv' in k or 'proj_out' in k for k in changed)


def test_another_network_is_no_image_model(tmp_path, load):
  load(trained.Model(schema.default(), None, 7, {}, {}, [], 12.5, source='r'))
  with pytest.raises(errors.UsageError, match='kind=unet: leave --image out'):
    image_model.write('r', tmp_path)
  assert not list(tmp_path.iterdir())


def test_the_command_refuses_what_an_image_model_has_no_use_for(tmp_path):
  command = [sys.executable, '-m', 'vdm.export', '--image', '--branches']
  command += ['--name', 'a model', '--eta', '0']
  given = [f'--workdir={tmp_path}', f'--out={tmp_path}/out']
  found = subprocess.run(
    [*command, *given], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert found.returncode == 2, found.stderr
  assert 'leave out --branches, --name, --eta.' in found.stderr
  assert not (tmp_path / 'out').exists()


@pytest.mark.oracle
@pytest.mark.parametrize('name', cases.CONDITIONAL)
def test_diffusers_reads_it_and_computes_the_same(tmp_path, load, name):
  diffusers = pytest.importorskip('diffusers')
  script = nets.script('make_conditional_unet')
  load(model_of('conditional', name))
  image_model.write('runs/a', tmp_path)
  network = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / 'unet')
  scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path / 'scheduler')
  network.eval()
  found = script.run(network, scheduler, cases.frames(4), *cases.text())
  assert nets.relative(nets.GOLDEN['conditional'][f'{name}/y'], found) < 1e-5
  kind = cases.CONDITIONAL[name].get('prediction_type', 'epsilon')
  assert scheduler.config.prediction_type == kind
