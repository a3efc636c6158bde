"""Every key of a run, once, with its meaning.

A file in `configs/` starts from `default()`, adds its stages with `stage()`
and changes values; nothing else adds keys. The value a key holds here is its
type. A stage is data: `config.train.order` names the stages in the order in
which they run, and `config.stages.<name>` says what each one does.
"""

import ml_collections

ConfigDict = ml_collections.ConfigDict

# What a stage freezes to keep a trained image model while time is learned:
# kernels and norms over space. Embeddings, conditioning (`film`) and temporal
# branches stay free.
SPATIAL = (
  r'^(stem|head_norm|head_conv)/',
  r'_resample/',
  r'/spatial/((norm|conv)_(in|out)|skip)/(kernel|scale|bias)$',
  r'/attention/(norm|attention)/',
)

# Every rule that can leave shots of a video out; `data.screening.rules`.
SCREENING = (
  *('cuts', 'blank', 'frozen', 'letterbox', 'low_frame_rate', 'overlay'),
  *('low_motion', 'high_motion', 'duplicate'),
)

# Networks by size; `config.model.update(PRESETS[...])`. Parameters are for
# latents of 8 channels and 101 classes.
PRESETS = {
  'tiny': dict(  # 0.8 M, for a CPU.
    widths=(32, 64),
    blocks=(1, 1),
    attention_levels=(1,),
    temporal_levels=(0, 1),
    temporal_attention_levels=(1,),
    head_size=32,
    embed_width=128,
  ),
  'small': dict(  # 21 M.
    widths=(128, 256),
    blocks=(2, 2),
    attention_levels=(1,),
    temporal_levels=(0, 1),
    temporal_attention_levels=(1,),
    head_size=64,
    embed_width=512,
  ),
  'base': dict(  # 121 M, for UCF101.
    widths=(192, 384, 576),
    blocks=(2, 2, 2),
    attention_levels=(1, 2),
    temporal_levels=(0, 1, 2),
    temporal_attention_levels=(1, 2),
    head_size=64,
    embed_width=768,
  ),
  'large': dict(  # 287 M.
    widths=(256, 512, 768),
    blocks=(2, 2, 3),
    attention_levels=(1, 2),
    temporal_levels=(0, 1, 2),
    temporal_attention_levels=(1, 2),
    head_size=64,
    embed_width=1280,
  ),
}


