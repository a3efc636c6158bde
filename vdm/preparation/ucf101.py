"""UCF101 (Soomro et al., 2012, arXiv:1212.0402) with its official lists.

The source is the folder `UCF-101/` of class sub-folders, a folder that holds
it, or the archive; `ucfTrainTestlist/` (classInd.txt, trainlist0N.txt,
testlist0N.txt) lies in it or next to it. One dataset serves all lists that are
found: splits are `train_0N` and, for the test list, `validation_0N`.
"""

from collections.abc import Iterator
import dataclasses
import os
import re
from typing import Any

from ml_collections import ConfigDict

from vdm.data.builders import build_plan
from vdm.preparation import reasons
from vdm.preparation import sources
from vdm.preparation import video_dataset
from vdm.preparation import workers

_LISTS = 'ucfTrainTestlist'
_CLIP = re.compile(r'v_(?P<name>\w+)_g(?P<group>\d+)_c\d+\.avi')
_LIST = re.compile(r'(?P<part>train|test)list(?P<number>\d\d)\.txt')
_SPLIT = {'train': 'train', 'test': 'validation'}
_MAX_NAMED = 3  # Clips that an error names before it counts the rest.


@dataclasses.dataclass(frozen=True)
class _Lists:
  """The official lists.

  Attributes:
    classes: names, in the order of their labels.
    members: {split, like 'train_01': clips, like 'Class/v_...avi'}.
  """

  classes: tuple[str, ...]
  members: dict[str, tuple[str, ...]]


def config_name(data: ConfigDict) -> str:
  """Returns the part of the directory that names settings and source."""
  return video_dataset.config_name(data, _settings)


def make_plan(
  data: ConfigDict,
  *,
  allow_missing: bool = False,
  runner: workers.Runner | None = None,
) -> build_plan.Plan:
  """Returns how to build the dataset.

  Args:
    data: `config.data`; `source` is a folder or an archive.
    allow_missing: skip listed clips that are missing or do not decode,
      instead of stopping.
    runner: see `video_dataset.make_plan`.

  Raises:
    BuildError: if the lists are missing or contradict each other.
  """
  lists = _read_lists(data)
  return video_dataset.make_plan(
    data,
    _settings(data),
    label_names=lists.classes,
    splits=tuple(lists.members),
    shots=lambda build: _shots(build, lists, allow_missing),
    runner=runner,
  )


def _shots(
  build: video_dataset.Build, lists: _Lists, allow_missing: bool
) -> Iterator[build_plan.Shot | build_plan.Skipped]:
  listed = sorted(set().union(*lists.members.values()))
  data = build.data
  with sources.open_tree(data.source, follow_links=data.follow_links) as tree:
    clips, others = {}, []
    for file in tree.files:
      if _CLIP.fullmatch(os.path.basename(file.name)):
        clips['/'.join(file.name.split('/')[-2:])] = file
      elif _LISTS not in file.name.split('/')[:-1]:
        others.append(file)
    skipped = [
      build_plan.Skipped(name, 'missing', 'it is listed but not in the source')
      for name in listed
      if name not in clips
    ]
    if not allow_missing:
      _refuse(skipped)
    results = build.prepare(
      [
        dataclasses.replace(clips[name], name=name)
        for name in listed
        if name in clips
      ]
    )
    skipped += reasons.skipped(results)
    if not allow_missing:
      _refuse(skipped)
    skipped += [
      build_plan.Skipped(name, 'unlisted', 'it is in no list')
      for name in sorted(set(clips) - set(listed))
    ]
    others = sources.Tree(others, tree.skipped)
    others = others.of_suffixes(sources.VIDEO_SUFFIXES)
    skipped += others.skipped + [
      build_plan.Skipped(file.name, 'unlisted', 'no clip is named like it')
      for file in others.files
    ]
    yield from build.skip(skipped)
    for result in results:
      folder, base = result.name.split('/')
      splits = [s for s, names in lists.members.items() if result.name in names]
      yield from build.shots(
        result,
        video_dataset.undivided(splits),
        name=os.path.splitext(base)[0],
        group=f'{folder}/g{_CLIP.fullmatch(base)["group"]}',
        label=lists.classes.index(folder),
      )


def _refuse(skipped: list[build_plan.Skipped]) -> None:
  """Raises BuildError if listed clips are skipped."""
  if skipped:
    named = ', '.join(f'{s.source} ({s.message})' for s in skipped[:_MAX_NAMED])
    more = len(skipped) - _MAX_NAMED
    raise build_plan.BuildError(
      f'{len(skipped)} listed clips cannot be used: {named}'
      + (f' and {more} more' if more > 0 else '')
      + '; repair them, or build without them with --allow_missing.'
    )


def _settings(data: ConfigDict) -> dict[str, Any]:
  texts = sorted(_list_texts(data).items())
  return dict(
    video_dataset.common_settings(data),
    listing=sources.listing(
      data.source, ('.avi',), follow_links=data.follow_links
    ),
    lists={name: build_plan.settings_hash({'text': t}) for name, t in texts},
  )


def _read_lists(data: ConfigDict) -> _Lists:
  texts = _list_texts(data)
  matches = [_LIST.fullmatch(name) for name in sorted(texts)]
  matches = [match for match in matches if match]
  if 'classInd.txt' not in texts or not matches:
    raise build_plan.BuildError(
      f'The official lists are missing: put the folder {_LISTS} with'
      ' classInd.txt, trainlist0N.txt and testlist0N.txt into or beside'
      f' {data.source}.'
    )
  lines = [line.split() for line in texts['classInd.txt'].splitlines()]
  numbers = {name: int(number) for number, name in filter(None, lines)}
  classes = tuple(sorted(numbers, key=numbers.get))
  if sorted(numbers.values()) != list(range(1, len(numbers) + 1)):
    raise build_plan.BuildError(
      'classInd.txt does not number its classes from 1.'
    )
  members = {}
  for match in matches:
    split = f'{_SPLIT[match["part"]]}_{match["number"]}'
    members[split] = _parse_list(texts[match[0]], match[0], numbers)
  for split, names in members.items():
    other = split.replace('train', 'validation')
    both = set(names) & set(members.get(other, ())) if other != split else ()
    if both:
      raise build_plan.BuildError(
        f'{min(both)} is in the train list and in the test list.'
      )
  return _Lists(classes, members)


def _parse_list(
  text: str, name: str, numbers: dict[str, int]
) -> tuple[str, ...]:
  clips = []
  for line in filter(None, map(str.strip, text.splitlines())):
    clip, *number = line.split()
    folder, _, base = clip.partition('/')
    right = folder in numbers and _CLIP.fullmatch(base)
    if not right or (number and int(number[0]) != numbers[folder]):
      raise build_plan.BuildError(
        f'{name}: the line {line!r} does not fit classInd.txt.'
      )
    clips.append(clip)
  return tuple(clips)


def _list_texts(data: ConfigDict) -> dict[str, str]:
  """Returns the text of each list; those in the source take precedence."""
  source, files = data.source, []
  for folder in (os.path.dirname(os.path.abspath(source)), source):
    lists = os.path.join(folder, _LISTS)
    if os.path.isdir(lists):
      files += sources.list_folder(lists, follow_links=data.follow_links)
  if os.path.isfile(source) and source.lower().endswith('.zip'):
    with sources.open_tree(source) as tree:
      files += tree.files
  texts = {}
  for file in files:
    name = os.path.basename(file.name)
    if name == 'classInd.txt' or _LIST.fullmatch(name):
      with file.open() as path, open(path, encoding='utf-8') as text:
        texts[name] = text.read()
  return texts
