"""What a network takes of an FPGA: by counting, and corrected by a table of syntheses.

>>> from bntools.tools.cost_fpga import network_report, parse_network
>>> layers = parse_network({"layers": [{"type": "dense", "inputs": 16, "outputs": 64, "reuse": 4}]}, "net")
>>> network_report(layers)["first_order"]["dsp"]
256.0
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bntools.tools.cost_fpga.corrector import Corrector, fit
    from bntools.tools.cost_fpga.network import parse_network
    from bntools.tools.cost_fpga.report import network_report
    from bntools.tools.cost_fpga.samples import read_samples

_HOMES = {"Corrector": "corrector", "fit": "corrector", "parse_network": "network", "network_report": "report",
          "read_samples": "samples"}  # fmt: skip

__all__ = ["Corrector", "fit", "network_report", "parse_network", "read_samples"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line shows its help without numbers."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
