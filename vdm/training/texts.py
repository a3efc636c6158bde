"""How a run reads captions: with its vocabulary, written into its folder once.

`<workdir>/text/vocabulary.json` lists the words that the rows of the network's
table stand for. A run that starts from another one (`train.init_from`) keeps
the other's words and adds its own.
"""

from collections.abc import Mapping

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from vdm import trained
from vdm.common import errors
from vdm.common import vocabulary
from vdm.data import builders
from vdm.data import captions
from vdm.multihost import coordination
from vdm.trained import words


def check(
  config: ConfigDict, sources: Mapping[str, builders.ClipSource]
) -> None:
  """Checks that the clips of a run have captions that it may learn.

  Raises:
    UsageError: they have none, or mirroring makes them wrong.
  """
  if config.model.text.encoder == 'none':
    return
  with errors.as_usage():
    for source in sources.values():
      captions.check(source)
    if config.data.flip:
      captions.check_flip(sources['train'])


def make_reader(
  config: ConfigDict,
  workdir: epath.Path,
  source: builders.ClipSource,
) -> vocabulary.Reader | None:
  """Returns what reads the captions of a run; None if it reads none.

  All processes call it; the first one writes.

  Args:
    config: the run's.
    workdir: its folder.
    source: of the training split.

  Raises:
    UsageError: what is there is damaged, or a prompt has unknown words.
  """
  text = config.model.text
  if text.encoder == 'none':
    return None
  found = _ensure_vocabulary(config, workdir, source)
  reader = vocabulary.Words(found, text.length)
  with errors.as_usage('config.sample.captions: '):
    for caption in config.sample.captions:
      reader.check(caption)
  return reader


def _ensure_vocabulary(config, workdir, source) -> tuple[str, ...]:
  text, path = config.model.text, workdir / words.FILE
  if coordination.first_says('the vocabulary', path.exists()):
    return words.read(path, text.vocabulary)
  first = ()
  if config.train.init_from:
    with errors.as_usage('config.train.init_from: '):
      first = trained.load_vocabulary(config.train.init_from)
  told = source.index['caption'].tolist()
  found = vocabulary.build(told, text.vocabulary, first)
  known = set(found)
  lacking = sum(
    any(word not in known for word in vocabulary.split(x)) for x in told
  )
  logging.info(
    'Vocabulary: %d words, of %d at most; %d of %d captions have others.',
    *(len(found), text.vocabulary, lacking, len(told)),
  )
  if coordination.is_first():
    words.write(path, found)
  coordination.gather('writing the vocabulary')
  return found
