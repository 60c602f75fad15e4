"""The library's feature caches, switched on for any transformer and reset where a trajectory or a resolution begins."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from bntools.core.errors import usage

_HINT = "--cache none, fbc:0.05, taylor:3 or mag:0.06"
_DEFAULTS = {"fbc": 0.05, "taylor": 3.0, "mag": 0.06}


class CacheChoice(NamedTuple):
    """kind: fbc (skip the rest while the first block changes little), taylor (extrapolate features), mag (by a
    magnitude ratio a step); value: threshold of fbc and mag, interval of taylor."""

    kind: str
    value: float


def parse_cache(text: str) -> CacheChoice | None:
    """`none`, `fbc:T`, `taylor:N` or `mag:T`. Raises BnError (exit 2)."""
    if text == "none":
        return None
    kind, _, number = text.partition(":")
    try:
        value = float(number) if number else _DEFAULTS[kind]
    except (ValueError, KeyError):
        raise usage(f"--cache {text} is no cache", _HINT) from None
    if kind not in _DEFAULTS or not value > 0 or (kind == "taylor" and value != int(value)):
        raise usage(f"--cache {text} is no cache", _HINT)
    return CacheChoice(kind, value)


class FeatureCache:
    """A cache in a transformer; every call of it stands in `context`."""

    def __init__(self, transformer: Any, choice: CacheChoice, steps: int) -> None:
        from diffusers import hooks
        from diffusers.models.cache_utils import CacheMixin

        if choice.kind == "fbc" and type(transformer).__name__ == "SD3Transformer2DModel":
            raise usage("fbc takes text from the last block, and SD3's returns none", "--cache taylor:3")
        if choice.kind == "fbc":
            hooks.apply_first_block_cache(transformer, hooks.FirstBlockCacheConfig(threshold=choice.value))
        elif choice.kind == "taylor":
            hooks.apply_taylorseer_cache(
                transformer, hooks.TaylorSeerCacheConfig(cache_interval=int(choice.value))
            )
        else:
            hooks.apply_mag_cache(
                transformer,
                hooks.MagCacheConfig(
                    threshold=choice.value,
                    num_inference_steps=max(steps, 1),
                    mag_ratios=[1.0] * max(steps, 1),
                ),
            )
        # the mixin's methods ask nothing of a model but to be a module, and SD3's class lacks them
        self._transformer, self._mixin = transformer, CacheMixin
        self.reset()

    def reset(self) -> None:
        """Features of another resolution or another sample are of no use, and of the wrong shape."""
        self._mixin._reset_stateful_cache(self._transformer)

    def context(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Calls with and without the prompt keep features of their own."""
        return self._mixin.cache_context(self._transformer, name)
