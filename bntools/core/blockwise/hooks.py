"""What the linears of a block are fed, and the gradients at their outputs, caught by hooks while it runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from bntools.core.blockwise.second_moments import InputMoments, Task


class Gathered:
    """Inputs of linears caught on the way, and their second moments, taken once for linears fed the same tensor.

    gradients: the gradients at their outputs are caught as well, as (name, input, gradient).
    """

    def __init__(self, layer: nn.Module, names: Iterable[str], gradients: bool = False) -> None:
        self._layer, self._names, self._gradients = layer, list(names), gradients
        self._local = threading.local()
        self._leader: dict[str, str] = {}
        self._moments: dict[str, InputMoments] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        for name in self._names:
            module = self._layer.get_submodule(name)
            self._hooks.append(module.register_forward_hook(self._hook(name), with_kwargs=True))

    def __exit__(self, *exc: object) -> None:
        for hook in self._hooks:
            hook.remove()

    @contextlib.contextmanager
    def watching(self) -> Iterator[Seen]:
        """What one pass in this thread shows."""
        self._local.seen = seen = Seen([], [])
        try:
            yield seen
        finally:
            del self._local.seen

    def _hook(self, name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
            seen: Seen = self._local.seen
            # Detached: the hook below would otherwise hold later inputs, whose graph holds the hook, for ever.
            x = (args[0] if args else next(iter(kwargs.values()))).detach()
            seen.inputs.append((name, x))
            if self._gradients and out.requires_grad:
                out.register_hook(lambda g: seen.gradients.append((name, flat(x), flat(g))))

        return record

    def tasks(self, seen: Seen) -> list[Task]:
        """Products that add one batch to the second moments."""
        tasks: list[Task] = []
        for name, x in seen.inputs:
            leader = next(other for other, tensor in seen.inputs if same(tensor, x))
            if self._leader.setdefault(name, leader) != name:
                continue
            rows = flat(x)
            if name not in self._moments:
                self._moments[name] = InputMoments(rows.shape[1], rows.device)
            tasks += self._moments[name].tasks(rows)
        return tasks

    def result(self) -> dict[str, Tensor]:
        """E[x x^T] by name, one tensor for linears fed the same."""
        means = {name: moments.mean() for name, moments in self._moments.items()}
        return {name: means[leader] for name, leader in self._leader.items()}


class Seen(NamedTuple):
    """One batch's inputs of linears by name, and (name, input [n, in], gradient at the output [n, out])."""

    inputs: list[tuple[str, Tensor]]
    gradients: list[tuple[str, Tensor, Tensor]]


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors, both alive, are the same memory seen the same way."""
    return (one.data_ptr(), one.shape, one.stride()) == (other.data_ptr(), other.shape, other.stride())


def flat(x: Tensor) -> Tensor:
    """Tokens in rows, float32."""
    return x.detach().reshape(-1, x.shape[-1]).float()
