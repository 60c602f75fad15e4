"""Samples of a generative model beside real images, beside full sampling, and by OneIG-Bench."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools import terminal
from bntools.core.artifact.reader import Artifact
from bntools.core.datasets.samples import MAIN, Samples, read_samples
from bntools.core.errors import GATE, BnError, bad_input, usage
from bntools.core.methods.sample_scores import images, oneig
from bntools.core.progress import Progress
from bntools.tools.eval.kinds import Request

_TEXTS = ("features", "real_features", "ocr", "answers", "language")
_NUMBERS = ("reasoning", "style", "gate_frechet")


def score(source: Artifact, request: Request, progress: Progress) -> dict[str, Any]:
    """The report. Data: labelled real images, of which the test part is compared.

    Options: features and real_features (activations of a model of one's own, in place of the classifier of digits),
    ocr, language, answers, reasoning, style (OneIG-Bench), gate_frechet (exit 4 above it).
    """
    chosen = _settings(request)
    samples = read_samples(source)
    own = None if chosen["features"] is None else _features(chosen["features"], len(samples.x[MAIN]))
    reference = _reference(request, chosen)
    facts = samples.facts
    report: dict[str, Any] = {
        "kind": "samples-score", "model": facts.get("model"), "method": facts.get("method"),
        "seed": facts.get("seed"), "samples": len(samples.x[MAIN]), "shape": list(samples.x[MAIN].shape[1:]),
        "features": chosen["features"] or "digits",
    }  # fmt: skip
    report |= images.score_rows(samples, reference=reference, seed=request.seed, own=own, progress=progress)
    report["oneig"] = _oneig(chosen, samples, report)
    _gate(chosen["gate_frechet"], report)
    return report


def _settings(request: Request) -> dict[str, Any]:
    known = (*_TEXTS, *_NUMBERS)
    unknown = set(request.options) - set(known)
    if unknown:
        raise usage(f"samples have no setting {min(unknown)}", f"one of {', '.join(known)}")
    chosen = {**dict.fromkeys(known), **request.options}
    for name in _NUMBERS:
        value = chosen[name]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise usage(f"--set {name}={value}: a number", f"--set {name}=0.5")
    for name in _TEXTS:
        if chosen[name] is not None and not isinstance(chosen[name], str):
            raise usage(f"--set {name}={chosen[name]}: the name of a file", f"--set {name}=FILE")
    return chosen


def _reference(request: Request, chosen: dict[str, Any]) -> images.Reference | None:
    if len(request.data) > 1:
        raise usage("samples are compared with one set of real images", "--data mnist/")
    if chosen["real_features"] is not None:
        if chosen["features"] is None or request.data:
            raise usage(
                "real_features go with features of the samples, and without --data", "--set features=FILE"
            )
        return images.Reference(_features(chosen["real_features"], None), None)
    if not request.data:
        return None
    if chosen["features"] is not None:
        raise usage("--data are seen by the classifier of digits only", "--set real_features=FILE")
    return images.digit_reference(request.data[0], request.seed)


def _features(path: str, count: int | None) -> images.Floats:
    """Activations [n, d] of a file. Raises BnError (exit 3) for another number than there are samples."""
    from bntools.core.datasets.activations import open_activations

    rows = np.asarray(open_activations(path).load()[0], np.float32)
    if count is not None and len(rows) != count:
        raise bad_input(f"{path} has features of {len(rows)} images, and there are {count} samples")
    return rows


def _oneig(chosen: dict[str, Any], samples: Samples, report: dict[str, Any]) -> dict[str, Any] | None:
    """Scores by dimension, and their row of the benchmark's table; None where no file of it was named."""
    if all(chosen[name] is None for name in ("ocr", "answers", "reasoning", "style")):
        return None
    text = None if chosen["ocr"] is None else oneig.text_scores(chosen["ocr"], chosen["language"] or "en")
    alignment = None if chosen["answers"] is None else oneig.alignment_scores(chosen["answers"])
    main = next(row for row in report["rows"] if row["tensor"] == MAIN)
    diversity = main["diversity"] and main["diversity"]["mean"]
    scores = {
        "alignment": alignment and alignment["score"], "text": text and text["score"],
        "reasoning": chosen["reasoning"], "style": chosen["style"], "diversity": diversity,
    }  # fmt: skip
    return {"scores": scores, "text": text, "alignment": alignment}


def _gate(most: float | None, report: dict[str, Any]) -> None:
    if most is None:
        return
    value = next(row for row in report["rows"] if row["tensor"] == MAIN)["frechet"]
    if value is None:
        raise usage("a gate of the Fréchet distance needs real images and 128 samples", "--data mnist/")
    if value > most:
        raise BnError(f"the Fréchet distance {value:.4g} is over {most:.4g}", "", GATE)


def tables(report: dict[str, Any]) -> list[Any]:
    """A row a way of sampling, the real images first; OneIG-Bench's row; the parts of its text score."""
    three = terminal.three
    rows = []
    if report["real"] is not None:
        least = report["floor"] and report["floor"]["mean"]
        rows.append(["real images", "", three(least), "", three(_mean(report["real"]["diversity"])), "", ""])
    for row in sorted(report["rows"], key=lambda row: row["tensor"] == MAIN):
        name = row["name"] or row["tensor"]
        accuracy, distance = _mean(row["accuracy"]), _mean(row["distance"])
        rows.append([
            name, three(row["cost"]), three(row["frechet"]), three(accuracy), three(_mean(row["diversity"])),
            three(distance), three(row["wall"]),
        ])  # fmt: skip
    headers = ["", "cost", "Fréchet", "right class", "diversity", "from full", "wall s"]
    shown = [
        terminal.table(headers, rows, f"{report['samples']:,} samples of {report['model'] or 'a model'}")
    ]
    oneig_scores = report["oneig"]
    if oneig_scores is not None:
        values = [three(value) for value in oneig.layout(oneig_scores["scores"])]
        shown.append(terminal.table(["OneIG-Bench", *oneig.DIMENSIONS], [[report["model"] or "", *values]]))
        text = oneig_scores["text"]
        if text is not None:
            values = [three(text["edit_distance"]["mean"]), three(text["completion_rate"]["mean"])]
            headers = ["text", "edit distance", "completion rate", "word accuracy"]
            shown.append(terminal.table(headers, [[text["language"], *values, three(text["word_accuracy"])]]))
    return shown


def _mean(value: dict[str, Any] | None) -> float | None:
    return None if value is None else value["mean"]
