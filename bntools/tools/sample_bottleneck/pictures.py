"""Samples as pictures: PNG files without a library, and the comparison as one figure."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.report import pictures

MOST = 10
"""Samples a row of the figure."""


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of grey [H, W] or colour [H, W, 3] pixels."""
    height, width = pixels.shape[:2]
    colour = 2 if pixels.ndim == 3 else 0
    rows = pixels.reshape(height, -1)
    data = zlib.compress(np.concatenate([np.zeros((height, 1), np.uint8), rows], 1).tobytes(), 9)
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def as_bytes(x: Tensor) -> NDArray[np.uint8]:
    """One picture [C, H, W] in [-1, 1] as [H, W] or [H, W, 3]; of more channels, the first."""
    values = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
    return np.ascontiguousarray(values.transpose(1, 2, 0)) if len(values) == 3 else values[0]


def files(pixels: Tensor) -> dict[str, bytes]:
    """{name: PNG} of pictures [N, C, H, W], or of the frames of videos [N, C, F, H, W]."""
    images = {}
    for index, each in enumerate(pixels):
        if each.ndim == 3:
            images[f"{index:04d}.png"] = png(as_bytes(each))
        else:
            for frame in range(each.shape[1]):
                images[f"{index:04d}-{frame:03d}.png"] = png(as_bytes(each[:, frame]))
    return images


def draw(rows: list[tuple[str, Tensor]], path: str) -> None:
    """Rows of pictures, each with its name at the left; replaces the file at once."""
    pictures.save(_figure(rows), path)


def _figure(rows: list[tuple[str, Tensor]]) -> Any:
    from matplotlib.figure import Figure

    count = min(MOST, len(rows[0][1]))
    figure = Figure(figsize=(1.2 + 0.75 * count, 0.8 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), count, squeeze=False)
    for (name, x), line in zip(rows, axes, strict=True):
        for each, axis in zip(x, line, strict=False):
            shown = each if each.ndim == 3 else each[:, 0]
            axis.imshow(as_bytes(shown), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    return figure
