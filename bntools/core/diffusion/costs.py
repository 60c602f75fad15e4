"""What one pass of a diffusion transformer costs, from its widths: operations, weights, traffic of attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

SRAM = 192 * 1024
"""Bytes of fast memory a multiprocessor, where no device says: an A100's."""


class BlockStack(NamedTuple):
    """layers of width d = heads * head; kind: `double` (text has own weights), `single`, `cross`."""

    kind: str
    layers: int
    heads: int
    head: int

    @property
    def width(self) -> int:
        return self.heads * self.head


class ForwardCost(NamedTuple):
    """Of one sample: tokens, FLOPs, those of attention's two products, weights, elements that attention moves."""

    tokens: int
    flops: float
    attention: float
    weights: float
    moved: float

    def times(self, passes: float) -> ForwardCost:
        """The cost of so many passes; tokens and weights stay."""
        return self._replace(
            flops=self.flops * passes, attention=self.attention * passes, moved=self.moved * passes
        )


_WEIGHTS = {"double": 36, "single": 15, "cross": 16}
"""Weights of a layer in units of d^2, modulation included."""


def forward_cost(
    stacks: Sequence[BlockStack], tokens: int, text: int, sram_elements: float = SRAM / 2
) -> ForwardCost:
    """Of one sample of N tokens with T of text.

    Joint layers: 2 [12 d^2 (N + T) + 2 (N + T)^2 d]; cross layers: 2 [14 d^2 N + 2 d^2 T + 2 N^2 d + 2 N T d].
    Traffic of a head with fast memory for M elements: at least max(4 N d, N^2 d^2 / M) elements, optimal for M >= d^2.
    """
    flops = attention = weights = moved = 0.0
    for stack in stacks:
        d = stack.width
        length = tokens if stack.kind == "cross" else tokens + text
        products = 4 * length**2 * d
        linear = 24 * d**2 * length
        if stack.kind == "cross":
            products += 4 * tokens * text * d
            linear = 28 * d**2 * tokens + 4 * d**2 * text
        flops += stack.layers * (linear + products)
        attention += stack.layers * products
        weights += stack.layers * _WEIGHTS[stack.kind] * d**2
        moved += (
            stack.layers
            * stack.heads
            * max(4 * length * stack.head, length**2 * stack.head**2 / sram_elements)
        )
    return ForwardCost(tokens, flops, attention, weights, moved)
