"""Places inside a transformer where hidden states are read or replaced: behind a block, its attention, its MLP."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from bntools.core.errors import bad_input, usage

SITES = ("resid", "attn", "mlp")
_PARTS = {
    "attn": re.compile(r"self_attn|attn|attention|self_attention|linear_attn|mixer"),
    "mlp": re.compile(r"mlp|feed_forward|ffn|block_sparse_moe|output"),
}


class Reached(Exception):
    """Ends a forward pass whose rest is not needed."""


def block_list(model: nn.Module) -> nn.ModuleList:
    """The repeated blocks of a model, its module list with most weights; BnError (exit 3) where there is none."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m)]
    if not lists:
        raise bad_input("the model has no list of blocks", "--layer needs a transformer")
    return max(lists, key=lambda m: sum(p.numel() for p in m.parameters()))


def site_module(model: nn.Module, layer: int, site: str) -> tuple[nn.Module, bool]:
    """The module to watch, and whether its input is meant rather than its output: layer 0 is what enters block 1.

    Raises BnError (exit 2) for a layer or site that the model lacks.
    """
    blocks = block_list(model)
    if not 0 <= layer <= len(blocks) or (layer == 0 and site != "resid"):
        raise usage(
            f"--layer {layer} --site {site}: the model has {len(blocks)} blocks", f"1 to {len(blocks)}"
        )
    if layer == 0:
        return blocks[0], True
    block = blocks[layer - 1]
    if site == "resid":
        return block, False
    for name, child in block.named_children():
        if _PARTS[site].fullmatch(name):
            return child, False
    names = ", ".join(name for name, _ in block.named_children())
    raise usage(f"--site {site}: block {layer} has none of that name", f"it consists of {names}")


@contextlib.contextmanager
def watching(
    model: nn.Module, wanted: list[tuple[int, str]], see: Callable[[int, Tensor], Tensor | None], stop: bool
) -> Iterator[None]:
    """Hand the hidden states [B, T, d] at each wanted (layer, site) to `see(index, states)` as the model runs.

    What `see` returns takes their place. stop: end the pass, by `Reached`, behind the last one wanted; others run on.
    """
    handles = []
    deepest = max(range(len(wanted)), key=lambda i: (wanted[i][0], SITES[::-1].index(wanted[i][1])))
    for index, (layer, site) in enumerate(wanted):
        module, before = site_module(model, layer, site)
        last = stop and index == deepest

        def after(_: Any, args: Any, out: Any, index: int = index, last: bool = last) -> Any:
            states = out if isinstance(out, Tensor) else out[0]
            other = see(index, states)
            if last:
                raise Reached
            if other is None:
                return None
            return other if isinstance(out, Tensor) else (other, *out[1:])

        def ahead(_: Any, args: Any, kwargs: Any, index: int = index, last: bool = last) -> Any:
            states = args[0] if args else kwargs["hidden_states"]
            other = see(index, states)
            if last:
                raise Reached
            if other is None:
                return None
            return ((other, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": other})

        handles.append(
            module.register_forward_pre_hook(ahead, with_kwargs=True)
            if before
            else module.register_forward_hook(after)
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
