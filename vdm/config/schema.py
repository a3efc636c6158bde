"""Every key of a run, once: its default, its constraint and its meaning.

A file in `configs/` starts from `default()`, adds its stages with `stage()`
and changes values; nothing else adds keys. `positive`, `one_of` and so on are
constraints, see `keys`; a value without one is a default of its type, and
numbers are then at least 0. A stage is data: `config.train.order` names the
stages in the order in which they run, and `config.stages.<name>` says what each
one does.
"""

from collections.abc import Iterable, Iterator
import itertools
from typing import Any

from ml_collections import ConfigDict

from vdm.common import errors
from vdm.config import serialize
from vdm.config import suggest
from vdm.config.keys import (
  at_least,
  below,
  even,
  factors,
  interval,
  Key,
  one_of,
  plain,
  positive,
  regex,
  rising,
  share,
  signed,
  some_of,
)

# Every rule that can leave shots of a video out.
SCREENING = (
  'cuts',
  'blank',
  'frozen',
  'letterbox',
  'low_frame_rate',
  'overlay',
  'low_motion',
  'high_motion',
  'duplicate',
)

KEYS: dict[str, Any] = dict(
  seed=0,  # Root of every random key and of the order of the data.
  data=dict(
    name=one_of(  # The last three are folders of videos.
      'synthetic_scenes', 'ucf101', 'video_folder', 'driving', 'webvid'
    ),
    root='data',  # Folder under which built data sets are stored.
    source='',  # Folder or archive of the videos it is built from.
    follow_links=False,  # Also links that lead outside of that folder.
    resolution=positive(64),  # Stored height, px,
    width=0,  # and width; 0: as high, frames are square.
    frame_rate=positive(25.0),  # Stored frames per second.
    encoding=one_of('webp', 'jpeg'),  # Lossless, or 4:4:4 of quality 95.
    assumed_rate=positive(25.0),  # Frames per second of a stream without one.
    upscale=False,  # Enlarge smaller sources instead of leaving them out.
    min_frames=positive(1),  # Shots of fewer stored frames are left out.
    clip_frames=0,  # Cut shots into clips of this many frames; 0: whole shots.
    group=regex(''),  # Over a file's path: its recording; '': the file.
    validation=share(0.1),  # Share of recordings held out, without a list.
    split_list=one_of('01', '02', '03'),  # ucf101: official train/test list.
    stride=positive(1),  # A clip takes every stride-th stored frame,
    max_stride=0,  # or in training one of up to so many; 0: stride alone.
    flip=False,  # Mirror half of the training clips.
    fixed_clips=0,  # Train on this many clips only; 0: on all windows.
    latents='',  # Folder of a latent cache to train on instead of frames.
    texts='',  # Folder of a text cache, for model.text.encoder=pretrained.
    max_bad_records=16,  # More unreadable records than this stop a run.
    threads=positive(2),  # Decoding threads of a process.
    workers=0,  # Decoding workers of a process; 0: threads only.
    # What is left out, see vdm/preparation/screening/rules.py.
    screening=dict(
      rules=some_of(SCREENING),  # Rules in force; the others only measure.
      # Between shots, grey levels (0 to 255); less between dark pictures.
      cut_distance=positive(20.0),
      cut_ratio=positive(2.5),  # To the second largest of 10 steps around it.
      blank_contrast=6.0,  # Standard deviation over a frame, grey levels.
      frozen_seconds=positive(2.0),  # Shorter stretches without motion stay.
      frozen_level=2.0,  # Grey levels that such a stretch may change by.
      min_distinct=share(0.25),  # Share of stored frames that are not repeats.
      max_overlay=share(0.008),  # Of the picture: edges of text, watermarks.
      # Share of a source's clips with an overlay, above which all of them
      # are left out.
      max_overlay_sources=share(1.0),
      min_motion=0.0005,  # Mean speed, frame widths per second.
      max_motion=positive(3.0),
      # Share of bits in which copies may differ.
      duplicate_distance=share(0.08),
    ),
    # A table with a caption per video; its columns are WebVid's. Files that
    # it does not name are left out.
    captions=dict(
      manifest='',  # .csv, .jsonl or .parquet file; '': no captions.
      folder='page_dir',  # Columns; '': there is none.
      file='videoid',
      caption='name',
      source='contentUrl',  # The publisher; of a URL, its host name.
      duration='duration',
      min_words=3,
      max_words=0,  # 0: any number.
      max_repeats=10,  # Captions of more videos than this; 0: any number.
      boilerplate=regex(  # A caption needs min_words besides these.
        (
          r'\b(royalty[- ]free|stock)\s+(video|footage|clip)s?( of)?\b',
          r'\b(4k|uhd|hd|1080p|720p)\b',
          r'\bshutterstock\b|\bgetty( images)?\b|\bpond5\b',
          r'\b(untitled|no (title|description))\b|\b(img|dsc|mvi)[_ ]?\d+',
        )
      ),
      min_seconds=0.0,
      max_seconds=0.0,  # 0: any length.
    ),
    # What a process may use on one video; a video that needs more is skipped.
    limits=dict(
      seconds=positive(7200.0),
      stall_seconds=positive(120.0),  # Without a frame.
      memory_mb=4096,
      pixels=positive(35_500_000),  # Of a frame: 8K.
      workers=0,  # Processes that prepare videos; 0: one per processor.
    ),
    scenes=dict(  # synthetic_scenes: arguments of `scenes.render`.
      train=positive(2048),  # Clips of the training split.
      validation=positive(512),  # Clips of the validation split.
      seed=0,  # Of the scenes, not of the run.
      frames=positive(16),  # Frames of a clip.
      objects=one_of(1, 2, 3),  # Moving objects.
      ground=one_of('plain', 'textured'),
      motion=one_of('straight', 'gravity'),
      rotation=False,  # Objects turn.
      walls=False,  # Objects bounce off the frame's border.
      crossings=False,  # Paths cross, nearer objects hide others.
      # Captions of the scenes, of which some combinations are held out.
      captions=False,
    ),
  ),
  autoencoder=dict(
    # identity: pixels; the last two are published networks.
    kind=one_of('kl', 'pca', 'identity', 'tiny', 'autoencoder_kl'),
    load='',  # Another run or an export: take its autoencoder instead.
    weights='',  # tiny, autoencoder_kl: their file, or encoder,decoder.
    weights_sha256='',  # Expected hashes of the files; '': any.
    # autoencoder_kl: (z - shift) * scaling is what published diffusion models
    # see; left at 1 and 0, they are as its config.json says.
    scaling_factor=positive(1.0),
    shift_factor=signed(0.0),
    norm_groups=0,  # autoencoder_kl: of its norms; 0: as its config.json says.
    factor=one_of(8, 4),  # Spatial reduction.
    # Frames of a latent, for kl and pca: above 1 the diffusion model sees as
    # many times fewer, and no single frame can be given or trained on.
    time_factor=one_of(1, 2, 4),
    channels=positive(8),  # Channels of a latent.
    bottleneck=one_of('kl', 'fsq'),  # Noise and a prior, or tokens.
    levels=at_least(2, (8, 5, 5, 5)),  # fsq: values that each channel takes.
    encoder_width=positive(64),  # Of the branch beside the PCA skip.
    encoder_blocks=1,  # Residual blocks in it.
    decoder_width=positive(128),
    decoder_blocks=2,
    decoder_temporal=False,  # The decoder sees neighbouring frames.
    initial_logvar=signed(-4.6),  # Of the posterior: a deviation of 0.1.
    l1_weight=1.0,
    l2_weight=0.0,
    kl_weight=1e-3,  # Of KL(q(z|x) || N(0, 1)), nats per latent value.
    multiscale_weight=1.0,  # Of the L1 terms on smaller copies.
    equivariance_weight=0.0,  # L1: halved latents decode to halved frames.
    adversarial_weight=0.0,  # Of a discriminator; 0: without one.
    discriminator_width=positive(32),  # Channels of its first layer.
    # What latents are divided by: their standard deviation, or nothing, as
    # published diffusion models know them.
    scale=one_of('shared', 'channel', 'none'),
    statistics_clips=positive(256),  # Training clips for the statistics.
  ),
  model=dict(
    # unet: of this project. The next two are published image models to which
    # temporal branches are added: ADM of guided-diffusion, and the conditional
    # U-Net of Stable Diffusion's family; see vdm/models/image_unets. The last
    # is of masked tokens, see objective='tokens'.
    kind=one_of('unet', 'adm', 'conditional', 'transformer'),
    transformer=dict(  # Its sizes, in place of those of the U-Net's levels.
      width=positive(128),  # Channels of a position.
      depth=positive(6),  # Blocks.
      joint=True,  # Blocks attend over (t h w); else over (h w), then over t.
      # Values of a token, at most: else channels make several a position.
      vocabulary=positive(1024),
    ),
    weights='',  # Of the image model, a file; '': none, it starts anew.
    weights_sha256='',  # Expected hash of the file; '': any.
    # Description of the image model, JSON; '': the config.json beside the
    # weights. It decides about widths, blocks and attention_levels; resample
    # and convolution are of unet alone.
    architecture='',
    adapter_rank=0,  # Of LoRA on its attention, merged on export; 0: none.
    adapter_alpha=positive(8.0),  # Their change is scaled by alpha / rank.
    widths=positive((32, 64)),  # Channels per level, finest first.
    # Frames that are one position in time, their latents being channels of it;
    # above 1 there are no stages of single frames.
    time_patch=one_of(1, 2, 4, 8),
    blocks=positive((1, 1)),  # Residual blocks per level.
    attention_levels=(1,),  # Levels with attention over (h w).
    temporal_levels=(0, 1),  # Levels with temporal branches.
    temporal_attention_levels=(1,),  # Of those, with attention over t.
    temporal_depth=positive(1),  # Temporal branches after a spatial block.
    joint_attention=True,  # In the middle, over (t h w).
    joint_levels=0,  # Coarsest levels with it in every block.
    # Between levels: a 3 x 3 convolution, or a matrix product between each
    # position and the 2 x 2 finer ones, which is cheaper.
    resample=one_of('conv', 'linear'),
    head_size=positive(32),  # Channels of an attention head.
    # cudnn: fused on NVIDIA GPUs in bfloat16, where a run then no longer
    # repeats to the bit; plain elsewhere.
    attention=one_of('plain', 'cudnn'),
    embed_width=even(128),  # Of the embedding of the noise level and cond.
    num_classes=0,  # Labels to condition on; 0: unconditional.
    label_dropout=share(0.1),  # Share of labels replaced by the null label.
    # Numbers to condition videos on, see vdm/data/scalars.py.
    scalars=some_of(('frame_rate', 'motion')),
    scalar_dropout=share(0.1),  # Share of each of them that is not told.
    # What was trained, frame widths a second; (0, 0): measured at the start.
    motion_range=interval((0.0, 0.0), least=0.0),
    # A smaller video that is told, which the network enlarges or to which it
    # adds frames, see vdm/diffusion/cascade.py. Off where both factors are 1.
    low=dict(
      space_factor=one_of(1, 2, 4, 8),  # Its frames are so many times smaller,
      time_factor=one_of(1, 2, 4, 8),  # and so many times fewer.
      # Range of the sigma of noise that training adds to it.
      noise=interval((0.0, 0.5), least=0.0),
      residual=False,  # Make what it lacks alone; for space_factor.
    ),
    dropout=share(0.0),  # In residual blocks.
    convolution=one_of('factorised', 'full'),  # full: 3 x 3 x 3 kernels.
    remat=one_of('none', 'block', 'dots'),  # Activations recomputed.
    # Captions to condition on; learned: a table of words trained along;
    # pretrained: tokens of a published encoder, see data.texts.
    text=dict(
      encoder=one_of('none', 'learned', 'pretrained'),
      dropout=share(0.1),  # Share of captions that are not told.
      length=positive(32),  # Tokens of a caption; further ones are cut off.
      width=positive(128),  # Channels of a token.
      layers=2,  # Of the transformer over tokens.
      vocabulary=positive(4096),  # learned: words, the most frequent ones.
      features=positive(512),  # pretrained: channels of an encoded token.
      name='',  # pretrained: of the encoder on the hub, or its folder.
      revision='',  # pretrained: commit or tag of the hub.
      # pretrained: captions have their padding to `length`, and none is the
      # encoded empty prompt, as published image models were trained.
      padded=False,
    ),
  ),
  diffusion=dict(
    schedule=one_of('cosine', 'flow', 'linear'),  # linear: DDPM's betas.
    logsnr_min=signed(-15.0),  # The schedule's ends; -40: zero terminal SNR.
    logsnr_max=signed(15.0),
    shift_base=0,  # Latent tokens (t h w) with no shift; 0: no shift.
    prediction=one_of('v', 'x0', 'eps', 'flow', 'edm'),  # The network's output.
    # All but min_snr: the loss is flat in that prediction.
    weighting=one_of('v', 'x0', 'eps', 'flow', 'min_snr', 'edm'),
    # edm: of the noise above which the network makes an x0, below it an eps.
    sigma_data=positive(1.0),
    density=one_of('normal', 'uniform'),  # In log(sigma/alpha), or in time.
    density_mean=signed(1.0),  # Of log(sigma/alpha), for 'normal'.
    density_std=positive(1.4),
    bin_edges=rising((-6.0, -3.0, 0.0, 3.0, 6.0)),  # Loss bins, in log-SNR.
    eval_levels=signed((-6.0, -3.0, 0.0, 3.0, 6.0)),  # Of validation losses.
    sample_posterior=False,  # Train on samples of latents, not their means.
  ),
  # A stage with objective='consistency', see vdm/diffusion/consistency.py.
  consistency=dict(
    guidance=2.0,  # That of the teacher, which is distilled; 1: none.
    tighten=at_least(1, 2.0),  # Factor q on the gap between two noise levels.
    times=positive(8),  # How often it shrinks, at even intervals of the stage.
    huber=positive(0.00054),  # Error below which the metric is its square.
    # Of the sampler: with method='consistency' and without guidance, these come
    # in place of sample.steps for the models of such stages.
    steps=positive(4),
  ),
  # A stage with objective='tokens', see vdm/diffusion/masking.py.
  tokens=dict(
    label_smoothing=share(0.0),
    # Shares of masked tokens at which validation losses are taken.
    eval_shares=share((0.25, 0.5, 0.75, 1.0)),
  ),
  optim=dict(
    name=one_of('adamw', 'muon'),  # muon: hidden matrices; AdamW elsewhere.
    b1=share(0.9),
    b2=share(0.99),
    eps=positive(1e-8),
    weight_decay=0.0,
    muon_learning_rate=0.01,  # At the peak; scales with a stage's rate.
    muon_momentum=share(0.95),
    clip_norm=1.0,  # Global gradient norm; 0: no clipping.
    # Widths of the averages, sigma_rel. EDM2, equation 126: the power function
    # exists below 12^-0.5.
    ema=below(12**-0.5, (0.05, 0.10)),
  ),
  sample=dict(
    method=one_of('ddim', 'heun', 'dpmpp', 'consistency', 'unmask'),
    steps=positive(32),
    image_first=False,  # The first frame as an image, the others given it.
    eta=share(0.0),  # ddim: 0 deterministic, 1 ancestral.
    grid=one_of('rho', 'time', 'logsnr'),
    rho=positive(5.0),
    sigma_max=positive(50.0),  # Of sigma/alpha, for the rho grid.
    sigma_min=positive(0.05),
    guidance=2.0,  # By label and caption; 1: none.
    guidance_by='',  # Scales by group, as in 'given=1.5,label=2,text=5'.
    guidance_interval=interval((-40.0, 40.0)),  # Log-SNR range of guidance.
    guidance_rescale=share(0.0),
    # Updates of the stage whose average is guided against, in place of the
    # null condition (autoguidance); 0: the null condition.
    autoguide=0,
    temperature=positive(1.0),  # unmask: of the tokens that are drawn.
    # unmask: of the noise on which tokens a step keeps; it falls to zero.
    order_noise=4.5,
    low_noise=share(0.0),  # Sigma of noise on a smaller video, see model.low.
    ema=0.10,  # Width of the average that makes the videos.
    num=positive(8),  # Videos of a preview, cycling through the labels.
    captions=(),  # Prompts of previews and final videos, in turn; (): held-out.
    batch=positive(32),  # Videos made at once.
    final=64,  # Videos of `final/`, when the run ends.
    seed=0,  # Video i uses seed + i.
  ),
  score=dict(
    every=1000,  # Steps of a stage between small scores; 0: none.
    num=positive(32),  # Videos per score, and held-out clips to compare with.
    # The measure whose lowest score is kept as a checkpoint. By default none:
    # of so few clips, `motion` ranked shuffled real clips above the demo's
    # samples and was lowest for a model that was half trained.
    best=one_of('none', 'motion', 'spectrum', 'texture', 'appearance', 'panel'),
  ),
  train=dict(
    order=(),  # Names of the stages, in the order in which they run.
    init_from='',  # A run or export whose average a new run starts from.
    compute_dtype=one_of('float32', 'bfloat16'),  # The state is float32.
    cpu_devices=positive(1),  # That a CPU acts as, where batches divide.
    fsdp=positive(1),  # Devices over which big parameters are sharded.
    log_every=positive(10),  # Steps between rows of metrics.jsonl.
    eval_every=positive(200),  # Steps between validation losses.
    eval_clips=positive(64),  # Held-out clips of the validation loss.
    preview_every=positive(200),  # Steps between sets of sample videos.
    save_every=positive(200),  # Steps between checkpoints.
    save_minutes=positive(10.0),  # Or this long after the last one.
    keep=positive(2),  # Latest checkpoints to keep,
    keep_every=0,  # and those of steps that this divides; 0: no others.
    # Steps between snapshots of the averages, to make other widths of; 0: none.
    snapshot_every=0,
    max_skipped=10,  # Non-finite steps of 100; more of them stop a run.
    peer_seconds=positive(60.0),  # A process silent for longer is lost.
    barrier_minutes=positive(30.0),  # To wait for a process that is alive.
    tensorboard=True,
  ),
  log=dict(  # Where else rows, videos and the configuration go.
    wandb='',  # A project of Weights & Biases; '': not there.
    trackio='',  # A project of Trackio; '': not there.
  ),
  stages={},  # One STAGE by name.
)

