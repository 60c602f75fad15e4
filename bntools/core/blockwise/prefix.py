"""The original beside the model whose earlier layers are coded, and weights that make up for what those lost.

A linear W that is fed x~ where the original feeds it x should give W x all the same, and one that writes to the
residual stream should also give what the stream has lost so far, e. Least squares over the calibration text with a
ridge (`core.ridge`) gives the target W + E[(W (x - x~) + e) x~^T] (E[x~ x~^T] + ridge)^-1, to be coded in place of W.
Without e this is the asymmetric calibration of GPTAQ (arXiv 2504.02692).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bntools.core.blockwise.blocks import Batch, Blocks
from bntools.core.blockwise.hooks import flat
from bntools.core.blockwise.replay import Kept, Replay
from bntools.core.blockwise.ridge import Regression
from bntools.core.blockwise.second_moments import Task, accumulate
from bntools.core.blockwise.shared_inputs import Group, groups
from bntools.core.model.model import Model
from bntools.core.progress import Step, no_step
from bntools.core.system.memory import keep_freed
from bntools.core.system.threads import single_threaded

_BEFORE = "before"  # what is fed to a block of the original
_LOST = "lost"  # of the residual stream: what the original has and the coded model lacks


class CodingTurn(NamedTuple):
    """What to code next. targets: weights [out, in] float32 by tensor, all fed the same. moments: E[x~ x~^T] [in, in]
    of what feeds them; both in main memory. place: puts the coded weights where they were, to be called before the next
    step."""

    targets: dict[str, Tensor]
    moments: Tensor
    place: Callable[[Mapping[str, Tensor]], None]


class Prefix:
    """Walks through a model's blocks: what to code next, fed by what was coded before.

    Iterates over lists of steps for the same tensors, one for each coded model: several may be walked side by side.

    wanted: tensors that will be coded. windows: [n, L] token ids. embeddings: of each coded model, [vocabulary, d] as
    it was coded, or None.
    mixed: products in bfloat16 where that is faster (`core.precision`), sums and all else in float32.
    The original is run one block ahead: up to two blocks of it with their weights are in memory and one of each coded
    model, and the hidden states of all (in files where large).
    Results do not depend on the number of threads. Raises BnError as `Blocks` does.
    """

    def __init__(
        self, source: Model, wanted: set[str], windows: Tensor, *,
        embeddings: Sequence[Tensor | None] = (None,), device: str = "cpu", mixed: bool = False,
        step: Step = no_step,
    ) -> None:  # fmt: skip
        keep_freed()
        self.original = Blocks(source, windows, device=device, mixed=mixed)
        self.coded = [
            Blocks(source, windows, device=device, mixed=mixed, embedding=embedding)
            for embedding in embeddings
        ]
        self.names = {linear.module: name for name, linear in source.linears.items() if name in wanted}
        self._step = step

    def __iter__(self) -> Iterator[list[CodingTurn]]:
        one = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        with single_threaded(), one as background:
            coming = self._ahead(background, 0)
            for index, opened in enumerate(zip(*self.coded, strict=True)):
                seen = coming.result()
                following = functools.cache(functools.partial(self._ahead, background, index + 1))
                self.count()
                if seen.order:
                    walks = [
                        _Walk(self, coded, path, layer, seen)
                        for coded, (path, layer) in zip(self.coded, opened, strict=True)
                    ]
                    yield from self._steps(walks, seen, following)
                    for walk in walks:
                        walk.leave()
                else:
                    for coded in self.coded:
                        coded.advance()
                coming = following()
                self.count(len(self.coded))

    def _steps(
        self, walks: list[_Walk], seen: _Original, following: Callable[[], Any]
    ) -> Iterator[list[CodingTurn]]:
        """Through one block. following: begins the original's next block; called once a linear is coded alone, which
        takes one core."""
        for walk in walks:
            walk.lose()
        seen.kept.close(_BEFORE)
        for group in seen.order:
            chosen = self.chosen(walks[0].path, group)
            if chosen:
                steps = [walk.step(group, chosen) for walk in walks]
                for name in chosen:
                    del seen.weights[name]
                if group.closes:
                    following()
            elif group.writes:
                steps = []
                for walk in walks:
                    walk.reach(group)
            else:
                continue
            seen.kept.close(group.leader)
            if steps:
                yield steps
            for walk in walks:
                walk.settle(group)

    def _ahead(self, background: ThreadPoolExecutor, index: int) -> Any:
        """The original's pass through a block, begun; None behind the last block."""
        return background.submit(self._original, index) if index < len(self.original) else None

    def _original(self, index: int) -> _Original:
        """Run the original through a block, in the background: most of coding leaves a core or more free."""
        with self.original.open(index) as layer:
            path = f"{self.original.path}.{index}"
            feeding = groups(self.original, layer)
            last = max((at for at, group in enumerate(feeding) if self.chosen(path, group)), default=-1)
            order = feeding[: last + 1]
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
            for wave in self.original.waves(workers):
                accumulate(pool, list(pool.map(work, wave)))

    def count(self, models: int = 1) -> None:
        """Tell progress that some of the models went through a block."""
        self._step(models * self.original.windows.numel())