def default() -> ConfigDict:
  """Returns the configuration of a run with no stages."""
  config = ConfigDict()
  config.seed = 0  # Root of every random key and of the order of the data.

  config.data = ConfigDict(
    dict(
      # synthetic_scenes | ucf101 | video_folder | driving | webvid; the last
      # three are folders of videos.
      name='synthetic_scenes',
      root='data',  # Folder under which built datasets live.
      source='',  # Folder or archive of the videos it is built from.
      resolution=64,  # Stored height and width, px.
      frame_rate=25.0,  # Stored frames per second.
      encoding='webp',  # webp (lossless) | jpeg (4:4:4, quality 95).
      assumed_rate=25.0,  # Frames per second of a stream that states none.
      upscale=False,  # Enlarge smaller sources instead of leaving them out.
      min_frames=1,  # Shots of fewer stored frames are left out.
      clip_frames=0,  # Cut shots into clips of so many frames; 0: whole shots.
      group='',  # Pattern over a file's path: its recording; '': the file.
      validation=0.1,  # Share of the recordings held out, where no list says.
      split_list='01',  # ucf101: the official train/test list.
      stride=1,  # A clip takes every stride-th stored frame.
      flip=False,  # Mirror half of the training clips.
      fixed_clips=0,  # Train on so many clips alone; 0: on all windows.
      latents='',  # Folder of a latent cache to train on in place of frames.
      max_bad_records=16,  # More unreadable records than this stop a run.
      threads=2,  # Decoding threads of a host.
      workers=0,  # Decoding processes of a host; 0: threads alone.
      # What is left out, see vdm/preparation/screening/rules.py: `rules` names
      # the rules in force, of SCREENING; the others only measure.
      screening=dict(
        rules=(),
        cut_distance=20.0,  # Between shots, grey levels (0 to 255).
        cut_ratio=2.5,  # A cut to the largest but one of 10 steps around it.
        blank_contrast=6.0,  # Standard deviation over a frame, grey levels.
        frozen_seconds=2.0,  # Shorter stretches without movement stay.
        frozen_level=2.0,  # Grey levels that such a stretch may change by.
        min_distinct=0.25,  # Share of stored frames that are no repeats.
        max_overlay=0.008,  # Of the picture: edges of text and watermarks.
        max_overlay_sources=1.0,  # Share of a source's clips with an overlay,
        # beyond which all of them are left out.
        min_motion=0.0005,  # Mean speed, frame widths per second.
        max_motion=3.0,
        duplicate_distance=0.08,  # Share of bits in which copies may differ.
      ),
      # A table with a caption per video; its columns are WebVid's. Files that
      # it does not name are left out.
      captions=dict(
        manifest='',  # .csv, .jsonl or .parquet file; '': no captions.
        folder='page_dir',  # Columns; '': there is none.
        file='videoid',
        caption='name',
        source='contentUrl',  # Who published it; of addresses, the host.
        duration='duration',
        min_words=3,
        max_words=0,  # 0: any number.
        max_repeats=10,  # Captions of more videos than this; 0: any number.
        boilerplate=(  # Patterns; a caption needs min_words besides them.
          r'\b(royalty[- ]free|stock)\s+(video|footage|clip)s?( of)?\b',
          r'\b(4k|uhd|hd|1080p|720p)\b',
          r'\bshutterstock\b|\bgetty( images)?\b|\bpond5\b',
          r'\b(untitled|no (title|description))\b|\b(img|dsc|mvi)[_ ]?\d+',
        ),
        min_seconds=0.0,
        max_seconds=0.0,  # 0: any length.
      ),
      # What a process may use on one video; one that goes beyond costs that
      # video alone.
      limits=dict(
        seconds=7200.0,
        stall_seconds=120.0,  # Without a frame.
        memory_mb=4096,
        pixels=35_500_000,  # Of a frame: 8K.
        workers=0,  # Processes that prepare videos; 0: one a processor.
      ),
      scenes=dict(  # synthetic_scenes: what `scenes.render` is given.
        train=2048,  # Clips of the training split.
        validation=512,  # Clips of the validation split.
        seed=0,  # Of the scenes, not of the run.
        frames=16,  # Frames of a clip.
        objects=1,  # Moving objects, 1 to 3.
        ground='plain',  # plain | textured.
        motion='straight',  # straight | gravity.
        rotation=False,  # Objects turn.
        walls=False,  # Objects bounce off the frame's border.
        crossings=False,  # Paths cross, nearer objects hide others.
      ),
    )
  )

  config.autoencoder = ConfigDict(
    dict(
      kind='kl',  # kl | pca | identity (pixels) | tiny | autoencoder_kl.
      load='',  # Another run's workdir: take its autoencoder instead.
      weights='',  # tiny, autoencoder_kl: their file, or encoder,decoder.
      weights_sha256='',  # What the files' must be; '': what is there.
      scaling_factor=1.0,  # autoencoder_kl: latents (z - shift) * scaling,
      shift_factor=0.0,  # as published diffusion models see them.
      factor=8,  # Spatial reduction, 4 or 8.
      channels=8,  # Channels of a latent.
      bottleneck='kl',  # kl (noise and a prior) | fsq (tokens).
      levels=(8, 5, 5, 5),  # fsq: the values each of the channels takes.
      encoder_width=64,  # Of the branch beside the PCA skip.
      encoder_blocks=1,  # Residual blocks in it.
      decoder_width=128,
      decoder_blocks=2,
      decoder_temporal=False,  # It sees the frames before and after.
      initial_logvar=-4.6,  # Of the posterior: a deviation of 0.1.
      l1_weight=1.0,
      l2_weight=0.0,
      kl_weight=1e-3,  # Of KL(q(z|x) || N(0, 1)), nats per latent value.
      multiscale_weight=1.0,  # Of the L1 terms on smaller copies.
      equivariance_weight=0.0,  # L1: halved latents are those of halved frames.
      adversarial_weight=0.0,  # Of a discriminator's opinion; 0: there is none.
      discriminator_width=32,  # Channels of its first layer.
      scale='shared',  # Latents' standard deviation: shared | channel.
      statistics_clips=256,  # Training clips the statistics are over.
    )
  )

  config.model = ConfigDict(
    dict(
      widths=(32, 64),  # Channels a level, finest first.
      blocks=(1, 1),  # Residual blocks a level.
      attention_levels=(1,),  # Levels with attention over (h w).
      temporal_levels=(0, 1),  # Levels with temporal branches.
      temporal_attention_levels=(1,),  # Of those, with attention over t.
      temporal_depth=1,  # Temporal branches after a spatial block.
      joint_attention=True,  # In the middle, over (t h w).
      head_size=32,  # Channels of an attention head.
      embed_width=128,  # Of the vector that noise level and cond become.
      num_classes=0,  # Labels to condition on; 0: unconditional.
      label_dropout=0.1,  # Share of labels replaced by the null label.
      dropout=0.0,  # In residual blocks.
      convolution='factorised',  # factorised | full (3 x 3 x 3 kernels).
      remat='none',  # Activations recomputed: none | block | dots.
    )
  )

  config.diffusion = ConfigDict(
    dict(
      schedule='cosine',  # cosine | flow | linear (DDPM's betas).
      logsnr_min=-15.0,  # The schedule's ends; -40: zero terminal SNR.
      logsnr_max=15.0,
      shift_base=0,  # Latent tokens (t h w) with no shift; 0: no shift.
      prediction='v',  # The network's output: x0 | eps | v | flow.
      weighting='v',  # Loss flat in: x0 | eps | v | flow; min_snr | edm.
      density='normal',  # normal in log(sigma/alpha) | uniform in time.
      density_mean=1.0,  # Of log(sigma/alpha), for 'normal'.
      density_std=1.4,
      bin_edges=(-6.0, -3.0, 0.0, 3.0, 6.0),  # Loss bins, in log-SNR.
      eval_levels=(-6.0, -3.0, 0.0, 3.0, 6.0),  # Of the validation loss.
      sample_posterior=False,  # Train on samples of latents, not their means.
    )
  )

  config.optim = ConfigDict(
    dict(
      name='adamw',  # adamw | muon (on hidden matrices, AdamW elsewhere).
      b1=0.9,
      b2=0.99,
      eps=1e-8,
      weight_decay=0.0,
      muon_learning_rate=0.01,  # At the peak; scales with a stage's rate.
      muon_momentum=0.95,
      clip_norm=1.0,  # Global gradient norm; 0: no clipping.
      ema=(0.05, 0.10),  # Widths of the averages, sigma_rel (EDM2).
    )
  )

  config.sample = ConfigDict(
    dict(
      method='ddim',  # ddim | heun | dpmpp.
      steps=32,
      eta=0.0,  # ddim: 0 deterministic, 1 ancestral.
      grid='rho',  # time | logsnr | rho.
      rho=5.0,
      sigma_max=50.0,  # Of sigma/alpha, for the rho grid.
      sigma_min=0.05,
      guidance=2.0,  # 1: none.
      guidance_interval=(-40.0, 40.0),  # Log-SNR range it acts in.
      guidance_rescale=0.0,
      ema=0.10,  # Which average makes the videos.
      num=8,  # Videos of a preview, one label after the other.
      batch=32,  # Videos made at once.
      final=64,  # Videos of `final/`, when the run ends.
      seed=0,  # Video i uses seed + i.
    )
  )

  config.score = ConfigDict(
    dict(
      every=1000,  # Steps of a stage between small scores; 0: none.
      num=32,  # Videos of one, and held-out clips to compare them with.
      best='motion',  # Whose least score is kept as a checkpoint: motion |
      # spectrum | texture | appearance | panel | none.
    )
  )

  config.train = ConfigDict(
    dict(
      order=(),  # Names of the stages, in the order they run.
      init_from='',  # A run whose average a new run starts from.
      compute_dtype='float32',  # float32 | bfloat16; state is float32.
      fsdp=1,  # Devices over which big parameters are sharded.
      log_every=10,  # Steps between rows of metrics.jsonl.
      eval_every=200,  # Steps between validation losses.
      eval_clips=64,  # Held-out clips of the validation loss.
      preview_every=200,  # Steps between sets of sample videos.
      save_every=200,  # Steps between checkpoints.
      save_minutes=10.0,  # Or this long after the last one.
      keep=2,  # Latest checkpoints kept,
      keep_every=0,  # and those of steps that this divides; 0: no others.
      max_skipped=10,  # Of 100 steps; more that are not finite stop a run.
      peer_seconds=60.0,  # A process silent for longer has gone.
      barrier_minutes=30.0,  # To wait for a process that is alive.
      tensorboard=True,
    )
  )
  config.stages = ConfigDict()
  return config


