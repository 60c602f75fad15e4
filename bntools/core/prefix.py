"""The original beside the model whose earlier layers are coded, and weights that make up for what those lost.

A linear W that is fed x~ where the original feeds it x should give W x all the same, and one that writes to the
residual stream should also give what the stream has lost so far, e. Least squares over the calibration text with a
ridge (`core.ridge`) gives the target W + E[(W (x - x~) + e) x~^T] (E[x~ x~^T] + ridge)^-1, to be coded in place of W.
Without e this is the asymmetric calibration of GPTAQ (arXiv 2504.02692).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bntools.core import blocks
from bntools.core.blocks import Batch, Blocks, no_step
from bntools.core.gathered import flat
from bntools.core.groups import Group, groups
from bntools.core.memory import keep_freed
from bntools.core.model import Model
from bntools.core.moments import Task, accumulate
from bntools.core.replay import Kept, Replay
from bntools.core.ridge import Regression
from bntools.core.threads import single_threaded

_BEFORE = "before"  # what is fed to a block of the original
_LOST = "lost"  # of the residual stream: what the original has and the coded model lacks


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
    mixed: products in bfloat16 where that is faster (`core.precision`), sums and all else in float32.
    The original is run one block ahead: up to three blocks with their weights are in memory, and the hidden states of
    both models (in files where large).
    Results do not depend on the number of threads. Raises BnError as `Blocks` does.
    """

    def __init__(
        self, source: Model, wanted: set[str], windows: Tensor, *, embedding: Tensor | None = None,
        device: str = "cpu", mixed: bool = False, step: blocks.Step = no_step,
    ) -> None:  # fmt: skip
        keep_freed()
        self.original = Blocks(source, windows, device=device, mixed=mixed)
        self.coded = Blocks(source, windows, device=device, mixed=mixed, embedding=embedding)
        self.names = {linear.module: name for name, linear in source.linears.items() if name in wanted}
        self._step = step

    def __iter__(self) -> Iterator[Step]:
        one = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        with single_threaded(), one as background:
            coming = self._ahead(background, 0)
            for index, (path, coded) in enumerate(self.coded):
                seen = coming.result()
                following = functools.cache(functools.partial(self._ahead, background, index + 1))
                self.count()
                if seen.order:
                    walk = _Walk(self, path, coded, seen)
                    yield from walk.steps(following)
                    walk.leave()
                else:
                    self.coded.advance()
                coming = following()
                self.count()

    def _ahead(self, background: ThreadPoolExecutor, index: int) -> Any:
        """The original's pass through a block, begun; None behind the last block."""
        return background.submit(self._original, index) if index < len(self.original) else None

    def _original(self, index: int) -> _Original:
        """Run the original through a block, in the background: most of coding leaves a core or more free."""
        with self.original.open(index) as layer:
            path = f"{self.original.path}.{index}"
            found = groups(self.original, layer)
            last = max((at for at, group in enumerate(found) if self.chosen(path, group)), default=-1)
            order = found[: last + 1]
            chosen = [name for group in order for name in self.chosen(path, group)]
            weights = {name: matrix(layer.get_submodule(name)) for name in chosen}
            seen = _Original(order, Kept(len(self.original.windows)), weights)
            coded = [group.leader for group in order if self.chosen(path, group)]
            writers = [group.leader for group in order if group.writes]
            with Replay(self.original, layer).until([group.leader for group in order], end=True) as run:
                for batch in self.original.batches:
                    ran = run(batch)
                    for name in coded:
                        seen.kept.put(name, batch, ran.fed[name])
                    for name in writers:
                        seen.kept.put(_gave(name), batch, ran.gave[name])
                    if writers:
                        seen.kept.put(_BEFORE, batch, ran.hidden)
                    assert ran.after is not None
                    self.original.hidden.put(batch.start, ran.after)
        return seen

    def chosen(self, path: str, group: Group) -> list[str]:
        """Its linears that will be coded, by their paths inside the block."""
        return [name for name in group.names if f"{path}.{name}" in self.names]

    def each(self, work: Callable[[Batch], list[Task]]) -> None:
        """Do `work` for every batch, one a thread, and add up the products that it asks for."""
        with single_threaded() as (pool, workers):
            for wave in self.coded.waves(workers):
                accumulate(pool, list(pool.map(work, wave)))

    def count(self) -> None:
        """Tell progress that one of the models went through a block."""
        self._step(self.original.windows.numel())


class _Original(NamedTuple):
    """Of the original, at one block: the groups to go through, of which some are coded; what their leaders were fed,
    what writers gave and the stream before the block; the weights [out, in] float32 that will be coded."""

    order: list[Group]
    kept: Kept
    weights: dict[str, Tensor]


