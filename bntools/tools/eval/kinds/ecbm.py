"""An energy-based bottleneck on labelled rows: classes and concepts, beside its factors alone and linear probes."""

from __future__ import annotations

from typing import Any

from bntools import terminal
from bntools.core.artifact.reader import Artifact
from bntools.core.errors import usage
from bntools.core.methods.cbm import inputs
from bntools.core.methods.cbm.energy import file
from bntools.core.methods.cbm.energy import score as scoring
from bntools.core.progress import Progress
from bntools.tools.eval.kinds import Request


def score(source: Artifact, request: Request, progress: Progress) -> dict[str, Any]:
    """The report of kind ecbm-eval. request.data: embeddings with labels, then annotations where the first has none."""
    if not request.data:
        raise usage("a concept bottleneck is scored on labelled embeddings", "--data test.safetensors")
    model, data = file.read(source), inputs.read_embeddings(request.data[0])
    truth, rows = request.data[1:2], len(data.x)
    annotations = inputs.read_truth(truth[0], rows) if truth else inputs.own_truth(request.data[0], rows)
    return scoring.score(model, data, annotations)


def tables(report: dict[str, Any]) -> list[Any]:
    """Accuracies of classes, and of concepts one by one and all at once."""

    def percent(value: dict[str, float]) -> list[str]:
        return [f"{100 * value['value']:.1f}", f"{100 * value['se']:.1f}"]

    rows = [[name.replace("_", " "), *percent(value)] for name, value in report["baselines"].items()]
    rows.append(["this bottleneck", *percent(report["accuracy"])])
    if report["true_concepts"]:
        rows.append(["the same, all concepts true", *percent(report["true_concepts"])])
    result = [terminal.table(["accuracy of classes", "%", "± se"], rows)]
    if report["concept_accuracy"]:
        concepts = [
            [name.replace("_", " "), f"{100 * value:.1f}", *percent(report["all_concepts_right"][name])]
            for name, value in report["concept_accuracy"].items()
        ]
        result.append(terminal.table(["concepts", "each (%)", "all right (%)", "± se"], concepts))
    return result
