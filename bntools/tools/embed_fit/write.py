"""Writing one fitted table as an artifact of kind `embedding`."""

from __future__ import annotations

from typing import Any

from bntools import options
from bntools.core.artifact.writer import Writer
from bntools.core.errors import usage
from bntools.core.methods.embedding import stored as storage
from bntools.core.methods.embedding.shares import budget_name
from bntools.core.model import history
from bntools.options import Session
from bntools.tools.embed_fit.sweep import REFERENCE, SMALL


def save(
    report: dict[str, Any], runs: Any, where: tuple[str, str], place: tuple[str, bool], session: Session
) -> Any:
    """The manifest. Raises BnError (exit 2) where the method does not fit in the budget."""
    wanted = [run for run in runs if run.method not in (REFERENCE, SMALL)]
    if not wanted:
        missing = report["unreachable"][0]
        raise usage(f"{missing['method']} does not fit in {budget_name(missing['budget'])} of the full table",
                    "a larger --budget, or --method spectral")  # fmt: skip
    stored = wanted[0].fitted.stored
    stored.facts["target"] = where[1]
    stored.facts["full_numbers"] = report["full"]["numbers"]
    with Writer(place[0], storage.KIND, force=place[1]) as out:
        storage.write(out, stored)
        entry = history.entry(
            "embed-fit", options.argv(), session.seed, [{"label": where[0]}], session.started
        )
        out.describe("history", [entry])
        short = {k: v for k, v in report.items() if k != "results"}
        out.describe("report", {**short, "results": report["results"][:1]})
    return out.manifest
