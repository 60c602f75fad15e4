"""Calibration: windows of text through a model, and what is measured on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from bntools.core.errors import bad_input


def token_windows(ids: list[int], tokens: int, window: int, bos: int | None = None) -> Tensor:
    """Evenly spaced windows of a text's token ids: [n, window] int64 with n * window about `tokens`.

    A text shorter than one window gives one shorter window. BOS, where the model wants one, starts every window.
    Raises BnError (exit 3) on fewer than 16 tokens.
    """
    body = window - (bos is not None)
    if len(ids) < 16:
        raise bad_input(
            f"the calibration text has {len(ids)} tokens", "give at least a few pages: --calib FILE"
        )
    body = min(body, len(ids))
    count = max(1, min(tokens // window, len(ids) // body))
    last = len(ids) - body
    starts = [round(index * last / max(count - 1, 1)) for index in range(count)]
    rows = [([] if bos is None else [bos]) + ids[start : start + body] for start in starts]
    return torch.tensor(rows)


@torch.no_grad()
def second_moments(
    model: nn.Module,
    modules: Iterable[str],
    windows: Tensor,
    step: Callable[[int], None] = lambda count: None,
) -> dict[str, Tensor]:
    """E[x_j^2] of the inputs of each named linear module, over all tokens of `windows`: [in] float64."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    hooks = []
    for name in modules:

        def record(module: nn.Module, inputs: tuple[Tensor, ...], *, name: str = name) -> None:
            flat = inputs[0].detach().reshape(-1, inputs[0].shape[-1])
            squares = flat.float().square().sum(0, dtype=torch.float64)
            sums[name] = sums[name] + squares if name in sums else squares
            counts[name] = counts.get(name, 0) + flat.shape[0]

        hooks.append(model.get_submodule(name).register_forward_pre_hook(record))
    try:
        for row in windows:
            run(model, row[None])
            step(row.numel())
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sums[name] / max(counts[name], 1) for name in sums}


def run(model: nn.Module, ids: Tensor) -> None:
    """Forward pass of the base model, without the output head."""
    base = getattr(model, "base_model", model)
    base(
        ids.to(next(model.parameters()).device),
        **({"use_cache": False} if hasattr(model.config, "use_cache") else {}),
    )
