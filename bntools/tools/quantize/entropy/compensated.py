"""The entropy code block by block: each weight makes up for what was lost before it, and the size stays as asked."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bntools.core.blockwise.prefix import Prefix
from bntools.core.importance.sensitivity import embeddings, sweep_tokens
from bntools.core.model.model import Model
from bntools.core.packing import entropy
from bntools.core.progress import Progress, no_progress, no_step
from bntools.core.work.spool import Spool
from bntools.tools.quantize.entropy import whole_model as method
from bntools.tools.quantize.entropy.levels import OCTAVE
from bntools.tools.quantize.entropy.size import Outlook, outlook, unreachable
from bntools.tools.quantize.entropy.whole_model import Coded, Goal, Pass, Prepared

_TRIES = 3
_AIM = 0.998  # of the goal
_REACH = 0.25  # octaves by which the constant may leave that of the first pass


def compensated(
    model: Model, prepared: Prepared, goal: Goal, windows: Tensor, *, device: str = "cpu",
    progress: Progress = no_progress,
) -> Coded:  # fmt: skip
    """Levels that fit the goal.

    Embeddings are coded first, then block by block what `core.prefix` asks for. Raises BnError (exit 2) where
    the size is not met.
    """
    first, aim = outlook(model, prepared, goal, progress), _AIM * goal.nbytes
    for _ in range(_TRIES):
        with progress("compensating", sweep_tokens(model, windows)) as step:
            walk = functools.partial(Prefix, model, device=device, mixed=True, step=step)
            trial = _pass(model, prepared, _Rate(model, aim, first), windows, walk)
        coded = method.coded(model, prepared, trial)
        if coded.nbytes <= goal.nbytes:
            return coded
        trial.spool.close()
        aim *= _AIM * goal.nbytes / coded.nbytes
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
    model: Model, prepared: Prepared, rate: _Rate, windows: Tensor, walk: Callable[..., Prefix]
) -> Pass:
    trial = Pass(rate.alpha, entropy.Counter(prepared.trellis), Spool(), {})
    embedding, left = None, set(prepared.names)

    def code(targets: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        values = method.add(model, prepared, trial, targets, rate.alpha, no_step)
        rate.took(list(targets), trial)
        left.difference_update(targets)
        return values

    outside = [name for name in prepared.names if name not in model.linears]
    if outside:
        tensors = {name: model.tensor(name, torch.float32) for name in outside}
        values = code(tensors)
        embedding = next((values[name] for name in outside if embeddings(model)[name][1]), None)
    for (todo,) in walk(left, windows, embeddings=[embedding]):
        todo.place(code(todo.targets))
    if left:
        code(dict.fromkeys(name for name in prepared.names if name in left))
    trial.alpha = rate.alpha
    return trial
