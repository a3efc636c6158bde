"""Interprets pickles of tensors without running code.

A pickle is a program of a small stack machine: GLOBAL imports a function by
its name and REDUCE calls it, so a file of weights can run arbitrary code.
`interpret` is that machine without these two. It represents the few names that
describe tensors by themselves, and refuses all other names.
"""

import dataclasses
import io
import pickletools
import re
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

STORAGES = {
  'torch.DoubleStorage': np.dtype('<f8'),
  'torch.FloatStorage': np.dtype('<f4'),
  'torch.HalfStorage': np.dtype('<f2'),
  'torch.BFloat16Storage': np.dtype(jnp.bfloat16),
  'torch.LongStorage': np.dtype('<i8'),
  'torch.IntStorage': np.dtype('<i4'),
  'torch.ShortStorage': np.dtype('<i2'),
  'torch.CharStorage': np.dtype('i1'),
  'torch.ByteStorage': np.dtype('u1'),
  'torch.BoolStorage': np.dtype('?'),
}
# Earlier ones have no first instruction, and PyTorch never wrote them.
PROTOCOLS = (b'\x02', b'\x03', b'\x04', b'\x05')
MAX_NAME = 200  # Characters of a key.


class FormatError(ValueError):
  """A file violates its format, or contains more than tensors."""


class Global(str):
  """The name of an object that a pickle asks to import; it is not imported."""


class Storage(NamedTuple):
  """A raw array of the file."""

  dtype: np.dtype
  key: str
  size: int


class Tensor(NamedTuple):
  """A strided view into a storage, in elements."""

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


@dataclasses.dataclass
class Module:
  """An object of a TorchScript archive: name of its class and attributes."""

  name: str
  state: Any = None


def is_pickle(data: bytes) -> bool:
  """Returns whether bytes start with the instruction of a known protocol."""
  return data[:1] == b'\x80' and data[1:2] in PROTOCOLS


def interpret(stream: io.BytesIO) -> Any:
  """Runs one pickle on a machine that can neither import nor call.

  Args:
    stream: read up to the end of the pickle.

  Returns:
    The described value, made of dict, list, tuple, str, int, float, bool, None,
    `Storage`, `Tensor` and `Module`.

  Raises:
    FormatError: it asks for anything else; ValueError, IndexError, KeyError,
      TypeError, AttributeError: it is corrupt.
  """
  stack, marked, memo = [], [], {}
  for opcode, argument, _ in pickletools.genops(stream):
    match opcode.name:
      case 'PROTO' | 'FRAME':
        pass
      case 'STOP':
        return stack.pop()
      case 'NONE':
        stack.append(None)
      case 'NEWTRUE' | 'NEWFALSE':
        stack.append(opcode.name == 'NEWTRUE')
      case 'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'BINFLOAT':
        stack.append(argument)
      case 'BINUNICODE' | 'SHORT_BINUNICODE' | 'BINSTRING' | 'SHORT_BINSTRING':
        stack.append(argument)
      case 'EMPTY_DICT':
        stack.append({})
      case 'EMPTY_LIST':
        stack.append([])
      case 'EMPTY_TUPLE':
        stack.append(())
      case 'MARK':
        marked.append(stack)
        stack = []
      case 'TUPLE':
        items, stack = tuple(stack), marked.pop()
        stack.append(items)
      case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
        count = int(opcode.name[-1])
        items = tuple(stack.pop() for _ in range(count))
        stack.append(items[::-1])
      case 'BINPUT' | 'LONG_BINPUT':
        memo[argument] = stack[-1]
      case 'MEMOIZE':
        memo[len(memo)] = stack[-1]
      case 'BINGET' | 'LONG_BINGET':
        stack.append(memo[argument])
      case 'SETITEM':
        value, key = stack.pop(), stack.pop()
        _set_items(stack[-1], [(key, value)])
      case 'SETITEMS':
        items, stack = stack, marked.pop()
        _set_items(stack[-1], list(zip(items[::2], items[1::2], strict=True)))
      case 'APPEND':
        value = stack.pop()
        _extend(stack[-1], [value])
      case 'APPENDS':
        items, stack = stack, marked.pop()
        _extend(stack[-1], items)
      case 'GLOBAL':
        stack.append(_name(argument.replace(' ', '.')))
      case 'STACK_GLOBAL':
        name, module = stack.pop(), stack.pop()
        stack.append(_name(f'{module}.{name}'))
      case 'BINPERSID':
        stack.append(_storage(stack.pop()))
      case 'REDUCE':
        arguments, function = stack.pop(), stack.pop()
        stack.append(_describe(function, arguments))
      case 'NEWOBJ':
        arguments, name = stack.pop(), stack.pop()
        if not _is_script(name) or arguments != ():
          raise FormatError('it creates objects')
        stack.append(Module(name))
      case 'BUILD':
        state = stack.pop()
        if isinstance(stack[-1], Module):
          stack[-1].state = state
        elif not isinstance(stack[-1], dict):  # A dict's note on versions.
          raise FormatError('it changes objects')
      case other:
        raise FormatError(f'its pickle has the instruction {other}')
  raise FormatError('its pickle has no end')


