"""`--preset`: several options at once. An option that is on the command line keeps its value."""

from __future__ import annotations

from typing import Any, NamedTuple

from bntools.core.errors import usage
from bntools.tools.quantize.command_line.parse import Flags

LARGEST = 1_500_000_000
"""Linear weights up to which --budget alone is `best`: some 4 CPU hours at 10 s a million weights, measured on
SmolLM2-135M. A count, not a clock, so that a command gives the same bytes on any machine."""

PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"method": "rtn", "search": "minmax", "calib": "none", "calib_tokens": 0},
    "good": {"method": "rtn", "search": "minmax"},
    "best": {"method": "gptq", "meta": "2", "trellis": "5", "rounds": 2, "compensate": True},
    "paper": {"method": "gptq", "search": "minmax", "dim": "ada", "criterion": "module", "choose": "rtn",
              "group_size": 128, "fisher": False},
}  # fmt: skip
GROUP = {"best": 18}  # without a budget, which chooses group sizes itself
_OPTIONS = {"method": "--method", "search": "--grid", "meta": "--scales", "trellis": "--trellis", "rounds": "--refit",
            "dim": "--dim", "criterion": "--criterion", "choose": "--choose", "group_size": "--group-size",
            "calib": "--calib", "calib_tokens": "--calib-tokens"}  # fmt: skip
_SWITCHES = {"compensate": ("--compensate", "--no-compensate"), "fisher": ("--fisher", "--plain")}
_METHOD = {*_OPTIONS, *_SWITCHES, "per_ic", "symmetric", "balance", "sequential", "distill"} - {
    "calib",
    "calib_tokens",
}


class Expanded(NamedTuple):
    """Flags with a preset's values, and the words that the preset stands for."""

    flags: Flags
    words: list[str]


def expand(flags: Flags, weights: int) -> Expanded:
    """The preset of a command line put in. weights: linear weights of the model, for --budget alone."""
    name = flags.preset or default_of(flags, weights)
    if name is None:
        return Expanded(flags, [])
    if flags.code != "fixed":
        raise usage("--preset is for fixed codes, and --code entropy has none", "drop --preset")
    values = {option: value for option, value in _values(name, flags).items() if option not in flags.named}
    return Expanded(flags._replace(**values), [word for pair in values.items() for word in _words(*pair)])


def default_of(flags: Flags, weights: int) -> str | None:
    """The preset of --budget alone: every means of fixed codes; for very large models what is faster."""
    alone = flags.budget is not None and flags.code == "fixed" and flags.bits is None and not flags.in_parts
    if not alone or flags.calib == "none" or flags.named & _METHOD:
        return None
    return "best" if weights <= LARGEST else "good"


def _values(name: str, flags: Flags) -> dict[str, Any]:
    """The values of a preset that go with what is on the command line, which wins."""
    if flags.in_parts and not (name == "fast" or (name == "good" and flags.budget is None)):
        raise usage(f"--preset {name} calibrates, and parts are made without", "--preset fast")
    values = dict(PRESETS[name])
    if name in GROUP and flags.budget is None:
        values["group_size"] = GROUP[name]
    scaled, rounded = flags.meta_named not in (None, "fp16"), "method" in flags.named and not flags.gptq
    wants_text = flags.search == "weighted" or flags.gptq or flags.fisher or flags.distill
    if scaled or flags.balance or flags.per_ic or flags.symmetric:
        _drop(values, "dim")
    if flags.dim_named not in (None, "oc") or flags.symmetric or flags.meta_named == "fp16":
        _drop(values, "meta", "trellis", "rounds", "group_size")
    if wants_text or ("calib" in flags.named and flags.calib != "none") or flags.calib_tokens:
        _drop(values, "calib", "calib_tokens")
    if rounded or flags.balance or flags.blind:
        _drop(values, "method", "rounds", "compensate", "fisher", "choose")
    if flags.sequential:
        _drop(values, "compensate", "fisher")
    return values


def _drop(values: dict[str, Any], *names: str) -> None:
    for name in names:
        values.pop(name, None)


def _words(option: str, value: Any) -> list[str]:
    if option in _SWITCHES:
        return [_SWITCHES[option][0 if value else 1]]
    return [_OPTIONS[option], str(value)]


def written_out(command: list[str], words: list[str]) -> tuple[str, ...]:
    """A command line with --preset replaced by what it stands for, as the history keeps it."""
    kept, rest = [], iter(command)
    for word in rest:
        if word == "--preset":
            next(rest, None)
        elif not word.startswith("--preset="):
            kept.append(word)
    return (*kept, *words)
