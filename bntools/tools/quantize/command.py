"""bntools quantize: parse, build the settings, quantize, write."""

from __future__ import annotations

from typing import Any

import click

from bntools import options, terminal
from bntools.core import EMBEDDED
from bntools.core.errors import usage
from bntools.options import Session

EPILOG = """\b
Examples:
  bntools quantize --per-ic --bits 3 | bntools eval
  bntools quantize smollm2/ --bits 3 -o q/ | bntools eval
  bntools quantize smollm2/ --bits 3 --method gptq --grid weighted -o q/
  bntools quantize smollm2/ --bits 3 --method gptq --scales 2 --group-size 18 --trellis 5 --refit 2 -o q/
  bntools quantize smollm2/ --dim ada --override 'v_proj=bits:4' > q.safetensors
"""


@click.command("quantize", short_help="Quantize the linear weights of a model to 2 to 8 bits.", epilog=EPILOG)
@options.input_argument(default=EMBEDDED)
@options.output
@click.option("--bits", type=click.IntRange(2, 8), default=4, show_default=True, help="Bits a code.")
@click.option(
    "--method",
    type=click.Choice(["rtn", "gptq"]),
    default="rtn",
    show_default=True,
    help="Round to nearest, or compensate each column's error in the columns still to come (GPTQ).",
)
@click.option(
    "--grid",
    "search",
    type=click.Choice(["minmax", "weighted"]),
    default="minmax",
    show_default=True,
    help="Scales and zeros from the range of a group, or searched for the smallest error weighted by the inputs.",
)
@click.option(
    "--sequential/--parallel",
    default=False,
    show_default=True,
    help="Calibrate each linear on what the already quantized layers before it give, or on the original's.",
)
@click.option(
    "--group-size",
    type=int,
    default=128,
    show_default=True,
    help="Weights that share a scale; -1: a whole row.",
)
@click.option(
    "--dim",
    type=click.Choice(["oc", "ic", "ada"]),
    default="oc",
    show_default=True,
    help="Groups along the inputs (oc), along the outputs (ic), or the better of both for each module (ada).",
)
@click.option("--per-ic", is_flag=True, help="The same as --dim ic.")
@click.option(
    "--symmetric/--asymmetric", default=False, show_default=True, help="Grid without or with a zero point."
)
@click.option(
    "--scales",
    "meta",
    type=click.Choice(["fp16", "2", "3", "4"]),
    default="fp16",
    show_default=True,
    help="Scales as numbers, or scales and zeros as codes of so many bits, searched for the least error.",
)
@click.option(
    "--trellis",
    type=click.Choice(["0", "2", "3", "4", "5", "6", "7", "8"]),
    default="0",
    show_default=True,
    help="Codes on a trellis of 2^N states: half a step finer at the same number of bits; needs --scales 2, 3 or 4.",
)
@click.option(
    "--refit",
    "rounds",
    type=click.IntRange(0, 16),
    default=0,
    show_default=True,
    help="Rounds of refitting scales and codes to each other after GPTQ; needs --scales 2, 3 or 4.",
)
@click.option(
    "--choose",
    type=click.Choice(["rtn", "final"]),
    default="rtn",
    show_default=True,
    help="--dim ada compares the dimensions rounded to nearest (as AdaDim does), or as GPTQ finally codes them.",
)
@click.option(
    "--criterion",
    type=click.Choice(["module", "diag", "weight"]),
    default="module",
    show_default=True,
    help="Error that --dim ada compares: of the attention or MLP output, of the linear's output taking "
    "inputs as uncorrelated, of the weight.",
)
@click.option(
    "--calib",
    default="default",
    metavar="FILE|none",
    show_default=True,
    help="Text to calibrate on: .txt or .jsonl.",
)
@click.option(
    "--calib-tokens",
    type=click.IntRange(64),
    default=None,
    show_default="32768 for gptq, else 4096",
    help="Tokens of that text to use.",
)
@click.option("--include", multiple=True, metavar="REGEX", help="Quantize only weights whose name matches.")
@click.option("--exclude", multiple=True, metavar="REGEX", help="Keep weights whose name matches.")
@click.option(
    "--override",
    multiple=True,
    metavar="REGEX=KEY:VALUE,...",
    help="Other bits, group, dim, symmetric or skip for some weights.",
)
@options.common
def command(session: Session, source: str, output: str, force: bool, per_ic: bool, **given: Any) -> None:  # fmt: skip
    """Quantize the linear weights of a model, by rounding to nearest or by GPTQ.

    INPUT is a directory in Hugging Face layout, a .safetensors, .index.json or .gguf file, org/name, default: (the
    small embedded model, also when INPUT is left out), or - for standard input.
    """
    from bntools.core.source import open_model
    from bntools.core.writer import Writer, check_target
    from bntools.tools.quantize.pipeline import plan

    settings = _settings(per_ic, **given)
    if not session.dry_run:
        check_target(output, force)
    if source == EMBEDDED:
        terminal.note(session, "no model named: using the small embedded one (default:)")
    model = open_model(source)
    items = plan(model, settings)
    _check(settings, items, model)
    if session.dry_run:
        return _dry_run(session, model, items)
    session.apply()
    with Writer(output, "model", force=force) as out:
        report = _run(session, model, items, settings, given["calib"], out)
    terminal.manifest(out.manifest)
    linear, whole = report["bits_per_weight"]["linear"], report["bits_per_weight"]["model"]
    dims = ", ".join(f"{count} {dim}" for dim, count in report["dims"].items())
    terminal.note(
        session,
        f"{report['tensors']} tensors ({dims}), {linear:.2f} bits a weight, {whole:.2f} over the whole model",
    )
    return None


