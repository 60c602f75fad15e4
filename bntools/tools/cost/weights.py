"""Where the bytes of a model's weights lie: by layer, experts apart, from a config or from tensor headers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from bntools.core.architecture.shapes import counts
from bntools.core.architecture.shapes.shape import ModelShape

_BYTES = {"float32": 4.0, "float64": 8.0, "float16": 2.0, "bfloat16": 2.0, "float8_e4m3fn": 1.0, "auto": 2.0}
_LAYER = re.compile(r"(?:^|[./])(?:layers|h|blocks|block|layer|blk)\.(\d+)\.")
_TABLE = re.compile(
    r"(?:embed_tokens|wte|word_embeddings|embed_in|token_embd|tok_embeddings)\.weight(?![A-Za-z])"
)
_POSITIONS = re.compile(
    r"(?:embed_positions|wpe|position_embeddings|token_type_embeddings)\.weight(?![A-Za-z])"
)
_HEAD = re.compile(r"(?:^|[./])(?:lm_head|embed_out|output)\.(?:weight|qweight|scales|qzeros|bias|g_idx)")


class LayerBytes(NamedTuple):
    dense: float
    experts: float


class Weights(NamedTuple):
    """Bytes of every layer, of the tables read row by row, of the head (which may be the table) and of the rest."""

    layers: tuple[LayerBytes, ...]
    table: float
    positions: float
    head: float
    other: float
    tied: bool

    @property
    def total(self) -> float:
        parts = sum(layer.dense + layer.experts for layer in self.layers)
        return parts + self.table + self.positions + self.other + (0 if self.tied else self.head)


def bytes_of(dtype: str) -> float:
    """Bytes of a number of a torch type by name; 2 for one that is not known."""
    return _BYTES.get(dtype.removeprefix("torch."), 2.0)


def weights_of_config(shape: ModelShape) -> Weights:
    """Every parameter in the type that the config names."""
    size = bytes_of(shape.dtype)
    layers = []
    for layer in shape.layers:
        experts = sum(linear.parameters for linear in layer.linears if linear.copies > 1)
        dense = sum(linear.parameters for linear in layer.linears if linear.copies == 1) + layer.other
        layers.append(LayerBytes(dense * size, experts * size))
    tables = [rows * width * size for rows, width in shape.embeddings]
    head = shape.head[-1].parameters * size
    outer = sum(linear.parameters for linear in (*shape.outer, *shape.head[:-1])) + shape.other
    if shape.tied:
        outer += shape.head[-1].outputs * shape.head[-1].bias
        head = tables[0]
    return Weights(tuple(layers), tables[0], sum(tables[1:]), head, outer * size, shape.tied)


def weights_of_tensors(shape: ModelShape, tensors: Iterable[tuple[str, int]]) -> Weights:
    """Names and stored bytes of tensors, packed or not, sorted by what they belong to.

    A checkpoint without a head has its embedding read by it. Experts are known by their name.
    """
    dense, experts = [0.0] * len(shape.layers), [0.0] * len(shape.layers)
    table = positions = head = other = 0.0
    for name, size in tensors:
        layer = _LAYER.search(name)
        if layer is not None and int(layer[1]) < len(dense):
            place = experts if ".experts" in name and ".shared_experts" not in name else dense
            place[int(layer[1])] += size
        elif _TABLE.search(name):
            table += size
        elif _POSITIONS.search(name):
            positions += size
        elif _HEAD.search(name):
            head += size
        else:
            other += size
    tied = head == 0 or table == 0
    layers = tuple(LayerBytes(a, b) for a, b in zip(dense, experts, strict=True))
    return Weights(layers, table or head, positions, head or table, other, tied)


def step_bytes(shape: ModelShape, weights: Weights, tokens: int) -> list[float]:
    """Bytes of weights that `tokens` tokens make a step read: of each layer, then of all else.

    Experts by how many distinct ones the tokens are expected to touch; tables by rows, but a tied one whole.
    """
    touched = []
    for layer, stored in zip(shape.layers, weights.layers, strict=True):
        routed = [linear for linear in layer.linears if linear.copies > 1]
        share = counts.distinct_share(routed[0].copies, routed[0].active, tokens) if routed else 1.0
        touched.append(stored.dense + share * stored.experts)
    rows = tokens * weights.table / shape.vocabulary
    rows += sum(tokens * weights.positions / count for count, _ in shape.embeddings[1:2])
    rows = min(rows, weights.table + weights.positions)
    return [*touched, weights.head + weights.other + (0.0 if weights.tied else rows)]
