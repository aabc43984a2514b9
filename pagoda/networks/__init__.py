"""Denoiser U-Net, one-step generator and its growth, discriminator, embedded classifier."""
