"""Dictionaries to artifacts, one file each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bntools.core.artifact.writer import Writer, is_directory
from bntools.core.datasets.activations import Activations
from bntools.core.errors import usage
from bntools.core.methods import sparse_dictionary
from bntools.core.model import history
from bntools.tools.sparse_code.run import Result


def save(
    results: list[Result],
    source: Activations,
    output: str,
    force: bool,
    argv: list[str],
    seed: int,
    started: float,
) -> list[dict[str, Any] | None]:
    """Write each dictionary; several, or one to a folder, as DIR/METHOD-kN.safetensors. Returns the manifests."""
    inputs = [{"label": source.label, "rows": source.rows}]
    stage = history.entry("sparse-code", argv, seed, inputs, started)
    targets = [output]
    if is_directory(output):
        folder = Path(output)
        folder.mkdir(exist_ok=True)
        targets = [str(folder / f"{r.report['method']}-k{r.report['k']}.safetensors") for r in results]
        taken = [target for target in targets if Path(target).exists()]
        if taken and not force:
            raise usage(f"{taken[0]} exists", "use --force to replace it")
    manifests = []
    for target, result in zip(targets, results, strict=True):
        with Writer(target, sparse_dictionary.KIND, force=force) as out:
            out.describe("history", [*source.history, stage])
            out.describe("report", {k: v for k, v in result.report.items() if k != "train"})
            sparse_dictionary.write(out, result.dictionary)
        manifests.append(out.manifest)
    return manifests
