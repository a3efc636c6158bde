"""What the captions of a data set must be, to train on.

`vdm.common.vocabulary` reads them.
"""

from vdm.common import vocabulary
from vdm.data import builders
from vdm.data.builders import directional


def check(source: builders.ClipSource) -> None:
  """Checks that a split has captions.

  Raises:
    ValueError: no record has one.
  """
  if not any(source.index['caption']):
    raise ValueError(
      f'{source.info["name"]} has no captions in its {source.split} split: '
      'build it with data.captions.manifest, or synthetic scenes with '
      'data.scenes.captions=True, or set config.model.text.encoder=none.'
    )


def check_flip(source: builders.ClipSource) -> None:
  """Checks that the captions hold for mirrored frames.

  Raises:
    ValueError: words of them have a direction.
  """
  captions = set(source.index['caption'].tolist())
  words = {word for x in captions for word in vocabulary.split(x)}
  if found := directional.labels('', sorted(words)):
    raise ValueError(
      f'config.data.flip=True mirrors clips, and captions of '
      f'{source.info["name"]} have words with a direction '
      f'({", ".join(found[:3])}): set config.data.flip=False.'
    )
