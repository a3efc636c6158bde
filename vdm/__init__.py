"""vdm: train a latent video-diffusion model from scratch."""

import os

# Read by etils.epath when it meets its first path: it reaches gs:// through
# gcsfs then, and not through TensorFlow, which takes long to import and which
# sampling does without. See `vdm.common.buckets`.
os.environ.setdefault('EPATH_USE_TF', 'false')