STAGE = dict(
  objective=one_of('diffusion', 'autoencoder', 'consistency', 'tokens'),
  steps=positive(0),  # Each stage gives its own; the default is refused.
  frames=positive(1),  # Of a training clip; 1: images.
  resolution=positive(64),  # Height of a clip, px; at most data.resolution.
  width=0,  # Its width, px; 0: as high, clips are square.
  crop=0,  # Train on random squares of this many px; 0: on whole frames.
  # Range of factors by which frames are larger before the crop.
  zoom=interval((1.0, 1.0), least=1.0),
  batch=positive(8),  # Clips per step, over all devices and processes.
  accumulate=positive(1),  # Parts in which a batch is processed.
  image_fraction=share(0.0),  # Share of the steps on single frames,
  images=one_of('all', 'first'),  # all of a clip's, or the one that begins it.
  frozen=(),  # Regular expressions over the paths of frozen parameters.
  learning_rate=positive(1e-3),  # At its peak.
  # Factors on both optimizers' rates, weight decay included, of the parameters
  # whose paths a pattern is found in; the first that is found counts.
  rates=factors(),
  warmup=100,  # Steps up to the peak.
  cooldown=share(0.5),  # Share of the steps: the final decay to zero.
  frame_levels=dict(shared=1.0, context=0.0, independent=0.0, first=0.0),
  context_noise=share(0.0),  # Largest sigma of given frames; 0: all clean.
)

