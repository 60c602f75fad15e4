"""What attention sees, layer by layer, in any model that takes its attention function from transformers' table."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from bntools.core.errors import BnError

Watch = Callable[[int, Tensor, Tensor, Tensor, float], None]
"""layer, queries [B, heads, n, d], keys and values [B, key heads, T, d] with the cache, the factor of the logits."""
_HOOK = "_bntools_watch"
_MASK = "_bntools_mask"
_REPLACE = "_bntools_replace"
_OWNER = "_bntools_owner"
_PREFIX = "bntools-kv-"


class AttentionCall(NamedTuple):
    """What a layer asks its attention function: `plain` is that function, `options` are its keywords."""

    plain: Callable[..., Any]
    module: Any
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Any
    options: dict[str, Any]

    @property
    def scaling(self) -> float:
        """Factor of the logits."""
        known = self.options.get("scaling")
        return self.query.shape[-1] ** -0.5 if known is None else known

    def run(self) -> Any:
        """Outputs [B, n, heads, d] and weights or None, as transformers wants them."""
        return self.plain(self.module, self.query, self.key, self.value, self.mask, **self.options)


Replace = Callable[[AttentionCall], Any]
"""Attention in place of the plain one: its outputs and weights, or None for the plain one."""


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
        call = AttentionCall(plain, module, query, key, value, mask, given)
        out = None
        for replace in (getattr(key, _OWNER, None), getattr(module, _REPLACE, None)):
            if replace is not None and out is None:
                out = replace(call)
        out = call.run() if out is None else out
        watch = getattr(module, _HOOK, None)
        if watch is not None:
            watch(module.layer_idx, query, key, value, call.scaling)
        return out

    return attention


def attention_modules(model: Any) -> dict[int, Any]:
    """The modules that call an attention function, by the layer whose cache they use."""
    modules = {}
    for module in model.modules():
        layer = getattr(module, "layer_idx", None)
        if isinstance(layer, int) and output_projection(module) is not None:
            modules[layer] = module
    return modules


def output_projection(module: Any) -> Any:
    """The linear map behind a module's heads, by the names that architectures give it; None where there is none."""
    for name in ("o_proj", "out_proj", "c_proj", "dense", "wo"):
        projection = getattr(module, name, None)
        if getattr(projection, "weight", None) is not None and hasattr(module, "layer_idx"):
            return projection
    return None


def own(key: Tensor, replace: Replace) -> None:
    """Have attention that is handed this very tensor as its keys ask `replace`, in a model that is watched."""
    setattr(key, _OWNER, replace)


def is_attached(config: Any) -> bool:
    """Whether a model of this config is watched now."""
    return str(config._attn_implementation).startswith(_PREFIX)


def can_attach(config: Any) -> bool:
    """Whether `attach` takes a model of this config."""
    return str(config._attn_implementation).removeprefix(_PREFIX) in ("sdpa", "eager")


def attach(
    model: Any, watch: Watch | None = None, narrow: Callable[..., Any] | None = None, *, replace: Replace | None = None
) -> Callable[[], None]:  # fmt: skip
    """Call `watch` after, `narrow` (the mask) before and `replace` in place of attention; returns what undoes it."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

    before = model.config._attn_implementation
    base = before.removeprefix(_PREFIX)
    if not can_attach(model.config):
        raise BnError(f"attention {base!r} is not watched", 'model.set_attn_implementation("sdpa")')
    AttentionInterface.register(_PREFIX + base, _forward(base))
    AttentionMaskInterface.register(_PREFIX + base, {"sdpa": sdpa_mask, "eager": eager_mask}[base])
    modules = list(attention_modules(model).values())
    hooks = {_HOOK: watch, _MASK: narrow, _REPLACE: replace}
    before_hooks = [(module, {name: module.__dict__.get(name) for name in hooks}) for module in modules]
    model.set_attn_implementation(_PREFIX + base)
    for module in modules:
        for name, hook in hooks.items():
            object.__setattr__(module, name, hook)

    def undo() -> None:
        for module, earlier in before_hooks:
            for name, hook in earlier.items():
                object.__setattr__(module, name, hook)
        model.set_attn_implementation(before)

    return undo


@contextlib.contextmanager
def watching(
    model: Any, watch: Watch | None = None, narrow: Callable[..., Any] | None = None, *, replace: Replace | None = None
) -> Iterator[None]:  # fmt: skip
    """`attach` for the time of a block."""
    undo = attach(model, watch, narrow, replace=replace)
    try:
        yield
    finally:
        undo()
