"""What a language model's output head is fed, and the logits that the model itself makes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bntools.core.errors import BnError, bad_input

_TAPS = "_bntools_tap"
_LOCK = threading.Lock()


class _Reached(Exception):
    """Ends a forward pass at the output head."""


class _Tap:
    """Stands before the output head: takes what it is fed and ends the pass, or feeds it something else.

    One for each head and for as long as that lives; what it does is set for each thread.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._local = threading.local()
        layer.register_forward_pre_hook(self._before)
        layer.register_forward_hook(self._after)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: a copy of a model has a tap that is in use by no thread."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._local = threading.local()

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        do = getattr(self._local, "do", None)
        if do is None:
            return None
        if do == "take":
            self._local.taken = args[0]
            raise _Reached
        return (do, *args[1:])

    def _after(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        head = getattr(self._local, "head", None)
        return None if head is None else head(args[0])

    def take(self, call: Callable[[], Any]) -> Tensor:
        """What the head is fed during a call."""
        self._local.do = "take"
        try:
            call()
        except _Reached:
            return self._local.taken
        finally:
            self._local.do = None
        raise BnError("the output head was not reached")

    def feed(self, hidden: Tensor, head: Any, call: Callable[[], Any]) -> Any:
        """What a call gives when the head, or another in its place, is fed these states."""
        self._local.do, self._local.head = hidden, head
        try:
            return call()
        finally:
            self._local.do = self._local.head = None


def _tap(model: Any) -> _Tap:
    layer = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if not isinstance(layer, nn.Module):
        raise BnError(
            f"{type(model).__name__} has no output head", "only causal language models have a perplexity"
        )
    with _LOCK:
        if not hasattr(layer, _TAPS):
            object.__setattr__(layer, _TAPS, _Tap(layer))
    return getattr(layer, _TAPS)


def no_cache(model: Any) -> dict[str, bool]:
    """The argument that keeps a model from keeping keys and values, for models that have one."""
    return {"use_cache": False} if hasattr(model.config, "use_cache") else {}


def states(model: Any, ids: Tensor) -> Tensor:
    """What the output head is fed for token ids [batch, n]: [batch, n, width].

    Raises BnError: exit 3 for a model that is not run on token ids alone, 1 for one without a head.
    """
    tap = _tap(model)
    try:
        return tap.take(lambda: model(ids, **no_cache(model)))
    except (BnError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a model raises that wants more than token ids
        first = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise bad_input(f"{type(model).__name__} is not run on token ids alone: {first}") from error


def own_logits(model: Any, head: Any = None) -> Callable[[Tensor], Tensor]:
    """The logits [..., vocabulary] float32 that the model makes of states [..., width], whatever it does to them.

    head: in place of the model's own. The body runs over one token that nobody looks at.
    """
    tap = _tap(model)

    def logits(hidden: Tensor) -> Tensor:
        rows = hidden.reshape(1, -1, hidden.shape[-1])
        ids = torch.zeros(1, 1, dtype=torch.long, device=hidden.device)
        out = tap.feed(rows, head, lambda: model(ids, **no_cache(model)).logits)
        return out.float().reshape(*hidden.shape[:-1], -1)

    return logits


@torch.no_grad()
def checked(model: Any, logits: Callable[[Tensor], Tensor], head: Any = None) -> Callable[[Tensor], Tensor]:
    """`logits` where it gives what the model itself does for the states of a few tokens, else the model's own way."""
    own = own_logits(model, head)
    hidden = states(model, torch.arange(1, 9, device=next(model.parameters()).device)[None])[0]
    one, other = logits(hidden), own(hidden)
    same = one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-3)
    return logits if same else own
