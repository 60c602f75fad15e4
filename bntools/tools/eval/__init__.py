"""How good a model still is: perplexity, and the divergence from the model it was made of.

>>> from bntools import open_model
>>> from bntools.core.progress import no_progress
>>> from bntools.tools.eval import Settings, evaluate_model
>>> text = ["The quick brown fox jumps over the lazy dog. " * 20]
>>> settings = Settings(window=64, tokens=128)
>>> report = evaluate_model(open_model("default:"), None, text, None, settings, no_progress)
>>> report["kind"], report["tokens"] <= 128
('eval', True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.eval.evaluate import Settings
    from bntools.tools.eval.evaluate import evaluate as evaluate_model

__all__ = ["Settings", "evaluate_model"]

__getattr__ = lazily(__name__, {"Settings": ".evaluate", "evaluate_model": ".evaluate:evaluate"})
