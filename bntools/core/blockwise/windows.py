"""Calibration: windows of text, and a model's pass over them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bntools.core.architecture import inputs
from bntools.core.errors import bad_input
from bntools.core.model.model import Model
from bntools.core.text.documents import default_text, read_text
from bntools.core.text.tokens import open_tokenizer


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


def text_windows(model: Model, calib: str, tokens: int, window: int = 512) -> Tensor:
    """Windows of a text file, or of the `default` calibration text, no longer than the model has positions for."""
    tokenizer = open_tokenizer(model.files, model.config, model.label)
    text = default_text("calib") if calib == "default" else read_text(calib)
    inputs.refuse_pairs(model.config, model.label)
    window = inputs.longest_window(model.config, window)
    windows = token_windows(tokenizer.ids(text), tokens, window, tokenizer.window_bos)
    inputs.check_ids(model.config, [int(windows.max())], tokenizer.size, model.label)
    return windows


def run(model: nn.Module, ids: Tensor) -> None:
    """Forward pass of the base model, without the output head."""
    base = getattr(model, "base_model", model)
    base(
        ids.to(next(model.parameters()).device),
        **({"use_cache": False} if hasattr(model.config, "use_cache") else {}),
    )