def _settings(per_ic: bool, bits: int, group_size: int, dim: str, symmetric: bool, **rest: Any) -> Any:
    from bntools.tools.quantize.settings import Grid, Settings

    if (
        per_ic
        and click.get_current_context().get_parameter_source("dim") != click.core.ParameterSource.DEFAULT
        and dim != "ic"
    ):
        raise usage(f"--per-ic and --dim {dim} contradict each other", "drop one of them")
    if rest["method"] == "rtn" and (rest["sequential"] or rest["choose"] == "final"):
        raise usage("--sequential and --choose final need --method gptq", "add --method gptq")
    meta = 0 if rest["meta"] == "fp16" else int(rest["meta"])
    if rest["rounds"] and (not meta or rest["method"] == "rtn"):
        raise usage("--refit needs --method gptq and --scales 2, 3 or 4", "--method gptq --scales 2")
    for option, value in (("method", "gptq"), ("search", "weighted")):
        if rest[option] == value and rest["calib"] == "none":
            name = "grid" if option == "search" else option
            raise usage(f"--{name} {value} needs a calibration text", "--calib FILE")
    search = "weighted" if meta and rest["calib"] != "none" else rest["search"]
    return Settings(
        Grid(bits, group_size, "ic" if per_ic else dim, symmetric, meta=meta, trellis=int(rest["trellis"])),
        rest["criterion"], rest["include"], rest["exclude"], rest["override"],
        rest["calib_tokens"] or (32768 if rest["method"] == "gptq" else 4096),
        method=rest["method"], search=search, choose=rest["choose"], sequential=rest["sequential"],
        rounds=rest["rounds"],
    )  # fmt: skip


def _check(settings: Any, items: list[Any], model: Any) -> None:
    unused = settings.unused(model.linears)
    if unused:
        raise usage(
            f"{unused[0]!r} matches no linear weight of {model.label}",
            f"bntools info {model.label} --tensors",
        )
    if not any(item.grid for item in items):
        raise usage(f"nothing to quantize in {model.label}", "loosen --include or --exclude")


