"""Published names and layouts of the parameters of image models, and ours.

A network has a table of layers, each with its name here and in each of the
published schemes: 'original' of guided-diffusion and of latent diffusion's own
code, which took it from there, and 'diffusers'. A table maps both ways.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from vdm.models.image_unets import adm
from vdm.models.image_unets import conditional
from vdm.models.image_unets import layout

# The first layer in each scheme, which files of whole models have after a
# prefix.
FIRST = {'original': 'input_blocks.0.0.weight', 'diffusers': 'conv_in.weight'}
PREFIXES = ('', 'model.diffusion_model.')


class Layer(NamedTuple):
  """A layer with parameters.

  Attributes:
    path: here, '/'-joined.
    names: {scheme: published name}.
    kind: 'conv', 'matrix', 'norm' or 'table'.
    ones: trailing axes of size 1 that a matrix has in files: one where it is
      a convolution over positions, two where it is a 1 x 1 convolution.
    bias: whether it has one.
  """

  path: str
  names: dict[str, str]
  kind: str
  ones: int
  bias: bool = True


def table(
  described: adm.Description | conditional.Description,
) -> list[Layer]:
  """Returns the layers of a network."""
  return list(_layers(described))


def _layers(described):
  sizes = described.sizes
  in_adm = isinstance(described, adm.Description)

  def both(path, original, diffusers, kind, ones=0, bias=True):
    names = {'original': original, 'diffusers': diffusers}
    if in_adm:
      del names['diffusers']
    return Layer(path, names, kind, ones, bias)

  yield both('embed_in', 'time_embed.0', 'time_embedding.linear_1', 'matrix')
  yield both('embed_out', 'time_embed.2', 'time_embedding.linear_2', 'matrix')
  if sizes.classes:
    # Of latent diffusion's code, which has it by the same name.
    yield both('embed_label', 'label_emb', 'class_embedding', 'table')
  yield both('stem', 'input_blocks.0.0', 'conv_in', 'conv')
  for place, original, diffusers in _places(sizes):
    if place.is_block or sizes.residual_resampling:
      for inner, first, second, kind, ones in _RESIDUAL:
        if inner == 'skip' and place.cin == place.cout:
          continue
        yield both(
          f'{place.name}/{inner}',
          f'{original}.{first}',
          f'{diffusers}.{second}',
          kind,
          ones,
        )
    else:
      inner = 'op' if place.part == 'down' else 'conv'
      yield both(
        f'{place.name}/conv', f'{original}.{inner}', f'{diffusers}.conv', 'conv'
      )
    if place.attention:
      start = (
        f'{place.name}_attention',
        original.rpartition('.')[0] + '.1',
        diffusers.replace('.resnets.', '.attentions.'),
      )
      if in_adm:
        inner = _ADM_ATTENTION
      else:
        inner = _transformer(described, described.depth[place.level])
      for path, name, kind, ones, bias in inner:
        yield both(
          f'{start[0]}/{path}',
          f'{start[1]}.{name}',
          f'{start[2]}.{name}',
          kind,
          ones,
          bias,
        )
  yield both('head_norm', 'out.0', 'conv_norm_out', 'norm')
  yield both('head_conv', 'out.2', 'conv_out', 'conv')


# (path here, original name, name in diffusers, kind, ones) in a residual block.
_RESIDUAL = (
  ('norm_in', 'in_layers.0', 'norm1', 'norm', 0),
  ('conv_in', 'in_layers.2', 'conv1', 'conv', 0),
  ('film', 'emb_layers.1', 'time_emb_proj', 'matrix', 0),
  ('norm_out', 'out_layers.0', 'norm2', 'norm', 0),
  ('conv_out', 'out_layers.3', 'conv2', 'conv', 0),
  ('skip', 'skip_connection', 'conv_shortcut', 'matrix', 2),
)
# (path here, name, kind, ones, bias) in attention.
_ADM_ATTENTION = (
  ('norm', 'norm', 'norm', 0, True),
  ('qkv', 'qkv', 'matrix', 1, True),
  ('out', 'proj_out', 'matrix', 1, True),
)
_BLOCK = (
  ('norm_self', 'norm1', 'norm', 0, True),
  ('attention/q', 'attn1.to_q', 'matrix', 0, False),
  ('attention/k', 'attn1.to_k', 'matrix', 0, False),
  ('attention/v', 'attn1.to_v', 'matrix', 0, False),
  ('attention/out', 'attn1.to_out.0', 'matrix', 0, True),
  ('norm_text', 'norm2', 'norm', 0, True),
  ('text/q', 'attn2.to_q', 'matrix', 0, False),
  ('text/k', 'attn2.to_k', 'matrix', 0, False),
  ('text/v', 'attn2.to_v', 'matrix', 0, False),
  ('text/out', 'attn2.to_out.0', 'matrix', 0, True),
  ('norm_gated', 'norm3', 'norm', 0, True),
  ('gated_in', 'ff.net.0.proj', 'matrix', 0, True),
  ('gated_out', 'ff.net.2', 'matrix', 0, True),
)


def _transformer(described, depth):
  """Yields the layers of a transformer, as in _ADM_ATTENTION."""
  ones = 0 if described.linear else 2
  yield 'norm', 'norm', 'norm', 0, True
  yield 'project_in', 'proj_in', 'matrix', ones, True
  for i in range(depth):
    for path, name, kind, inner_ones, bias in _BLOCK:
      start = f'transformer_blocks.{i}'
      yield f'block_{i}/{path}', f'{start}.{name}', kind, inner_ones, bias
  yield 'project_out', 'proj_out', 'matrix', ones, True


def _places(
  sizes: layout.Sizes,
) -> Iterator[tuple[layout.Place, str, str]]:
  """Yields every place with its original name and that in diffusers."""
  levels, inputs, outputs, parts = len(sizes.widths), 1, 0, 0
  for place in layout.places(sizes):
    level, i = place.level, place.index
    if place.part == 'down':
      name = f'input_blocks.{inputs}.0'
      inputs += 1
      kind = f'resnets.{i}' if place.is_block else 'downsamplers.0'
      yield place, name, f'down_blocks.{level}.{kind}'
    elif place.part == 'middle':
      # Attention is between both blocks.
      yield place, f'middle_block.{2 * i}', f'mid_block.resnets.{i}'
    elif place.is_block:
      name = f'output_blocks.{outputs}.0'
      outputs, parts = outputs + 1, 2 if place.attention else 1
      block = f'up_blocks.{levels - 1 - level}'
      yield place, name, f'{block}.resnets.{i}'
    else:
      # It belongs to the output block before it.
      name = f'output_blocks.{outputs - 1}.{parts}'
      yield place, name, f'up_blocks.{levels - 1 - level}.upsamplers.0'


def find_scheme(tensors: Mapping[str, Any]) -> tuple[str, str]:
  """Returns (scheme, prefix) of the names in a file; ('', '') if unknown."""
  for scheme, first in FIRST.items():
    for prefix in PREFIXES:
      if prefix + first in tensors:
        return scheme, prefix
  return '', ''


def _parameters(
  layers: list[Layer], scheme: str
) -> Iterator[tuple[str, str, str, int]]:
  """Yields (path, published name, kind, ones) of every parameter."""
  for layer in layers:
    name, ones = layer.names[scheme], layer.ones
    if layer.kind == 'table':
      yield layer.path, f'{name}.weight', 'table', 0
      continue
    weight = 'scale' if layer.kind == 'norm' else 'kernel'
    yield f'{layer.path}/{weight}', f'{name}.weight', layer.kind, ones
    if layer.bias:
      yield f'{layer.path}/bias', f'{name}.bias', 'vector', 0


def to_ours(
  layers: list[Layer], scheme: str, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Returns {path: array} of published tensors, all of which must be there."""
  found = {}
  for path, name, kind, ones in _parameters(layers, scheme):
    array = tensors[name]
    if kind == 'conv':
      array = array.transpose(2, 3, 1, 0)
    elif kind == 'matrix':
      array = array.reshape(array.shape[: array.ndim - ones]).T
    found[path] = array
  return found


def to_published(
  layers: list[Layer], scheme: str, flat: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Returns {published name: array}; undoes `to_ours`."""
  found = {}
  for path, name, kind, ones in _parameters(layers, scheme):
    array = np.asarray(flat[path])
    if kind == 'conv':
      array = array.transpose(3, 2, 0, 1)
    elif kind == 'matrix':
      array = array.T.reshape(array.shape[::-1] + (1,) * ones)
    found[name] = array
  return found


def shapes(
  layers: list[Layer], scheme: str, flat: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
  """Returns {published name: shape}.

  Args:
    layers: of the network.
    scheme: of the names.
    flat: {path: array, or abstract one}.
  """
  zeros = {k: np.broadcast_to(np.float32(0), v.shape) for k, v in flat.items()}
  return {k: v.shape for k, v in to_published(layers, scheme, zeros).items()}