# Keys of earlier versions: their names now, or None for keys that are gone. A
# key of every stage is written as 'stages.*.learning_rate'.
RENAMED: dict[str, str | None] = {}


def default() -> ConfigDict:
  """Returns the configuration of a run with no stages."""
  return ConfigDict(_defaults(KEYS))


def stage(**values: Any) -> ConfigDict:
  """Returns one stage's configuration, `values` over its defaults."""
  config = ConfigDict(_defaults(STAGE))
  config.update(values)
  return config


def changed(
  name: str, group: ConfigDict, names: Iterable[str]
) -> dict[str, Any]:
  """Returns those of some keys that are not at their defaults, with these.

  Args:
    name: of the group, such as 'sample'.
    group: its values.
    names: of keys in it.
  """
  defaults = default()[name]
  return {x: defaults[x] for x in names if group[x] != defaults[x]}


def keys(stages: Iterable[str] = ()) -> dict[str, Key]:
  """Returns {'model.widths': Key, ...} of a run with these stages."""
  tree = KEYS | {'stages': dict.fromkeys(stages, STAGE)}
  return {
    name: value if isinstance(value, Key) else plain(value)
    for name, value in serialize.flatten(tree).items()
  }


def complete(config: ConfigDict) -> ConfigDict:
  """Returns the configuration of a run that an earlier version wrote.

  Keys that it did not know get their defaults, which by rule are what the code
  did before the key existed. Renamed keys get their new names.

  Raises:
    UsageError: it is no configuration of a run: a group or a value is missing
      or of another type.
  """
  stages = config.get('stages')
  if not isinstance(stages, ConfigDict):
    raise errors.UsageError('config.stages is not a group of keys.')
  stages = list(stages)
  renamed = {
    old.replace('*', name): new and new.replace('*', name)
    for old, new in RENAMED.items()
    for name in stages
  }
  known = keys(stages)
  groups = {group for name in known for group in _groups_of(name)}
  values = {name: key.default for name, key in known.items()}
  for old, value in serialize.flatten(config).items():
    if (new := renamed.get(old, old)) is None:
      continue
    if new in groups:
      raise errors.UsageError(f'config.{new}={value!r} is not a group of keys.')
    for parent in _groups_of(new):
      if parent in known:
        raise errors.UsageError(f'config.{parent} is not a value.')
    if new in known and (problem := known[new].type_problem(value)):
      raise errors.UsageError(f'config.{new}={problem}')
    values[new] = value
  for name in values['train.order']:
    if name not in stages:
      raise errors.UsageError(
        f'config.train.order names {name!r}, which is not a stage'
        f'{suggest.hint(name, stages)}'
      )
  return serialize.unflatten(values)


def _groups_of(name: str) -> Iterator[str]:
  """Yields 'model' and 'model.text' of 'model.text.width'."""
  return itertools.accumulate(name.split('.')[:-1], '{}.{}'.format)


def _defaults(tree: Any) -> Any:
  if isinstance(tree, dict):
    return {name: _defaults(value) for name, value in tree.items()}
  return tree.default if isinstance(tree, Key) else tree
