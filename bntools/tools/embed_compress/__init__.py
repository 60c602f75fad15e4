"""Embedding tables compressed as they are: prefixes of rotated rows, longest where errors cost most."""

from __future__ import annotations

from typing import Any

__all__ = ["embed_compress"]


def __getattr__(name: str) -> Any:
    """Load a name of the library face on first use."""
    if name == "embed_compress":
        from bntools.tools.embed_compress.run import embed_compress

        return embed_compress
    raise AttributeError(name)
