"""Encoders and decoders: linear, of two hidden layers, convolutional, and the one of the ARD-VAE paper."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bntools.core.errors import bad_input

ARCHITECTURES = ("linear", "mlp", "conv", "paper-conv")
LOG_VARIANCE = (-20.0, 10.0)
"""Range of the log of an axis' posterior variance, in units of its prior: dead axes neither over- nor underflow."""
_SMALLEST_MAP = 4
_MOST_HIDDEN, _FEWEST_HIDDEN = 512, 128


class Architecture(NamedTuple):
    """kind: one of ARCHITECTURES. shape: of one row. dim: axes of the code. hidden: units or filters a layer.

    output: `linear` or `sigmoid`. clamp: whether log variances are held within LOG_VARIANCE.
    """

    kind: str
    shape: tuple[int, ...]
    dim: int
    hidden: tuple[int, ...]
    output: str = "linear"
    clamp: bool = True

    def facts(self) -> dict[str, Any]:
        return {**self._asdict(), "shape": list(self.shape), "hidden": list(self.hidden)}

    @property
    def size(self) -> int:
        """Numbers a row."""
        return int(torch.Size(self.shape).numel())


def architecture_of(facts: dict[str, Any], label: str) -> Architecture:
    """What `facts` describe. Raises BnError (exit 3) where they describe none."""
    try:
        arch = Architecture(
            str(facts["kind"]), tuple(map(int, facts["shape"])), int(facts["dim"]), tuple(map(int, facts["hidden"])),
            str(facts["output"]), bool(facts["clamp"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        raise bad_input(f"{label}: metadata bntools.vae does not describe a network") from None
    if (
        arch.kind not in ARCHITECTURES
        or min(arch.shape, default=0) < 1
        or arch.dim < 1
        or arch.size > 1 << 28
    ):
        raise bad_input(f"{label}: metadata bntools.vae does not describe a network")
    return arch


def hidden_units(kind: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The default widths: of a multilayer perceptron two layers, of convolutions the filters and a dense layer."""
    size = int(torch.Size(shape).numel())
    if kind == "linear":
        return ()
    if kind == "mlp":
        widest = max(_FEWEST_HIDDEN, min(_MOST_HIDDEN, 1 << (size - 1).bit_length()))
        return (widest, max(_FEWEST_HIDDEN, widest // 2))
    side, filters = min(shape[-2:]), 32
    maps = []
    while side % 2 == 0 and side > _SMALLEST_MAP and len(maps) < 4:
        maps.append(filters)
        side, filters = side // 2, min(2 * filters, 128)
    return (*(maps or [filters]), 256)


class Autoencoder(nn.Module):
    """x [n, *shape] to the mean and log variance [n, L] of its code, and codes [n, L] to x."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        build = {"linear": _linear, "mlp": _mlp, "conv": _conv, "paper-conv": _paper_conv}[arch.kind]
        self.body, self.first, self.upper, width = build(arch)
        self.to_mean = nn.Linear(width, arch.dim)
        self.to_log_variance = nn.Linear(width, arch.dim)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        log_variance = self.to_log_variance(hidden)
        return self.to_mean(hidden), log_variance.clamp(*LOG_VARIANCE) if self.arch.clamp else log_variance

    def decode(self, z: Tensor) -> Tensor:
        x = self.upper(self.first(z)).reshape(-1, *self.arch.shape)
        return x.sigmoid() if self.arch.output == "sigmoid" else x

    @torch.no_grad()
    def regauge(self, mean: Tensor, variance: Tensor) -> None:
        """Put z' = (z - mean) / sqrt(variance) in the place of the code z, in both networks; no x changes.

        Exact but where a log variance is at its clamp.
        """
        root = variance.sqrt()
        self.to_mean.weight /= root[:, None]
        self.to_mean.bias.sub_(mean).div_(root)
        self.to_log_variance.bias -= variance.log()
        self.first.bias += self.first.weight @ mean
        self.first.weight *= root


Parts = tuple[nn.Module, nn.Linear, nn.Module, int]


def _linear(arch: Architecture) -> Parts:
    return nn.Flatten(), nn.Linear(arch.dim, arch.size), nn.Identity(), arch.size


def _mlp(arch: Architecture) -> Parts:
    a, b = arch.hidden
    body = nn.Sequential(nn.Flatten(), nn.Linear(arch.size, a), nn.SiLU(), nn.Linear(a, b), nn.SiLU())
    upper = nn.Sequential(nn.SiLU(), nn.Linear(b, a), nn.SiLU(), nn.Linear(a, arch.size))
    return body, nn.Linear(arch.dim, b), upper, b


def _conv(arch: Architecture) -> Parts:
    """Convolutions of kernel 4 and stride 2 while the side is even and over 4, a dense layer, and all that mirrored."""
    *filters, dense = arch.hidden
    channels, height, width = (1, *arch.shape)[-3:]
    strided = min(height, width) % 2 == 0 and min(height, width) > _SMALLEST_MAP
    kernel, stride = (4, 2) if strided else (3, 1)
    down: list[nn.Module] = []
    inputs = [channels, *filters[:-1]]
    for a, b in zip(inputs, filters, strict=True):
        down += [nn.Conv2d(a, b, kernel, stride, 1), nn.SiLU()]
        height, width = height // stride, width // stride
    flat = filters[-1] * height * width
    down += [nn.Flatten(), nn.Linear(flat, dense), nn.SiLU()]
    up: list[nn.Module] = [
        nn.SiLU(),
        nn.Linear(dense, flat),
        nn.SiLU(),
        nn.Unflatten(1, (filters[-1], height, width)),
    ]
    for index, (a, b) in enumerate(zip(filters[::-1], inputs[::-1], strict=True)):
        up += [nn.ConvTranspose2d(a, b, kernel, stride, 1)]
        up += [nn.SiLU()] if index < len(filters) - 1 else []
    return _Maps(channels, down), nn.Linear(arch.dim, dense), nn.Sequential(*up), dense


def _paper_conv(arch: Architecture) -> Parts:
    """Kernel 4, stride 2, batch normalization in both networks, down to a side of 1/16, and back."""
    channels, height, width = (1, *arch.shape)[-3:]
    inputs = [channels, *arch.hidden[:-1]]
    down: list[nn.Module] = []
    for a, b in zip(inputs, arch.hidden, strict=True):
        down += [nn.Conv2d(a, b, 4, 2, 1), nn.BatchNorm2d(b, 1e-3, 0.01), nn.ReLU()]
        height, width = height // 2, width // 2
    flat, last = arch.hidden[-1] * height * width, arch.hidden[-1]
    up: list[nn.Module] = [
        nn.Unflatten(1, (last, height, width)),
        nn.BatchNorm2d(last, 1e-3, 0.01),
        nn.ReLU(),
    ]
    for a, b in zip(arch.hidden[::-1], [*arch.hidden[-2::-1], arch.hidden[0]], strict=True):
        up += [nn.ConvTranspose2d(a, b, 4, 2, 1), nn.BatchNorm2d(b, 1e-3, 0.01), nn.ReLU()]
    up += [nn.Conv2d(arch.hidden[0], channels, 3, 1, 1)]
    return _Maps(channels, [*down, nn.Flatten()]), nn.Linear(arch.dim, flat), nn.Sequential(*up), flat


class _Maps(nn.Sequential):
    """Layers for images, which may come without an axis of channels."""

    def __init__(self, channels: int, layers: list[nn.Module]) -> None:
        super().__init__(*layers)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(len(x), self.channels, *x.shape[-2:]))
