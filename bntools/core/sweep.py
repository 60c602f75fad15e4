"""A backward sweep through a model, one block in memory: how much the output minds a change of each linear."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bntools.core.blocks import Batch, Blocks, Step, no_step
from bntools.core.errors import bad_input
from bntools.core.gathered import Gathered, Seen, flat
from bntools.core.model import Model
from bntools.core.moments import Moments, Task, accumulate
from bntools.core.states import States
from bntools.core.threads import single_threaded

_POSITIONS = 128  # positions whose logits exist at once


class Sensitivity(NamedTuple):
    """Of one linear, with x its inputs and g the gradients of the sampled loss at its outputs.

    rows: E[g_i^2] [out]. weighted: E[|g|^2 x x^T] / out [in, in]. plain: E[x x^T] [in, in], one tensor for linears
    fed the same. outputs: E[g g^T] [out, out] where the sweep was asked for it. All float32.
    """

    rows: Tensor
    weighted: Tensor
    plain: Tensor
    outputs: Tensor | None = None


class HeadMoments(NamedTuple):
    """second: E[h h^T] [d, d] of what the output head is fed. variance: E[p_v (1 - p_v)] [vocabulary]."""

    second: Tensor
    variance: Tensor


class Sweep:
    """Fisher statistics of every linear of a model's blocks, the last block first.

    windows: [n, L] token ids. At every position a random gradient with the covariance of the Fisher information is
    drawn (`loss_gradient`), and their sum over a window is propagated back; `weighted` windows (all by default),
    evenly spaced, take part in that, all in the plain moments. The constructor runs forward, keeping the inputs of
    each block (in a file where large) and the moments of the head in `head`; iterating gives (path, {tensor:
    Sensitivity}) block by block.
    After the last block `first` holds E[g g^T] [d, d] of the gradients at the first block's inputs, the embeddings.
    outputs: also gather the moments of the gradients across outputs.
    Raises BnError (exit 3) on a model without an output head, or as `Blocks` does.
    """

    def __init__(
        self,
        source: Model,
        windows: Tensor,
        *,
        seed: int = 0,
        weighted: int | None = None,
        outputs: bool = False,
        device: str = "cpu",
        step: Step = no_step,
    ) -> None:
        count = len(windows) if weighted is None else max(1, min(weighted, len(windows)))
        chosen = torch.linspace(0, len(windows) - 1, count).round().long().tolist()
        rest = [index for index in range(len(windows)) if index not in set(chosen)]
        self._order, self._seed, self._step, self._outputs = [*chosen, *rest], seed, step, outputs
        self._tensors = {linear.module: name for name, linear in source.linears.items()}
        self.blocks = Blocks(source, windows[self._order], device=device, keep=True)
        if self.blocks.model.get_output_embeddings() is None:
            raise bad_input(
                "the model has no output head, so no likelihood to differentiate", "use plain calibration"
            )
        self._split(count)
        for _ in self.blocks:
            self.blocks.advance(step)
        self._grads = States((count, *self.blocks.hidden.shape[1:]), self.blocks.hidden.dtype)
        self.head = self._head()

    def _split(self, count: int) -> None:
        """Batches with gradients, then those without: none holds both."""
        size = max(batch.stop - batch.start for batch in self.blocks.batches)
        bounds = [(0, count), (count, len(self._order))]
        first, second = (
            [Batch(start, min(start + size, stop)) for start in range(begin, stop, size)]
            for begin, stop in bounds
        )
        self.backward, self.forward = first, second
        self.blocks.rebatch([*first, *second])

    def _head(self) -> HeadMoments:
        with self.blocks.outer(head=True):
            return _Head(self.blocks, self._grads, self._seed, self._order).run(self.backward, self.forward)

    def __iter__(self) -> Iterator[tuple[str, dict[str, Sensitivity]]]:
        for index in reversed(range(len(self.blocks))):
            path = f"{self.blocks.path}.{index}"
            with self.blocks.open(index) as layer:
                found = self._block(path, layer, self.blocks.inputs[index])
            self.blocks.inputs[index].close()
            yield path, found
        self.first = _second_moment(self._grads)

    def _block(self, path: str, layer: nn.Module, inputs: States) -> dict[str, Sensitivity]:
        names = [
            name
            for name, module in layer.named_modules()
            if f"{path}.{name}" in self._tensors and getattr(getattr(module, "weight", None), "ndim", 0) == 2
        ]
        gathered, sums = Gathered(layer, names, gradients=True), _Sums(self._outputs)

        def work(batch: Batch) -> Seen:
            hidden = inputs.get(batch.start, batch.stop).to(self.blocks.device)
            differentiate = batch in self.backward
            with torch.set_grad_enabled(differentiate), gathered.watching() as seen:
                out = self.blocks.call(hidden.requires_grad_(differentiate))
                if differentiate:
                    out.backward(self._grads.get(batch.start, batch.stop).to(out))
                    assert hidden.grad is not None
                    self._grads.put(batch.start, hidden.grad)
            return seen

        with gathered, single_threaded() as (pool, workers):
            for wave in self.blocks.waves(workers):
                seen = list(pool.map(work, wave))
                accumulate(pool, [[*gathered.tasks(one), *sums.tasks(one)] for one in seen])
                self._step(sum(batch.stop - batch.start for batch in wave) * self.blocks.windows.shape[1])
        plain = gathered.result()
        return {
            self._tensors[f"{path}.{name}"]: sums.of(name, plain[name]) for name in names if name in sums.rows
        }


class _Sums:
    """Row energies and weighted moments of each linear."""

    def __init__(self, outputs: bool) -> None:
        self.rows: dict[str, Tensor] = {}
        self._moments: dict[str, Moments] = {}
        self._outputs: dict[str, Moments] | None = {} if outputs else None

    def tasks(self, seen: Seen) -> list[Task]:
        tasks: list[Task] = []
        for name, x, g in seen.gradients:
            squares = g.square()
            rows = squares.sum(0, dtype=torch.float64)
            self.rows[name] = self.rows[name] + rows if name in self.rows else rows
            if name not in self._moments:
                self._moments[name] = Moments(x.shape[1], x.device)
            tasks += self._moments[name].tasks(x, squares.sum(1) / g.shape[1])
            if self._outputs is not None:
                tasks += self._outputs.setdefault(name, Moments(g.shape[1], g.device)).tasks(g)
        return tasks

    def of(self, name: str, plain: Tensor) -> Sensitivity:
        moments = self._moments.pop(name)
        outputs = self._outputs.pop(name).mean() if self._outputs is not None else None
        return Sensitivity((self.rows[name] / moments.tokens).float(), moments.mean(), plain, outputs)


def _second_moment(states: States) -> Tensor:
    """E[g g^T] over all windows and positions."""
    total = torch.zeros(states.shape[-1], states.shape[-1], dtype=torch.float64)
    for index in range(states.shape[0]):
        g = flat(states.get(index, index + 1)).double()
        total += g.T @ g
    return (total / (states.shape[0] * states.shape[1])).float()


class _Head:
    """The pass from the last block's outputs to the loss, and the gradients back to them."""

    def __init__(self, blocks: Blocks, grads: States, seed: int, order: list[int]) -> None:
        self.blocks, self.grads, self.seed, self.order = blocks, grads, seed, order
        self.model: Any = blocks.model
        self.local = threading.local()
        self.partial = "logits_to_keep" in inspect.signature(type(self.model).forward).parameters
        self.second: Moments | None = None
        self.variance: Tensor | None = None

    def run(self, backward: list[Batch], forward: list[Batch]) -> HeadMoments:
        hook = self.model.get_output_embeddings().register_forward_pre_hook(self._fed)
        try:
            with self.blocks.around(self._stand_in), single_threaded() as (pool, workers):
                for batches, work in ((backward, self._differentiate), (forward, self._plain)):
                    for wave in self.blocks.waves(workers, batches):
                        accumulate(pool, [self._tasks(*found) for found in pool.map(work, wave)])
        finally:
            hook.remove()
        assert self.second is not None
        assert self.variance is not None
        tokens = sum(batch.stop - batch.start for batch in backward) * self.blocks.windows.shape[1]
        return HeadMoments(self.second.mean(), (self.variance / tokens).float())

    def _stand_in(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if index == len(self.blocks) - 1:
            return self.local.last
        return args[0] if args else kwargs["hidden_states"]

    def _fed(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.local.fed.append(flat(args[0]))
        if self.local.stop:
            raise _Fed

    def _tasks(self, fed: list[Tensor], variance: Tensor | None) -> list[Task]:
        if variance is not None:
            self.variance = variance if self.variance is None else self.variance + variance
        tasks: list[Task] = []
        for x in fed:
            self.second = self.second or Moments(x.shape[1], x.device)
            tasks += self.second.tasks(x)
        return tasks

    def _start(self, batch: Batch, stop: bool) -> tuple[Tensor, Tensor]:
        self.local.fed, self.local.stop = [], stop
        self.local.last = self.blocks.hidden.get(batch.start, batch.stop).to(self.blocks.device)
        return self.blocks.windows[batch.start : batch.stop].to(self.blocks.device), self.local.last

    @torch.no_grad()
    def _plain(self, batch: Batch) -> tuple[list[Tensor], Tensor | None]:
        ids, _ = self._start(batch, stop=True)
        with contextlib.suppress(_Fed):
            self.model(ids, **_no_cache(self.model))
        return self.local.fed, None

    def _differentiate(self, batch: Batch) -> tuple[list[Tensor], Tensor | None]:
        ids, last = self._start(batch, stop=False)
        last.requires_grad_(True)
        length = ids.shape[1]
        generators = [generator(self.seed, self.order[at]) for at in range(batch.start, batch.stop)]
        width = _POSITIONS if self.partial else length
        variance = None
        for start in range(0, length, width):
            keep = torch.arange(start, min(start + width, length), device=ids.device)
            with torch.enable_grad():
                more = {"logits_to_keep": keep} if self.partial else {}
                logits = self.model(ids, **more, **_no_cache(self.model)).logits
            signs = torch.stack([random_signs(one, logits.shape[1:]) for one in generators])
            gradient, spread = loss_gradient(logits.detach(), signs.to(ids.device))
            logits.backward(gradient.to(logits))
            variance = spread if variance is None else variance + spread
        assert last.grad is not None
        self.grads.put(batch.start, last.grad)
        return self.local.fed, variance


class _Fed(Exception):
    """Ends a pass at the output head."""


def generator(seed: int, window: int) -> torch.Generator:
    """What the signs of one window are drawn from."""
    return torch.Generator().manual_seed((seed << 32) + window)


def random_signs(drawn: torch.Generator, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Independent signs, -1 or 1, as int8."""
    return torch.randint(0, 2, shape, generator=drawn, dtype=torch.int8).mul_(2).sub_(1)


def loss_gradient(logits: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """A random gradient at the logits [n, L, V] whose covariance is the Fisher information diag(p) - p p^T.

    g_v = sqrt(p_v) s_v - p_v sum_u sqrt(p_u) s_u with signs s. Labels drawn from p would do as well, with
    p - onehot(y): but where p is nearly certain that is nearly 0 all the time and large once in a while, and moments
    of some thousand tokens are then those of a few. Second: the sum over positions of p (1 - p), [V] float64.
    """
    p = logits.float().softmax(-1)
    variance = (p - p.square()).flatten(0, -2).sum(0, dtype=torch.float64)
    drawn = p.sqrt() * signs
    return drawn.sub_(p.mul_(drawn.sum(-1, keepdim=True))), variance


def _no_cache(model: Any) -> dict[str, bool]:
    return {"use_cache": False} if hasattr(model.config, "use_cache") else {}