class _Original(NamedTuple):
    """Of the original, at one block: the groups to go through, of which some are coded; what their leaders were fed,
    what writers gave and the stream before the block; the weights [out, in] float32 that will be coded."""

    order: list[Group]
    kept: Kept
    weights: dict[str, Tensor]


class _Walk:
    """Through one block of a coded model, on from where the last linears were coded."""

    def __init__(self, prefix: Prefix, blocks: Blocks, path: str, layer: nn.Module, seen: _Original) -> None:
        self.prefix, self.blocks, self.path, self.layer, self.seen = prefix, blocks, path, layer, seen
        self.replay = Replay(blocks, layer)
        self.ours = Kept(len(blocks.windows))

    def leave(self) -> None:
        """Move the coded model's states on to the next block."""
        with self.replay.until((), end=True) as run:

            def work(batch: Batch) -> list[Task]:
                after = run(batch).after
                assert after is not None
                self.blocks.hidden.put(batch.start, after)
                return []

            self.prefix.each(work)
        self.replay.forget()

    def lose(self) -> None:
        """How far the streams are apart before the block."""
        if not any(group.writes for group in self.seen.order):
            return

        def work(batch: Batch) -> list[Task]:
            hidden = self.blocks.hidden.get(batch.start, batch.stop)
            self.ours.put(_LOST, batch, self.seen.kept.raw(_BEFORE, batch).to(hidden) - hidden)
            return []

        self.prefix.each(work)

    def step(self, group: Group, chosen: list[str]) -> CodingTurn:
        """What to code of a group's linears."""
        weights = {name: self.seen.weights[name] for name in chosen}
        moves, moments = self._moves(group, weights)
        names = {name: self.prefix.names[f"{self.path}.{name}"] for name in chosen}
        modules: dict[str, Any] = {names[name]: self.layer.get_submodule(name) for name in chosen}

        def place(values: Mapping[str, Tensor]) -> None:
            for name, value in values.items():
                weight = modules[name].weight
                weight.data = (value if isinstance(modules[name], nn.Linear) else value.T).to(weight)

        targets = {names[name]: (w + moves[name]).cpu() for name, w in weights.items()}
        return CodingTurn(targets, moments.cpu(), place)

    def _moves(self, group: Group, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """What is added to each weight, and the moments of what feeds them."""
        w, device = weights[next(iter(weights))], self.blocks.device
        outputs = w.shape[0] if group.writes else w.shape[1]
        regression = Regression(w.shape[1], outputs, device, mixed=self.blocks.is_mixed)
        batches = self.blocks.batches

        def tasks(batch: Batch, x: Tensor) -> list[Task]:
            missing = self.seen.kept.get(group.leader, batch).to(device) - x
            if group.writes:
                with self.blocks.products():
                    missing = (missing @ w.T).float()
                missing += self.ours.get(_LOST, batch).to(device) / group.writes
            return regression.tasks(batches.index(batch) % 2, x, missing)

        self.reach(group, tasks)
        if group.writes:
            solved, moments = regression.solve()
            return dict.fromkeys(weights, solved), moments
        solved, moments = regression.solve(torch.cat(list(weights.values())))
        with single_threaded() as (pool, _):
            moved = list(pool.map(lambda one: one @ solved, weights.values()))
        return dict(zip(weights, moved, strict=True)), moments

    def reach(self, group: Group, tasks: Callable[[Batch, Tensor], list[Task]] = lambda batch, x: []) -> None:
        """Run the coded block until a group is fed, and keep that if its output will be wanted."""
        with self.replay.until([group.leader], end=False) as run:

            def work(batch: Batch) -> list[Task]:
                x = run(batch).fed[group.leader]
                if group.closes:
                    self.ours.put(group.leader, batch, x)
                return tasks(batch, flat(x))

            self.prefix.each(work)

    def settle(self, group: Group) -> None:
        """A group was coded: what it gives stands for all that leads to it from here on, and makes up for some."""
        if not group.closes:
            return
        module, name, blocks = self.layer.get_submodule(group.leader), group.leader, self.blocks
        lost = group.writes and group is not self.seen.order[-1]

        def work(batch: Batch) -> list[Task]:
            with torch.no_grad(), blocks.products():
                y = module(self.ours.raw(name, batch).to(blocks.device))
            self.ours.put(_gave(name), batch, y)
            if lost:
                before, original = self.ours.get(_LOST, batch), self.seen.kept.get(_gave(name), batch)
                self.ours.put(_LOST, batch, before + group.writes * (original - flat(y).cpu()))
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
