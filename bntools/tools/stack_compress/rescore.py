"""The order of the blocks, with their gains measured anew at a few sizes by the gradient of the divergence there.

The sizes double, up to a quarter of all blocks: the smaller a model, the sooner the next blocks change what the others
bring.

The predicted gain of a block takes its matrix alone, on an otherwise unharmed model. At a size that is reached, the
gradient g of the divergence tells what moving on along d, the change that the next block makes, would bring: half of
-<g, d>, if the block takes most of what its layer lost (for the loss E H E^T / 2 of an error E, g = E H and d is
about -E). Their ratio to the predicted gains corrects those of the blocks over it, too; its square root, as taken whole
it would have the next plane of some matrices come before the last blocks of a plane that still bring more.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bntools.core.progress import Progress
from bntools.tools.stack_compress.network import Network
from bntools.tools.stack_compress.order import Block, Coding, greedy

_FARTHEST = 4.0  # that a ratio may be, up or down
_TRUST = 0.5  # in the gradient, as an exponent: it tells little of what is far away

Stack = tuple[str, int]  # name of the weight, band


def rescored(stacks: Coding, windows: Tensor, times: int, device: str, progress: Progress) -> list[Block]:
    """All blocks, each in its place by the gains found at the last size before it.

    windows: [n, L] token ids the divergence is taken on. times: sizes, the base the first, a quarter
    of all blocks the last, and each half of the next.
    """
    network, total = Network(stacks, windows, device), sum(block.nbytes for block in stacks.blocks)
    done, left, factors = list[Block](), list(stacks.blocks), dict[Stack, float]()
    with progress("scoring the blocks", times) as step:
        for at in range(times):
            factors |= _factors(stacks, network, done, left)
            left, size = _ranked(left, factors), sum(block.nbytes for block in done)
            while left and (size < total >> (times - at) or at == times - 1):
                done.append(left.pop(0))
                size += done[-1].nbytes
            step(1)
    return done + left


def _ranked(blocks: list[Block], factors: Mapping[Stack, float]) -> list[Block]:
    return greedy(blocks, lambda block: block.gain * factors.get((block.name, block.band), 1.0))


def _factors(stacks: Coding, network: Network, done: list[Block], left: list[Block]) -> dict[Stack, float]:
    """What the gradient says of the next block of each stack, relative to its predicted gain."""
    there: dict[str, dict[tuple[int, int], int]] = {name: {} for name in stacks.specs}
    for block in done:
        there[block.name][block.plane, block.band] = block.nbytes
    coming: dict[Stack, Block] = {}
    for block in sorted(left, key=lambda block: block.plane):
        coming.setdefault((block.name, block.band), block)
    network.place(there)
    gradients, factors = network.gradients(), {}
    for name, now in there.items():
        following = [block for (other, _), block in coming.items() if other == name]
        if not following:
            continue
        then = now | {(block.plane, block.band): block.nbytes for block in following}
        move = stacks.dense(name, then) - stacks.dense(name, now)
        gains = -move.mul_(gradients.pop(name)).sum(1, dtype=torch.float64) / 2
        for block in following:
            ratio = float(gains[stacks.rows(block)].sum()) / max(block.gain, 1e-300)
            factors[name, block.band] = min(max(ratio, 1 / _FARTHEST), _FARTHEST) ** _TRUST
    return factors
