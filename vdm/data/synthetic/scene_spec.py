"""What a scene consists of: the options of `scenes.render`."""

import dataclasses

from vdm.common import sizes

GROUNDS = ('plain', 'textured')
MOTIONS = ('straight', 'gravity')


@dataclasses.dataclass(frozen=True)
class SceneSpec:
  """The options of a scene; raises ValueError if one is out of range.

  Attributes:
    resolution: height, px; lengths and speeds scale with the shorter side.
    frames: frames of the scene.
    width: px; 0: as high.
    objects: 1 to 3; their colours differ by 60 degrees of hue or more. They
      never collide: without `crossings` they never meet.
    ground: 'plain' (black) or 'textured' (still, dark and nearly grey).
    motion: 'straight' or 'gravity' (downwards).
    rotation: objects turn steadily; a turning object keeps its distance from
      walls and others as its circumscribed circle.
    walls: objects may reach the walls and bounce off them elastically. Without
      it every start from which no wall is touched is equally likely.
    crossings: two objects are apart at first and at last, and one hides at
      least the centre of the other in between.
    captions: colours are near those that have names, see `captions`.
  """

  resolution: int
  frames: int
  objects: int = 1
  ground: str = 'plain'
  motion: str = 'straight'
  rotation: bool = False
  walls: bool = False
  crossings: bool = False
  captions: bool = False
  width: int = 0

  @property
  def size(self) -> sizes.Size:
    """Height and width, px."""
    return sizes.of(vars(self))

  def __post_init__(self):
    least = 16 if self.objects == 1 else 32
    if min(self.size) < least:
      raise ValueError(
        f'Scenes of {self.objects} objects need {least} px or more, not '
        f'{sizes.text(self.size)}.'
      )
    if self.frames < 1:
      raise ValueError(f'Scenes need at least one frame, not {self.frames}.')
    if self.objects not in (1, 2, 3):
      raise ValueError(f'Scenes have one to three objects, not {self.objects}.')
    if self.ground not in GROUNDS:
      raise ValueError(f'The ground is one of {GROUNDS}, not {self.ground!r}.')
    if self.motion not in MOTIONS:
      raise ValueError(f'The motion is one of {MOTIONS}, not {self.motion!r}.')
    if self.crossings and (self.objects == 1 or self.frames < 4):
      raise ValueError('Crossings need two objects and four frames or more.')
