"""Tables that train in one go, by name."""

from __future__ import annotations

from collections.abc import Callable

from bntools.tools.embed_fit.methods import networks, plain
from bntools.tools.embed_fit.problem import Problem
from bntools.tools.embed_fit.settings import Settings

BUILDERS: dict[str, Callable[[Problem, float, Settings, int], plain.Form | None]] = {
    "full": plain.full, "hash": plain.hash_rows, "unified": plain.unified, "robe": plain.robe,
    "qr": plain.quotient_remainder, "mde": plain.mixed_dimensions, "tt": networks.tensor_train,
    "dhe": networks.deep_hash,
}  # fmt: skip
