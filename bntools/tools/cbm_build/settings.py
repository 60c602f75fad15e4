"""Settings of a build, validated, and the progress it reports."""

from __future__ import annotations

from dataclasses import dataclass

from bntools.core.errors import usage

METHODS = (
    "labo",
    "pcbm",
    "pcbm-h",
    "lf",
    "sparse",
    "gumbel",
    "contrastive",
    "cms",
    "dn",
    "ecbm",
    "motif",
    "linear",
)
LAYERS = {"dn": "codes", "lf": "label-free", "ecbm": "cav", "motif": "text"}
"""Methods that bring a concept layer of their own, whatever the bank."""
TABLE = (1, 2, 3, 5, 10, 15, 20, 30)
"""Sparsities of the table, in concepts a class."""
AUTO = 0
"""--nec auto: the sparsest head whose validation accuracy is within one standard error of the best."""


@dataclass(frozen=True)
class Settings:
    """How a bottleneck is built; see bntools-cbm-build(1). l2: None to choose it by validation."""

    method: str = "labo"
    nec: int = 5
    table: tuple[int, ...] = TABLE
    select: str = "labo"
    per_class: int = 25
    bank: str = "text"
    l2: float | None = None
    lam: float = 0.02
    budget: str = "class"
    refit: bool = True
    paper: bool = False
    normalize: bool = True
    dedup: float = 0.95
    keep_class_names: bool = False
    name_cosine: float = 0.5
    epochs: int = 30
    validation: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise usage(f"no method {self.method!r}", f"one of {', '.join(METHODS)}")
        if not 0 <= self.validation < 1:
            raise usage(f"--validation {self.validation} is no share below 1", "--validation 0.2")
        if self.l2 is not None and self.l2 <= 0:
            raise usage(f"--l2 {self.l2} is not positive", "--l2 auto, or 0.03")
        if any(nec < 1 for nec in self.table) or self.nec < AUTO:
            raise usage(
                "a sparsity is a whole number of concepts a class from 1 on", "--nec 5 --table 1,2,5,10"
            )

    @property
    def layer(self) -> str:
        """Where concepts come from: text, cav, codes, or label-free."""
        return LAYERS.get(self.method, self.bank)

    def necs(self, columns: int) -> tuple[int, ...]:
        """The sparsities to fit: those of the table the bank is large enough for, and the wanted one."""
        if self.nec > columns:
            raise usage(f"--nec {self.nec}: the bank has {columns} concepts", f"--nec {columns} at most")
        wanted = {*self.table, self.nec} - {AUTO}
        return tuple(sorted(nec for nec in wanted if nec <= columns)) or (1,)
