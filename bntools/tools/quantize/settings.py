"""What the user asks of quantize, validated: `Settings` decide the result, `RunOptions` how it is come by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bntools.core.errors import usage
from bntools.core.packing import grouped
from bntools.core.progress import Progress, no_progress

if TYPE_CHECKING:
    from bntools.core.work.shards import Shard

DIMS = ("oc", "ic", "ada")
CRITERIA = ("module", "diag", "weight")
METHODS = ("rtn", "gptq")
SEARCHES = ("minmax", "weighted")
_KEYS = ("bits", "group", "dim", "symmetric", "skip", "meta", "trellis", "balance")
_FLAGS = ("skip", "symmetric", "balance")
_NOT_RECORDED = ("calib", "distill", "seed", "free_groups", "entropy")  # in the report elsewhere
BALANCE_STEPS = 16
"""Steps of a factor of `balance` in an octave: codes are taken with the factor as stored, so its rounding is free."""


@dataclass(frozen=True)
class Grid:
    """How one tensor is to be quantized. group -1: one group a row.

    meta: bits of the codes of scales and zeros, 0 for numbers. trellis: memory of the trellis code, 0 for none.
    balance: factors on the inputs even out the columns; of no effect per IC, where a column has grids of its own.
    """

    bits: int = 4
    group: int = 128
    dim: str = "oc"
    symmetric: bool = False
    skip: bool = False
    meta: int = 0
    trellis: int = 0
    balance: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise usage(f"bits {self.bits} is outside 2..8")
        if self.group != -1 and self.group < 8:
            raise usage(f"group size {self.group} is neither -1 nor at least 8", "--group-size 128")
        if self.dim not in DIMS:
            raise usage(f"dimension {self.dim!r} is not one of {', '.join(DIMS)}")
        if self.meta not in grouped.METAS or self.trellis not in grouped.MEMORIES:
            raise usage(
                f"scales of {self.meta} bits or a trellis of memory {self.trellis}", "meta:2,trellis:5"
            )
        if self.meta and (self.dim != "oc" or self.symmetric):
            raise usage("scales of a few bits are for asymmetric groups per OC", "--dim oc --asymmetric")
        if self.trellis and not self.meta:
            raise usage("a trellis needs scales of a few bits", "--scales 2")


@dataclass(frozen=True)
class EntropySettings:
    """What is asked of the entropy code; recorded in the report.

    budget: bits per linear weight, or bytes of the whole file, as `unit` says. two_sided: feedback over outputs, too.
    """

    budget: float
    unit: str  # "bits" or "bytes"
    trellis: bool = True
    two_sided: bool = True
    embedding: bool = False
    seed: int = 0
    distill: int = 0  # steps
    compensate: bool = True


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result; recorded in the artifact's report.

    compensate: each linear is aimed at the original's outputs, see `core.blockwise.prefix`.
    free_groups: a budget chooses group sizes, too. entropy: what is asked of the entropy code, None for fixed codes.
    calib_tokens: 0 without a text to look at the weights alone; reason: why, where the user did not ask for that.
    budget: "bits" a linear weight or "bytes" of the file, as `unit` says; 0 for the bits and groups of the grid.
    """

    grid: Grid = field(default_factory=Grid)
    criterion: str = "module"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    calib_tokens: int = 4096
    calib_window: int = 512
    method: str = "rtn"
    search: str = "minmax"
    choose: str = "rtn"
    sequential: bool = False
    rounds: int = 0
    fisher: bool = False
    budget: float = 0
    unit: str = ""
    compensate: bool = False
    reason: str = ""
    calib: str = "default"
    distill: int = 0  # steps
    seed: int = 0
    free_groups: bool = True
    entropy: EntropySettings | None = None

    def __post_init__(self) -> None:
        for pattern in (*self.include, *self.exclude):
            _compile(pattern)
        for text in self.overrides:
            parse_override(text)

    def wanted(self, name: str) -> str:
        """Empty if the tensor is to be quantized, else the reason why not."""
        if self.include and not any(_compile(pattern).search(name) for pattern in self.include):
            return "not matched by --include"
        if any(_compile(pattern).search(name) for pattern in self.exclude):
            return "matched by --exclude"
        return "skipped by --override" if self.grid_of(name).skip else ""

    def grid_of(self, name: str) -> Grid:
        """The grid of a tensor: the defaults, then every override that matches, the last one wins."""
        grid = self.grid
        for text in self.overrides:
            pattern, changes = parse_override(text)
            if pattern.search(name):
                grid = replace(grid, **changes)
        return grid

    def unused(self, names: Iterable[str]) -> list[str]:
        """Patterns that match no linear weight: most likely a mistake."""
        known = list(names)
        patterns = [*self.include, *self.exclude, *(text.rpartition("=")[0] for text in self.overrides)]
        return [pattern for pattern in patterns if not any(_compile(pattern).search(name) for name in known)]

    @property
    def sweeps(self) -> bool:
        """Whether gradients on the calibration text are wanted."""
        return bool(self.fisher or self.budget)

    def as_json(self) -> dict[str, Any]:
        """What the report and a --work folder know the settings by."""
        return {key: value for key, value in asdict(self).items() if key not in _NOT_RECORDED}


def _silent(text: str) -> None:
    """A message that nobody reads."""


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out, which changes no weight of its result.

    work: the folder of finished parts. shard: the part that is made; gather: the parts that are joined.
    command, started: what the history says of the run.
    """

    device: str = "cpu"
    work: str | None = None
    shard: Shard | None = None
    gather: tuple[str, ...] = ()
    progress: Progress = no_progress
    note: Callable[[str], None] = _silent
    detail: Callable[[str], None] = _silent
    command: tuple[str, ...] = ("bntools", "quantize")
    started: float = 0.0

    @property
    def in_parts(self) -> bool:
        """Whether a part is made, or parts are joined."""
        return bool(self.shard or self.gather)


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise usage(f"{pattern!r} is not a regular expression: {error}") from None


def parse_override(text: str) -> tuple[re.Pattern[str], dict[str, Any]]:
    """`REGEX=bits:4,dim:oc` as a pattern and the changes to the grid. Raises BnError (exit 2)."""
    pattern, sign, body = text.rpartition("=")
    if not sign or not pattern:
        raise usage(f"--override {text!r} is not REGEX=KEY:VALUE,...", "--override 'v_proj=bits:4,dim:ic'")
    changes: dict[str, Any] = {}
    for item in body.split(","):
        key, colon, value = item.strip().partition(":")
        if key not in _KEYS or (not colon and key not in _FLAGS):
            raise usage(
                f"--override {text!r}: {item!r} is not one of {', '.join(_KEYS)} with a value",
                "bits:4,group:64,dim:ic,symmetric,skip",
            )
        changes[key] = _value(text, key, value)
    Grid(**changes)
    return _compile(pattern), changes


def _value(text: str, key: str, value: str) -> Any:
    if key in _FLAGS:
        if value not in ("", "true", "false"):
            raise usage(f"--override {text!r}: {key} is true or false, not {value!r}")
        return value != "false"
    if key == "dim":
        return value
    try:
        return int(value)
    except ValueError:
        raise usage(f"--override {text!r}: {key} takes a whole number, not {value!r}") from None
