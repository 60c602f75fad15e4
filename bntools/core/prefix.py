"""The original beside the model whose earlier layers are coded, and weights that make up for what those lost.

A linear W that is fed x~ where the original feeds it x should give W x all the same, and one that writes to the
residual stream should also give what the stream has lost so far, e. Least squares over the calibration text with a
ridge (`core.ridge`) gives the target W + E[(W (x - x~) + e) x~^T] (E[x~ x~^T] + ridge)^-1, to be coded in place of W.
Without e this is the asymmetric calibration of GPTAQ (arXiv 2504.02692).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bntools.core import blocks
from bntools.core.blocks import Batch, Blocks, Reached, no_step
from bntools.core.gathered import flat, same
from bntools.core.model import Model
from bntools.core.moments import Task, accumulate
from bntools.core.ridge import Regression
from bntools.core.threads import single_threaded

_UNEXPLAINED = 1e-3  # of what a block adds to the stream, at most, for the linears found to add it


@dataclass(frozen=True)
class Group:
    """Linears of a block fed the same tensor, by their paths inside it. writes: the factor with which the output of
    the only one is added to the residual stream; 0 for none."""

    names: list[str]
    writes: float = 0.0


class Step(NamedTuple):
    """What to code next. targets: weights [out, in] float32 by tensor, all fed the same. moments: E[x~ x~^T] [in, in]
    of what feeds them; both in main memory. place: puts the coded weights where they were, to be called before the next
    step."""

    targets: dict[str, Tensor]
    moments: Tensor
    place: Callable[[Mapping[str, Tensor]], None]


class Prefix:
    """Walks through a model's blocks: what to code next, fed by what was coded before.

    wanted: tensors that will be coded. windows: [n, L] token ids. embedding: [vocabulary, d] as it was coded, or None.
    Two blocks with their weights are in memory, and the hidden states of both models (in files where large).
    Results do not depend on the number of threads. Raises BnError as `Blocks` does.
    """

    def __init__(
        self, source: Model, wanted: set[str], windows: Tensor, *, embedding: Tensor | None = None,
        device: str = "cpu", step: blocks.Step = no_step,
    ) -> None:  # fmt: skip
        self.original = Blocks(source, windows, device=device)
        self.coded = Blocks(source, windows, device=device, embedding=embedding)
        self._names = {linear.module: name for name, linear in source.linears.items() if name in wanted}
        self._step = step

    def __iter__(self) -> Iterator[Step]:
        for (path, layer), (_, coded) in zip(self.original, self.coded, strict=True):
            yield from self._steps(path, layer, coded)
            self.coded.advance()

    def _steps(self, path: str, layer: nn.Module, coded: nn.Module) -> Iterator[Step]:
        groups = self._groups(layer)
        chosen = [group for group in groups if any(f"{path}.{name}" in self._names for name in group.names)]
        for group in chosen:
            weights = {
                name: matrix(layer.get_submodule(name))
                for name in group.names
                if f"{path}.{name}" in self._names
            }
            writers = [other for other in groups[: groups.index(group)] if other.writes]
            moves, moments = self._moves(
                group.writes, weights, writers, layer, coded, last=group is chosen[-1]
            )
            targets = {self._names[f"{path}.{name}"]: (w + moves[name]).cpu() for name, w in weights.items()}
            modules = {self._names[f"{path}.{name}"]: coded.get_submodule(name) for name in weights}

            def place(values: Mapping[str, Tensor], modules: Mapping[str, Any] = modules) -> None:
                for name, value in values.items():
                    weight = modules[name].weight
                    weight.data = (value if isinstance(modules[name], nn.Linear) else value.T).to(weight)

            yield Step(targets, moments.cpu(), place)
        if not chosen:
            self.original.advance()

    def _groups(self, layer: nn.Module) -> list[Group]:
        """Linears by the tensor that feeds them, in the order they are run; those that do not see every token once,
        as in an expert, are left out."""
        batch = self.original.batches[0]
        hidden = self.original.hidden.get(batch.start, batch.stop).to(self.original.device)
        seen: list[tuple[str, Tensor, Tensor]] = []
        with contextlib.ExitStack() as hooks, torch.no_grad():
            for name, module in layer.named_modules():
                if is_linear(module):
                    hook = module.register_forward_hook(partial(_note, seen, name))
                    hooks.callback(hook.remove)
            out = self.original.call(hidden)
        tokens = hidden.shape[:-1].numel()
        once = [
            (name, x, y) for name, x, y in seen
            if x.shape[:-1].numel() == tokens and sum(name == other for other, _, _ in seen) == 1
        ]  # fmt: skip
        groups: list[tuple[Tensor, list[str]]] = []
        for name, x, _ in once:
            members = next((members for fed, members in groups if same(fed, x)), None)
            if members is None:
                groups.append((x, [name]))
            else:
                members.append(name)
        writers = _writers(flat(out) - flat(hidden), {name: flat(y) for name, _, y in once})
        return [Group(names, writers.get(names[0], 0.0) if len(names) == 1 else 0.0) for _, names in groups]

    def _moves(
        self, writes: float, weights: dict[str, Tensor], writers: list[Group], layer: nn.Module, coded: nn.Module,
        last: bool,
    ) -> tuple[dict[str, Tensor], Tensor]:  # fmt: skip
        """What is added to each weight, and the moments of what feeds them.

        last: the original's states move on to the next block with this pass.
        """
        leader, names = next(iter(weights)), [group.names[0] for group in writers]
        w, device = weights[leader], self.original.device
        regression = Regression(w.shape[1], w.shape[0] if writes else w.shape[1], device)
        original = _Run(self.original, layer, leader, names, whole=last)
        ours = _Run(self.coded, coded, leader, names, whole=False)

        def work(batch: Batch) -> list[Task]:
            (hidden, x, y, after), (hidden_, x_, y_, _) = original(batch), ours(batch)
            if after is not None:
                self.original.hidden.put(batch.start, after)
            missing = x - x_
            if writes:
                lost = hidden - hidden_
                for group in writers:
                    lost += group.writes * (y[group.names[0]] - y_[group.names[0]])
                missing = missing @ w.T + lost / writes
            return regression.tasks(self.original.batches.index(batch) % 2, x_, missing)

        with original, ours, single_threaded() as (pool, workers):
            for wave in self.original.waves(workers):
                accumulate(pool, pool.map(work, wave))
                self._step(sum(batch.stop - batch.start for batch in wave) * self.original.windows.shape[1])
        if writes:
            solved, moments = regression.solve()
            return {leader: solved}, moments
        solved, moments = regression.solve(sum((one.T @ one for one in weights.values()), torch.zeros(())))
        return {name: one @ solved for name, one in weights.items()}, moments


def _note(seen: list[tuple[str, Tensor, Tensor]], name: str, module: nn.Module, args: Any, out: Any) -> None:
    if args and isinstance(out, Tensor):  # a router gives more than one
        seen.append((name, args[0], out))


class _Ran(NamedTuple):
    """Of one batch: the block's inputs [n, d], the leader's [n, in], the writers' outputs [n, d], and the block's
    outputs where it was run to its end."""

    hidden: Tensor
    x: Tensor
    outputs: dict[str, Tensor]
    after: Tensor | None


class _Run:
    """Runs a block up to a linear, or to its end; several threads may."""

    def __init__(
        self, blocks: Blocks, layer: nn.Module, leader: str, writers: list[str], whole: bool
    ) -> None:
        self._blocks, self._layer, self._leader, self._writers, self._whole = (
            blocks,
            layer,
            leader,
            writers,
            whole,
        )
        self._seen = threading.local()
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        module = self._layer.get_submodule(self._leader)
        self._hooks = [module.register_forward_pre_hook(self._fed)]
        for name in self._writers:
            hook = self._layer.get_submodule(name).register_forward_hook(
                lambda module, args, out, name=name: self._seen.outputs.update({name: flat(out)})
            )
            self._hooks.append(hook)

    def __exit__(self, *exc: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _fed(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._seen.x = flat(args[0])
        if not self._whole:
            raise Reached

    @torch.no_grad()
    def __call__(self, batch: Batch) -> _Ran:
        hidden = self._blocks.hidden.get(batch.start, batch.stop).to(self._blocks.device)
        self._seen.outputs, after = {}, None
        with contextlib.suppress(Reached):
            after = self._blocks.call(hidden)
        return _Ran(flat(hidden), self._seen.x, self._seen.outputs, after)


def matrix(module: nn.Module) -> Tensor:
    """The weight of a linear [out, in], float32."""
    weight: Any = module.weight
    return (weight if isinstance(module, nn.Linear) else weight.T).detach().float()


def is_linear(module: nn.Module) -> bool:
    weight: Any = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding)


def _writers(added: Tensor, outputs: dict[str, Tensor]) -> dict[str, float]:
    """The linears whose outputs, each times a factor, are what a block adds to the stream; none where that does not
    hold, as with a norm in between. added [n, d], outputs [n, any] by name."""
    fitting = {name: y for name, y in outputs.items() if y.shape == added.shape}
    if not fitting:
        return {}
    columns = torch.stack([y.flatten() for y in fitting.values()], 1).double()
    wanted = added.flatten().double()
    factors = torch.linalg.solve(
        columns.T @ columns + 1e-12 * torch.eye(columns.shape[1]), columns.T @ wanted
    )
    left = (wanted - columns @ factors).norm() / wanted.norm().clamp(min=1e-30)
    if not left < _UNEXPLAINED:
        return {}
    return {name: float(f) for name, f in zip(fitting, factors, strict=True) if abs(f) > _UNEXPLAINED}
