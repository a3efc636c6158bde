"""vdm: train a latent video-diffusion model from scratch."""
