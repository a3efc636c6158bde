"""Words and their numbers."""

import pickle

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from vdm.common import errors
from vdm.common import vocabulary

CAPTIONS = ['A dog runs.', 'a DOG, again!', "the dog's ball", '']


def test_words_are_lower_case_without_marks():
  assert vocabulary.split("The dog\u2019s 2nd ball -- it_is 'red'!") == [
    'the',
    "dog's",
    '2nd',
    'ball',
    'it',
    'is',
    'red',
  ]
  assert vocabulary.split('\ufb01ne \u212blpha') == ['fine', '\u00e5lpha']
  assert vocabulary.split(' ... ') == []


def test_the_most_frequent_words_are_kept():
  words = vocabulary.build(CAPTIONS, 3)
  assert words == ('a', 'dog', 'again')
  assert vocabulary.build(CAPTIONS[::-1], 3) == words
  assert len(vocabulary.build(CAPTIONS, 100)) == 7
  # Those of a run that goes on keep their places.
  assert vocabulary.build(CAPTIONS, 4, ('ball', 'cat')) == (
    'ball',
    'cat',
    'a',
    'dog',
  )


def test_numbers_are_those_of_the_rows_of_the_table():
  reader = vocabulary.Words(('a', 'dog'), 4)
  assert reader.read('A big dog')['words'].tolist() == [2, 1, 3, 0]
  assert reader.read('')['words'].tolist() == [0] * 4
  assert reader.read('dog dog dog dog dog')['words'].tolist() == [3] * 4
  rows = vocabulary.read_all(reader, ['a', 'dog a'])['words']
  assert rows.dtype == np.int32
  np.testing.assert_array_equal(rows, [[2, 0, 0, 0], [3, 2, 0, 0]])
  assert vocabulary.read_all(None, ['a']) == {}
  assert pickle.loads(pickle.dumps(reader)) == reader


@hypothesis.given(strategies.lists(strategies.text(), max_size=6))
def test_any_text_has_words_that_are_words(captions):
  words = vocabulary.build(captions, 10**6)
  assert vocabulary.problem(list(words), 10**6) == ''
  reader = vocabulary.Words(words, 5)
  for caption in captions:
    found = reader.read(caption)['words']
    count = len(vocabulary.split(caption)[:5])
    assert (found[:count] >= vocabulary.FIRST).all()
    assert (found[count:] == vocabulary.NONE).all()
    # The words of a caption say the same as the caption.
    again = reader.read(' '.join(vocabulary.split(caption)))['words']
    np.testing.assert_array_equal(again, found)


def test_prompts_with_unknown_words_are_refused_by_name():
  reader = vocabulary.Words(('a', 'red', 'disc'), 4)
  reader.check('A red disc')
  for caption, words in (
    ('a teal square', r'\(teal, square\): it knows a, red, disc\.'),
    ('...', 'has no words'),
    ('a red red red disc', 'has 5 words, and the run reads 4'),
  ):
    with pytest.raises(errors.UsageError, match=words):
      reader.check(caption)
  many = vocabulary.Words(tuple(f'w{i}' for i in range(50)), 4)
  with pytest.raises(errors.UsageError, match='w39 and 10 more'):
    many.check('x')


@pytest.mark.parametrize(
  'content', [{}, None, ['a', 'a'], ['A'], ['a b'], [''], [3], ['a'] * 9]
)
def test_what_is_no_vocabulary_is_noticed(content):
  assert vocabulary.problem(content, 8)
