"""One point of a plane: what a layer at an epoch tells of the input and of the label, term by term.

Every estimator gives, for each sigma, terms [M] of both over the same M rows at every epoch: differences between
epochs are then averaged pair by pair, and their errors are those of the pairs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.information.epochs import Dump, LayerDump
from bntools.core.information.estimate import principal
from bntools.kernels.information import histogram
from bntools.kernels.information.kernel_density import mixture_terms
from bntools.kernels.information.nearest_neighbour import kraskov_terms, labelled_terms
from bntools.kernels.information.neighbour_counts import Side, neighbour_counts
from bntools.tools.ib_analyze import compress
from bntools.tools.ib_analyze.settings import Planes

Floats = NDArray[np.float64]
_INPUTS = 0x1B  # of the generator that the inputs' compression draws from
Indices = NDArray[np.int64]


class ClassRows(NamedTuple):
    """Rows of one class, which of them are measured (places in `rows`), and their compressed input."""

    rows: Indices
    measured: Indices
    inputs: Side


class Shared(NamedTuple):
    """What all points use: the measured rows [M], labels [N], the compressed input with what it lost, and by class."""

    rows: Indices
    labels: Indices | None
    inputs: Side | None
    classes: tuple[ClassRows, ...] = ()


class Point(NamedTuple):
    """Terms [sigmas, M] in nats of I(X; T) and, with labels, of I(T; Y); half the width between bounds [sigmas].

    loss: what the components left out may tell beside those kept, at most, [sigmas]; level: the layer's root mean
    square; effective: the effective rank; within: terms [M] of I(X; T | Y) class by class at the sigma shown, NaN for
    rows of classes too small.
    """

    epoch: int
    layer: str
    x: Floats
    y: Floats | None
    slack: Floats
    loss: Floats
    level: float
    effective: float
    within: Floats | None


class Layer(NamedTuple):
    """Activations h [N, D], their coordinates on the first principal axes [N, K], and all variances, descending."""

    h: Floats
    principal: Floats
    variances: Floats


class Terms(NamedTuple):
    """What an estimator gives; the fields are those of Point."""

    x: Floats
    y: Floats | None
    slack: Floats
    loss: Floats
    within: Floats | None


def shared(dump: Dump, labels: Indices | None, settings: Planes) -> Shared:
    """Rows to measure and the side of the input, made once for all layers and epochs."""
    count = dump.rows
    rng = np.random.default_rng(settings.seed)
    rows = np.sort(rng.choice(count, min(settings.queries, count), replace=False))
    if settings.estimator != "compressed" or dump.inputs is None:
        return Shared(rows, labels, None)
    inputs = _unit(_input_code(dump.inputs, settings))
    classes = []
    if settings.conditional and labels is not None:
        for label in np.unique(labels):
            own = np.flatnonzero(labels == label)
            measured = np.flatnonzero(np.isin(own, rows))
            if len(own) > settings.neighbours + 1 and len(measured):
                classes.append(ClassRows(own, measured, Side.of(inputs[own])))
    return Shared(rows, labels, Side.of(inputs), tuple(classes))


def _input_code(inputs: Floats, settings: Planes) -> Floats:
    if settings.compress == "pca":
        return principal(inputs, settings.components)
    rng = np.random.default_rng([settings.seed, _INPUTS])
    if settings.compress == "random":
        return compress.RandomAxes(inputs, np.zeros(0), settings.components, rng).coordinates
    return compress.Encoded(inputs, settings.components, rng).noisy(0.0)


def measure(place: LayerDump, common: Shared, settings: Planes) -> Point:
    """The point of one layer at one epoch; memory holds its activations and one block of distances."""
    h = place.read()
    layer = Layer(h, *_principal_axes(h, settings.components))
    level = math.sqrt(layer.variances.sum() / h.shape[1])
    scale = level if settings.noise == "relative" else 1.0
    sigmas = np.array(settings.sigmas) * (scale or 1.0)
    terms = METHODS[settings.estimator](layer, sigmas, common, settings, _stream(place, settings))
    return Point(
        place.epoch, place.layer, terms.x, terms.y, terms.slack, terms.loss, level, _effective(layer.variances),
        terms.within,
    )  # fmt: skip


def _principal_axes(h: Floats, most: int) -> tuple[Floats, Floats]:
    """Coordinates of h [N, D] on its first `most` principal axes and the variances on all, from the smaller Gram."""
    centred = h - h.mean(0)
    if h.shape[1] <= len(h):
        values, vectors = np.linalg.eigh(centred.T @ centred / len(h))
        coordinates = centred @ vectors[:, ::-1][:, :most]
    else:
        values, vectors = np.linalg.eigh(centred @ centred.T / len(h))
        coordinates = (vectors * np.sqrt(np.maximum(values, 0) * len(h)))[:, ::-1][:, :most]
    return coordinates, np.maximum(values[::-1], 0)


def _effective(variances: Floats) -> float:
    """exp of the entropy of the variances' shares: the effective rank."""
    shares = variances[variances > 0] / max(variances.sum(), 1e-300)
    return math.exp(-(shares * np.log(shares)).sum())


