"""Build whichever bottleneck a method asks for: a head on concept scores, energies, or attention over sequences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import usage
from bntools.core.methods.cbm.energy.energies import EnergyModel
from bntools.core.progress import Progress
from bntools.kernels.linear.design import DenseDesign
from bntools.kernels.linear.softmax import Labels
from bntools.tools.cbm_build import build as heads
from bntools.tools.cbm_build.baselines import linear_probe
from bntools.tools.cbm_build.build import Sources
from bntools.tools.cbm_build.head import L2, Split, dense_head, spectral
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Training, divide

_TOP, _ROWS_OF_TOP = 5, 2000


def build(sources: Sources, settings: Settings, progress: Progress) -> tuple[Any, dict[str, Any]]:
    """The bottleneck and its report (bntools-cbm-build(1)). Raises BnError where inputs do not fit each other."""
    other = {"ecbm": build_energies, "motif": build_sequences}.get(settings.method, heads.build)
    return other(sources, settings, progress)


def build_energies(
    sources: Sources, settings: Settings, progress: Progress
) -> tuple[EnergyModel, dict[str, Any]]:
    """An energy-based bottleneck, with linear probes of classes and concepts as its baselines."""
    from bntools.core.methods.cbm.energy.inference import marginals
    from bntools.tools.cbm_build.methods import ecbm

    training, facts = heads.prepare(sources, settings)
    assert sources.truth is not None
    _, present = sources.truth.of(training.bank.names)
    model, choices = ecbm.fit(training, present, settings, progress)
    whole, part = linear_probe(training)
    judged = _accuracy(training.embeddings @ part[0].T + part[1], training.y, training.held)
    bank = training.bank
    maps = {"linear_probe": whole, "concept_probe": (bank.vectors, bank.offsets)}
    model = replace(model, labels=facts["labels"], baselines=maps)
    shown = np.linspace(0, len(training.y) - 1, min(len(training.y), _ROWS_OF_TOP)).astype(np.int64)
    top = _likelier(model, training, shown)
    report = _facts(training, settings) | {
        "train_accuracy": _accuracy(marginals(model, training.embeddings[shown]).classes, training.y[shown], None),
        "coupling": list(model.coupling), "couplings": [choice._asdict() for choice in choices],
        "baselines": {"linear_probe": {"validation_accuracy": judged}},
        "concept_quality": facts["quality"], "top": top,
        "notes": {"fault": "what a concept means to a class lies in products of vectors: no weight is read as it is"},
    }  # fmt: skip
    model.facts.update(_source_facts(sources, settings, report), top=top)
    return model, report


def _likelier(model: EnergyModel, training: Training, rows: NDArray[np.int64]) -> dict[str, list[list[Any]]]:
    """The concepts of each class whose probability exceeds that in all rows most."""
    from bntools.core.methods.cbm.energy.queries import conditionals

    answers = conditionals(model, training.embeddings[rows])
    lift = answers.of_class - answers.concepts
    order = np.argsort(-lift, 1, kind="stable")[:, :_TOP]
    return {
        name: [[model.names[k], round(float(lift[c, k]), 4)] for k in order[c]]
        for c, name in enumerate(model.classes)
    }


def build_sequences(sources: Sources, settings: Settings, progress: Progress) -> tuple[Any, dict[str, Any]]:
    """A bottleneck over sequences, with a linear map of mean concept scores as its baseline."""
    from bntools.core.methods.cbm.sequence.model import SequenceModel
    from bntools.core.methods.cbm.sequence.score import means
    from bntools.tools.cbm_build.methods import motif

    sequences = sources.sequences
    if sequences is None:
        raise usage(
            "--method motif reads sequences", "INPUT with a column doc: which sequence a window belongs to"
        )
    sources = replace(sources, data=sequences.rows)
    training, facts = heads.prepare(sources, replace(settings, validation=0.0))
    training, dropped, _ = heads.choose(training, replace(settings, select="all"))
    y = training.y[sequences.starts[:-1]]
    part, held = divide(y, settings.validation, settings.seed)
    raw = np.maximum(training.embeddings @ training.bank.vectors.T, 0)
    of_part = np.isin(np.repeat(np.arange(len(y)), sequences.lengths), part)
    mean, std = raw[of_part].mean(0), raw[of_part].std(0)
    std = np.where(std > 1e-7 * np.maximum(np.abs(mean), 1e-30), std, 0).astype(np.float32)
    blank = SequenceModel(
        training.bank.vectors, mean.astype(np.float32), std, {}, training.bank.names, training.classes, facts["labels"],
        normalize=settings.normalize, paper=settings.paper,
    )  # fmt: skip
    scores = blank.scores(training.embeddings)
    windows = motif.Windows(scores, sequences.starts, y, part, held)
    trained = motif.fit(windows, len(training.classes), settings, progress)
    pooled, judged = _pooled(means(scores, sequences.starts), y, (part, held), len(training.classes))
    model = replace(blank, parameters=trained.parameters, baselines={"mean_of_windows": pooled})
    report = _facts(training, settings) | _sequence_report(model, windows, trained, judged)
    report |= {"rows": len(training.y), "sequences": len(y), "longest": int(sequences.lengths.max()),
               "validation_rows": len(held), "dropped": dropped}  # fmt: skip
    model.facts.update(_source_facts(sources, settings, report))
    return model, report


def _pooled(
    pooled: Any, y: NDArray[np.int64], rows: tuple[NDArray[np.int64], NDArray[np.int64]], classes: int
) -> tuple[tuple[Any, Any], float | None]:
    """A ridge head on mean scores as a map, of all sequences, and the accuracy of one of `part` on those held out."""
    design = DenseDesign(pooled)
    problem = spectral(Split(design, Labels.tally(y, classes)))
    part, held = (Split(design.at(r), Labels.tally(y[r], classes)) for r in rows)
    accuracy = None
    if len(rows[1]):
        model = dense_head(problem, L2[1], part)
        accuracy = _accuracy((held.design.scores(model.weight) + model.bias[:, None]).T, y[rows[1]], None)
    model = dense_head(problem, L2[1])
    weight = (model.weight * design.standard.inverse).astype(np.float32)
    return (weight, (model.bias - weight @ design.standard.mean).astype(np.float32)), accuracy


def _sequence_report(model: Any, windows: Any, trained: Any, judged: float | None) -> dict[str, Any]:
    from bntools.core.methods.cbm.bottleneck import topmost
    from bntools.core.methods.cbm.sequence.model import predict

    weight = model.parameters["weight"].numpy()
    top = {
        name: [[model.names[k], round(float(weight[c, k]), 4)] for k in topmost(np.abs(weight[c]), _TOP)]
        for c, name in enumerate(model.classes)
    }
    return {
        "train_accuracy": _accuracy(predict(model, windows.scores, windows.starts), windows.y, windows.part),
        "epoch": trained.epoch, "validation_log_loss": trained.log_loss, "validation_accuracy": trained.accuracy,
        "baselines": {"mean_of_windows": {"validation_accuracy": judged}}, "concept_quality": [], "top": top,
        "notes": {"fault": "dense: every concept has a weight in every class"},
    }  # fmt: skip


def _facts(training: Training, settings: Settings) -> dict[str, Any]:
    return {
        "kind": "cbm-build", "method": settings.method, "rows": len(training.y), "validation_rows": len(training.held),
        "dimensions": training.embeddings.shape[1], "classes": len(training.classes), "concepts": len(training.bank),
        "nec": None, "path": [],
    }  # fmt: skip


def _source_facts(sources: Sources, settings: Settings, report: dict[str, Any]) -> dict[str, Any]:
    encoder = heads.encoder_of(sources.data)
    return {"method": settings.method, "encoder": encoder, "seed": settings.seed, "notes": report["notes"]}


def _accuracy(logits: Any, y: NDArray[np.int64], rows: NDArray[np.int64] | None) -> float | None:
    """Share of rows, or of some of them, whose largest logit is their class; None of no row."""
    hit = logits.argmax(1) == y
    hit = hit if rows is None else hit[rows]
    return float(hit.mean()) if len(hit) else None
