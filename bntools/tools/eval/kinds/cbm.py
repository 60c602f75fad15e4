"""A concept bottleneck on labelled rows: accuracy beside its baselines, and whether concepts are true."""

from __future__ import annotations

from typing import Any

from bntools import terminal
from bntools.core.artifact.reader import Artifact
from bntools.core.errors import usage
from bntools.core.methods.cbm import file, inputs
from bntools.core.methods.cbm import score as scoring
from bntools.core.progress import Progress
from bntools.tools.eval.kinds import Request


def score(source: Artifact, request: Request, progress: Progress) -> dict[str, Any]:
    """The report of kind cbm-eval. request.data: embeddings with labels, then annotations where the first has none."""
    if not request.data:
        raise usage("a concept bottleneck is scored on labelled embeddings", "--data test.safetensors")
    model = file.read(source)
    data = inputs.read_embeddings(request.data[0])
    truth, rows = request.data[1:2], len(data.x)
    annotations = inputs.read_truth(truth[0], rows) if truth else inputs.own_truth(request.data[0], rows)
    return scoring.score(model, data, annotations)


def tables(report: dict[str, Any]) -> list[Any]:
    """Accuracies beside their baselines, the sparsities, and the concepts' metrics."""

    def percent(value: Any) -> list[str]:
        return ["-", ""] if value is None else [f"{100 * value['value']:.1f}", f"{100 * value['se']:.1f}"]

    rows = [[name.replace("_", " "), *percent(value)] for name, value in report["baselines"].items()]
    rows.append([f"this bottleneck, {report['nec']:.3g} concepts a class", *percent(report["accuracy"])])
    if report.get("true_concepts"):
        rows.append(["the same, all concepts true", *percent(report["true_concepts"])])
    result = [terminal.table(["accuracy", "%", "± se"], rows)]
    path = [
        [str(p["nec"]), *percent(p["accuracy"]), *percent(p.get("random_concepts")), *percent(p.get("gain"))]
        for p in report["path"]
    ]
    if path:
        heads = ["concepts a class", "%", "± se", "random concepts (%)", "± se", "gain", "± se"]
        result.append(terminal.table(heads, path))
    if report["cem"]:
        facts = [[f"CEM, {k} concepts", f"{value:.3f}"] for k, value in report["cem"].items()]
        facts += [[f"CGIM, {k.replace('_', ' ')}", f"{value:.3f}"] for k, value in report["cgim"].items()]
        facts += [["AUC of concepts, mean", f"{report['concept_auc']['mean']:.3f}"]]
        if report["impurity"] is not None:
            facts.append(["impurity", f"{report['impurity']:.3f}"])
        if report["leakage"] is not None:
            facts.append(["leakage (points)", f"{100 * report['leakage']:+.1f}"])
        result.append(terminal.table(["concepts", "value"], facts))
    return result
