"""Scaling laws from training runs: the fit, its intervals, the regime, and what a budget buys.

>>> import numpy as np
>>> from bntools.tools.scale_fit import Settings, fit_report, fit_scaling_law, training_runs
>>> n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 5), np.geomspace(1e8, 1e11, 5)))
>>> runs = training_runs(1.7 + 400 / n**0.34 + 410 / d**0.28, N=n, D=d)
>>> report = fit_report(fit_scaling_law(runs, Settings(bootstrap=0)))
>>> round(report["parameters"]["alpha"]["value"], 2)
0.34
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.scale_fit.fit import Settings, fit_scaling_law
    from bntools.tools.scale_fit.report import fit_report
    from bntools.tools.scale_fit.runs import training_runs

__all__ = ["Settings", "fit_report", "fit_scaling_law", "training_runs"]

__getattr__ = lazily(
    __name__,
    {"Settings": ".fit", "fit_report": ".report", "fit_scaling_law": ".fit", "training_runs": ".runs"},
)
