"""Which model it is, without reading much of it."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from bntools.core.model.model import Model, Shards

_HASHED = 1 << 30  # bytes up to which the content is hashed; beyond, sizes, times and headers stand for it


def source_identity(model: Model, times: bool = True) -> dict[str, Any]:
    """A model's weights without reading many of them: sha256 up to 1 GiB, else headers and, with `times`, dates."""
    size = model.store.nbytes()
    store = model.store
    if size <= _HASHED or not isinstance(store, Shards):
        return {"bytes": size, "sha256": store.sha256()}
    digest = hashlib.sha256()
    for part in store.artifacts:
        digest.update(os.pread(part.fd, part.header.size, 0))
    identity: dict[str, Any] = {"bytes": size, "headers": digest.hexdigest()}
    if times and model.path is not None:
        identity["modified"] = max(os.fstat(part.fd).st_mtime_ns for part in store.artifacts)
    return identity
