"""`spectral`: full tables of several widths, compressed by what errors cost; the width is chosen on validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.embedding.compress import Source, compress, compressed
from bntools.core.methods.embedding.decode import table_of
from bntools.core.methods.embedding.stored import StoredTables
from bntools.tools.embed_fit.methods import plain
from bntools.tools.embed_fit.methods.fitting import Bench, Fitted, metrics_of_fields, told
from bntools.tools.embed_fit.training import loss_of, predict


def widths(bench: Bench) -> list[int]:
    """The full width, and 4, 2 and 1 where they are smaller."""
    least = 1 if bench.settings.model == "dcn" else 2
    return sorted(
        {bench.settings.dim, *(d for d in (4, 2, 1) if least <= d < bench.settings.dim)}, reverse=True
    )


def fit_spectral(bench: Bench, budget: float) -> Fitted | None:
    """The best by validation of the tables of `widths` at this budget; None where not even the means fit."""
    problem, settings = bench.problem, bench.settings
    bits = plain.full_size(problem, settings) * budget * settings.bits
    best: Fitted | None = None
    tried = []
    for d in widths(bench):
        trained, form, record = bench.full_table(d)
        key = f"metric{d}"
        if key not in bench.kept:
            bench.kept[key] = metrics_of_fields(bench, trained)
        E = plain.tables(problem, trained.lookup, d)
        sources = [
            Source(f.name, e, f.counts, G) for f, e, G in zip(problem.fields, E, bench.kept[key], strict=True)
        ]
        codes = compress(sources, bits, settings.bits)
        if codes is None:
            continue
        stored = compressed(bench.store(form, trained.head, "spectral", budget), codes, budget)
        small = decoded(bench, stored, d)
        check = predict(small.lookup, trained.head, problem.valid.ids)
        loss = loss_of(problem.valid.y, check, problem.task)
        tried.append({"d": d, "loss": loss})
        if best is None or loss < best.loss:
            out = predict(small.lookup, trained.head, problem.test.ids)
            numbers = (stored.nbytes()["embedding"] + stored.nbytes()["index"]) * 8 / settings.bits
            best = Fitted("spectral", budget, stored, out, loss, numbers, {**told(trained, record), "d": d})
    return best and best._replace(facts={**best.facts, "widths": tried})


def decoded(bench: Bench, stored: StoredTables, d: int) -> plain.Form:
    """The tables of an artifact as a lookup for numbers of values of the problem."""
    form = plain.row_table(bench.problem, d, 0)
    at = 0
    for t, f in enumerate(bench.problem.fields):
        values = stored.vocab[t]
        assert values is not None
        place = {v: i for i, v in enumerate(values)}
        E: NDArray[np.float32] = table_of(stored, t)[[place[v] for v in f.values]]
        form.lookup.flat[at : at + E.size] = E.reshape(-1)
        at += E.size + d
    return form
