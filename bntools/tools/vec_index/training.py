"""What an index is trained with: the map of a method, the centroids, the words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bntools.core.methods.vector_index.exact import Vectors
from bntools.core.methods.vector_index.index import Floats, Hits
from bntools.kernels.vectors import product
from bntools.tools.vec_index import gauge
from bntools.tools.vec_index.encoder import Trained, nearest_centroid, train_cells
from bntools.tools.vec_index.gauge import Gauge, Matrix
from bntools.tools.vec_index.settings import Settings


class Scene(NamedTuple):
    """Everything that is known before a map is chosen; learn and held-out queries are disjoint."""

    base: Vectors
    moments: Matrix
    mean: Floats
    sample: Floats
    learn: Floats | None
    held: Floats | None
    truth: Hits | None


def train(scene: Scene, settings: Settings) -> Trained:
    """Map, centroids and codebook."""
    maps = make_gauge(scene, settings)
    a, b = (np.ascontiguousarray(m, np.float32) for m in maps)
    mean = scene.mean @ b
    second = None if settings.second == "none" else scene.mean
    known = Trained(
        settings.metric, a, a if settings.method in ("leanvec-id", "flat") else b, mean, settings.code,
        second=settings.second, second_mean=second,
    )  # fmt: skip
    if not settings.allots:
        return known
    x = np.asarray(scene.sample @ b - mean, np.float32)
    centroids = None
    if settings.cells:
        centroids = train_cells(x, min(settings.cells, len(x)), settings.seed)
        x -= centroids[nearest_centroid(x, centroids)]
    count = code_bytes(settings, settings.bytes or 96, x.shape[1])
    if settings.code == "vq":
        book = product.vector_codebook(x, count, settings.seed, settings.threads)
    else:
        book = product.scalar_codebook(x, count)
    return known._replace(book=book, centroids=centroids)


def make_gauge(scene: Scene, settings: Settings) -> Gauge:
    """The maps of a method."""
    width, dims = scene.base.width, dims_of(settings, scene.base.width)
    if settings.method == "flat":
        return Gauge(np.eye(width)[:, :dims], np.eye(width)[:, :dims])
    if settings.method == "leanvec-id" or scene.learn is None:
        return gauge.principal(scene.moments, dims)
    queries = gauge.second_moments(scene.learn)
    if settings.method == "leanvec-es":
        return gauge.eigen_search(queries, scene.moments, dims)
    if settings.method == "leanvec-fw":
        return gauge.frank_wolfe(queries, scene.moments, dims, paper=settings.paper)
    return gauge.sphere(queries, scene.moments, dims, settings.shrink)


def dims_of(settings: Settings, width: int) -> int:
    """Coordinates after the map: as asked, or what the bytes hold, or all of them (half for the cut maps)."""
    if settings.dims is not None:
        return settings.dims
    if settings.bytes is not None and not settings.allots:
        room = settings.bytes - (4 if settings.metric == "l2" else 0)
        fits = {"lvq8": room - 4, "lvq4": 2 * (room - 4), "lvq4x8": int((room - 4) / 1.5), "f16": room // 2}
        return max(1, min(width, fits[settings.code]))
    return max(1, width // 2) if settings.method in ("leanvec-fw", "leanvec-es") else width


def code_bytes(settings: Settings, total: int, dims: int) -> int:
    """Bytes of words in `total` bytes a vector: the rest is a factor, a cell and for l2 the norm."""
    return min(total - 1 - (1 if settings.cells else 0) - (4 if settings.metric == "l2" else 0), dims)
