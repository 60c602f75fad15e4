"""Facts of an autoencoder, from its metadata."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import Artifact


def facts(source: Artifact) -> dict[str, Any]:
    """Method, architecture, axes in use and in all, decoder variance, and the shape of its rows."""
    known = source.json("bntools.vae", dict)
    arch = known.get("arch", {})
    shown = {name: known[name] for name in ("method", "relevant", "shape", "paper", "seed") if name in known}
    if isinstance(arch, dict):
        shown |= {name: arch[name] for name in ("kind", "dim", "hidden") if name in arch}
        shown["network"] = shown.pop("kind", None)
    if isinstance(known.get("variance"), float) and isinstance(known.get("scale"), float):
        shown["sigma2"] = known["variance"] * known["scale"] ** 2
    return shown
