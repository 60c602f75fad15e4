"""From the values of the options to `Settings`, and what makes no sense together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from bntools.core.errors import usage
from bntools.tools.quantize.budget import parse_budget
from bntools.tools.quantize.command_line.flags import MADE_TOKENS
from bntools.tools.quantize.settings import EntropySettings, Grid, Settings

if TYPE_CHECKING:
    from bntools.core.work.shards import Shard
    from bntools.tools.quantize.plan import Task

_TOKENS, _MANY_TOKENS = (
    4096,
    32768,
)  # of a calibration text: for one moment an input, and for matrices of them


class Flags(NamedTuple):
    """The options of `command_line.flags` by name, and those that stand on the command line or in the environment."""

    bits: int | None
    budget: str | None
    code: str
    group_size: int | None
    embedding: bool | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    override: tuple[str, ...]
    preset: str | None
    method: str
    search: str
    dim: str
    per_ic: bool
    criterion: str
    choose: str
    symmetric: bool
    meta: str
    trellis: str
    rounds: int
    balance: bool
    fisher: bool | None
    sequential: bool
    compensate: bool | None
    states: str
    two_sided: bool
    distill: int
    calib: str
    calib_tokens: int | None
    work: str | None
    shard: Shard | None
    gather: tuple[str, ...]
    named: frozenset[str]

    @property
    def fixed(self) -> bool:
        return self.code == "fixed"

    @property
    def gptq(self) -> bool:
        return self.method == "gptq"

    @property
    def in_parts(self) -> bool:
        """Whether a part is made, or parts are joined."""
        return bool(self.shard or self.gather)

    @property
    def blind(self) -> bool:
        """Whether the weights alone decide."""
        return self.calib == "none" and not self.calib_tokens

    @property
    def dim_named(self) -> str | None:
        """The dimension asked for, if one is."""
        if self.per_ic:
            return "ic"
        return self.dim if "dim" in self.named else None

    @property
    def meta_named(self) -> str | None:
        return self.meta if "meta" in self.named else None


def without_text(flags: Flags) -> Flags:
    """The flags with the defaults of --calib none: the best method, on tokens that the model makes."""
    if flags.calib != "none":
        return flags
    tokens = flags.calib_tokens
    if tokens is None:
        tokens = 0 if flags.in_parts else MADE_TOKENS
    chosen = flags.in_parts or not tokens or flags.balance or flags.named & {"method", "search", "preset"}
    return flags._replace(calib_tokens=tokens, **({} if chosen else {"method": "gptq", "search": "weighted"}))


def insists(flags: Flags) -> str:
    """An option on the command line that cannot do without calibration."""
    wanted = {"--method gptq": "method" in flags.named and flags.gptq,
              "--grid weighted": "search" in flags.named and flags.search == "weighted",
              "--code entropy": not flags.fixed, "--fisher": flags.fisher,
              "--distill": flags.distill}  # fmt: skip
    return next((option for option, needed in wanted.items() if needed), "")


def settings_of(flags: Flags, seed: int) -> Settings:
    """Everything that decides the result. Raises BnError (exit 2) on options that contradict each other."""
    if flags.per_ic and "dim" in flags.named and flags.dim != "ic":
        raise usage(f"--per-ic and --dim {flags.dim} contradict each other", "drop one of them")
    flags = flags._replace(dim="ic" if flags.per_ic else flags.dim)
    _contradictions(flags)
    budget, unit = parse_budget(flags.budget) if flags.fixed and flags.budget is not None else (0.0, "")
    meta = 0 if flags.meta == "fp16" else int(flags.meta)
    fisher = flags.fisher
    if fisher is None:
        fisher = flags.gptq and bool(budget) and not flags.sequential
    many = not flags.fixed or flags.gptq or fisher or budget or flags.distill
    tokens = (_MANY_TOKENS if many else _TOKENS) if flags.calib_tokens is None else flags.calib_tokens
    grid = Grid(
        4 if flags.bits is None else flags.bits, 128 if flags.group_size is None else flags.group_size, flags.dim,
        flags.symmetric, meta=meta, trellis=int(flags.trellis), balance=flags.balance,
    )  # fmt: skip
    return Settings(
        grid, flags.criterion, flags.include, flags.exclude, flags.override, tokens, method=flags.method,
        search="weighted" if meta and not flags.blind else flags.search, choose=flags.choose,
        sequential=flags.sequential, rounds=flags.rounds, fisher=fisher, budget=budget, unit=unit,
        compensate=flags.fixed and bool(flags.compensate), calib=flags.calib, distill=flags.distill, seed=seed,
        free_groups=flags.group_size is None, entropy=_entropy(flags, grid, seed),
    )  # fmt: skip


def _entropy(flags: Flags, grid: Grid, seed: int) -> EntropySettings | None:
    """What --code entropy is asked for; None for fixed codes."""
    if flags.fixed:
        return None
    if grid.meta:
        raise usage("--scales is for fixed codes; --code entropy has steps of its own", "drop --scales")
    value, unit = parse_budget(flags.budget) if flags.budget is not None else (float(flags.bits or 4), "bits")
    embedding = unit == "bytes" if flags.embedding is None else flags.embedding
    return EntropySettings(
        value,
        unit,
        flags.states == "8",
        flags.two_sided,
        embedding,
        seed,
        flags.distill,
        flags.compensate is not False,
    )


def _contradictions(flags: Flags) -> None:
    """Options that make no sense together (exit 2)."""
    tokens = flags.calib_tokens
    if tokens is not None and tokens < 64 and not flags.blind:
        raise usage(f"--calib-tokens {tokens} is too few", "64 or more, or --calib none --calib-tokens 0")
    if not flags.gptq:
        _needs_gptq(flags)
    if flags.rounds and (flags.meta == "fp16" or not flags.gptq):
        raise usage("--refit needs --method gptq and --scales 2, 3 or 4", "--method gptq --scales 2")
    wants = {"--method gptq": flags.gptq, "--grid weighted": flags.search == "weighted",
             "--distill": flags.distill > 0, "--code entropy": not flags.fixed}  # fmt: skip
    for option in (option for option, wanted in wants.items() if wanted and flags.blind):
        raise usage(f"{option} needs a calibration text", "--calib FILE")
    if flags.balance and (flags.gptq or flags.dim != "oc"):
        raise usage("--balance is for --method rtn and --dim oc", "--method rtn --dim oc, or --no-balance")
    plain = not flags.gptq or flags.sequential
    if flags.fixed and flags.compensate and plain:
        raise usage("--compensate needs --method gptq and --parallel", "--method gptq --compensate")
    if flags.fisher and plain:
        raise usage("--fisher needs --method gptq and --parallel", "--method gptq --fisher")
    if flags.fixed and flags.budget is not None and flags.bits is not None:
        raise usage("--budget chooses the bits, and --bits sets them", "drop one of them")
    if flags.distill and flags.in_parts:
        raise usage("--distill trains a whole model, not a part", "drop --distill")


def _needs_gptq(flags: Flags) -> None:
    if flags.sequential or flags.choose == "final":
        raise usage("--sequential and --choose final need --method gptq", "add --method gptq")
    if flags.criterion == "output":
        raise usage("--criterion output needs --method gptq", "--method gptq, or --criterion diag")


def check(task: Task) -> None:
    """Refuse patterns that match nothing, and a task that leaves nothing to do (exit 2)."""
    model, settings = task.model, task.settings
    unused: Sequence[str] = settings.unused([*model.linears, *model.routers])
    if unused:
        raise usage(
            f"{unused[0]!r} matches no linear weight of {model.label}",
            f"bntools info {model.label} --tensors",
        )
    if not task.chosen:
        raise usage(f"nothing to quantize in {model.label}", "loosen --include or --exclude")
