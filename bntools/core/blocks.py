"""A model's repeated blocks, run one at a time over all calibration windows, and what their linears are fed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bntools.core import calibration
from bntools.core.errors import bad_input


class _Reached(Exception):
    """Ends a forward pass whose rest is not needed."""


class Blocks:
    """The decoder or encoder blocks of a model with the hidden states on their way through them.

    windows: [n, L] token ids. Each block is run for each window by `gather`; `advance` then makes its outputs the
    inputs of the next block, with whatever weights the block has at that time. Raises BnError (exit 3) on a model
    without a list of blocks.
    """

    def __init__(self, model: nn.Module, windows: Tensor) -> None:
        self.path, self.layers = _blocks(model)
        self._kwargs: list[dict[str, Any]] = []
        self._arguments: list[tuple[Any, ...]] = []
        self.hidden = self._enter(model, windows)
        self._index = 0

    def __iter__(self) -> Iterator[tuple[str, nn.Module]]:
        """(path, block), in order; the hidden states move on between them."""
        for index, layer in enumerate(self.layers):
            self._index = index
            yield f"{self.path}.{index}", layer

    @torch.no_grad()
    def _enter(self, model: nn.Module, windows: Tensor) -> list[Tensor]:
        """Hidden states [1, L, d] of each window before the first block; the other arguments of every block."""
        hidden: list[Tensor] = []

        def arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._arguments.append(args[1:])
            self._kwargs.append({key: value for key, value in kwargs.items() if key != "hidden_states"})

        def first(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached

        hooks = [layer.register_forward_pre_hook(arguments, with_kwargs=True) for layer in self.layers]
        calibration.run(model, windows[:1])
        for hook in hooks:
            hook.remove()
        hook = self.layers[0].register_forward_pre_hook(first, with_kwargs=True)
        for row in windows:
            with contextlib.suppress(_Reached):
                calibration.run(model, row[None])
        hook.remove()
        return hidden

    def _run(self, hidden: Tensor) -> Tensor:
        out = self.layers[self._index](hidden, *self._arguments[self._index], **self._kwargs[self._index])
        return out if isinstance(out, Tensor) else out[0]

    @torch.no_grad()
    def advance(self, step: Callable[[int], None] = lambda count: None) -> None:
        """Replace the hidden states by the block's outputs."""
        for index, hidden in enumerate(self.hidden):
            self.hidden[index] = self._run(hidden)
            step(hidden.shape[1])

    @torch.no_grad()
    def gather(
        self,
        names: Iterable[str],
        advance: bool,
        step: Callable[[int], None] = lambda count: None,
    ) -> dict[str, Tensor]:
        """E[x x^T] [in, in] float32 of the inputs of the block's linears `names` (paths inside the block).

        Linears fed the same tensor share one result. advance: keep the outputs as the next block's inputs.
        """
        moments = _Moments()
        layer = self.layers[self._index]
        hooks = [
            layer.get_submodule(name).register_forward_pre_hook(moments.hook(name), with_kwargs=True)
            for name in names
        ]
        try:
            for index, hidden in enumerate(self.hidden):
                out = self._run(hidden)
                moments.seen.clear()
                if advance:
                    self.hidden[index] = out
                step(hidden.shape[1])
        finally:
            for hook in hooks:
                hook.remove()
        return moments.result()


class _Moments:
    """Sums of x x^T by linear, taken once for linears that are fed the same tensor."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, str]] = []
        self._leader: dict[str, str] = {}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def hook(self, name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else next(iter(kwargs.values()))
            leader = next((other for tensor, other in self.seen if tensor is x), name)
            self._leader.setdefault(name, leader)
            if self._leader[name] != name:
                return
            self.seen.append((x, name))
            flat = x.detach().reshape(-1, x.shape[-1]).float()
            if name not in self._sums:
                self._sums[name] = torch.zeros(flat.shape[1], flat.shape[1], device=flat.device)
            self._sums[name].addmm_(flat.T, flat)
            self._counts[name] = self._counts.get(name, 0) + len(flat)

        return record

    def result(self) -> dict[str, Tensor]:
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        return {name: means[leader] for name, leader in self._leader.items()}


def _blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    lists = [(path, m) for path, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    if not lists:
        raise bad_input("the model has no list of blocks to calibrate one by one", "--method rtn needs none")
    return max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()))
