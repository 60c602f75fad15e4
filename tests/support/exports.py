"""Models to export, made once a session, and the command line in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bntools.cli import run
from bntools.core.model.model import Model
from bntools.core.model.open import open_model


def bntools(*words: Any) -> int:
    """Exit code of one command line."""
    return run([str(word) for word in words])


def quantized(path: Path, *options: Any, source: str | Path = "default:") -> Model:
    """A model quantized by the command line, opened."""
    assert bntools("quantize", source, "-q", "-o", path, *options) == 0
    return open_model(str(path))


def weights(model: Model) -> dict[str, torch.Tensor]:
    """The packed weights, dequantized to float32."""
    return {name: model.tensor(name, torch.float32) for name in model.packing}
