"""A model's repeated blocks, run one at a time over all calibration windows, and what their linears are fed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bntools.core.architecture.sites import Reached
from bntools.core.blockwise import windows as calibration
from bntools.core.blockwise.hooks import Gathered, Seen, flat
from bntools.core.blockwise.loading import Streamed
from bntools.core.blockwise.second_moments import accumulate
from bntools.core.errors import BnError, bad_input
from bntools.core.model.model import Model
from bntools.core.progress import Step, no_step
from bntools.core.system.bfloat16 import gains, products
from bntools.core.system.memory import return_freed
from bntools.core.system.threads import single_threaded
from bntools.core.work.states import RESIDENT, States

NEEDS_NONE = "--method rtn needs no calibration"
BATCH_TOKENS = 2048  # tokens of one call of a block: a product of full speed, activations of a few megabytes
Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Batch:
    """Windows start..stop of the calibration windows, run together."""

    start: int
    stop: int


class Blocks:
    """The decoder or encoder blocks of a model with the hidden states on their way through them.

    source: a module with its weights, or an opened Model, of which then one block at a time is in memory, read from
    disk for the body of the loop over `blocks`. windows: [n, L] token ids, run in batches of about `BATCH_TOKENS`;
    `gather` runs the block at hand over all of them and `advance` makes its outputs the inputs of the next one, with
    whatever weights the block then has. keep: the inputs of every block stay in `inputs`, for a way back.
    start, hidden: begin at a later block, whose inputs are known. embedding: [vocabulary, d] in place of the model's.
    mixed: products in bfloat16 where that is faster (`core.precision`).
    The batches run one a thread, so that results do not depend on how many there are.
    Raises BnError (exit 3) on a model without a list of blocks, or whose blocks do not simply follow each other.
    """

    def __init__(
        self,
        source: nn.Module | Model,
        windows: Tensor,
        *,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        keep: bool = False,
        start: int = 0,
        hidden: States | None = None,
        embedding: Tensor | None = None,
        mixed: bool = False,
    ) -> None:
        self.is_mixed = mixed and gains(device)
        self.streamed = Streamed(source, dtype, device) if isinstance(source, Model) else None
        self.model: Any = self.streamed.module if self.streamed else source
        self.path, self.layers = _blocks(self.model)
        self.device = device if self.streamed else next(self.model.parameters()).device
        self.windows = windows
        size = max(1, BATCH_TOKENS // windows.shape[1])
        self.batches = [
            Batch(start, min(start + size, len(windows))) for start in range(0, len(windows), size)
        ]
        self._calls: dict[int, list[Call]] = {}
        self._tuples = False
        self._keep = keep
        self._index = self._start = start
        with self.outer():
            self._record_all()
            if embedding is not None:
                weight: Any = self.model.get_input_embeddings().weight
                weight.data = embedding.to(weight)
            self.hidden = self._enter() if hidden is None else hidden
        self.inputs = [self.hidden]

    @contextlib.contextmanager
    def outer(self, head: bool = False) -> Iterator[None]:
        """Embeddings and final norm in memory, the output head where asked for, no block."""
        outside = (self.path,) if head else (self.path, *self._head())
        if self.streamed:
            self.streamed.load("", but=outside)
        try:
            yield
        finally:
            if self.streamed:
                self.streamed.release("", but=(self.path,))

    def _head(self) -> list[str]:
        """Path of the output head, unless it shares its weight with the embedding."""
        head, embedding = self.model.get_output_embeddings(), self.model.get_input_embeddings()
        if head is None or head.weight is embedding.weight:
            return []
        return [next(path for path, module in self.model.named_modules() if module is head)]

    def __len__(self) -> int:
        return len(self.layers)

    def index_of(self, path: str) -> int | None:
        """The block that a module path lies in."""
        head, _, rest = path[len(self.path) :].lstrip(".").partition(".")
        return int(head) if path.startswith(f"{self.path}.") and head.isdigit() and rest else None

    def __iter__(self) -> Iterator[tuple[str, nn.Module]]:
        """(path, block), in order; the hidden states move on between them."""
        for index in range(self._start, len(self.layers)):
            with self.open(index) as layer:
                yield f"{self.path}.{index}", layer

    @contextlib.contextmanager
    def open(self, index: int) -> Iterator[nn.Module]:
        """One block with its weights in memory."""
        self._index = index
        path = f"{self.path}.{index}"
        if self.streamed:
            self.streamed.load(path)
        try:
            yield self.layers[index]
        finally:
            if self.streamed:
                self.streamed.release(path)

    def release(self) -> None:
        """Free the block's weights (unless the whole model is in memory) and what its pass left, for what follows."""
        if self.streamed:
            self.streamed.release(f"{self.path}.{self._index}")
        return_freed()

    def rebatch(self, batches: list[Batch]) -> None:
        """Run other batches of the same windows from here on."""
        self.batches = batches
        with self.outer():
            self._record_all()

    def _record_all(self) -> None:
        for batch in self.batches:
            if batch.stop - batch.start not in self._calls:
                self._record(batch)

    @torch.no_grad()
    def _record(self, batch: Batch) -> None:
        """Every block's arguments besides the hidden states, for batches of one size, from a pass around the blocks."""
        ids = self.windows[batch.start : batch.stop]
        for tuples in (self._tuples, not self._tuples):
            self._tuples = tuples
            calls: list[Call] = []
            passed: list[Tensor] = []
            linked = [True]

            def around(
                index: int, args: tuple[Any, ...], kwargs: dict[str, Any], calls=calls, passed=passed, linked=linked
            ) -> Tensor:  # fmt: skip
                hidden = args[0] if args else kwargs["hidden_states"]
                linked[0] &= not passed or hidden is passed[-1]
                calls.append(
                    (args[1:], {key: value for key, value in kwargs.items() if key != "hidden_states"})
                )
                passed.append(hidden * 1)
                return passed[-1]

            with self.around(around):
                try:
                    calibration.run(self.model, ids)
                except BnError:
                    raise
                except Exception as error:  # whatever a model raises that wants more than token ids
                    if not calls:  # nothing to do with the blocks
                        first = (str(error) or type(error).__name__).splitlines()[0][:120]
                        kind = type(self.model).__name__
                        raise bad_input(
                            f"{kind} is not run on token ids alone: {first}", NEEDS_NONE
                        ) from error
            if linked[0] and len(calls) == len(self.layers):
                self._calls[len(ids)] = calls
                return
        raise bad_input("the blocks of this model do not simply follow each other", NEEDS_NONE)

    @contextlib.contextmanager
    def around(self, stand_in: Callable[[int, tuple[Any, ...], dict[str, Any]], Tensor]) -> Iterator[None]:
        """Let `stand_in(index, args, kwargs)` compute the blocks' outputs for as long as the context lasts."""

        def replace(index: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                out = stand_in(index, args, kwargs)
                return (out,) if self._tuples else out

            return forward

        for index, layer in enumerate(self.layers):
            layer.forward = replace(index)
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.forward

    @torch.no_grad()
    def _enter(self) -> States:
        """Hidden states [n, L, d] before the first block."""
        states: list[States] = []

        def first(index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
            hidden = args[0] if args else kwargs["hidden_states"]
            if not states:
                states.append(States((len(self.windows), *hidden.shape[1:]), hidden.dtype))
            states[0].put(batch.start, hidden)
            raise Reached

        with self.around(first):
            for batch in self.batches:
                with contextlib.suppress(Reached):
                    calibration.run(self.model, self.windows[batch.start : batch.stop])
        return states[0]

    def call(self, hidden: Tensor) -> Tensor:
        """The block at hand, applied to the hidden states of a batch."""
        args, kwargs = self._calls[len(hidden)][self._index]
        with self.products():
            out = self.layers[self._index](hidden, *args, **kwargs)
        return out if isinstance(out, Tensor) else out[0]

    def products(self) -> contextlib.AbstractContextManager[Any]:
        """How products are taken, in this thread, for as long as the context lasts."""
        return products(self.is_mixed)

    def waves(self, workers: int, batches: list[Batch] | None = None) -> Iterator[list[Batch]]:
        """The batches, as many at a time as there are workers."""
        todo = self.batches if batches is None else batches
        return (todo[start : start + workers] for start in range(0, len(todo), workers))

    def advance(self, step: Step = no_step) -> None:
        """Replace the hidden states by the block's outputs."""
        self.gather((), advance=True, step=step)

    def gather(self, names: Iterable[str], advance: bool, step: Step = no_step) -> dict[str, Tensor]:
        """E[x x^T] [in, in] float32 of the inputs of the block's linears `names` (paths inside the block).

        Linears fed the same tensor share one result. advance: keep the outputs as the next block's inputs.
        """
        gathered = Gathered(self.layers[self._index], names)
        with single_threaded() as (pool, workers):
            for seen in self._pass(pool, workers, gathered, advance, step):
                accumulate(pool, [gathered.tasks(one) for one in seen])
        return gathered.result()

    def squares(self, names: Iterable[str], step: Step = no_step) -> dict[str, Tensor]:
        """E[x_j^2] [in] float64 of the inputs of the block's linears `names`; the block's outputs are kept."""
        return self._means(names, torch.square, step)

    def norms(self, names: Iterable[str], step: Step = no_step) -> dict[str, Tensor]:
        """The 2-norm of each input over the positions of a window, its mean over the windows: [in] float64."""
        return self._means(names, lambda x: x.square().sum(-2, dtype=torch.float64).sqrt(), step)

    def _means(
        self, names: Iterable[str], of: Callable[[Tensor], Tensor], step: Step
    ) -> dict[str, Tensor]:  # fmt: skip
        """Means of what `of` makes of the inputs of the linears; the block's outputs are kept."""
        gathered = Gathered(self.layers[self._index], names)
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        with single_threaded() as (pool, workers):
            for seen in self._pass(pool, workers, gathered, True, step):
                for name, x in (pair for one in seen for pair in one.inputs):
                    values = flat(of(x))
                    total = values.sum(0, dtype=torch.float64)
                    sums[name] = sums[name] + total if name in sums else total
                    counts[name] = counts.get(name, 0) + len(values)
        return {name: total / max(counts[name], 1) for name, total in sums.items()}

    def _pass(
        self, pool: ThreadPoolExecutor, workers: int, gathered: Gathered, advance: bool, step: Step
    ) -> Iterator[list[Seen]]:
        """Run the block over all batches; what was seen of as many at a time as there are workers."""
        keep = (
            advance and self._keep
        )  # all of them in memory, or none: together they are as many times as large
        resident = RESIDENT // len(self.layers)
        target = States(self.hidden.shape, self.hidden.dtype, resident) if keep else self.hidden

        def work(batch: Batch) -> Seen:
            with torch.no_grad(), gathered.watching() as seen:
                out = self.call(self.hidden.get(batch.start, batch.stop).to(self.device))
            if advance:
                target.put(batch.start, out)
            return seen

        with gathered:
            for wave in self.waves(workers):
                yield list(pool.map(work, wave))
                step(sum(batch.stop - batch.start for batch in wave) * self.windows.shape[1])
        if advance and self._keep:
            self.inputs.append(target)
        self.hidden = target


def input_squares(
    source: Model, paths: Collection[str], windows: Tensor, device: str = "cpu", step: Step = no_step
) -> dict[str, Tensor]:
    """E[x_j^2] [in] float64 of the inputs of the modules at `paths` that lie in the blocks, one block in memory."""
    return _of_inputs(Blocks.squares, source, paths, windows, device, step)


def input_norms(
    source: Model, paths: Collection[str], windows: Tensor, device: str = "cpu", step: Step = no_step
) -> dict[str, Tensor]:
    """The 2-norms over a window's positions, their means over the windows, likewise: [in] float64."""
    return _of_inputs(Blocks.norms, source, paths, windows, device, step)


def _of_inputs(
    measure: Callable[[Blocks, list[str], Step], dict[str, Tensor]], source: Model, paths: Collection[str],
    windows: Tensor, device: str, step: Step,
) -> dict[str, Tensor]:  # fmt: skip
    blocks, sums = Blocks(source, windows, device=device), {}
    for path, layer in blocks:
        names = [name for name, _ in layer.named_modules() if f"{path}.{name}" in paths]
        sums |= {f"{path}.{name}": value for name, value in measure(blocks, names, step).items()}
    return sums


def _blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    lists = [(path, m) for path, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    if not lists:
        raise bad_input("the model has no list of blocks to calibrate one by one", "--method rtn needs none")
    return max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()))
