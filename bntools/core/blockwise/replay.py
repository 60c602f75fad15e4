"""Runs a block over batches of windows as far as is needed, with what is known already in place of its parts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bntools.core.blockwise.blocks import Batch, Blocks, Reached
from bntools.core.blockwise.hooks import flat
from bntools.core.blockwise.shared_inputs import Closed
from bntools.core.work.states import States

RESIDENT = 128 << 20  # bytes of the states of one linear up to which they stay in memory: there are several


class Ran(NamedTuple):
    """Of one batch of n windows: the block's inputs [n, L, d], what linears were fed and gave [n, L, any] by path, and
    the block's outputs where it was run to its end."""

    hidden: Tensor
    fed: dict[str, Tensor]
    gave: dict[str, Tensor]
    after: Tensor | None


class Replay:
    """The block at hand of `blocks`. Several threads may run batches at once."""

    def __init__(self, blocks: Blocks, layer: nn.Module) -> None:
        self.blocks, self.layer = blocks, layer
        self._known: dict[str, States] = {}
        self._local = threading.local()

    @contextlib.contextmanager
    def until(self, leaders: Sequence[str], *, end: bool) -> Iterator[Callable[[Batch], Ran]]:
        """What runs a batch and notes what the linears `leaders` are fed and give; to the block's end, or until the
        last of them is fed."""
        hooks = []
        for name in leaders:
            module = self.layer.get_submodule(name)
            stop = not end and name == leaders[-1]
            hooks.append(module.register_forward_pre_hook(self._noting(name, stop)))
            hooks.append(
                module.register_forward_hook(
                    lambda module, args, out, name=name: self._local.gave.update({name: out})
                )
            )
        try:
            yield self._run
        finally:
            for hook in hooks:
                hook.remove()

    def _noting(self, name: str, stop: bool) -> Callable[[nn.Module, Any], None]:
        def fed(module: nn.Module, args: Any) -> None:
            self._local.fed[name] = args[0]
            if stop:
                raise Reached

        return fed

    @torch.no_grad()
    def _run(self, batch: Batch) -> Ran:
        hidden = self.blocks.hidden.get(batch.start, batch.stop).to(self.blocks.device)
        self._local.batch, self._local.fed, self._local.gave, after = batch, {}, {}, None
        with contextlib.suppress(Reached):
            after = self.blocks.call(hidden)
        ran = Ran(hidden, self._local.fed, self._local.gave, after)
        del self._local.fed, self._local.gave
        return ran

    def know(self, closed: Closed, states: States) -> None:
        """From here on a module gives what its linear gave, without being run."""
        module = self.layer.get_submodule(closed.path)

        def forward(*args: Any, **kwargs: Any) -> Any:
            batch: Batch = self._local.batch
            known = states.get(batch.start, batch.stop).to(self.blocks.device)
            return closed.wrap(known.flatten(0, -2) if closed.flat else known)

        self.forget(inside=closed.path)
        module.forward = forward
        self._known[closed.path] = states

    def forget(self, inside: str = "") -> None:
        """Run modules as they are again: all, or those inside of another."""
        for path in [path for path in self._known if f"{path}.".startswith(f"{inside}." if inside else "")]:
            del self.layer.get_submodule(path).forward
            self._known.pop(path).close()


class Kept:
    """What was seen of each batch, by name: states in memory, or in files where large."""

    def __init__(self, windows: int) -> None:
        self._windows, self._states = windows, dict[str, States]()
        self._lock = threading.Lock()

    def put(self, name: str, batch: Batch, values: Tensor) -> None:
        """values: [n * L, any] or [n, L, any]."""
        values = values.reshape(batch.stop - batch.start, -1, values.shape[-1])
        with self._lock:
            if name not in self._states:
                shape = (self._windows, *values.shape[1:])
                self._states[name] = States(shape, values.dtype, resident=RESIDENT)
        self._states[name].put(batch.start, values)

    def raw(self, name: str, batch: Batch) -> Tensor:
        """[n, L, any], as it was put."""
        return self._states[name].get(batch.start, batch.stop)

    def get(self, name: str, batch: Batch) -> Tensor:
        """Tokens in rows, float32."""
        return flat(self.raw(name, batch))

    def pop(self, name: str) -> States:
        return self._states.pop(name)

    def close(self, name: str) -> None:
        if name in self._states:
            self._states.pop(name).close()
