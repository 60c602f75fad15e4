"""A backward sweep through a model, one block in memory: how much the output minds a change of each linear."""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bntools.core.blockwise.blocks import Batch, Blocks
from bntools.core.blockwise.hooks import Gathered, Seen, flat
from bntools.core.blockwise.second_moments import InputMoments, Task, accumulate
from bntools.core.errors import bad_input
from bntools.core.model.model import Model
from bntools.core.progress import Step, no_step
from bntools.core.system.memory import keep_freed
from bntools.core.system.threads import single_threaded
from bntools.core.work.states import States

POSITIONS = 256  # positions whose logits exist at once
_CACHED = 400_000  # logits worked on at once, so that they stay in the second-level cache


class Sensitivity(NamedTuple):
    """Of one linear, with x its inputs and g the gradients of the sampled loss at its outputs.

    rows: E[g_i^2] [out]. inputs: E[w x x^T] [in, in] with w = 1 + |g|^2 / c, w scaled to a mean of 1 and c about the
    mean of |g|^2: half the plain moments and half those weighted by the gradients, which alone would fit one text.
    outputs: E[g g^T] [out, out], where the sweep was asked for it. All float32.
    """

    rows: Tensor
    inputs: Tensor
    outputs: Tensor | None = None


class HeadMoments(NamedTuple):
    """second: E[h h^T] [d, d] of what the output head is fed. variance: E[p_v (1 - p_v)] [vocabulary]."""

    second: Tensor
    variance: Tensor


class Sweep:
    """Fisher statistics of every linear of a model's blocks, the last block first.

    windows: [n, L] token ids. At every position a random gradient with the covariance of the Fisher information is
    drawn (`loss_gradient`), and their sum over a window is propagated back. The constructor runs forward, keeping the
    inputs of each block (in a file where large) and the moments of the head in `head`; iterating gives (path,
    {tensor: Sensitivity}) block by block.
    After the last block `first` holds E[g g^T] [d, d] of the gradients at the first block's inputs, the embeddings.
    outputs: also gather the moments of the gradients across outputs.
    mixed: products in bfloat16 where that is faster (`core.precision`).
    Raises BnError (exit 3) on a model without an output head, or as `Blocks` does.
    """

    def __init__(
        self,
        source: Model,
        windows: Tensor,
        *,
        seed: int = 0,
        outputs: bool = False,
        mixed: bool = False,
        device: str = "cpu",
        step: Step = no_step,
    ) -> None:
        keep_freed()
        self._step, self._outputs = step, outputs
        self._tensors = {linear.module: name for name, linear in source.linears.items()}
        self.blocks = Blocks(source, windows, device=device, keep=True, mixed=mixed)
        if self.blocks.model.get_output_embeddings() is None:
            raise bad_input(
                "the model has no output head, so no likelihood to differentiate", "use plain calibration"
            )
        for _ in self.blocks:
            self.blocks.advance(step)
        self._grads = States(self.blocks.hidden.shape, self.blocks.hidden.dtype)
        with self.blocks.outer(head=True):
            self.head = _Head(self.blocks, self._grads, seed).run()

    def __iter__(self) -> Iterator[tuple[str, dict[str, Sensitivity]]]:
        for index in reversed(range(len(self.blocks))):
            path = f"{self.blocks.path}.{index}"
            with self.blocks.open(index) as layer:
                sensitivities = self._block(path, layer, self.blocks.inputs[index])
            self.blocks.inputs[index].close()
            yield path, sensitivities
        self.first = _second_moment(self._grads)

    def _block(self, path: str, layer: nn.Module, inputs: States) -> dict[str, Sensitivity]:
        names = [
            name
            for name, module in layer.named_modules()
            if f"{path}.{name}" in self._tensors and getattr(getattr(module, "weight", None), "ndim", 0) == 2
        ]
        gathered = Gathered(layer, names, gradients=True)
        sums = _Sums(self._louder(), self._outputs, torch.bfloat16 if self.blocks.is_mixed else torch.float32)

        def work(batch: Batch) -> Seen:
            hidden = inputs.get(batch.start, batch.stop).to(self.blocks.device)
            with torch.enable_grad(), gathered.watching() as seen:
                out = self.blocks.call(hidden.requires_grad_(True))
                out.backward(self._grads.get(batch.start, batch.stop).to(out))
            assert hidden.grad is not None
            self._grads.put(batch.start, hidden.grad)
            return seen

        with gathered, single_threaded() as (pool, workers):
            for wave in self.blocks.waves(workers):
                seen = list(pool.map(work, wave))
                accumulate(pool, sums.tasks(pool, seen))
                self._step(sum(batch.stop - batch.start for batch in wave) * self.blocks.windows.shape[1])
        return {self._tensors[f"{path}.{name}"]: sums.of(name) for name in names if name in sums.rows}

    def _louder(self) -> float:
        """Squared gradients at the block's outputs, over all windows, to those of the first batch."""
        squares = [
            float(self._grads.get(at, at + 1).square().sum(dtype=torch.float64))
            for at in range(self._grads.shape[0])
        ]
        first = self.blocks.batches[0].stop
        return (sum(squares) / len(squares)) / max(sum(squares[:first]) / first, 1e-300)


