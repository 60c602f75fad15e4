"""A bottleneck over sequences on labelled ones, beside models that cannot tell the order of windows."""

from __future__ import annotations

from typing import Any

from bntools import terminal
from bntools.core.artifact.reader import Artifact
from bntools.core.errors import usage
from bntools.core.methods.cbm.sequence import file, inputs
from bntools.core.methods.cbm.sequence import score as scoring
from bntools.core.progress import Progress
from bntools.tools.eval.kinds import Request


def score(source: Artifact, request: Request, progress: Progress) -> dict[str, Any]:
    """The report of kind motif-eval. request.data: windows with labels and the column doc."""
    if not request.data:
        raise usage("a bottleneck over sequences is scored on labelled windows", "--data test.safetensors")
    return scoring.score(file.read(source), inputs.read_sequences(request.data[0]), request.seed)


def tables(report: dict[str, Any]) -> list[Any]:
    """Accuracies beside their baselines."""
    named = {
        **{name.replace("_", " "): value for name, value in report["baselines"].items()},
        "windows in random order": report["shuffled"], "uniform attention": report["uniform_attention"],
        "this bottleneck": report["accuracy"],
    }  # fmt: skip
    rows = [[name, f"{100 * v['value']:.1f}", f"{100 * v['se']:.1f}"] for name, v in named.items()]
    return [terminal.table(["accuracy of sequences", "%", "± se"], rows)]
