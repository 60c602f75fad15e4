"""The entropy code block by block: each weight makes up for what was lost before it, and the size stays as asked."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from bntools.core.blockwise.prefix import Prefix
from bntools.core.importance.sensitivity import embeddings, sweep_tokens
from bntools.core.model.model import Model
from bntools.core.packing import entropy
from bntools.core.progress import Progress, Step, no_step
from bntools.core.work.spool import Spool
from bntools.tools.quantize import entropy as method
from bntools.tools.quantize.entropy import Goal, Pass, Prepared
from bntools.tools.quantize.levels import OCTAVE
from bntools.tools.quantize.size import Outlook, outlook, unreachable

_TRIES = 3
_AIM = 0.998  # of the goal
_REACH = 0.25  # octaves by which the constant may leave that of the first pass


def compensated(
    model: Model, found: Prepared, goal: Goal, windows: Tensor, device: str, progress: Progress
) -> tuple[Pass, dict[str, bytes], bytes]:
    """Levels that fit the goal, with streams and tables.

    Embeddings are coded first, then block by block what `core.prefix` asks for. Raises BnError (exit 2) where
    the size is not met.
    """
    first, aim = outlook(model, found, goal, progress), _AIM * goal.nbytes
    for _ in range(_TRIES):
        with progress("compensating", sweep_tokens(model, windows)) as step:
            trial = _pass(model, found, aim, first, windows, device, step)
        made, tables = method.streams(model, found, trial)
        size = len(tables) + sum(map(len, made.values()))
        if size <= goal.nbytes:
            return trial, made, tables
        trial.spool.close()
        aim *= _AIM * goal.nbytes / size
    raise unreachable(goal)


class _Rate:
    """Sets the constant while blocks are coded, so that all of them take `aim` bytes in the end.

    A bit less a weight for each doubling, and what is left is taken to deviate from the outlook as what is done did,
    bit for bit.
    """

    def __init__(self, model: Model, aim: float, first: Outlook) -> None:
        self.alpha = first.alpha
        self._first, self._aim, self._left = first.alpha, aim - first.tables, dict(first.sizes)
        self._weights = {name: model.entries[name].numel for name in first.sizes}
        self._overhead = {name: method.spec_of(model, name, OCTAVE).overhead for name in first.sizes}
        self._predicted = self._besides = 0.0  # bytes, of what is done

    def took(self, names: list[str], trial: Pass) -> None:
        """Tensors were coded at the present constant."""
        octaves = math.log2(self.alpha / self._first)
        for name in names:
            self._predicted += self._left.pop(name) - octaves * self._weights.pop(name) / 8
            self._besides += self._overhead.pop(name)
        left = sum(self._weights.values())
        if not left:
            return
        used = trial.counter.bits() / 8 + self._besides
        deviation = (used - self._predicted) / trial.weights
        over = used + sum(self._left.values()) + deviation * left - self._aim
        octaves = min(max(8 * over / left, -_REACH), _REACH)
        self.alpha = self._first * 2**octaves


def _pass(
    model: Model, found: Prepared, aim: float, first: Outlook, windows: Tensor, device: str,
    step: Step,
) -> Pass:  # fmt: skip
    trial = Pass(first.alpha, entropy.Counter(found.trellis), Spool(), {})
    rate = _Rate(model, aim, first)
    embedding, left = None, set(found.names)

    def code(targets: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        values = method.add(model, found, trial, targets, rate.alpha, no_step)
        rate.took(list(targets), trial)
        left.difference_update(targets)
        return values

    outside = [name for name in found.names if name not in model.linears]
    if outside:
        tensors = {name: model.tensor(name, torch.float32) for name in outside}
        values = code(tensors)
        embedding = next((values[name] for name in outside if embeddings(model)[name][1]), None)
    for (todo,) in Prefix(model, left, windows, embeddings=[embedding], device=device, mixed=True, step=step):
        todo.place(code(todo.targets))
    if left:
        code(dict.fromkeys(name for name in found.names if name in left))
    trial.alpha = rate.alpha
    return trial
