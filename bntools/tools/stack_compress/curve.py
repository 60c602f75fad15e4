"""What is measured on the model itself: the curve of divergence over bytes, and the paper's order by perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bntools.core.progress import Progress
from bntools.tools.stack_compress.network import Network, bytes_of
from bntools.tools.stack_compress.order import Block, Coding


def curve(
    stacks: Coding, blocks: list[Block], windows: Tensor, points: int, device: str, progress: Progress
) -> list[list[float]]:
    """[bytes of blocks behind the base, mean KL in nats a token] at evenly spaced sizes, the base's first."""
    total = sum(block.nbytes for block in blocks)
    sizes = sorted({round(total * at / max(points - 1, 1)) for at in range(points)})
    network, scored = Network(stacks, windows, device), []
    before: dict[str, dict[tuple[int, int], int]] = {}
    with progress("measuring the curve", len(sizes)) as step:
        for size in sizes:
            rows = bytes_of(blocks, stacks.specs, size)
            network.place({name: value for name, value in rows.items() if before.get(name) != value})
            scored.append([size, float(f"{network.kl():.5g}")])
            before = rows
            step(1)
    return scored


def perplexity_scores(
    stacks: Coding, windows: Tensor, device: str, progress: Progress
) -> Callable[[int, list[Block]], list[float]]:
    """Scores of the blocks of a plane: the perplexity with each alone added to all planes below."""
    network = Network(stacks, windows, device)
    full = {name: {(block.plane, block.band): block.nbytes for block in stacks.blocks if block.name == name}
            for name in stacks.specs}  # fmt: skip

    def score(plane: int, level: list[Block]) -> list[float]:
        below = {
            name: {key: count for key, count in rows.items() if key[0] < plane} for name, rows in full.items()
        }
        network.place(below)
        scores = []
        with progress(f"scoring plane {plane}", len(level)) as step:
            for block in level:
                one = {
                    **below[block.name],
                    (block.plane, block.band): full[block.name][block.plane, block.band],
                }
                network.place({block.name: one})
                scores.append(math.exp(min(network.loss(), 700.0)))
                network.place({block.name: below[block.name]})
                step(1)
        return scores

    return score


def windows_for(windows: Tensor, tokens: int) -> Tensor:
    """Evenly spaced windows of the calibration text, about so many tokens."""
    count = max(1, min(len(windows), tokens // windows.shape[1]))
    return windows[torch.linspace(0, len(windows) - 1, count).round().long()]