def stage(**values) -> ConfigDict:
  """Returns one stage's configuration, `values` over its defaults."""
  config = ConfigDict(
    dict(
      objective='diffusion',  # autoencoder | diffusion.
      steps=0,
      frames=1,  # Of a training clip; 1: images.
      resolution=64,  # Of a clip, px; at most data.resolution.
      crop=0,  # Train on random parts of so many px; 0: on all of a clip.
      zoom=(1.0, 1.0),  # Range: frames so much larger, before the crop.
      batch=8,  # Clips a step, over all devices and hosts.
      accumulate=1,  # Parts a batch is worked through in.
      image_fraction=0.0,  # Share of the steps made on single frames.
      frozen=(),  # Parameters held: patterns over their paths.
      learning_rate=1e-3,  # At its peak.
      warmup=100,  # Steps up to the peak.
      cooldown=0.5,  # Share of the steps, at the end, down to zero.
      frame_levels=dict(shared=1.0, context=0.0, independent=0.0),
    )
  )
  config.update(values)
  return config


def complete(config) -> ConfigDict:
  """Returns the configuration of a run that an earlier version wrote.

  Keys that it did not know have their defaults, which are by rule what was
  done before there was the key.
  """
  config = ConfigDict(config.to_dict())

  def fill(node, defaults):
    for key, value in defaults.items():
      if key not in node:
        node[key] = value
      elif isinstance(value, ConfigDict):
        fill(node[key], value)

  fill(config, default())
  for one in config.stages.values():
    fill(one, stage())
  return config
