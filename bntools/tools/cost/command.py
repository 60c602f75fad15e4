"""bntools cost: read config and headers, estimate, show."""

from __future__ import annotations

import functools
from typing import Any

import click

from bntools import option_blocks, options, terminal
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools cost model/ --device h100 --batch 1,8,64 --context 4096
  bntools cost config.json --device b200 --prompt 512 --generate 2048 --kv-bits 8
  bntools quantize model/ --bits 3 | bntools cost --device laptop.json
  bntools cost --measure laptop.json
"""
_TYPES = ["fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8", "fp4"]


@click.command("cost", short_help="Price a model before it runs: FLOPs, bytes, ceilings.", epilog=EPILOG)
@click.argument("source", metavar="[INPUT]", required=False)
@click.option("--batch", default="1", show_default=True, metavar="N,...", help="Sequences at once.")
@click.option(
    "--context",
    metavar="N,...",
    help="Tokens of a sequence.  [default: 4096, or the model's longest if less]",
)
@click.option("--prompt", type=click.IntRange(1), help="Tokens of a request's prompt; needs --generate.")
@click.option("--generate", type=click.IntRange(1, 1 << 20), help="Tokens a request generates, step by step.")
@click.option("--kv-bits", type=click.FloatRange(0, 64, min_open=True), help="Bits of a number in the cache.")
@click.option("--dtype", type=click.Choice(_TYPES), help="Type of the arithmetic.  [default: the config's]")
@click.option("--overlap", is_flag=True, help="Let all compute of a step overlap all its memory traffic.")
@click.option("--as", "family", metavar="FAMILY", help="Read an unknown architecture as this one.")
@click.option("--measure", metavar="FILE", help="Measure this machine and write its device file.")
@option_blocks.replacing("device file")
@click.option("--list-devices", is_flag=True, help="List the known devices and their sources.")
@options.budget
@options.common
def command(session: Session, source: str | None, **given: Any) -> None:
    """What INPUT costs to run, from its config.json and tensor headers alone; no weight is read.

    INPUT is a model directory, artifact, GGUF or config.json, or - for standard input, also when left out.
    """
    if given["list_devices"]:
        return _list(session)
    if given["measure"]:
        return _measure(session, given["measure"], given["force"])
    return _estimate(session, _source(source), given)


def _source(source: str | None) -> str:
    if source is None and not options.stdin_connected():
        raise usage(
            "no INPUT, and nothing on standard input", "for example: bntools cost model/ --device h100"
        )
    return source or "-"


def _estimate(session: Session, source: str, given: dict[str, Any]) -> None:
    from bntools.core.architecture.shapes.layers import model_shape
    from bntools.core.methods.model_headers import open_subject
    from bntools.tools.cost.ceilings import estimate
    from bntools.tools.cost.settings import Settings, positive_list
    from bntools.tools.cost.table import draw
    from bntools.tools.cost.weights import weights_of_config, weights_of_tensors

    contexts = given["context"]
    settings = Settings(
        batches=positive_list("--batch", given["batch"]),
        contexts=positive_list("--context", contexts) if contexts else (),
        **{key: given[key] for key in ("kv_bits", "dtype", "prompt", "generate", "overlap")},
    )
    devices = options.devices_named(session)
    subject = open_subject(source, given["budget"])
    shape = model_shape(subject.config, f"the config of {subject.label}", given["family"])
    if session.dry_run:
        plan = {
            "kind": "plan",
            "reads": subject.label,
            "headers": subject.tensors is not None,
            "weights_read": 0,
        }
        return _show(session, plan, "plan")
    tensors = subject.tensors
    weights = weights_of_config(shape) if tensors is None else weights_of_tensors(shape, tensors)
    report = estimate(shape, weights, devices, settings)
    report["model"] |= {"label": subject.label, "source": "config" if tensors is None else "headers"}
    if subject.parameters is not None and subject.parameters != report["model"]["parameters"]:
        text = f"the headers hold {subject.parameters:,} parameters, the config means {report['model']['parameters']:,}"
        report["assumptions"].append(text)
        terminal.note(session, text)
    return terminal.emit(session, report, functools.partial(draw, report=report))


def _measure(session: Session, path: str, force: bool) -> None:
    from bntools.core.artifact.targets import check_target
    from bntools.tools.cost.measure import measure_device, write_device

    check_target(path, force)
    if session.dry_run:
        return _show(session, {"kind": "plan", "writes": path, "seconds": 10}, "plan")
    session.apply()
    with terminal.progress(session, "rates", 6) as advance:
        device = measure_device(advance, session.threads)
    write_device(device, path, force)
    return _show(session, {"kind": "device", "path": path, **device}, "measured")


def _list(session: Session) -> None:
    from bntools.core.methods.devices import device_names, open_device
    from bntools.tools.cost.table import draw_devices

    devices = [open_device(name) for name in device_names()]
    report = {
        "kind": "devices",
        "devices": [
            {"name": d.name, "peak": dict(d.peak), "bandwidth": d.bandwidth, "memory": d.memory,
             "source": d.source, "date": d.date}
            for d in devices
        ],
    }  # fmt: skip
    terminal.emit(session, report, functools.partial(draw_devices, report=report))


def _show(session: Session, report: dict[str, Any], title: str) -> None:
    rows = [[key.replace("_", " "), str(value)] for key, value in report.items() if key != "kind"]
    terminal.emit(session, report, lambda console: console.print(terminal.facts(title, rows)))


options.device_file(command)
