"""What the passes over a calibration text take: a sweep, and the walk of the original beside the coded model."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bntools.core.blockwise.blocks import BATCH_TOKENS
from bntools.core.blockwise.replay import RESIDENT as KEPT
from bntools.core.importance.fisher_sweep import POSITIONS
from bntools.core.importance.sensitivity import embeddings
from bntools.core.model.model import Model
from bntools.core.system.bfloat16 import gains
from bntools.core.work.states import RESIDENT
from bntools.tools.quantize.cost import probe as cost
from bntools.tools.quantize.plan import Item

_ATTENTION = 2.0  # operations of attention run at a fraction of the rate of products
_ELEMENTS = (
    14  # operations a number that goes in or out of a linear, in a sweep: norms, activations, gradients
)
_FORWARD_ELEMENTS = 6
_LOGIT = 4  # a logit: softmax, root, signs
_RIDGES = 10  # factorisations to choose a ridge
_GRAPH = 10  # kept for each number that goes in or out of a linear: for the way back, and to make products of

Linears = list[tuple[int, int, str]]


@dataclass(frozen=True)
class Rates:
    """Operations a second of one thread: products in float32, in mixed precision, and element by element."""

    product: float
    mixed: float
    element: float

    @classmethod
    def measured(cls) -> Rates:
        return cls(cost.product_rate(), cost.mixed_rate(), cost.element_rate())


@dataclass(frozen=True)
class Text:
    """Of a calibration text: windows, and tokens of each."""

    windows: int
    window: int

    @property
    def tokens(self) -> int:
        return self.windows * self.window


def head_weights(model: Model) -> int:
    return max((model.entries[name].numel for name in embeddings(model)), default=0)


def sweep_seconds(model: Model, items: list[Item], text: Text, outputs: bool, rates: Rates) -> float:
    """Time of a sweep that gathers the moments of inputs, and those of gradients across outputs where asked for."""
    head, width = head_weights(model), _width(model)
    a_token = 4 * head / rates.mixed + _LOGIT * head / max(width, 1) / rates.element
    for linears in cost.by_block(model, items).values():
        a_token += _ELEMENTS * _numbers(linears) / rates.element
        a_token += (
            _ATTENTION * 5 * 4 * text.window * width / rates.product
        )  # there, again, and back at three times
        for size, out, _ in linears:
            a_token += 6 * size * out / rates.mixed
            a_token += 1.1 * (size * size + (out * out if outputs else 0)) / rates.mixed  # halved by symmetry
    return text.tokens * a_token / torch.get_num_threads()


def sweep_bytes(model: Model, items: list[Item], text: Text, outputs: bool, coding: int) -> int:
    """Peak memory of a sweep: states, and the head, a block with its moments, or what codes matrices."""
    blocks, workers, width = cost.by_block(model, items), torch.get_num_threads(), _width(model)
    each, head = 4 * text.tokens * width, head_weights(model)
    states = (
        (2 + (len(blocks) if each <= RESIDENT // max(len(blocks), 1) else 0)) * each
        if each <= RESIDENT
        else 0
    )
    logits = max(BATCH_TOKENS // text.window, 1) * min(POSITIONS, text.window) * head // max(width, 1)
    peak = 4 * head + workers * logits * (6 if gains("cpu") else 10)
    for path, linears in blocks.items():
        moments = sum(4 * size * size + (4 * out * out if outputs else 0) for size, out, _ in linears)
        graph = workers * max(BATCH_TOKENS, text.window) * 4 * _GRAPH * _numbers(linears)
        factors = workers * 5 * 8 * max(max(size, out) for size, out, _ in linears) ** 2
        peak = max(peak, moments + max(_weights(model, path) + graph, factors, coding))
    return states + peak


def compensated_seconds(model: Model, items: list[Item], text: Text, rates: Rates) -> float:
    """Time of the passes of `core.prefix`: one of each model, the moments of each group, and its ridges."""
    total, width = 0.0, _width(model)
    for linears in cost.by_block(model, items).values():
        inputs = cost.inputs_of(linears)
        a_token = 2 * sum(2 * size * out for size, out, _ in linears) / rates.mixed
        a_token += 2 * _FORWARD_ELEMENTS * _numbers(linears) / rates.element
        a_token += _ATTENTION * 2 * 4 * text.window * width / rates.product
        a_token += sum(1.1 * size * size + 3 * size * width for size in inputs) / rates.mixed
        total += text.tokens * a_token
        total += sum((_RIDGES * size**3 + 4 * size * size * width) / rates.product for size in inputs)
    return total / torch.get_num_threads()


def compensated_bytes(model: Model, items: list[Item], text: Text, coding: int) -> int:
    """Peak memory of `core.prefix`: states of two models, three blocks, what is kept of two, a group's moments, and
    `coding` its linears."""
    width, workers = _width(model), torch.get_num_threads()
    states, peak = 4 * text.tokens * width, 0
    for path, linears in cost.by_block(model, items).items():
        inputs = cost.inputs_of(linears)
        states_kept = (
            sum(size for size in (*inputs, *[width] * 7) if 4 * text.tokens * size <= KEPT) * 4 * text.tokens
        )
        solving = 4 * (5 + 3 * workers) * max(inputs) ** 2
        batch = workers * max(BATCH_TOKENS, text.window) * 4 * _numbers(linears)
        peak = max(peak, 3 * _weights(model, path) + states_kept + max(solving, batch, coding))
    return 2 * (states if states <= RESIDENT else 0) + peak


def _numbers(linears: Linears) -> int:
    """Numbers that go in or out of the linears of a block, for one token."""
    return sum(cost.inputs_of(linears)) + sum(out for _, out, _ in linears)


def _weights(model: Model, path: str) -> int:
    """Bytes of a block in float32."""
    return 4 * sum(entry.numel for name, entry in model.entries.items() if name.startswith(f"{path}."))


def _width(model: Model) -> int:
    return int(model.config.get("hidden_size") or model.config.get("n_embd") or 0)
