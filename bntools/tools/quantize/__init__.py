"""Linear weights in a few bits: rounded, by GPTQ, or behind an entropy coder.

>>> from bntools import open_model
>>> from bntools.tools.quantize import Grid, Settings, quantize, task_of
>>> task = task_of(open_model("default:"), Settings(Grid(bits=3, group=64)))
>>> next(result.measured["bits_per_weight"] for result in quantize(task, {}) if result.spec)
3.3036
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.quantize.entropy_run import entropy_model
    from bntools.tools.quantize.fixed.rounding import quantize
    from bntools.tools.quantize.fixed_run import fixed_model
    from bntools.tools.quantize.plan import task_of
    from bntools.tools.quantize.settings import EntropySettings, Grid, RunOptions, Settings

__all__ = [
    "EntropySettings", "Grid", "RunOptions", "Settings", "entropy_model", "fixed_model", "quantize", "task_of",
]  # fmt: skip

__getattr__ = lazily(
    __name__,
    {
        "EntropySettings": ".settings",
        "Grid": ".settings",
        "RunOptions": ".settings",
        "Settings": ".settings",
        "entropy_model": ".entropy_run",
        "fixed_model": ".fixed_run",
        "quantize": ".fixed.rounding",
        "task_of": ".plan",
    },
)
