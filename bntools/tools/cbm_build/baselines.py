"""What a sceptic asks for: zero-shot names, nearest centroid, a linear probe, random concepts, all concepts."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools.core.methods.cbm.bottleneck import Floats, unit
from bntools.core.progress import Progress
from bntools.kernels.linear.design import FactoredDesign
from bntools.tools.cbm_build.banks import select
from bntools.tools.cbm_build.banks.bank import Bank
from bntools.tools.cbm_build.head import L2, Plan, Split, dense_head, sparse_head, spectral
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Head, Training

Map = tuple[Floats, Floats]
_DENSE = 4000
"""Concepts up to which all of them are fitted, too: the spectrum of their Gram matrix costs K^3."""


def baselines(
    training: Training, head: Head, pool: Bank, settings: Settings, progress: Progress
) -> tuple[dict[str, Any], dict[str, Map]]:
    """Validation accuracy of each, and each as a map of the embedding, fitted on all rows."""
    report: dict[str, Any] = {}
    maps: dict[str, Map] = {}
    rows = training.embeddings[training.held]
    classes = len(training.classes)
    zeros = np.zeros(classes, np.float32)

    def add(name: str, weight: Floats, bias: Floats, part: Map | None = None) -> None:
        shown = part or (weight, bias)
        hit = (rows @ shown[0].T + shown[1]).argmax(1) == training.y[training.held]
        report[name] = {"validation_accuracy": float(hit.mean()) if len(hit) else None}
        maps[name] = (weight.astype(np.float32), bias.astype(np.float32))

    if training.class_vectors is not None:
        add("zero_shot", training.class_vectors, zeros)
    if settings.normalize:
        add("centroid", unit(training.centroids), zeros)
    whole, part = linear_probe(training)
    add("linear_probe", *whole, part=part)
    if training.bank.activation == "linear" and len(pool) <= _DENSE:
        whole, part = _dense(training.with_bank(pool))
        add("all_concepts", *whole, part=part)
    if training.bank.activation == "linear" and len(pool) > len(training.bank):
        chosen = pool.at(select.random(len(training.bank), len(pool), settings.seed + 1))
        for point in _random(training.with_bank(chosen), head, settings, progress):
            report[f"random_concepts_{point[0]}"] = {"validation_accuracy": point[2]}
            maps[f"random_concepts_{point[0]}"] = point[1]
    return report, maps


def linear_probe(training: Training) -> tuple[Map, Map]:
    """Ridge softmax regression of the embedding: of all rows, and of the part that choices are fitted on."""
    width = training.embeddings.shape[1]
    bank = Bank(
        np.eye(width, dtype=np.float32),
        np.zeros(width, np.float32),
        [],
        None,
        np.zeros((width, 2), np.float32),
    )
    return _dense(training.with_bank(bank))


def _dense(training: Training) -> tuple[Map, Map]:
    """Ridge fits on all rows, and on the part that choices are fitted on."""
    design = FactoredDesign(training.embeddings, training.bank.vectors)
    problem = spectral(Split(design, training.labels))
    models = (dense_head(problem, L2[1]), dense_head(problem, L2[1], training.division(design)[0]))
    whole, part = (as_map(design, model.weight, model.bias) for model in models)
    return whole, part


def _random(
    training: Training, head: Head, settings: Settings, progress: Progress
) -> list[tuple[int, Map, float | None]]:
    """Random concepts with heads of the same sparsities, as many concepts, and the same penalty."""
    if not head.points:
        return []
    design = FactoredDesign(training.embeddings, training.bank.vectors)
    l2 = head.points[0].l2 or None
    plan = Plan(tuple(p.nec for p in head.points), l2, settings.budget == "class", refit=settings.refit)
    part, held = training.division(design)
    points = sparse_head(Split(design, training.labels), part, held, plan, progress)
    return [
        (p.nec, as_map(design, p.fit.weight, p.fit.bias), None if np.isnan(p.validation) else p.validation)
        for p in points
    ]


def as_map(design: FactoredDesign, weight: Floats, bias: Floats) -> Map:
    """A head on concepts that are linear in the embedding, as a map of the embedding."""
    direct = (weight @ design.vectors).astype(np.float32)
    return direct, (bias - direct @ design.center).astype(np.float32)
