"""A published image model learns to move, on one GPU of 24 GB.

Temporal branches are added to an image U-Net that stays as it is, and are
trained alone on your own videos (Blattmann et al., 2304.08818; Guo et al.,
2307.04725). By default the image model is ADM of guided-diffusion at 64x64, in
pixels (MIT licence): download 64x64_diffusion.pt as its README says, then

  python -m vdm.prepare clips --config configs/inflate.py \
      --config.data.source=/path/to/videos
  python -m vdm.main --config configs/inflate.py \
      --config.model.weights=/path/to/64x64_diffusion.pt

Variants, joined by commas after a colon:

  sd15    Stable Diffusion 1.x, its latents and words, 256x256
  sd21    Stable Diffusion 2.1, which predicts v
  bksdm   BK-SDM-Tiny, 323 M parameters
  all     then everything, the image model at a tenth of the rate
  smoke   everything small, the image model untrained: needs no weights

These three take text: videos with a table of captions (columns `file` and
`caption`), and the files of a pipeline in diffusers' layout, of which
`weights/sd15/` has to hold `unet/`, `scheduler/`, `vae/`, `text_encoder/` and
`tokenizer/`, as safetensors. (`sd21`: the same in weights/sd21; `bksdm`:
weights/bksdm.) `weights/sd15/text_encoder` encodes every caption once and the
prompts later, for which alone it takes the extra `text`:

  python -m vdm.prepare clips --config configs/inflate.py:sd15 \
      --config.data.source=/path/to/videos \
      --config.data.captions.manifest=/path/to/captions.csv
  python -m vdm.prepare captions --config configs/inflate.py:sd15
  python -m vdm.main --config configs/inflate.py:sd15
  python -m vdm.sample --workdir runs/inflate_sd15 --caption 'a dog runs'

Hardware: an NVIDIA GPU of 24 GB. The image model is in bfloat16 without moments
or averages, 2 bytes a parameter instead of 20. Not trained yet. Estimated by
`python -m vdm.plan`: 9.3 GiB (`sd15` 9.2, `bksdm` 4.2) and 20, 22 and 15 hours
on an RTX 4090 at 35 % of its peak; see docs/image_models.md.
"""

import json

from vdm.config import recipes
from vdm.config import schema
from vdm.config import variants

VARIANTS = ('sd15', 'sd21', 'bksdm', 'all', 'smoke')

# guided-diffusion's flags of its network of 64x64.
ADM = dict(
  image_size=64,
  num_channels=192,
  num_res_blocks=3,
  attention_resolutions='32,16,8',
  num_head_channels=64,
  class_cond=True,
  learn_sigma=True,
  noise_schedule='cosine',
  resblock_updown=True,
  use_new_attention_order=True,
  use_scale_shift_norm=True,
)
TINY = ADM | dict(
  num_channels=32, num_res_blocks=1, channel_mult='1,1', num_head_channels=32
)
# What differs between the models of Stable Diffusion's family, as in their
# config.json.
SD15 = dict(cross_attention_dim=768)  # CLIP ViT-L/14, the last layer.
SD21 = dict(
  cross_attention_dim=1024,
  attention_head_dim=[5, 10, 20, 20],
  use_linear_projection=True,
  prediction_type='v_prediction',
)
BKSDM = SD15 | dict(
  block_out_channels=[320, 640, 1280],
  down_block_types=['CrossAttnDownBlock2D'] * 3,
  mid_block_type=None,
  up_block_types=['CrossAttnUpBlock2D'] * 3,
  layers_per_block=1,
)
# Description, widths, blocks of a level.
MODELS = {
  'adm': (ADM, (192, 384, 576, 768), 3),
  'tiny': (TINY, (32, 32), 1),
  'sd15': (SD15, (320, 640, 1280, 1280), 2),
  'sd21': (SD21, (320, 640, 1280, 1280), 2),
  'bksdm': (BKSDM, (320, 640, 1280), 1),
}


def get_config(variant: str = ''):
  names = variant.split(',')
  config = recipes.on_an_accelerator(every=5000)
  config.data.update(
    name='video_folder', source='videos', frame_rate=12.0, min_frames=16
  )
  config.stages.motion = schema.stage(
    frames=16,
    frozen=recipes.IMAGE,
    steps=20_000,
    warmup=1000,
    learning_rate=1e-4,
  )
  config.train.order = ('motion',)
  if 'all' in names:
    config.stages.all = schema.stage(
      frames=16,
      steps=20_000,
      warmup=1000,
      learning_rate=1e-4,
      rates=((recipes.IMAGE[0], 0.1),),
    )
    config.train.order = ('motion', 'all')
  config.sample.update(guidance=1.0, steps=50, batch=8)
  chosen = next((x for x in names if x in MODELS), 'adm')
  chosen = 'tiny' if 'smoke' in names else chosen
  choose(config, chosen)
  if chosen in ('adm', 'tiny'):
    pixels(config)
  else:
    latents(config, chosen)
  if 'smoke' in names:
    smoke(config)
  return variants.apply(config, variant, VARIANTS)


def choose(config, name):
  """Adds branches to an image model: at every level, and over t but there."""
  description, widths, blocks = MODELS[name]
  levels = tuple(range(len(widths)))
  config.model.update(
    architecture=json.dumps(description),
    widths=widths,
    blocks=(blocks,) * len(widths),
    temporal_levels=levels,
    temporal_attention_levels=levels[1:],
    head_size=64,
    embed_width=512,
    remat='block',
  )


def pixels(config):
  """ADM, without labels: those of ImageNet say nothing of your videos."""
  config.autoencoder.update(kind='identity', scale='none')
  config.model.update(kind='adm', weights='weights/64x64_diffusion.pt')
  # As it was trained; the branches learn what is left.
  config.diffusion.update(prediction='eps', weighting='eps')
  config.diffusion.update(density_mean=0.5, density_std=1.6)
  for stage in config.stages.values():
    stage.update(batch=16, accumulate=4)


def latents(config, name):
  """Stable Diffusion's family: latents of factor 8, text."""
  config.data.resolution = 256
  config.autoencoder.update(
    kind='autoencoder_kl',
    scale='none',
    factor=8,
    channels=4,
    scaling_factor=0.18215,
    weights=f'weights/{name}/vae/diffusion_pytorch_model.safetensors',
  )
  config.model.update(
    kind='conditional',
    weights=f'weights/{name}/unet/diffusion_pytorch_model.safetensors',
  )
  prediction = 'v' if name == 'sd21' else 'eps'
  # The ends of its table of betas: log-SNR 7.07 and -5.36, sigmas 0.0292 and
  # 14.6.
  config.diffusion.update(
    prediction=prediction,
    weighting=prediction,
    logsnr_min=-5.36,
    logsnr_max=7.06,
    density_mean=0.5,
  )
  config.sample.update(sigma_min=0.03, sigma_max=14.6, guidance=7.5)
  words(config, name)
  for stage in config.stages.values():
    stage.update(resolution=256, batch=16, accumulate=16)


def words(config, name):
  """Captions as the image model knows them: all 77 tokens of its encoder."""
  config.data.captions.update(
    folder='', file='file', caption='caption', source='', duration=''
  )
  config.data.texts = f'texts/{name}'
  config.model.text.update(
    encoder='pretrained',
    name=f'weights/{name}/text_encoder',
    padded=True,
    length=77,
    features=MODELS[name][0]['cross_attention_dim'],
  )


def smoke(config):
  """The stages on a CPU, in minutes."""
  config.model.update(weights='', head_size=16, embed_width=32, remat='none')
  config.train.compute_dtype = 'float32'
