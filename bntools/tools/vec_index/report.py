"""The report of a build, which travels in the index."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools.core.methods.vector_index.index import VectorIndex
from bntools.tools.vec_index import gauge
from bntools.tools.vec_index.gauge import Gauge
from bntools.tools.vec_index.settings import RERANK, Settings
from bntools.tools.vec_index.training import Scene


def standard_error(values: Any) -> float:
    """Of the mean of some values."""
    return float(values.std() / max(len(values) - 1, 1) ** 0.5)


def facts_of(index: VectorIndex, scene: Scene, settings: Settings, recall: Any) -> dict[str, Any]:
    """Keys and values as bntools-vec-index(1) lists them."""
    queries = None if scene.learn is None else gauge.second_moments(scene.learn)
    maps = Gauge(index.query_map.astype(np.float64), index.base_map.astype(np.float64))
    return {
        "n": len(index),
        "dims": index.width,
        "kept_dims": index.query_map.shape[1],
        "metric": settings.metric,
        "method": settings.method,
        "code": settings.code,
        "second": settings.second,
        "segments": 1,
        "deleted": 0,
        "ef": None,
        "cells": 0 if index.cells is None else len(index.cells.centroids),
        "bytes_per_vector": index.bytes_per_vector(),
        "graph_bytes_per_vector": 0 if index.graph is None else 4 * index.graph.neighbours.shape[1],
        "second_bytes_per_vector": 0 if index.second is None else index.second.code.bytes_per_vector(),
        "loss": None if queries is None else gauge.loss(maps, queries, scene.moments),
        "shrink": settings.shrink if settings.method == "sphere" else None,
        "query_shift": None if queries is None else gauge.query_shift(queries, scene.moments),
        "queries_heldout": 0 if scene.held is None else len(scene.held),
        "recall_promised": settings.recall,
        "recall_heldout": None
        if recall is None
        else {"mean": float(recall.mean()), "se": standard_error(recall)},
        "rerank": (settings.rerank or RERANK) if settings.second != "none" else 0,
        "seed": settings.seed,
    }