class _Measured(NamedTuple):
    """Of one linear in one batch: inputs [n, in], gradients [n, out], |g|^2 / out [n], and sums of g_i^2 [out]."""

    name: str
    x: Tensor
    g: Tensor
    loud: Tensor
    rows: Tensor


def _measured(seen: Seen) -> list[_Measured]:
    measured = []
    for name, x, g in seen.gradients:
        squares = g.square()
        measured.append(
            _Measured(name, x, g, squares.sum(1) / g.shape[1], squares.sum(0, dtype=torch.float64))
        )
    return measured


class _Sums:
    """Row energies and moments of each linear.

    louder: by which the mean of |g|^2 over all tokens is taken to exceed that over the first batch. across: whether to
    sum moments across outputs. factors: see `Moments`.
    """

    def __init__(self, louder: float, across: bool, factors: torch.dtype) -> None:
        self.rows: dict[str, Tensor] = {}
        self._louder, self._across, self._factors = louder, across, factors
        self._scale: dict[str, float] = {}
        self._inputs: dict[str, InputMoments] = {}
        self._outputs: dict[str, InputMoments] = {}

    def tasks(self, pool: ThreadPoolExecutor, seen: list[Seen]) -> list[list[Task]]:
        """Products that add some batches, each."""
        measured = list(pool.map(_measured, seen))
        for one in measured:
            for name, x, g, loud, rows in one:
                if name not in self.rows:
                    self.rows[name] = torch.zeros_like(rows)
                    self._scale[name] = max(self._louder * float(loud.mean()), 1e-30)
                    self._inputs[name] = InputMoments(x.shape[1], x.device, self._factors)
                    if self._across:
                        self._outputs[name] = InputMoments(g.shape[1], g.device, self._factors)
                self.rows[name] += rows
        return list(pool.map(self._products, measured))

    def _products(self, measured: list[_Measured]) -> list[Task]:
        tasks: list[Task] = []
        for name, x, g, loud, _ in measured:
            tasks += self._inputs[name].tasks(x, 1 + loud / self._scale[name])
            if self._across:
                tasks += self._outputs[name].tasks(g)
        return tasks

    def of(self, name: str) -> Sensitivity:
        moments = self._inputs.pop(name)
        rows = self.rows[name] / moments.tokens
        inputs = moments.mean().div_(1 + float(rows.mean()) / self._scale[name])
        return Sensitivity(rows.float(), inputs, self._outputs.pop(name).mean() if self._outputs else None)


def _second_moment(states: States) -> Tensor:
    """E[g g^T] over all windows and positions."""
    total = torch.zeros(states.shape[-1], states.shape[-1], dtype=torch.float64)
    for index in range(states.shape[0]):
        g = flat(states.get(index, index + 1)).double()
        total += g.T @ g
    return (total / (states.shape[0] * states.shape[1])).float()


