"""What attention sees, layer by layer, in any model that takes its attention function from transformers' table."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from bntools.core.errors import BnError

Watch = Callable[[int, Tensor, Tensor, Tensor, float], None]
"""layer, queries [B, heads, n, d], keys and values [B, key heads, T, d] with the cache, the factor of the logits."""
_HOOK = "_bntools_watch"
_MASK = "_bntools_mask"
_PREFIX = "bntools-kv-"


def _forward(base: str) -> Callable[..., Any]:
    """The attention function `base`, watched; transformers calls it with the module first."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **given: Any) -> Any:
        plain = (
            sys.modules[type(module).__module__].__dict__["eager_attention_forward"]
            if base == "eager"
            else ALL_ATTENTION_FUNCTIONS[base]
        )
        narrow = getattr(module, _MASK, None)
        if narrow is not None:
            mask = narrow(module.layer_idx, query, key, mask)
        out = plain(module, query, key, value, mask, **given)
        watch = getattr(module, _HOOK, None)
        if watch is not None:
            scaling = given.get("scaling")
            watch(
                module.layer_idx, query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling
            )
        return out

    return attention


def attention_modules(model: Any) -> dict[int, Any]:
    """The modules that call an attention function, by the layer whose cache they use."""
    found = {}
    for module in model.modules():
        layer = getattr(module, "layer_idx", None)
        if isinstance(layer, int) and output_projection(module) is not None:
            found[layer] = module
    return found


def output_projection(module: Any) -> Any:
    """The linear map behind a module's heads, by the names that architectures give it; None where there is none."""
    for name in ("o_proj", "out_proj", "c_proj", "dense", "wo"):
        projection = getattr(module, name, None)
        if getattr(projection, "weight", None) is not None and hasattr(module, "layer_idx"):
            return projection
    return None


def attach(
    model: Any, watch: Watch | None = None, narrow: Callable[..., Any] | None = None
) -> Callable[[], None]:
    """Call `watch` after and `narrow` (the mask) before each layer's attention; returns what undoes it."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

    before = model.config._attn_implementation
    base = before.removeprefix(_PREFIX)
    if base not in ("sdpa", "eager"):
        raise BnError(f"attention {base!r} is not watched", 'model.set_attn_implementation("sdpa")')
    AttentionInterface.register(_PREFIX + base, _forward(base))
    AttentionMaskInterface.register(_PREFIX + base, {"sdpa": sdpa_mask, "eager": eager_mask}[base])
    modules = list(attention_modules(model).values())
    kept = [(module, module.__dict__.get(_HOOK), module.__dict__.get(_MASK)) for module in modules]
    model.set_attn_implementation(_PREFIX + base)
    for module in modules:
        object.__setattr__(module, _HOOK, watch)
        object.__setattr__(module, _MASK, narrow)

    def undo() -> None:
        for module, hook, mask in kept:
            object.__setattr__(module, _HOOK, hook)
            object.__setattr__(module, _MASK, mask)
        model.set_attn_implementation(before)

    return undo


@contextlib.contextmanager
def watching(
    model: Any, watch: Watch | None = None, narrow: Callable[..., Any] | None = None
) -> Iterator[None]:
    """`attach` for the time of a block."""
    undo = attach(model, watch, narrow)
    try:
        yield
    finally:
        undo()
