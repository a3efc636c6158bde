"""Pretrained text encoders: tiny ones with random weights, saved here."""

import json

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest
import text_run_test

from vdm import sample
from vdm import train
from vdm import trained
from vdm.common import errors
from vdm.data import text_cache
from vdm.preparation import datasets
from vdm.preparation import encode_captions
from vdm.preparation import text_encoder

transformers = pytest.importorskip(
  'transformers', reason='the extra `text` is not installed'
)
torch = pytest.importorskip('torch', reason='the extra `text` is not installed')
WORDS = ('<pad>', '</s>', '<unk>', *'a red blue disc square moves up'.split())
WIDTH = 8


def save(folder, kind='t5', seed=0):
  """Saves a tokenizer of a few words, and an encoder."""
  from tokenizers import models
  from tokenizers import pre_tokenizers
  from tokenizers import processors
  from tokenizers import Tokenizer

  tokenizer = Tokenizer(
    models.WordLevel({x: i for i, x in enumerate(WORDS)}, unk_token='<unk>')
  )
  tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
  tokenizer.post_processor = processors.TemplateProcessing(
    single='$A </s>', special_tokens=[('</s>', 1)]
  )
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    pad_token='<pad>',
    eos_token='</s>',
    unk_token='<unk>',
    # As T5's own and CLIP's files do not say.
    padding_side='left',
  ).save_pretrained(folder)
  torch.manual_seed(seed)
  if kind == 't5':
    config = transformers.T5Config(
      vocab_size=len(WORDS),
      d_model=WIDTH,
      d_kv=4,
      d_ff=16,
      num_layers=2,
      num_heads=2,
    )
    network = transformers.T5EncoderModel(config)
  else:
    config = transformers.CLIPTextConfig(
      vocab_size=len(WORDS),
      hidden_size=WIDTH,
      intermediate_size=16,
      num_hidden_layers=2,
      num_attention_heads=2,
      eos_token_id=1,
    )
    network = transformers.CLIPTextModel(config)
  network.save_pretrained(folder)
  return str(folder)


def make(folder, **changes):
  options = dict(name=folder, revision='', length=6, features=WIDTH)
  return text_encoder.Encoder(**options | changes)


LETTERS = [x + end for end in ('', '</w>') for x in 'abcdeorsuqv']
START, END = '<|startoftext|>', '<|endoftext|>'
CLIP_WORDS = ['!', *LETTERS, START, END]


def save_pipeline(folder, pad=END, seed=0):
  """Saves a tokenizer and an encoder in the layout of a published pipeline.

  Returns:
    The folder of the encoder, which has no tokenizer of its own.
  """
  tokenizer = folder / 'tokenizer'
  tokenizer.mkdir(parents=True)
  numbers = {x: i for i, x in enumerate(CLIP_WORDS)}
  (tokenizer / 'vocab.json').write_text(json.dumps(numbers))
  (tokenizer / 'merges.txt').write_text('#version: 0.2\n')
  settings = dict(bos_token=START, eos_token=END, unk_token=END, pad_token=pad)
  settings |= dict(model_max_length=77, tokenizer_class='CLIPTokenizer')
  (tokenizer / 'tokenizer_config.json').write_text(json.dumps(settings))
  torch.manual_seed(seed)
  config = transformers.CLIPTextConfig(
    vocab_size=len(CLIP_WORDS),
    hidden_size=WIDTH,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    eos_token_id=numbers[END],
  )
  network = transformers.CLIPTextModel(config)
  network.save_pretrained(folder / 'text_encoder')
  return str(folder / 'text_encoder')


def make_padded(folder, **changes):
  return make(folder, **dict(length=77, padded=True) | changes)


@pytest.mark.parametrize('pad', [END, '!'])  # Of SD 1.x, of SD 2.x.
def test_padded_captions_are_as_published_models_see_them(pad, tmp_path):
  """Numbers of tokens by hand, and no mask."""
  folder = save_pipeline(tmp_path, pad)
  network = transformers.CLIPTextModel.from_pretrained(folder).eval()
  number = CLIP_WORDS.index
  captions = {
    'A red  bus': [
      *map(number, ['a</w>', 'r', 'e', 'd</w>', 'b', 'u', 's</w>'])
    ],
    '': [],
    'a ' * 90: [number('a</w>')] * 75,  # Cut, and with its end.
  }
  encoder = make_padded(folder)
  found = encoder.encode(list(captions))
  assert encoder.count(list(captions)) == [77] * 3
  for caption, tokens in zip(captions, found):
    ids = [number(START), *captions[caption], number(END)]
    ids += [number(pad)] * (77 - len(ids))
    with torch.inference_mode():
      wanted = network(torch.tensor([ids])).last_hidden_state[0].numpy()
    np.testing.assert_allclose(tokens, wanted, atol=1e-5)
    if caption:
      told = encoder.read(caption)
      np.testing.assert_allclose(told['text'], wanted, atol=1e-5)
      assert told['text_mask'].all()
  # What is not told is the network's: it keeps the empty prompt.
  assert not encoder.read('')['text_mask'].any()
  with pytest.raises(errors.UsageError, match='has 92 tokens, and the run'):
    encoder.check('a ' * 90)


