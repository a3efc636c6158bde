"""Manifests of three kinds, rules over captions, and a dataset with them."""

import json

import pytest
from screening_test import pan

from tests import tiny_videos
from vdm.config import schema
from vdm.data import builders
from vdm.preparation import captions
from vdm.preparation import datasets

ROWS = [
  ('1001', 'https://ak.picdn.net/1001.mp4', 'PT00H00M23S', '000001_000050',
   'A dog runs over a  green field'),
  ('1002', 'https://ak.picdn.net/1002.mp4', 'PT01H02M03.5S', '000001_000050',
   'Ein Hund läuft über die Wiese'),
  ('1003', 'https://vid.example.org/x', '', '000051_000100', 'dog'),
]  # fmt: skip
COLUMNS = ('videoid', 'contentUrl', 'duration', 'page_dir', 'name')


def options(**changes):
  return dict(schema.default().data.captions.to_dict(), **changes)


def write(path, rows=ROWS):
  records = [dict(zip(COLUMNS, row)) for row in rows]
  if path.suffix == '.csv':
    lines = [','.join(COLUMNS), *(','.join(row) for row in rows)]
    path.write_text('\n'.join(lines), encoding='utf-8')
  elif path.suffix == '.jsonl':
    path.write_text('\n'.join(json.dumps(r) for r in records))
  else:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(records), path)
  return str(path)


@pytest.mark.parametrize('suffix', ['.csv', '.jsonl', '.parquet'])
def test_manifests_of_three_kinds(tmp_path, suffix):
  names = ('file', 'folder', 'caption', 'source', 'duration')
  columns = {name: options()[name] for name in names}
  rows = captions.read(write(tmp_path / f'm{suffix}'), columns)
  assert rows == [
    captions.Row(
      '000001_000050/1001',
      'A dog runs over a green field',
      'ak.picdn.net',
      23.0,
    ),
    captions.Row(
      '000001_000050/1002',
      'Ein Hund läuft über die Wiese',
      'ak.picdn.net',
      3723.5,
    ),
    captions.Row('000051_000100/1003', 'dog', 'vid.example.org', None),
  ]
  with pytest.raises(ValueError, match=r"no column 'text' \(data.captions.cap"):
    captions.read(str(tmp_path / f'm{suffix}'), dict(columns, caption='text'))


def test_unreadable_manifests_say_where(tmp_path):
  path = tmp_path / 'm.jsonl'
  path.write_text('{"file": "a", "text": "b"}\n{"file": \n')
  columns = dict(file='file', caption='text', folder='', source='', duration='')
  with pytest.raises(ValueError, match='line 2'):
    captions.read(str(path), columns)
  # An open quote swallows all that follows, up to the limit of a cell.
  path = tmp_path / 'm.csv'
  path.write_text('file,text\na,"b\n' + 9999 * 'c,a longer text\n')
  with pytest.raises(ValueError, match=r'm.csv, line \d+: field larger'):
    captions.read(str(path), columns)
  with pytest.raises(ValueError, match='neither'):
    captions.read(str(tmp_path / 'm.pickle'), columns)


@pytest.mark.parametrize(
  'caption, reason',
  [
    ('A red car drives through the rain', ''),
    ('一只狗在绿色的草地上奔跑 很快 真的', ''),
    ('कुत्ता हरे मैदान में दौड़ता है', ''),
    ('Собака бежит по зелёному полю', ''),
    ('NYC taxi at 5th avenue, 1080p', ''),
    ('car', 'caption_short'),
    ('', 'caption_short'),
    ('2019 10 24 17 55 08', 'caption_no_language'),
    ('xkcd qwrt zzxc bnmv', 'caption_no_language'),
    ('aaaaaaa aaaaa aaaaaa', 'caption_no_language'),
    (
      'see 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b file',
      'caption_no_language',
    ),
    ('!!! ??? ... --- ***', 'caption_no_language'),
    ('Royalty free stock footage of HD', 'caption_boilerplate'),
    ('Untitled shutterstock 4K clip', 'caption_boilerplate'),
    ('Stock footage of a heron fishing at dawn', ''),
    ('Beautiful nature background video', 'caption_repeated'),
  ],
)
def test_what_a_caption_must_be(caption, reason):
  rows = [captions.Row('x', caption)]
  repeated = 'beautiful NATURE background, video!'
  rows += [captions.Row(f'{i}', repeated) for i in range(10)]
  refused = captions.screen(rows, options())
  assert refused.get('x', ('',))[0] == reason


def test_lengths_from_the_manifest():
  rows = [
    captions.Row(str(seconds), f'one two three {word}', '', seconds)
    for seconds, word in ((1.0, 'cats'), (10.0, 'dogs'), (200.0, 'birds'))
  ]
  rows.append(captions.Row('unknown', 'one two three four'))
  refused = captions.screen(rows, options(min_seconds=2.0, max_seconds=120.0))
  assert {k: v[0] for k, v in refused.items()} == {
    '1.0': 'clip_short',
    '200.0': 'clip_long',
  }
  assert captions.screen(rows, options(max_words=3)).keys() == {
    '1.0',
    '10.0',
    '200.0',
    'unknown',
  }


def test_suffixes():
  assert captions.stem('a/b.mp4') == 'a/b'
  assert captions.stem('b.tar.gz') == 'b.tar'
  assert captions.stem('a.b/no suffix.5 mm') == 'a.b/no suffix.5 mm'


def test_a_dataset_with_captions(tmp_path):
  videos = tmp_path / 'videos'
  for row in ROWS:
    (videos / row[3]).mkdir(parents=True, exist_ok=True)
    path = videos / row[3] / f'{row[0]}.mp4'
    tiny_videos.write_video(path, pan(20, seed=int(row[0])))
  tiny_videos.write_video(videos / 'stray.mp4', pan(20, seed=9))
  data = schema.default().data
  data.update(name='webvid', resolution=32, root=str(tmp_path))
  data.source = str(videos)
  data.captions.manifest = write(tmp_path / 'm.csv')
  directory = datasets.build(data)
  found = {}
  for split in ('train', 'validation'):
    index = builders.open_source(directory, split).index
    found |= dict(zip(index['id'].tolist(), index['caption'].tolist()))
    assert set(index['label'].tolist()) == {-1}
  assert found == {
    f'{row[3]}/{row[0]}.mp4:000000': ' '.join(row[4].split())
    for row in ROWS[:2]
  }
  skipped = builders.read_skipped(directory)
  assert {s['source']: s['reason'] for s in skipped} == {
    'stray.mp4': 'not_in_manifest',
    '000051_000100/1003.mp4': 'caption_short',
  }
  # Another manifest is another dataset; a bad one is one sentence.
  write(tmp_path / 'm.csv', ROWS[:1])
  assert datasets.dataset_dir(data) != directory
  data.captions.caption = 'text'
  with pytest.raises(builders.BuildError, match='no column'):
    datasets.build(data)
