"""Features of small grey images by a classifier of digits that ships here, for distances between sets of images."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bntools.core.artifact.reader import open_path
from bntools.core.errors import bad_input
from bntools.kernels.features.frechet import Floor, floor, frechet

__all__ = ["SIDE", "WIDTH", "DigitNet", "Floor", "classify", "features", "floor", "frechet"]

WEIGHTS = Path(__file__).resolve().parents[2] / "data" / "digit_features.safetensors"
SIDE, PADDED_SIDE, WIDTH = 28, 32, 64
"""Pixels of a side the network takes, of the usual padded form whose middle it sees, and the number of features."""
_BATCH = 1000


class DigitNet(nn.Module):
    """Digits [N, 1, 28, 28] in [0, 1] to logits [N, 10]; `features`: the last hidden layer [N, 64], before its ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.third = nn.Conv2d(32, 64, 3, padding=1)
        self.hidden = nn.Linear(64 * 9, WIDTH)
        self.last = nn.Linear(WIDTH, 10)

    def features(self, images: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.first(images)), 2)
        x = functional.max_pool2d(functional.relu(self.second(x)), 2)
        x = functional.max_pool2d(functional.relu(self.third(x)), 2)
        return self.hidden(x.flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.last(functional.relu(self.features(images)))


def features(images: Tensor | NDArray) -> NDArray[np.float32]:
    """Features [N, 64] of grey images [N, 28, 28], [N, 32, 32] or with one channel, [N, 1, H, W]; values in [0, 1].

    32 pixels are taken for 28 with a margin of two, other sizes are resampled; the mean of several channels is seen,
    whole numbers are divided by 255, and what is outside [0, 1] is cut to it. Raises BnError (exit 3) for other
    shapes and for values that are not finite.
    """
    net, pixels = _net(), _pixels(images)
    with torch.no_grad():
        return np.concatenate([net.features(_middle(part)).numpy() for part in pixels.split(_BATCH)])


def classify(images: Tensor | NDArray) -> NDArray[np.float32]:
    """Probabilities [N, 10] of the ten digits, of images as in `features`."""
    net = _net()
    with torch.no_grad():
        hidden = torch.from_numpy(features(images))
        return net.last(functional.relu(hidden)).softmax(1).numpy()


@functools.cache
def _net() -> DigitNet:
    net = DigitNet()
    with open_path(WEIGHTS) as file:
        net.load_state_dict({name: file.tensor(name).float() for name in file.names()})
    return net.eval()


def _pixels(images: Tensor | NDArray) -> Tensor:
    """[N, 1, H, W] float32 in [0, 1]."""
    x = torch.as_tensor(np.array(images) if isinstance(images, np.ndarray) else images).detach().cpu()
    if x.ndim not in (3, 4) or not len(x) or min(x.shape[-2:]) < 2:
        raise bad_input(f"an array of shape {list(x.shape)} holds no images", "[N, 28, 28] or [N, 1, 28, 28]")
    scale = 1.0 if x.is_floating_point() else 255.0
    x = x.float() / scale
    if not bool(x.isfinite().all()):
        raise bad_input("the images have values that are not finite")
    x = x[:, None] if x.ndim == 3 else x.mean(1, keepdim=True)
    return x.clamp(0, 1)


def _middle(x: Tensor) -> Tensor:
    """28 x 28 pixels of a batch."""
    if x.shape[-2:] == (PADDED_SIDE, PADDED_SIDE):
        margin = (PADDED_SIDE - SIDE) // 2
        return x[:, :, margin:-margin, margin:-margin]
    if x.shape[-2:] == (SIDE, SIDE):
        return x
    return functional.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
