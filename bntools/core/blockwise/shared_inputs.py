"""The linears of a block by what feeds them, and what their outputs become."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bntools.core.blockwise.blocks import Blocks
from bntools.core.blockwise.hooks import flat, same

_UNEXPLAINED = 1e-3  # of what a block adds to the stream, at most, for the linears found to add it


class Closed(NamedTuple):
    """A module whose output is that of a linear in it (or itself). path: inside the block. place, length: where that
    is in the tuple that it gives, and how long that is; a place of -1 for no tuple. flat: it gives [tokens, width],
    all windows in one row, rather than [windows, tokens, width]."""

    path: str
    place: int
    length: int
    flat: bool = False

    def wrap(self, out: Tensor) -> Any:
        """What the module gives, made of the linear's output."""
        if self.place < 0:
            return out
        return tuple(out if at == self.place else None for at in range(self.length))


@dataclass(frozen=True)
class Group:
    """Linears of a block fed the same tensor, by their paths inside it.

    writes: the factor with which the output of the only one is added to the residual stream; 0 for none. closes: the
    largest module whose output is that of the only one, if no later group has part in it.
    """

    names: list[str]
    writes: float = 0.0
    closes: Closed | None = None

    @property
    def leader(self) -> str:
        return self.names[0]


class _Seen(NamedTuple):
    name: str
    x: Tensor
    out: Tensor


def groups(blocks: Blocks, layer: nn.Module) -> list[Group]:
    """The groups of the block at hand, in the order they are run, from a pass over the first batch; linears that do
    not see every token once, as in an expert, are left out."""
    batch = blocks.batches[0]
    hidden = blocks.hidden.get(batch.start, batch.stop).to(blocks.device)
    seen: list[_Seen] = []
    gave: dict[str, Any] = {}
    with contextlib.ExitStack() as hooks, torch.no_grad():
        for name, module in layer.named_modules():
            if is_linear(module):
                hooks.callback(module.register_forward_hook(partial(_note, seen, name)).remove)
            if name:
                hooks.callback(module.register_forward_hook(partial(_keep, gave, name)).remove)
        out = blocks.call(hidden)
    tokens = hidden.shape[:-1].numel()
    once = [
        one for one in seen
        if one.x.shape[:-1].numel() == tokens and sum(one.name == other.name for other in seen) == 1
    ]  # fmt: skip
    fed: list[tuple[Tensor, list[_Seen]]] = []
    for one in once:
        members = next((members for x, members in fed if same(x, one.x)), None)
        if members is None:
            fed.append((one.x, [one]))
        else:
            members.append(one)
    writers = _writers(flat(out) - flat(hidden), {one.name: flat(one.out) for one in once})
    shared = []
    for index, (_, members) in enumerate(fed):
        names = [one.name for one in members]
        if len(names) > 1:
            shared.append(Group(names))
            continue
        later = [one.name for _, others in fed[index + 1 :] for one in others]
        shared.append(Group(names, writers.get(names[0], 0.0), _closed(members[0], gave, later)))
    return shared


def is_linear(module: nn.Module) -> bool:
    weight: Any = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding)


def _note(seen: list[_Seen], name: str, module: nn.Module, args: Any, out: Any) -> None:
    if args and isinstance(out, Tensor):  # a router gives more than one
        seen.append(_Seen(name, args[0], out))


def _keep(gave: dict[str, Any], name: str, module: nn.Module, args: Any, out: Any) -> None:
    gave[name] = out


def _closed(one: _Seen, gave: dict[str, Any], later: Sequence[str]) -> Closed | None:
    parts = one.name.split(".")
    for path in (".".join(parts[:count]) for count in range(1, len(parts) + 1)):
        out = gave.get(path)
        whole = out if isinstance(out, tuple) else (out,)
        places = [at for at, part in enumerate(whole) if isinstance(part, Tensor) and same(part, one.out)]
        rest = [part for at, part in enumerate(whole) if at not in places[:1] and part is not None]
        if places and not rest and not any(name.startswith(f"{path}.") for name in later):
            return Closed(path, places[0] if isinstance(out, tuple) else -1, len(whole), one.out.dim() == 2)
    return None


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
