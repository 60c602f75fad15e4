"""bntools cost-attention: count, bound, simulate, show."""

from __future__ import annotations

import functools
import re
from typing import Any

import click

from bntools import options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools cost-attention --seq 8192 --head-dim 128 --sram 228KiB --backward --solve
  bntools cost-attention --seq 4096 --head-dim 256 --sram 32KiB --causal --device h100
  bntools cost-attention --seq 64 --head-dim 8 --sram 512el --simulate lru,ideal
"""
_POLICIES = ("lru", "ideal", "fifo")


@click.command(
    "cost-attention", short_help="Count the memory traffic of attention, with bounds.", epilog=EPILOG
)
@click.option("--seq", type=click.IntRange(1, 1 << 32), required=True, help="Tokens of keys and values.")
@click.option("--queries", type=click.IntRange(1), help="Tokens of queries, the last ones.  [default: --seq]")
@click.option("--head-dim", type=click.IntRange(1, 1 << 20), required=True, help="Width of a head.")
@click.option("--heads", type=click.IntRange(1), default=1, show_default=True, help="Heads of queries.")
@click.option("--kv-heads", type=click.IntRange(1), help="Heads of keys and values.  [default: --heads]")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Sequences.")
@click.option("--sram", metavar="SIZE", help="Fast memory: 228KiB, or 512el.  [default: that of --device]")
@click.option(
    "--dtype", type=click.Choice(["fp32", "fp16", "bf16", "fp8", "int8"]), default="bf16", show_default=True,
    help="Type of what is moved.",
)  # fmt: skip
@click.option("--acc", type=click.Choice(["same", "fp32"]), default="same", show_default=True,
              help="Type of accumulators and scores in fast memory.")  # fmt: skip
@click.option("--causal", is_flag=True, help="Skip what a query may not see.")
@click.option("--backward", is_flag=True, help="Count the backward pass.")
@click.option("--solve", is_flag=True, help="Take the order that moves least.")
@click.option("--tile", metavar="RxC", help="Price this tile of rows and columns too, and take it.")
@click.option("--splits", type=click.IntRange(1), help="Divide the keys among so many workers (decoding).")
@click.option("--stages", type=click.IntRange(1, 8), default=1, show_default=True,
              help="Tiles of keys and values on their way at once.")  # fmt: skip
@click.option("--granule", type=click.IntRange(1), default=1, show_default=True,
              help="Make tiles multiples of so many rows and columns.")  # fmt: skip
@click.option("--simulate", metavar="POLICY,...", help="Run the accesses in a cache: lru, ideal, fifo.")
@click.option("--line", type=click.IntRange(1), default=1, show_default=True,
              help="Elements of a line of the simulated cache.")  # fmt: skip
@options.common
def command(session: Session, **given: Any) -> None:
    """Elements that one attention moves between slow and fast memory, by order and tile, and the least possible."""
    from bntools.tools.cost_attention.report import Settings, attention_report
    from bntools.tools.cost_attention.settings import ITEM, Problem
    from bntools.tools.cost_attention.table import draw

    devices = options.devices_named(session)
    item = ITEM[given["dtype"]]
    heads, queries = given["heads"], given["queries"] or given["seq"]
    kv_heads = given["kv_heads"] or heads
    if heads % kv_heads:
        raise usage(f"{heads} heads do not divide into {kv_heads} of keys and values", "--kv-heads a divisor")
    if queries > given["seq"]:
        raise usage(f"{queries} queries are more than the {given['seq']} keys", "--queries at most --seq")
    group = heads // kv_heads
    problem = Problem(
        queries * group, given["seq"], given["head_dim"], _memory(given["sram"], item, devices), given["causal"],
        group, max(1.0, 4 / item) if given["acc"] == "fp32" else 1.0, given["stages"], given["granule"],
    )  # fmt: skip
    settings = Settings(
        dtype=given["dtype"], copies=kv_heads * given["batch"], tile=_tile(given["tile"]),
        simulate=_policies(given["simulate"]), **{k: given[k] for k in ("backward", "solve", "splits", "line")},
    )  # fmt: skip
    if session.dry_run:
        plan = {"kind": "plan", "reads": [device.name for device in devices], "elements": problem.memory}
        return terminal.emit(session, plan, lambda console: console.print_json(data=plan))
    report = attention_report(problem, settings, devices)
    return terminal.emit(session, report, functools.partial(draw, report=report))


def _memory(text: str | None, item: int, devices: list[Any]) -> int:
    from bntools.tools.cost_attention.settings import parse_memory

    if text is not None:
        return parse_memory(text, item)
    sizes = [device.sram for device in devices if device.sram]
    if not sizes:
        raise usage("no --sram, and no --device that states one", "--sram 228KiB")
    return int(sizes[0] // item)


def _tile(text: str | None) -> Any:
    from bntools.tools.cost_attention.traffic import Tile

    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise usage(f"--tile {text!r} is no tile", "--tile 128x64")
    return Tile(int(match[1]), int(match[2]))


def _policies(text: str | None) -> tuple[str, ...]:
    names = tuple(text.split(",")) if text else ()
    for name in names:
        if name not in _POLICIES:
            raise usage(f"--simulate {name}: no policy", f"known are {', '.join(_POLICIES)}")
    return names


options.device_file(command)