def _stream(place: LayerDump, settings: Planes) -> np.random.Generator:
    """Noise of its own for each epoch and layer, the same in every run."""
    return np.random.default_rng([settings.seed, place.epoch, *place.layer.encode()])


def _mixture(
    layer: Layer, sigmas: Floats, common: Shared, settings: Planes, rng: np.random.Generator
) -> Terms:
    """Middle of Kolchinsky and Tracey's bounds on I(X; T + noise), inputs equally likely, and of I(T + noise; Y)."""
    whole, within = mixture_terms(layer.h, sigmas.tolist(), common.rows, common.labels)
    x, slack = whole.mean(1), (whole[:, 1] - whole[:, 0]).mean(1) / 2
    if within is None:
        return Terms(x, None, slack, np.zeros(len(sigmas)), None)
    within = within.mean(1)
    return Terms(x, x - within, slack, np.zeros(len(sigmas)), within[settings.shown])


def _binning(
    layer: Layer, sigmas: Floats, common: Shared, settings: Planes, rng: np.random.Generator
) -> Terms:
    """H(bin T), the I(X; bin T) of a deterministic layer, as -ln p of each row's bin: the same for all sigmas."""
    codes = histogram.codes(layer.h, settings.bins, settings.limits)
    whole = -np.log(np.bincount(codes)[codes] / len(codes))[common.rows]
    nothing, every = np.zeros(len(sigmas)), (len(sigmas), 1)
    if common.labels is None:
        return Terms(np.tile(whole, every), None, nothing, nothing, None)
    joint = histogram.row_codes(np.stack([codes, common.labels], 1))
    sizes = np.bincount(common.labels)[common.labels]
    within = -np.log(np.bincount(joint)[joint] / sizes)[common.rows]
    return Terms(np.tile(whole, every), np.tile(whole - within, every), nothing, nothing, within)


def _compressed(
    layer: Layer, sigmas: Floats, common: Shared, settings: Planes, rng: np.random.Generator
) -> Terms:
    """Kraskov's terms between the coordinates of input and noisy layer, Ross's for the label: a lower bound."""
    if common.inputs is None:
        raise ValueError("compressed needs the inputs")
    x, y, loss, within = [], [], [], None
    code = _code(layer, settings, rng)
    for index, sigma in enumerate(sigmas):
        points = _unit(code.noisy(float(sigma)))
        counts = neighbour_counts(common.inputs, Side.of(points), settings.neighbours, common.rows)
        terms = np.empty(len(common.rows))
        terms[np.searchsorted(common.rows, counts.rows)] = kraskov_terms(
            counts, len(points), settings.neighbours
        )
        x.append(terms)
        loss.append(code.loss(float(sigma)))
        if common.labels is not None:
            every = np.full(len(points), np.nan)
            terms, rows = labelled_terms(points, common.labels, settings.neighbours, common.rows)
            every[rows] = terms
            y.append(every[common.rows])
        if index == settings.shown and common.classes:
            within = _within_classes(points, common, settings.neighbours)
    return Terms(np.array(x), np.array(y) if y else None, np.zeros(len(sigmas)), np.array(loss), within)


def _code(layer: Layer, settings: Planes, rng: np.random.Generator) -> compress.Code:
    if settings.compress == "pca":
        return compress.Axes(layer.principal, layer.variances, rng)
    if settings.compress == "random":
        return compress.RandomAxes(layer.h, layer.variances, settings.components, rng)
    return compress.Encoded(layer.h, settings.components, rng)


METHODS = {"mixture": _mixture, "binning": _binning, "compressed": _compressed}


def _within_classes(points: Floats, common: Shared, k: int) -> Floats:
    """Kraskov's terms among the rows of each class alone, at the measured rows [M]: their mean is I(X; T | Y)."""
    every = np.full(len(points), np.nan)
    for own in common.classes:
        counts = neighbour_counts(own.inputs, Side.of(points[own.rows]), k, own.measured)
        every[own.rows[counts.rows]] = kraskov_terms(counts, len(own.rows), k)
    return every[common.rows]


def _unit(points: Floats) -> Floats:
    """Columns of unit variance; one that does not vary stays zero."""
    spread = points.std(0)
    return (points - points.mean(0)) / np.where(spread > 0, spread, 1)