class _Head:
    """The pass from the last block's outputs to the loss, and the gradients back to them."""

    def __init__(self, blocks: Blocks, grads: States, seed: int) -> None:
        self.blocks, self.grads, self.seed = blocks, grads, seed
        self.model: Any = blocks.model
        self.local = threading.local()
        self.partial = "logits_to_keep" in inspect.signature(type(self.model).forward).parameters
        self.second: InputMoments | None = None
        self.variance: Tensor | None = None

    def run(self) -> HeadMoments:
        hook = self.model.get_output_embeddings().register_forward_pre_hook(self._fed)
        try:
            with self.blocks.around(self._stand_in), single_threaded() as (pool, workers):
                for wave in self.blocks.waves(workers):
                    accumulate(pool, [self._tasks(*pair) for pair in pool.map(self._differentiate, wave)])
        finally:
            hook.remove()
        if self.second is None or self.variance is None:
            what = f"{type(self.model).__name__} reads the weights of its output head past the layer"
            raise bad_input(what, "without measured importance: quantize --calib none")
        return HeadMoments(self.second.mean(), (self.variance / self.blocks.windows.numel()).float())

    def _stand_in(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if index == len(self.blocks) - 1:
            return self.local.last
        return args[0] if args else kwargs["hidden_states"]

    def _fed(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.local.fed.append(flat(args[0]))

    def _tasks(self, fed: list[Tensor], variance: Tensor) -> list[Task]:
        self.variance = variance if self.variance is None else self.variance + variance
        tasks: list[Task] = []
        for x in fed:
            self.second = self.second or InputMoments(x.shape[1], x.device)
            tasks += self.second.tasks(x)
        return tasks

    def _differentiate(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        ids = self.blocks.windows[batch.start : batch.stop].to(self.blocks.device)
        last = self.blocks.hidden.get(batch.start, batch.stop).to(self.blocks.device).requires_grad_(True)
        self.local.fed, self.local.last = [], last
        generators = [generator(self.seed, window) for window in range(batch.start, batch.stop)]
        length = ids.shape[1]
        width = POSITIONS if self.partial else length
        variance = torch.zeros((), dtype=torch.float64, device=ids.device)
        for start in range(0, length, width):
            keep = torch.arange(start, min(start + width, length), device=ids.device)
            with torch.enable_grad(), self.blocks.products():
                more = {"logits_to_keep": keep} if self.partial else {}
                logits = self.model(ids, **more, **_no_cache(self.model)).logits
            signs = torch.stack([random_signs(one, logits.shape[1:]) for one in generators])
            gradient, spread = loss_gradient(logits.detach(), signs.to(ids.device))
            logits.backward(gradient)
            variance = variance + spread
        assert last.grad is not None
        self.grads.put(batch.start, last.grad)
        return self.local.fed, variance


def generator(seed: int, window: int) -> torch.Generator:
    """What the signs of one window are drawn from."""
    return torch.Generator().manual_seed((seed << 32) + window)


def random_signs(drawn: torch.Generator, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Random bytes as int8, so that their signs are independent."""
    count = math.prod(shape)
    words = torch.randint(-(1 << 63), (1 << 63) - 1, (-(-count // 8),), generator=drawn)
    return words.view(torch.int8)[:count].view(shape)


def loss_gradient(logits: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """A random gradient at the logits [n, L, V] whose covariance is the Fisher information diag(p) - p p^T.

    g_v = sqrt(p_v) s_v - p_v sum_u sqrt(p_u) s_u with s the signs of `signs` [n, L, V]. Labels drawn from p would do
    as well, with p - onehot(y): but where p is nearly certain that is nearly 0 all the time and large once in a while,
    and moments of some thousand tokens are then those of a few. Second: the sum over positions of p (1 - p), [V]
    float64. The gradient has the type of the logits.
    """
    words = logits.shape[-1]
    gradient = torch.empty(logits.numel() // words, words, dtype=logits.dtype, device=logits.device)
    variance = torch.zeros(words, dtype=torch.float64, device=logits.device)
    rows = max(1, _CACHED // words)
    parts = (tensor.reshape(-1, words).split(rows) for tensor in (logits, signs, gradient))
    for some, drawn, out in zip(*parts, strict=True):
        p = some.float().softmax(-1)
        variance += (p - p.square()).sum(0)
        signed = p.sqrt().copysign_(drawn.float())
        out.copy_(signed.sub_(p.mul_(signed.sum(-1, keepdim=True))))
    return gradient.view(logits.shape), variance


def _no_cache(model: Any) -> dict[str, bool]:
    return {"use_cache": False} if hasattr(model.config, "use_cache") else {}
