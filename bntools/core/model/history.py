"""The provenance chain: each stage signs what it passes on."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from bntools import __version__
from bntools.core.model.model import Model


def fingerprint(model: Model) -> Future[dict[str, Any]]:
    """Label, size and sha256 of a model's weights, computed beside the work on them."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="sha256")

    def compute() -> dict[str, Any]:
        path = str(model.path) if model.path and not model.label.endswith(":") else model.label
        return {"label": path, "bytes": model.store.nbytes(), "sha256": model.store.sha256()}

    future = executor.submit(compute)
    executor.shutdown(wait=False)
    return future


def entry(
    tool: str, argv: list[str], seed: int, inputs: list[dict[str, Any]], started: float
) -> dict[str, Any]:
    """One stage of `bntools.history`.

    With SOURCE_DATE_EPOCH set, that is the time and the duration is zero: the same command gives the same bytes.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    seconds = 0.0 if epoch else round(time.time() - started, 3)
    moment = time.gmtime(int(epoch) if epoch else started)
    return {
        "tool": tool,
        "version": __version__,
        "argv": argv,
        "seed": seed,
        "inputs": inputs,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", moment),
        "seconds": seconds,
    }