class _Walk:
    """Through one block of the coded model, on from where the last linears were coded."""

    def __init__(self, prefix: Prefix, path: str, coded: nn.Module, seen: _Original) -> None:
        self.prefix, self.path, self.coded = prefix, path, coded
        self.order, self.kept, self.weights = seen
        self.replay = Replay(prefix.coded, coded)
        self.ours = Kept(len(prefix.original.windows))

    def steps(self, following: Callable[[], Any]) -> Iterator[Step]:
        """following: begins the original's next block; called once a linear is coded alone, which takes one core."""
        self._lose()
        for group in self.order:
            chosen = self.prefix.chosen(self.path, group)
            if chosen:
                step = self._step(group, chosen)
                if group.closes:
                    following()
                yield step
            elif group.writes:
                self._reach(group, lambda batch, x: [])
            else:
                continue
            self._settle(group)

    def leave(self) -> None:
        """Move the coded model's states on to the next block."""
        with self.replay.until((), end=True) as run:

            def work(batch: Batch) -> list[Task]:
                after = run(batch).after
                assert after is not None
                self.prefix.coded.hidden.put(batch.start, after)
                return []

            self.prefix.each(work)
        self.replay.forget()

    def _lose(self) -> None:
        """How far the streams are apart before the block."""
        if not any(group.writes for group in self.order):
            return
        ours = self.prefix.coded

        def work(batch: Batch) -> list[Task]:
            hidden = ours.hidden.get(batch.start, batch.stop)
            self.kept.put(_LOST, batch, self.kept.raw(_BEFORE, batch).to(hidden) - hidden)
            return []

        self.prefix.each(work)
        self.kept.close(_BEFORE)

    def _step(self, group: Group, chosen: list[str]) -> Step:
        weights = {name: self.weights.pop(name) for name in chosen}
        moves, moments = self._moves(group, weights)
        names = {name: self.prefix.names[f"{self.path}.{name}"] for name in chosen}
        modules: dict[str, Any] = {names[name]: self.coded.get_submodule(name) for name in chosen}

        def place(values: Mapping[str, Tensor]) -> None:
            for name, value in values.items():
                weight = modules[name].weight
                weight.data = (value if isinstance(modules[name], nn.Linear) else value.T).to(weight)

        targets = {names[name]: (w + moves[name]).cpu() for name, w in weights.items()}
        return Step(targets, moments.cpu(), place)

    def _moves(self, group: Group, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """What is added to each weight, and the moments of what feeds them."""
        w, device = weights[next(iter(weights))], self.prefix.original.device
        outputs = w.shape[0] if group.writes else w.shape[1]
        regression = Regression(w.shape[1], outputs, device, mixed=self.prefix.original.is_mixed)
        batches = self.prefix.original.batches

        def tasks(batch: Batch, x: Tensor) -> list[Task]:
            missing = self.kept.get(group.leader, batch).to(device) - x
            if group.writes:
                with self.prefix.original.products():
                    missing = (missing @ w.T).float()
                missing += self.kept.get(_LOST, batch).to(device) / group.writes
            return regression.tasks(batches.index(batch) % 2, x, missing)

        self._reach(group, tasks)
        if group.writes:
            solved, moments = regression.solve()
            return dict.fromkeys(weights, solved), moments
        solved, moments = regression.solve(torch.cat(list(weights.values())))
        with single_threaded() as (pool, _):
            moved = list(pool.map(lambda one: one @ solved, weights.values()))
        return dict(zip(weights, moved, strict=True)), moments

    def _reach(self, group: Group, tasks: Callable[[Batch, Tensor], list[Task]]) -> None:
        """Run the coded block until a group is fed, and keep that if its output will be wanted."""
        with self.replay.until([group.leader], end=False) as run:

            def work(batch: Batch) -> list[Task]:
                x = run(batch).fed[group.leader]
                if group.closes:
                    self.ours.put(group.leader, batch, x)
                return tasks(batch, flat(x))

            self.prefix.each(work)
        self.kept.close(group.leader)

    def _settle(self, group: Group) -> None:
        """A group was coded: what it gives stands for all that leads to it from here on, and makes up for some."""
        if not group.closes:
            return
        module, name, blocks = self.coded.get_submodule(group.leader), group.leader, self.replay.blocks
        lost = group.writes and group is not self.order[-1]

        def work(batch: Batch) -> list[Task]:
            with torch.no_grad(), blocks.products():
                y = module(self.ours.raw(name, batch).to(blocks.device))
            self.ours.put(_gave(name), batch, y)
            if lost:
                before, original = self.kept.get(_LOST, batch), self.kept.get(_gave(name), batch)
                self.kept.put(_LOST, batch, before + group.writes * (original - flat(y).cpu()))
            return []

        self.prefix.each(work)
        self.replay.know(group.closes, self.ours.pop(_gave(name)))
        self.ours.close(name)


def _gave(name: str) -> str:
    return f"gave {name}"


def matrix(module: nn.Module) -> Tensor:
    """The weight of a linear [out, in], float32."""
    weight: Any = module.weight
    return (weight if isinstance(module, nn.Linear) else weight.T).detach().float()
