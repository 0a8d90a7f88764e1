"""A small variational autoencoder (Kingma and Welling 2014) of digits, for comparison.

Its bound is on the same scale as DDPM's: the decoder gives each of the 256 grey levels a mass, by
a logistic distribution with a mean and a scale for each pixel (Kingma et al. 2016, appendix).
"""

import math
import time
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

Pixels = NDArray[np.uint8]

BATCH: Final = 128


class VAE(nn.Module):
    """Encoder and decoder of one hidden layer each, for `pixels` numbers in -1 .. 1."""

    def __init__(self, pixels: int, width: int = 320, latent: int = 16) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = nn.Sequential(
            nn.Linear(pixels, width), nn.SiLU(), nn.Linear(width, 2 * latent)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, width), nn.SiLU(), nn.Linear(width, 2 * pixels)
        )

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log scale of each pixel, [N, pixels] each."""
        mean, log_scale = self.decoder(z).chunk(2, 1)
        return mean, log_scale.clamp(-7, 1)

    def bits_per_dim(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return the bound of x [N, pixels], with one z for each, from noise [N, latent]; [N]."""
        mean, log_std = self.encoder(x).chunk(2, 1)
        divergence = 0.5 * (mean**2 + (2 * log_std).exp() - 1) - log_std
        cost = -log_mass(x, *self.decode(mean + log_std.exp() * noise))
        return (divergence.sum(1) + cost.sum(1)) / (x.shape[1] * math.log(2))


def log_mass(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return the log mass of a logistic distribution on the grey level of x, in -1 .. 1.

    The first and the last of the 256 levels hold all that lies beyond.
    """
    half, scale = 1 / 255, (-log_scale).exp()
    upper, lower = scale * (x + half - mean), scale * (x - half - mean)
    first, last = F.logsigmoid(upper), -F.softplus(lower)
    # log(sigmoid(u) - sigmoid(l)), without a difference of two nearly equal numbers
    inner = first + last + torch.log(-torch.expm1(-2 * half * scale))
    return torch.where(x < -1 + half, first, torch.where(x > 1 - half, last, inner))


def prepared(images: Pixels) -> Tensor:
    """Turn images uint8 [N, *S] into vectors in -1 .. 1, [N, pixels]."""
    return torch.from_numpy(images.reshape(len(images), -1)).float() / 127.5 - 1


def train(images: Pixels, steps: int, *, seed: int = 0) -> tuple[VAE, float]:
    """Train on images uint8 [N, *S]; return the network and the processor seconds."""
    started = time.process_time()
    torch.manual_seed(seed)
    x = prepared(images)
    vae = VAE(x.shape[1])
    optimizer = torch.optim.Adam(vae.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = x[torch.randint(len(x), (BATCH,))]
        loss = vae.bits_per_dim(chosen, torch.randn(BATCH, vae.latent)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return vae.eval(), time.process_time() - started


@torch.inference_mode()
def bits(vae: VAE, images: Pixels, *, seed: int = 0) -> NDArray[np.float64]:
    """Return the bound of images, in bits per dimension; [N]."""
    noise = torch.randn(len(images), vae.latent, generator=torch.Generator().manual_seed(seed))
    return vae.bits_per_dim(prepared(images), noise).double().numpy()


@torch.inference_mode()
def sample(vae: VAE, count: int, *, noisy: bool = False, seed: int = 0) -> Pixels:
    """Return the decoder's means of samples, or with `noisy` draws around them; [N, pixels]."""
    generator = torch.Generator().manual_seed(seed)
    mean, log_scale = vae.decode(torch.randn(count, vae.latent, generator=generator))
    if noisy:
        drawn = torch.rand(mean.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
        mean = mean + log_scale.exp() * torch.logit(drawn)
    return ((mean + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