def _run(
    session: Session, model: Any, items: list[Any], settings: Any, calib: str, out: Any
) -> dict[str, Any]:
    from bntools.core import history, packed
    from bntools.tools.quantize.pipeline import choose, summarize

    source, device = history.fingerprint(model), session.torch_device()
    windows = _windows(model, items, settings, calib)
    adaptive = sum(1 for item in items if item.grid and item.grid.dim == "ada")
    if settings.choose == "final":
        adaptive = 0
    with terminal.progress(session, "choosing dimensions", adaptive) as advance:
        choices = choose(model, items, settings, windows, device, advance) if adaptive else {}
    results = []
    stream = _stream(session, model, items, settings, windows, choices)
    with terminal.progress(
        session, "quantizing", sum(entry.nbytes for entry in model.entries.values())
    ) as advance:
        for result in stream:
            for name, tensor in result.tensors.items():
                out.add(name, tensor)
            result.tensors.clear()
            results.append(result)
            advance(model.entries[result.name].nbytes)
            terminal.detail(session, _line(result))
    table = packed.encode({r.name: (r.spec, r.measured) for r in results if r.spec})
    report = {**summarize(results, model), "settings": settings.as_json(), "calib": calib}
    out.files = {**model.files, packed.FILE: _json(table).encode()}
    # Not model.safetensors: transformers would take that, find no dense weights and fill in random ones.
    out.weights_file = "packed.safetensors"
    grid = settings.grid
    out.config = {**model.config, "quantization_config": {
        "quant_method": "bntools", "version": packed.VERSION, "bits": grid.bits,
        "group_size": grid.group, "dim": grid.dim,
    }}  # fmt: skip
    out.describe("report", report)
    out.describe("history", [*model.history, history.entry(
        "quantize", options.argv(), session.seed, [source.result()], session.started,
    )])  # fmt: skip
    return report


def _stream(session: Session, model: Any, items: list[Any], settings: Any, windows: Any, choices: Any) -> Any:
    """Results of the method asked for, as they come."""
    from bntools.tools.quantize import calibrated, pipeline

    device = session.torch_device()
    if settings.method == "gptq":
        return calibrated.calibrated(model, items, choices, settings, windows, device, lambda count: None)
    moments = None
    if settings.search == "weighted" and windows is not None:
        with terminal.progress(session, "calibrating", windows.numel()) as advance:
            moments = pipeline.input_moments(model, items, windows, device, advance)
    return pipeline.quantize(model, items, choices, settings, moments)


def _windows(model: Any, items: list[Any], settings: Any, calib: str) -> Any:
    """Calibration windows, or None where none are asked for or needed."""
    adaptive = settings.criterion != "weight" and any(item.grid and item.grid.dim == "ada" for item in items)
    if calib == "none" or not (adaptive or settings.method == "gptq" or settings.search == "weighted"):
        return None
    from bntools.core.calibration import token_windows
    from bntools.core.text import default_text, read_text
    from bntools.core.tokens import open_tokenizer

    tokenizer = open_tokenizer(model.files, model.config, model.label)
    text = default_text("calib") if calib == "default" else read_text(calib)
    window = min(settings.calib_window, model.config.get("max_position_embeddings") or settings.calib_window)
    return token_windows(tokenizer.ids(text), settings.calib_tokens, window, tokenizer.window_bos)


def _line(result: Any) -> str:
    if result.spec is None:
        return f"{result.name}: kept, {result.reason}"
    errors = result.measured.get("errors")
    both = f", oc {errors['oc']:.3g} ic {errors['ic']:.3g}" if errors else ""
    return f"{result.name}: {result.spec.dim} {result.measured['bits_per_weight']:.3f} bits{both}"


def _dry_run(session: Session, model: Any, items: list[Any]) -> None:
    from bntools.tools.quantize.pipeline import estimate

    report = estimate(model, items)
    rows = [
        ["tensors to quantize", str(report["tensors"])],
        ["reads", terminal.megabytes(report["reads_bytes"])],
        ["writes, about", terminal.megabytes(report["writes_bytes"])],
        ["memory, about", terminal.megabytes(report["memory_bytes"])],
        ["bits a weight (linear)", f"{report['bits_per_weight']['linear']:.3f}"],
    ]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))


def _json(value: object) -> str:
    import json

    return json.dumps(value, separators=(",", ":"))
