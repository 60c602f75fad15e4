"""Facts of a table, from its header, the names of its columns and the report of what made it."""

from __future__ import annotations

import json
from typing import Any

from bntools.core.artifact.reader import Artifact


def facts(source: Artifact) -> dict[str, Any]:
    """Rows, columns, the first names, the classes of columns that are classes."""
    shapes = {name: source.entries[name].shape for name in source.names()}
    vectors = [name for name, shape in shapes.items() if len(shape) == 1]
    rows = max((shape[0] for shape in shapes.values() if shape), default=0)
    try:
        names = json.loads(source.files.get("columns.json", b"[]"))
    except ValueError:
        names = []
    known = {
        "rows": rows,
        "columns": sum(shape[1] for shape in shapes.values() if len(shape) == 2) + len(vectors),
    }
    if isinstance(names, list) and names:
        known["first"] = [str(name) for name in names[:8]]
    if vectors:
        known["beside"] = vectors[:8]
    classes = source.json("bntools.classes", dict)
    return known | ({"classes": {name: len(each) for name, each in classes.items()}} if classes else {})
