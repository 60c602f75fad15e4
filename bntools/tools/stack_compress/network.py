"""The original as a running network whose coded weights can be swapped for those of any prefix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from bntools.core.progress import no_step
from bntools.core.system.threads import in_order, single_threaded
from bntools.core.training import distill
from bntools.tools.stack_compress.order import Block, Coding

_WINDOWS = 16  # at once, at most


class Network:
    """A whole model in memory, in float32, with the original's answers on some windows [n, L] of text."""

    def __init__(self, stacks: Coding, windows: Tensor, device: str) -> None:
        self._stacks, self._windows = stacks, windows.to(device)
        model = stacks.model
        self._built = model.build(torch.float32, device)
        self._wanted = list(range(len(windows)))
        self._known = distill.targets(self._built, self._windows, self._wanted, no_step)
        self._teacher = self._frozen_head()
        self._ours = distill.logits_of(self._built)

    def _frozen_head(self) -> distill.Logits:
        """The original's head, a copy where the stack replaces it."""
        head = self._built.get_output_embeddings()
        kept, bias = head.weight.detach().clone(), head.bias
        return distill.logits_of(self._built, lambda hidden: torch.nn.functional.linear(hidden, kept, bias))

    def place(self, there: Mapping[str, Mapping[tuple[int, int], int]]) -> None:
        """Give some weights what these bytes of their blocks make of them: by name, (plane, band) to bytes."""
        names = list(there)

        def work(name: str) -> tuple[str, Tensor]:
            return name, self._stacks.dense(name, there[name])

        size = self._stacks.model.entries
        for name, values in in_order(work, names, lambda name: 8 * size[name].numel, 1 << 30):
            with torch.no_grad():
                self._weight(name).copy_(values.T if self._transposed(name) else values)

    def _weight(self, name: str) -> Tensor:
        linear = self._stacks.model.linears.get(name)
        path = linear.module if linear is not None else name.removesuffix(".weight")
        return self._built.get_submodule(path).weight

    def _transposed(self, name: str) -> bool:
        linear = self._stacks.model.linears.get(name)
        return linear is not None and linear.transposed

    def gradients(self) -> dict[str, Tensor]:
        """Gradients of the mean divergence at the stacked weights [out, in] as they are; as much memory again as they
        take, for each thread and once more."""
        names = list(self._stacks.specs)
        weights = [self._weight(name).requires_grad_(True) for name in names]
        head = self._built.get_output_embeddings().weight
        at_head = next((at for at, weight in enumerate(weights) if weight is head), None)

        def work(at: int) -> list[Tensor]:
            hidden = distill.final_states(self._built, self._windows[at])
            asked = None if at_head is None else head
            _, gradient, more = distill.divergence(
                hidden, self._known[at], self._ours, self._teacher, head=asked
            )
            part = list(torch.autograd.grad(
                hidden, weights, gradient, allow_unused=True, materialize_grads=True
            ))  # fmt: skip
            if at_head is not None and more is not None:
                part[at_head] = part[at_head] + more
            return part

        total = [torch.zeros_like(weight) for weight in weights]
        for part in in_order(work, self._wanted, lambda at: 1, _WINDOWS):
            for ours, more in zip(total, part, strict=True):
                ours += more
        for weight in weights:
            weight.requires_grad_(False)
        scale = 1 / self._windows.numel()
        return {
            name: (whole.T if self._transposed(name) else whole).mul_(scale).cpu()
            for name, whole in zip(names, total, strict=True)
        }

    def kl(self) -> float:
        """Mean divergence from the original on the windows, nats a token."""

        @torch.no_grad()  # inside, as it holds for the thread that sets it
        def work(at: int) -> float:
            hidden = distill.final_states(self._built, self._windows[at])
            return distill.divergence(hidden, self._known[at], self._ours, self._teacher, gradient=False)[0]

        with single_threaded() as (pool, _):
            return sum(pool.map(work, self._wanted)) / self._windows.numel()

    def loss(self) -> float:
        """Mean negative log-likelihood of the windows' tokens, nats a token; the perplexity is its exponential."""

        @torch.no_grad()  # inside, as it holds for the thread that sets it
        def work(at: int) -> float:
            ids = self._windows[at]
            scores = self._ours(distill.final_states(self._built, ids)[:-1]).log_softmax(-1)
            return -float(scores.gather(1, ids[1:, None]).sum(dtype=torch.float64))

        with single_threaded() as (pool, _):
            return sum(pool.map(work, self._wanted)) / (len(self._windows) * (self._windows.shape[1] - 1))


def bytes_of(
    blocks: Iterable[Block], names: Iterable[str], nbytes: int
) -> dict[str, dict[tuple[int, int], int]]:
    """Bytes of each block, by name and (plane, band), in the first `nbytes` of the blocks."""
    bytes_by_name: dict[str, dict[tuple[int, int], int]] = {name: {} for name in names}
    for block in blocks:
        if nbytes <= 0:
            break
        bytes_by_name[block.name][block.plane, block.band] = min(nbytes, block.nbytes)
        nbytes -= block.nbytes
    return bytes_by_name
