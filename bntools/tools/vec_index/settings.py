"""What to build: the one frozen settings object of vec-index."""

from __future__ import annotations

from dataclasses import dataclass

METHODS = ("auto", "sphere", "leanvec-id", "leanvec-fw", "leanvec-es", "flat")
CODES = ("vq", "bits", "lvq8", "lvq4", "lvq4x8", "f16")
SECONDS = ("none", "lvq8", "f16")
METRICS = ("ip", "cos", "l2")
LEAST_BYTES = 5
RERANK = 50
FEWEST_QUERIES = 100
"""Learn queries a promise needs: a fifth of them are held out."""


@dataclass(frozen=True)
class Settings:
    """The index to build.

    bytes: of a vector, all of it but the second code (None: 96, or what `recall` needs). recall: recall@10 to promise
    on held-out learn queries. dims: coordinates after the map (None: all for codes that allot bits and flat, half for
    the others). shrink: share of the isotropic matrix mixed into the queries' second moments. cells: centroids (None:
    256 from 10,000 rows on). paper: Frank-Wolfe with the paper's step, start and stop. graph: link the vectors, each
    to `degree` others at most, from walks that keep `ef_build` candidates.
    """

    metric: str = "ip"
    method: str = "auto"
    code: str = "vq"
    bytes: int | None = None
    recall: float | None = None
    second: str = "none"
    rerank: int | None = None
    dims: int | None = None
    shrink: float = 0.01
    cells: int | None = None
    paper: bool = False
    graph: bool = False
    degree: int = 32
    ef_build: int = 100
    seed: int = 0
    threads: int = 1

    @property
    def allots(self) -> bool:
        """Whether the code shares out bits over coordinates and its bytes can be chosen."""
        return self.code in ("vq", "bits")