def test_padding_is_part_of_what_an_encoder_is(tmp_path):
  first, other = (
    make_padded(save_pipeline(tmp_path / name, pad))
    for name, pad in (('a', END), ('b', '!'))
  )
  assert first.fingerprint != other.fingerprint
  assert make(first.name).fingerprint == make(other.name).fingerprint
  with pytest.raises(
    errors.UsageError, match='set config.model.text.length=77'
  ):
    make_padded(first.name, length=32).read('a')


@pytest.mark.parametrize('kind', ['t5', 'clip'])
def test_tokens_do_not_depend_on_the_batch(kind, tmp_path):
  encoder = make(save(tmp_path, kind))
  captions = ['a red disc', 'a', 'a blue square moves up']
  together = encoder.encode(captions)
  assert [len(x) for x in together] == encoder.count(captions) == [4, 2, 6]
  for caption, tokens in zip(captions, together):
    found = encoder.read(caption)
    n = len(tokens)
    np.testing.assert_allclose(found['text'][:n], tokens, atol=1e-5)
    assert found['text_mask'].sum() == n and not found['text'][n:].any()
  assert not encoder.read('')['text_mask'].any()
  with pytest.raises(errors.UsageError, match='has 8 tokens, and the run'):
    encoder.check('a red disc a red disc a')
  assert len(encoder.encode(['a red disc a red disc a'])[0]) == 6


def test_an_encoder_is_known_by_its_parameters(tmp_path):
  first = make(save(tmp_path / 'a'))
  same = make(save(tmp_path / 'b'))
  other = make(save(tmp_path / 'c', seed=1))
  assert first.fingerprint == same.fingerprint != other.fingerprint
  make(same.name, sha256=first.fingerprint).read('a')
  with pytest.raises(errors.UsageError, match='another encoder'):
    make(other.name, sha256=first.fingerprint).read('a')


def test_encoders_that_cannot_be_read_are_named(tmp_path):
  folder = save(tmp_path / 'a')
  with pytest.raises(errors.UsageError, match='set config.model.text.feat'):
    make(folder, features=9).read('a')
  with pytest.raises(errors.UsageError, match='give its commit'):
    make('google/t5-v1_1-small').read('a')
  weights = tmp_path / 'a/model.safetensors'
  torch.save({}, tmp_path / 'a/pytorch_model.bin')  # A pickle, which is not.
  weights.unlink()
  with pytest.raises(errors.UsageError, match='cannot be read'):
    make(folder).read('a')
  config = tmp_path / 'a/config.json'
  config.write_text(
    json.dumps(json.loads(config.read_text()) | {'model_type': 'bert'})
  )
  with pytest.raises(errors.UsageError, match='is a bert'):
    make(folder).read('a')


@pytest.fixture(scope='module')
def prepared(data_root, tmp_path_factory):
  """The config of a run on a text cache, which its command has made."""
  folder = tmp_path_factory.mktemp('encoder')
  config = text_run_test.make_config(data_root)
  config.model.text.update(
    *(), **dict(encoder='pretrained', name=save(folder / 't5'), features=WIDTH)
  )
  config.data.texts = str(folder / 'texts')
  datasets.ensure(config.data)
  plan = encode_captions.build(config)
  assert plan['sha256'] == make(config.model.text.name).fingerprint
  return config


def test_the_cache_is_of_all_captions_and_prompts(prepared):
  texts = text_cache.open_cache(prepared.data.texts, prepared.model.text)
  encoder = make(prepared.model.text.name, length=16)
  for caption in prepared.sample.captions:
    found, wanted = texts.read(caption), encoder.read(caption)
    np.testing.assert_allclose(found['text'], wanted['text'], atol=2e-3)
    np.testing.assert_array_equal(found['text_mask'], wanted['text_mask'])


def test_what_is_missing_is_said(prepared):
  config = prepared.copy_and_resolve_references()
  config.data.texts = ''
  with pytest.raises(errors.UsageError, match='Say which encoder'):
    encode_captions.build(config)


@pytest.mark.slow
def test_a_run_on_encoded_captions(prepared, tmp_path):
  workdir = tmp_path / 'run'
  assert train.train(prepared, workdir) == 0
  model = trained.load(workdir)
  assert isinstance(model.reader, text_encoder.Encoder)
  flags.FLAGS.mark_as_parsed()
  out = tmp_path / 'out'
  with flagsaver.flagsaver(
    workdir=str(workdir), out=str(out), caption='a red disc moves up', num=2
  ):
    sample.main([])
  record = json.loads((out / 'samples.json').read_text())
  assert record['captions'] == ['a red disc moves up'] * 2
  # The same prompt as the first of the final videos, encoded anew.
  with (
    np.load(out / 'samples.npz', allow_pickle=False) as found,
    np.load(workdir / 'final/samples.npz', allow_pickle=False) as final,
  ):
    pair = found['videos'][0].astype(int), final['videos'][0].astype(int)
  assert np.abs(pair[0] - pair[1]).max() <= 2
  config = prepared.copy_and_resolve_references()
  config.sample.captions = ('a green square',)
  with pytest.raises(errors.UsageError, match='lacks the caption'):
    train.train(config, workdir)
