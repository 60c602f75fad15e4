"""Embedding tables as small as they can be, against baselines that are tuned, too."""

from __future__ import annotations

from typing import Any

__all__ = ["Settings", "embed_fit", "read"]


def __getattr__(name: str) -> Any:
    """Load a name of the library face on first use."""
    if name == "Settings":
        from bntools.tools.embed_fit.settings import Settings

        return Settings
    if name == "read":
        from bntools.tools.embed_fit.problem import read

        return read
    if name == "embed_fit":
        from bntools.tools.embed_fit.report import embed_fit

        return embed_fit
    raise AttributeError(name)
