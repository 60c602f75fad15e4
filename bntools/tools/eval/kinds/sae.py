"""Scores of a sparse dictionary: variance, latents in use, a language model's loss, probes, foreign rows, stability."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bntools import terminal
from bntools.core.artifact.reader import Artifact, open_path
from bntools.core.datasets.activations import open_activations
from bntools.core.errors import bad_input, usage
from bntools.core.methods import sparse_dictionary, sparse_effects, sparse_probes, sparse_scores
from bntools.core.methods.sparse_dictionary import Dictionary, Inference
from bntools.core.model.open import open_model
from bntools.core.progress import Progress
from bntools.core.text.documents import default_text, read_text
from bntools.tools.eval.kinds import Request

_OPTIONS = ("tensor", "rows", "other", "force")
_ROWS = 16_384


def score(source: Artifact, request: Request, progress: Progress) -> dict[str, Any]:
    """The report `sparse-code-scores` of bntools-sparse-code(1).

    data: rows not trained on, and perhaps rows of another kind. options: tensor, rows (at most so many), other (a
    dictionary from another seed), force (rows of another model or layer).
    """
    unknown = [name for name in request.options if name not in _OPTIONS]
    if unknown:
        raise usage(f"--set {unknown[0]}: no setting of a sparse dictionary", f"one of {', '.join(_OPTIONS)}")
    dictionary = sparse_dictionary.read(source)
    threads = request.threads or torch.get_num_threads()
    report: dict[str, Any] = {
        "kind": "sparse-code-scores", "method": dictionary.method, "k": dictionary.k, "latents": len(dictionary.D),
        "width": dictionary.D.shape[1], "inference": dictionary.inference.facts(),
    }  # fmt: skip
    if not request.data and request.model is None and "other" not in request.options:
        raise usage("nothing to score on", "--data rows.safetensors, or --model MODEL --text FILE")
    if request.data:
        with progress("rows", len(request.data)) as step:
            report |= _on_rows(dictionary, request, threads, step)
    if request.model is not None:
        text = default_text("eval") if request.text is None else read_text(request.text)
        passes = sparse_effects.variants(dictionary)
        with progress("tokens", request.tokens * passes) as step:
            report["model"] = sparse_effects.effects(
                dictionary, open_model(request.model), text, request.tokens, threads=threads, step=step
            )
    if "other" in request.options:
        with open_path(str(request.options["other"])) as other:
            report["stability"] = sparse_probes.stability(dictionary, sparse_dictionary.read(other))
    return report


def _on_rows(dictionary: Dictionary, request: Request, threads: int, step: Any) -> dict[str, Any]:
    x, labels, outliers = _rows(dictionary, request.data[0], request)
    report: dict[str, Any] = {"rows": {"scored": len(x), "outliers": outliers}}
    report["encoder"], codes = sparse_scores.score(dictionary, x, Inference(0, dictionary.k), threads)
    if dictionary.inference.candidates:
        report["pursuit"], codes = sparse_scores.score(dictionary, x, dictionary.inference, threads)
    report |= sparse_scores.usage(dictionary, codes)
    report["baseline"] = sparse_scores.baselines(dictionary, x, dictionary.k, threads)
    step(1)
    if labels is not None and len(np.unique(labels)) > 1:
        report["probe"] = sparse_probes.probe(dictionary, x, codes, labels, request.seed)
    if len(request.data) > 1:
        others, _, _ = _rows(dictionary, request.data[1], request)
        outside = (others, dictionary.encode(others, None, threads))
        report["foreign"] = sparse_probes.foreign(dictionary, (x, codes), outside, threads)
        step(1)
    return report


def _rows(dictionary: Dictionary, path: str, request: Request) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Ordinary rows, evenly spaced, their labels, and how many outliers were set aside."""
    options = request.options
    with open_activations(path, options.get("tensor")) as rows:
        force = bool(options.get("force", False))
        sparse_dictionary.check_fits(dictionary, rows.facts, rows.width, rows.label, force)
        x, columns = rows.load("drop")
    limit = dictionary.facts.get("outliers", {}).get("limit", np.inf)
    ordinary = np.flatnonzero(np.linalg.norm(x, axis=1) <= limit)
    if len(ordinary) < 2:
        raise bad_input(f"{path} has {len(ordinary)} rows to score", "outliers are set aside, see --outliers")
    count = int(options.get("rows", _ROWS))
    chosen = ordinary[np.linspace(0, len(ordinary) - 1, min(count, len(ordinary))).astype(int)]
    labels = columns["label"][chosen] if "label" in columns else None
    return x[chosen], labels, len(x) - len(ordinary)


def tables(report: dict[str, Any]) -> list[Any]:
    """What a person sees: baselines first."""
    three, shown = terminal.three, []
    if "encoder" in report:
        base = report["baseline"]
        rows = [
            [f"{base['pca']['components']} principal components", three(base["pca"]["fvu"]), "-", "-"],
            ["random directions, pursuit", three(base["random"]["fvu"]), "-", str(base["random"]["k"])],
        ]
        for name in ("encoder", "pursuit"):
            if name in report:
                part = report[name]
                rows.append(
                    [name, three(part["fvu"]["value"]), three(part["fvu"]["se"]), three(part["l0"]["mean"])]
                )
        shown.append(terminal.table(["codes", "FVU", "±", "L0"], rows))
    if "model" in report:
        shown.append(_model_table(report["model"]))
    if "probe" in report:
        probe = report["probe"]
        rows = [["largest class", three(probe["largest_class"]), "-"], ["raw rows", three(probe["raw"]), "-"]]
        rows += [
            [f"{n} latents", three(value), three(probe["random_latents"].get(n))]
            for n, value in probe["codes"].items()
        ]
        shown.append(terminal.table(["probe", "accuracy", "random latents"], rows))
    if "foreign" in report:
        rows = [[name, three(value)] for name, value in reversed(report["foreign"].items())]
        shown.append(terminal.table(["foreign rows by", "AUROC"], rows))
    if "stability" in report:
        rows = [["random directions", three(report["stability"]["random_cosine"])]]
        rows.append(["the other dictionary", three(report["stability"]["matched_cosine"])])
        shown.append(terminal.table(["latents paired with", "mean |cosine|"], rows))
    return shown


def _model_table(model: dict[str, Any]) -> Any:
    three = terminal.three
    rows = [["the model's own states", three(model["loss"]["clean"]), "0", "-", "-"]]
    for name, kl in model["kl"].items():
        recovered = model["loss_recovered"].get(name, {})
        rows.append(
            [
                name,
                three(model["loss"][name]),
                three(kl["mean"]),
                three(kl["se"]),
                three(recovered.get("mean")),
            ]
        )
    return terminal.table(["states replaced by", "loss", "KL (nats/token)", "±", "recovered, of mean"], rows)
