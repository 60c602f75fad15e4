"""What a network takes of an FPGA: by counting, and corrected by a table of syntheses.

>>> from bntools.tools.cost_fpga import network_report, parse_network
>>> layers = parse_network({"layers": [{"type": "dense", "inputs": 16, "outputs": 64, "reuse": 4}]}, "net")
>>> network_report(layers)["first_order"]["dsp"]
256.0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.cost_fpga.corrector import Corrector, fit
    from bntools.tools.cost_fpga.network import parse_network
    from bntools.tools.cost_fpga.report import network_report
    from bntools.tools.cost_fpga.samples import read_samples


__all__ = ["Corrector", "fit", "network_report", "parse_network", "read_samples"]

__getattr__ = lazily(
    __name__,
    {
        "Corrector": ".corrector",
        "fit": ".corrector",
        "parse_network": ".network",
        "network_report": ".report",
        "read_samples": ".samples",
    },
)
