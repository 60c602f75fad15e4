"""Quality against size: a stack measured at several lengths, and the picture of it."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import STACK, Artifact
from bntools.core.errors import usage
from bntools.core.model.model import Model, Shards
from bntools.core.model.open import as_model
from bntools.core.progress import Progress
from bntools.core.report import pictures
from bntools.tools.eval.evaluate import Settings, evaluate

_KEPT = ("bytes", "bits_per_weight", "perplexity", "perplexity_se", "kl", "top1", "top1_se")


def measure(
    model: Model,
    reference: Model | None,
    documents: list[str],
    settings: Settings,
    points: int,
    progress: Progress,
) -> dict[str, Any]:
    """The report of kind `eval-curve`: what `evaluate` finds at evenly spaced sizes. BnError (exit 2) on no stack."""
    source = _stack(model)
    low, high = source.header.base_bytes, source.nbytes
    rows, last = [], {}
    for size in sorted({low + (high - low) * at // (points - 1) for at in range(points)}):
        with source.within(size) as part:
            last = evaluate(as_model(part, model.label), reference, documents, None, settings, progress)
        rows.append({key: last[key] for key in _KEPT if key in last})
    report = {"kind": "eval-curve", "points": rows, "weights_bytes": _dense(model)}
    shared = ("model", "reference", "protocol", "tokens", "windows", "window", "reference_perplexity")
    return {**report, **{key: last[key] for key in shared if key in last}}


def _stack(model: Model) -> Artifact:
    store = model.store
    if not isinstance(store, Shards) or store.artifacts[0].kind != STACK:
        raise usage(
            f"--curve measures a stack, and {model.label} is none", "bntools stack-compress makes one"
        )
    return store.artifacts[0]


def _dense(model: Model) -> int:
    """Bytes of the weights as they were."""
    return sum(entry.nbytes for entry in model.entries.values())


def draw(report: dict[str, Any], path: str) -> None:
    """Divergence, or without a reference perplexity, against megabytes; the model's own size in the caption."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    sizes = [point["bytes"] / 1e6 for point in report["points"]]
    if "kl" in report["points"][0]:
        values = [point["kl"]["mean"] for point in report["points"]]
        axes.errorbar(sizes, values, [point["kl"]["se"] for point in report["points"]], color="black", marker="o",
                      capsize=3)  # fmt: skip
        axes.set_ylabel("KL from the original (nats/token)")
    else:
        axes.plot(sizes, [point["perplexity"] for point in report["points"]], color="black", marker="o")
        axes.set_ylabel("perplexity")
    axes.set_yscale("log")
    axes.set_xlabel(f"bytes read (MB); the original has {report['weights_bytes'] / 1e6:,.0f} MB")
    axes.grid(alpha=0.3)
    pictures.save(figure, path)
