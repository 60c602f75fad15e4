"""The library's feature caches, switched on for any transformer and reset where a trajectory or a resolution begins."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from bntools.core.errors import usage

_HINT = "--cache none, fbc:0.05 or taylor:3"
_DEFAULTS = {"fbc": 0.05, "taylor": 3.0}


class CacheChoice(NamedTuple):
    """kind: fbc (skip layers while the first changes little) or taylor (extrapolate features); value: the threshold of
    fbc, the interval of taylor."""

    kind: str
    value: float


def parse_cache(text: str) -> CacheChoice | None:
    """`none`, `fbc:T` or `taylor:N`. Raises BnError (exit 2)."""
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

    def __init__(self, transformer: Any, choice: CacheChoice) -> None:
        from diffusers import hooks
        from diffusers.models.cache_utils import CacheMixin

        if choice.kind == "fbc" and type(transformer).__name__ == "SD3Transformer2DModel":
            raise usage("fbc takes text from the last block, and SD3's returns none", "--cache taylor:3")
        if choice.kind == "fbc":
            hooks.apply_first_block_cache(transformer, hooks.FirstBlockCacheConfig(threshold=choice.value))
        else:
            hooks.apply_taylorseer_cache(
                transformer, hooks.TaylorSeerCacheConfig(cache_interval=int(choice.value))
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
