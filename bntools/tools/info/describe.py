"""What an opened input holds, from its headers alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from bntools.core.artifact.header import side_file_name
from bntools.core.artifact.reader import STACK, Artifact, parse_json
from bntools.core.model.model import Model
from bntools.core.model.open import as_model
from bntools.core.packing import grouped, stack
from bntools.tools.info import kinds


def describe(
    opened: Artifact | Path | dict[str, Any], label: str, *, tensors: bool, modules: bool
) -> dict[str, Any]:
    """A report of kind `info`. A JSON report is shown as the report it is.

    Raises BnError (exit 3) when the headers are damaged.
    """
    if isinstance(opened, dict):
        return {
            "kind": "info",
            "label": label,
            "metadata": {"report": opened.get("kind", "unknown")},
            "report": opened,
        }
    if isinstance(opened, Artifact) and not _is_model(opened):
        return _artifact(opened, tensors)
    report = _model(as_model(opened, label, unread=True), tensors, modules)
    if isinstance(opened, Artifact) and opened.kind == STACK:
        report |= {"kind": STACK, "base_bytes": opened.header.base_bytes, "curve": stack.Curve(opened).points}
    return report


def _is_model(source: Artifact) -> bool:
    beside = source.path is not None and (source.path.parent / "config.json").is_file()
    return source.kind in ("model", STACK) or (
        source.kind == "tensors"
        and ("config.json" in source.metadata or "config.json" in source.files or beside)
    )


def _artifact(source: Artifact, tensors: bool) -> dict[str, Any]:
    entries = [source.entries[name] for name in source.names()]
    report: dict[str, Any] = {
        "kind": source.kind,
        "label": source.label,
        "facts": kinds.facts(source),
        "bytes": source.header.total,
        "tensor_count": len(entries),
        "weights": sum(entry.numel for entry in entries),
        "types": dict(Counter(entry.dtype for entry in entries)),
        "files": [name for name in map(side_file_name, source.entries) if name],
        "history": source.history,
        "report": source.report,
    }
    if tensors:
        report["tensors"] = [_tensor(entry) for entry in entries]
    return report


def _architecture(config: dict[str, Any]) -> str:
    named = config.get("architectures")
    names = named if isinstance(named, list) and named else [config.get("model_type", "unknown")]
    return ", ".join(map(str, names))


def _tensor(entry: Any) -> dict[str, Any]:
    return {"name": entry.name, "dtype": entry.dtype, "shape": list(entry.shape), "bytes": entry.nbytes}


def _model(model: Model, tensors: bool, modules: bool) -> dict[str, Any]:
    stored = model.store.entries
    bits: dict[str, float] = {"model": model.bits_per_weight()}
    if model.packing:
        bits["quantized"] = model.bits_per_weight(model.packing)
    report: dict[str, Any] = {
        "kind": "model",
        "label": model.label,
        "architecture": _architecture(model.config),
        "bytes": model.store.nbytes(),
        "tensor_count": len(stored),
        "weights": sum(entry.numel for entry in model.entries.values()),
        "types": dict(Counter(entry.dtype for entry in stored.values())),
        "bits_per_weight": bits,
        "dims": dict(sorted(Counter(grouped.kind_of(spec) for spec in model.packing.values()).items())),
        "files": sorted(model.files),
        "history": model.history,
        "report": model.report,
    }
    if tensors:
        report["tensors"] = [_tensor(entry) for entry in stored.values()]
    if modules:
        table = parse_json(model.files.get(grouped.FILE, b'{"tensors":{}}'), dict, grouped.FILE)
        report["modules"] = [{"name": name, **value} for name, value in table["tensors"].items()]
    return report