def _name(name):
  """Returns the name of a global that describes tensors; refuses others."""
  if name in STORAGES or name in DESCRIPTIONS or _is_script(name):
    return Global(name)
  raise FormatError(
    f'it asks to import {name[:80]}, and only tensors are read: save the '
    'state dict alone'
  )


def _is_script(name):
  return isinstance(name, str) and name.startswith('__torch__.')


def _set_items(target, pairs):
  if not isinstance(target, dict):
    raise FormatError('it sets items of something other than a dict')
  for key, value in pairs:
    # Hashing a tuple would visit its parts, however often they are shared.
    if not isinstance(key, str | int) or len(str(key)) > MAX_NAME:
      raise FormatError('it has a key that is not a name')
    target[key] = value


def _extend(target, items):
  if not isinstance(target, list):
    raise FormatError('it appends to something other than a list')
  target.extend(items)


def _storage(identity):
  """Returns ('storage', type, key, device, size) as a `Storage`."""
  kind, storage, key, _, size, *view = identity
  if kind != 'storage' or any(part is not None for part in view):
    raise FormatError('it refers to external data that is not a storage')
  if not isinstance(storage, Global) or storage not in STORAGES:
    raise FormatError(f'it has a storage of {str(storage)[:80]!r}')
  if not re.fullmatch(r'\d+', key) or type(size) is not int or size < 0:
    raise FormatError('it has a storage without a number or a size')
  return Storage(STORAGES[storage], key, size)


def _view(storage, offset, shape, strides, *_):
  """Returns a call of `torch._utils._rebuild_tensor(_v2)` as a `Tensor`."""
  numbers = (offset, *shape, *strides)
  if any(type(n) is not int or n < 0 for n in numbers):
    raise FormatError('it has a tensor with an invalid shape')
  if not isinstance(storage, Storage) or len(shape) != len(strides):
    raise FormatError('it has a tensor without a storage')
  return Tensor(storage, offset, tuple(shape), tuple(strides))


# What a pickle of tensors may call, and what represents the result.
DESCRIPTIONS = {
  'collections.OrderedDict': lambda pairs=(): _ordered(pairs),
  'torch._utils._rebuild_tensor': _view,
  'torch._utils._rebuild_tensor_v2': _view,
  'torch._utils._rebuild_parameter': lambda tensor, *_: tensor,
  'torch.jit._pickle.build_boollist': lambda items: items,
  'torch.jit._pickle.build_doublelist': lambda items: items,
  'torch.jit._pickle.build_intlist': lambda items: items,
  'torch.jit._pickle.build_tensorlist': lambda items: items,
  'torch.jit._pickle.restore_type_tag': lambda value, tag: value,
}


def _ordered(pairs):
  result = {}
  _set_items(result, pairs)
  return result


def _describe(function, arguments):
  if not isinstance(function, Global) or function not in DESCRIPTIONS:
    raise FormatError(f'it calls {str(function)[:80]}')
  if not isinstance(arguments, tuple):
    raise FormatError('it calls with invalid arguments')
  return DESCRIPTIONS[function](*arguments)
