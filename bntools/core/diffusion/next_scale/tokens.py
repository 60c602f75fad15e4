"""An image as maps of tokens from coarse to fine: the multi-scale residual quantizer of VAR (arXiv 2404.02905)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDES = (1, 2, 3, 5, 7)
"""Sides of the maps of tokens, coarse to fine; the last one is the latent's."""
TOKENS = sum(side * side for side in SIDES)


def scale_slices(sides: tuple[int, ...] = SIDES) -> list[slice]:
    """Where each scale's tokens lie in the row of all of them."""
    ends = [sum(side * side for side in sides[: i + 1]) for i in range(len(sides))]
    return [slice(end - side * side, end) for end, side in zip(ends, sides, strict=True)]


def enlarging(side: int) -> Tensor:
    """The bicubic enlargement of a map to the latent's side as a matrix [49, side^2]."""
    unit = torch.eye(side * side).view(-1, 1, side, side)
    return F.interpolate(unit, size=(SIDES[-1],) * 2, mode="bicubic").flatten(1).T.contiguous()


def averaging(side: int) -> Tensor:
    """The averaging of a latent to a smaller side as a matrix [side^2, 49]."""
    unit = torch.eye(SIDES[-1] ** 2).view(-1, 1, SIDES[-1], SIDES[-1])
    return F.adaptive_avg_pool2d(unit, side).flatten(1).T.contiguous()


class ResidualConv(nn.Module):
    """x + conv(silu(norm(x))): [N, C, H, W] to the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(F.silu(self.norm(x)))


class ScaleTokenizer(nn.Module):
    """Images [N, 1, 28, 28] in [0, 1] to codes [N, TOKENS] of one codebook, and back.

    Each scale codes what the scales before it left: the remainder is averaged to the scale's side, every cell takes
    the nearest entry, and the entries, enlarged to the latent's side and passed through the scale's convolution, are
    added to the reconstruction.
    """

    def __init__(self, entries: int = 256, channels: int = 16, width: int = 48) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width // 2, 4, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(width // 2, width, 4, stride=2, padding=1), ResidualConv(width),
            nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, channels, 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), ResidualConv(width), nn.SiLU(),
            nn.Conv2d(width, 2 * width, 1), nn.PixelShuffle(2), ResidualConv(width // 2), nn.SiLU(),
            nn.Conv2d(width // 2, width, 3, padding=1), nn.PixelShuffle(2), nn.SiLU(),
            nn.Conv2d(width // 4, 1, 3, padding=1),
        )  # fmt: skip
        self.codebook = nn.Parameter(torch.randn(entries, channels))
        self.blends = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in SIDES)
        self.enlarge, self.average = [enlarging(side) for side in SIDES], [averaging(side) for side in SIDES]

    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the nearest entry; vectors [..., C] to [...] int64."""
        book = self.codebook.detach()
        distance = book.square().sum(1) - 2 * (vectors.reshape(-1, book.shape[1]) @ book.T)
        return distance.argmin(1).view(vectors.shape[:-1])

    def contribution(self, codes: Tensor, scale: int) -> Tensor:
        """What a scale's codes [N, side^2] add to the latent: [N, C, 7, 7]."""
        entries = F.embedding(codes, self.codebook)
        large = (self.enlarge[scale] @ entries).transpose(1, 2).unflatten(2, (SIDES[-1], SIDES[-1]))
        return 0.5 * (large + self.blends[scale](large))

    def pooled(self, latent: Tensor, scale: int) -> Tensor:
        """A latent [N, C, 7, 7] averaged to a scale's map: [N, side^2, C]."""
        return self.average[scale] @ latent.flatten(2).transpose(1, 2)

    def quantize(self, latent: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Codes [N, TOKENS] of a latent [N, C, 7, 7], and the reconstruction after each scale."""
        rest, total, codes, partial = latent.detach(), torch.zeros_like(latent), [], []
        for scale in range(len(SIDES)):
            codes.append(self.nearest(self.pooled(rest, scale)))
            step = self.contribution(codes[-1], scale)
            rest, total = rest - step.detach(), total + step
            partial.append(total)
        return torch.cat(codes, 1), partial

    def encode(self, images: Tensor) -> Tensor:
        """Codes [N, TOKENS] int64 of images [N, 1, 28, 28] in [0, 1]."""
        return self.quantize(self.encoder(2 * images - 1))[0]

    def decode(self, latent: Tensor) -> Tensor:
        """Images [N, 1, 28, 28] in (0, 1) of latents [N, C, 7, 7]."""
        return torch.sigmoid(self.decoder(latent))

    def inputs(self, codes: Tensor) -> Tensor:
        """What a transformer reads at every token when it is taught: [N, TOKENS, C].

        At scale k it is the reconstruction of the scales before it, averaged to k's side; zeros at the first.
        """
        total = self.codebook.new_zeros(len(codes), self.codebook.shape[1], SIDES[-1], SIDES[-1])
        rows = []
        for scale, where in enumerate(scale_slices()):
            rows.append(self.pooled(total, scale))
            total = total + self.contribution(codes[:, where], scale)
        return torch.cat(rows, 1)
