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
from bntools.kernels.information.covariance import spectral_entropy
from bntools.kernels.information.kernel_density import mixture_terms
from bntools.kernels.information.nearest_neighbour import kraskov_terms, labelled_terms
from bntools.kernels.information.neighbour_counts import Side, neighbour_counts
from bntools.tools.ib_analyze.settings import Planes

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class Shared(NamedTuple):
    """What all points use: the measured rows [M], labels [N], and the compressed input with what it lost."""

    rows: Indices
    labels: Indices | None
    inputs: Side | None


class Point(NamedTuple):
    """Terms [sigmas, M] in nats of I(X; T) and, with labels, of I(T; Y); half the width between bounds [sigmas].

    loss: what the components left out may tell beside those kept, at most, [sigmas]; level: the layer's root mean
    square; effective: the effective rank.
    """

    epoch: int
    layer: str
    x: Floats
    y: Floats | None
    slack: Floats
    loss: Floats
    level: float
    effective: float


def shared(dump: Dump, labels: Indices | None, settings: Planes) -> Shared:
    """Rows to measure and the side of the input, made once for all layers and epochs."""
    count = dump.places[0].artifact.entries[dump.places[0].tensor].shape[0]
    rng = np.random.default_rng(settings.seed)
    rows = np.sort(rng.choice(count, min(settings.queries, count), replace=False))
    inputs = None
    if settings.estimator == "compressed" and dump.inputs is not None:
        inputs = Side.of(_unit(principal(dump.inputs, settings.components)))
    return Shared(rows, labels, inputs)


def measure(place: LayerDump, common: Shared, settings: Planes) -> Point:
    """The point of one layer at one epoch; memory holds its activations and one block of distances."""
    h = place.read()
    level = float(np.sqrt(np.square(h - h.mean(0)).sum(1).mean() / h.shape[1]))
    scale = level if settings.noise == "relative" else 1.0
    sigmas = np.array(settings.sigmas) * (scale or 1.0)
    x, y, slack, loss = METHODS[settings.estimator](h, sigmas, common, settings, _stream(place, settings))
    return Point(place.epoch, place.layer, x, y, slack, loss, level, math.exp(spectral_entropy(h)))


def _stream(place: LayerDump, settings: Planes) -> np.random.Generator:
    """Noise of its own for each epoch and layer, the same in every run."""
    return np.random.default_rng([settings.seed, place.epoch, *place.layer.encode()])


Terms = tuple[Floats, Floats | None, Floats, Floats]


def _mixture(h: Floats, sigmas: Floats, common: Shared, settings: Planes, rng: np.random.Generator) -> Terms:
    """Middle of Kolchinsky and Tracey's bounds on I(X; T + noise), inputs equally likely, and of I(T + noise; Y)."""
    whole, within = mixture_terms(h, sigmas.tolist(), common.rows, common.labels)
    y = None if within is None else whole.mean(1) - within.mean(1)
    return whole.mean(1), y, (whole[:, 1] - whole[:, 0]).mean(1) / 2, np.zeros(len(sigmas))


def _binning(h: Floats, sigmas: Floats, common: Shared, settings: Planes, rng: np.random.Generator) -> Terms:
    """H(bin T), the I(X; bin T) of a deterministic layer, as -ln p of each row's bin: the same for all sigmas."""
    codes = histogram.codes(h, settings.bins, settings.limits)
    whole = -np.log(np.bincount(codes)[codes] / len(codes))[common.rows]
    y = None
    if common.labels is not None:
        joint = histogram.row_codes(np.stack([codes, common.labels], 1))
        sizes = np.bincount(common.labels)[common.labels]
        y = whole + np.log(np.bincount(joint)[joint] / sizes)[common.rows]
    nothing = np.zeros(len(sigmas))
    return (
        np.tile(whole, (len(sigmas), 1)),
        None if y is None else np.tile(y, (len(sigmas), 1)),
        nothing,
        nothing,
    )


def _compressed(
    h: Floats, sigmas: Floats, common: Shared, settings: Planes, rng: np.random.Generator
) -> Terms:
    """Kraskov's terms between the principal components of input and noisy layer, Ross's for the label.

    A lower bound of I(X; T + noise): of what the dropped components add, `loss` is an upper bound,
    sum 1/2 ln(1 + l_i / s^2) over their variances l_i (the noise is white, and a normal has the most entropy).
    """
    if common.inputs is None:
        raise ValueError("compressed needs the inputs")
    x, y, loss = [], [], []
    noise = rng.standard_normal(h.shape)
    variances = np.maximum(np.linalg.eigvalsh(np.atleast_2d(np.cov(h.T)))[::-1], 0)
    for sigma in sigmas:
        layer = _unit(principal(h + sigma * noise, settings.components))
        counts = neighbour_counts(common.inputs, Side.of(layer), settings.neighbours, common.rows)
        terms = np.empty(len(common.rows))
        terms[np.searchsorted(common.rows, counts.rows)] = kraskov_terms(counts, len(h), settings.neighbours)
        x.append(terms)
        loss.append(0.5 * np.log1p(variances[settings.components :] / sigma**2).sum())
        if common.labels is not None:
            every = np.full(len(h), np.nan)
            terms, rows = labelled_terms(layer, common.labels, settings.neighbours, common.rows)
            every[rows] = terms
            y.append(every[common.rows])
    return np.array(x), np.array(y) if y else None, np.zeros(len(sigmas)), np.array(loss)


METHODS = {"mixture": _mixture, "binning": _binning, "compressed": _compressed}


def _unit(points: Floats) -> Floats:
    """Columns of unit variance; one that does not vary stays zero."""
    spread = points.std(0)
    return (points - points.mean(0)) / np.where(spread > 0, spread, 1)
