"""bntools quantize: parse, build the settings, quantize, write."""

from __future__ import annotations

from typing import Any

import click

from bntools import dispatch, options, terminal
from bntools.core import EMBEDDED
from bntools.core.errors import usage
from bntools.options import Session

MADE_TOKENS = 8192
EPILOG = """\b
Examples:
  bntools quantize --per-ic --bits 3 | bntools eval
  bntools quantize smollm2/ --bits 3 -o q/ | bntools eval
  bntools quantize smollm2/ --bits 3 --method gptq --grid weighted -o q/
  bntools quantize smollm2/ --bits 3 --method gptq --scales 2 --group-size 18 --trellis 5 --refit 2 -o q/
  bntools quantize smollm2/ --code entropy --budget 60MB -o small.safetensors
  bntools quantize smollm2/ --dim ada --override 'v_proj=bits:4' > q.safetensors
"""


@click.command("quantize", short_help="Quantize the linear weights of a model to 2 to 8 bits.", epilog=EPILOG)
@options.input_argument(default=EMBEDDED)
@options.output
@click.option("--bits", type=click.IntRange(2, 8), default=None, show_default="4", help="Bits a code.")
@click.option(
    "--code",
    type=click.Choice(["fixed", "entropy"]),
    default="fixed",
    show_default=True,
    help="Codes of --bits each, or levels of any size behind an entropy coder, the fewest bytes for a model.",
)
@click.option(
    "--budget",
    metavar="BITS|SIZE",
    help="Size not to exceed: bits per linear weight (3.25), or of the whole file (90MB, 57MiB). Fixed codes then "
    "choose bits and group size for each weight.",
)
@click.option(
    "--embedding/--no-embedding",
    default=None,
    show_default="with a SIZE",
    help="--code entropy also codes the embedding and the output head.",
)
@click.option(
    "--states",
    type=click.Choice(["1", "8"]),
    default="8",
    show_default=True,
    help="--code entropy: 8 states of a trellis, or 1, plain rounding to multiples of the step.",
)
@click.option(
    "--two-sided/--one-sided",
    default=True,
    show_default=True,
    help="--code entropy: errors are fed back over the outputs of a matrix as well as over its inputs.",
)
@click.option(
    "--distill",
    type=click.IntRange(0),
    metavar="STEPS",
    default=0,
    show_default=True,
    help="Train factors of rows and columns and norm gains on the calibration text against the original's logits.",
)
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
    "--fisher/--plain",
    default=None,
    show_default="with --budget",
    help="GPTQ weighs what a linear is fed by the gradients at its outputs, or all of it alike.",
)
@click.option(
    "--sequential/--parallel",
    default=False,
    show_default=True,
    help="Calibrate each linear on what the already quantized layers before it give, or on the original's.",
)
@click.option(
    "--compensate/--no-compensate",
    default=None,
    show_default="with --code entropy",
    help="Aim each linear at the original's outputs for what the coded layers before it give.",
)
@click.option(
    "--group-size",
    type=int,
    default=None,
    show_default="128",
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
    "--balance/--no-balance",
    default=False,
    show_default=True,
    help="Factors on the inputs, a byte each, even out the columns before groups get their scales; with --method rtn.",
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
    type=click.Choice(["module", "output", "diag", "weight"]),
    default="module",
    show_default=True,
    help="Error that --dim ada compares: of the attention or MLP output, of the linear's output (with --method gptq), "
    "of that taking inputs as uncorrelated, of the weight.",
)
@click.option(
    "--calib",
    default="default",
    metavar="FILE|none",
    show_default=True,
    help="Text to calibrate on: .txt or .jsonl; none: tokens that the model makes, and --method gptq --grid weighted "
    "unless others are named.",
)
@click.option(
    "--calib-tokens",
    type=click.IntRange(0),
    default=None,
    show_default="32768 for gptq and entropy, else 4096; 8192 without a text",
    help="Tokens of that text to use, or to make; 0 with --calib none: the weights alone decide.",
)
@click.option("--include", multiple=True, metavar="REGEX", help="Quantize only weights whose name matches.")
@click.option("--exclude", multiple=True, metavar="REGEX", help="Keep weights whose name matches.")
@click.option(
    "--override",
    multiple=True,
    metavar="REGEX=KEY:VALUE,...",
    help="Other bits, group, dim, symmetric or skip for some weights.",
)
@options.work
@options.shard
@options.jobs
@options.common
@dispatch.divided(dispatch.Division(("source", "calib"), library="bntools.tools.quantize.run", units=True))
def command(session: Session, source: str, output: str, force: bool, per_ic: bool, **given: Any) -> None:  # fmt: skip
    """Quantize the linear weights of a model: rounded, by GPTQ, or behind an entropy coder.

    INPUT is a directory in Hugging Face layout, a .safetensors, .index.json or .gguf file, org/name, default: (the
    small embedded model, also when INPUT is left out), or - for standard input.
    """
    from bntools.core.artifact.writer import Writer, check_target
    from bntools.core.model import checkpoint
    from bntools.core.model.open import open_model
    from bntools.tools.quantize.budget import left_dense
    from bntools.tools.quantize.pipeline import plan
    from bntools.tools.quantize.windows import without_text

    given = _without_text(**given)
    settings = _settings(per_ic, **given)
    if not session.dry_run:
        check_target(output, force)
    if source == EMBEDDED and not _named("source"):
        terminal.note(session, "no model named: using the small embedded one (default:)")
    model = open_model(source)
    checkpoint.check(model)
    settings = without_text(settings, model, _insists(**given)) if given["calib"] == "none" else settings
    items = plan(model, settings)
    _check(settings, items, model)
    terminal.note_left_behind(session, model)
    terminal.note(session, "" if given["code"] == "entropy" else left_dense(model, items))
    asked = _asked(session, settings, **given)
    if session.dry_run:
        return _dry_run(session, model, items, settings, asked, given)
    from bntools.tools.quantize import run

    session.apply()
    with Writer(output, "model-part" if given["shard"] else "model", force=force) as out:
        if asked is None:
            report = run.fixed(session, model, items, settings, given, out)
        else:
            report = run.entropy(session, model, items, settings, asked, given, out)
    terminal.manifest(out.manifest)
    linear, whole = report["bits_per_weight"]["linear"], report["bits_per_weight"]["model"]
    dims = ", ".join(f"{count} {dim}" for dim, count in report["dims"].items())
    over = "" if given["shard"] else f", {whole:.2f} over the whole model"
    over += f", {terminal.megabytes(out.manifest['bytes'])}" if out.manifest else ""
    return terminal.note(session, f"{report['tensors']} tensors ({dims}), {linear:.2f} bits per weight{over}")


def _named(option: str) -> bool:
    """Whether an option is on the command line."""
    return click.get_current_context().get_parameter_source(option) != click.core.ParameterSource.DEFAULT


def _without_text(**given: Any) -> dict[str, Any]:
    """The options with the defaults of --calib none: the best method, on tokens that the model makes."""
    if given["calib"] != "none":
        return given
    cut = given["shard"] or given["gather"]
    tokens = given["calib_tokens"] if given["calib_tokens"] is not None else 0 if cut else MADE_TOKENS
    plain = cut or not tokens or given["balance"] or _named("method") or _named("search")
    best = {} if plain else {"method": "gptq", "search": "weighted"}
    return {**given, "calib_tokens": tokens, **best}


def _insists(**given: Any) -> str:
    """An option on the command line that cannot do without calibration."""
    asked = {"--method gptq": _named("method") and given["method"] == "gptq",
             "--grid weighted": _named("search") and given["search"] == "weighted",
             "--code entropy": given["code"] == "entropy", "--fisher": given["fisher"],
             "--distill": given["distill"]}  # fmt: skip
    return next((option for option, wanted in asked.items() if wanted), "")


def _settings(per_ic: bool, **given: Any) -> Any:
    from bntools.tools.quantize.budget import parse_budget
    from bntools.tools.quantize.settings import Grid, Settings

    dim = _dim(per_ic, given["dim"])
    _contradictions(**{**given, "dim": dim})
    fixed, blind = given["code"] == "fixed", given["calib"] == "none" and not given["calib_tokens"]
    budget, unit = parse_budget(given["budget"]) if fixed and given["budget"] is not None else (0.0, "")
    gptq, meta = given["method"] == "gptq", 0 if given["meta"] == "fp16" else int(given["meta"])
    fisher = gptq and bool(budget) and not given["sequential"] if given["fisher"] is None else given["fisher"]
    search = "weighted" if meta and not blind else given["search"]
    many = not fixed or gptq or fisher or budget or given["distill"]
    return Settings(
        Grid(4 if given["bits"] is None else given["bits"],
             128 if given["group_size"] is None else given["group_size"], dim, given["symmetric"], meta=meta,
             trellis=int(given["trellis"]), balance=given["balance"]),
        given["criterion"], given["include"], given["exclude"], given["override"],
        (32768 if many else 4096) if given["calib_tokens"] is None else given["calib_tokens"],
        method=given["method"], search=search, choose=given["choose"], sequential=given["sequential"],
        rounds=given["rounds"], fisher=fisher, budget=budget, unit=unit,
        compensate=fixed and bool(given["compensate"]),
    )  # fmt: skip


def _dim(per_ic: bool, dim: str) -> str:
    if per_ic and _named("dim") and dim != "ic":
        raise usage(f"--per-ic and --dim {dim} contradict each other", "drop one of them")
    return "ic" if per_ic else dim


def _contradictions(**given: Any) -> None:
    """Options that make no sense together (exit 2)."""
    rtn, budget, tokens = given["method"] == "rtn", given["budget"] is not None, given["calib_tokens"]
    fixed, blind = given["code"] == "fixed", given["calib"] == "none" and not tokens
    if tokens is not None and tokens < 64 and not blind:
        raise usage(f"--calib-tokens {tokens} is too few", "64 or more, or --calib none --calib-tokens 0")
    if rtn and (given["sequential"] or given["choose"] == "final"):
        raise usage("--sequential and --choose final need --method gptq", "add --method gptq")
    if rtn and given["criterion"] == "output":
        raise usage("--criterion output needs --method gptq", "--method gptq, or --criterion diag")
    if given["rounds"] and (given["meta"] == "fp16" or rtn):
        raise usage("--refit needs --method gptq and --scales 2, 3 or 4", "--method gptq --scales 2")
    wants = {"--method gptq": not rtn, "--grid weighted": given["search"] == "weighted",
             "--distill": given["distill"] > 0, "--code entropy": not fixed}  # fmt: skip
    for option in (option for option, wanted in wants.items() if wanted and blind):
        raise usage(f"{option} needs a calibration text", "--calib FILE")
    if given["balance"] and (not rtn or given["dim"] != "oc"):
        raise usage("--balance is for --method rtn and --dim oc", "--method rtn --dim oc, or --no-balance")
    if fixed and given["compensate"] and (rtn or given["sequential"]):
        raise usage("--compensate needs --method gptq and --parallel", "--method gptq --compensate")
    if given["fisher"] and (rtn or given["sequential"]):
        raise usage("--fisher needs --method gptq and --parallel", "--method gptq --fisher")
    if fixed and budget and given["bits"] is not None:
        raise usage("--budget chooses the bits, and --bits sets them", "drop one of them")
    if given["distill"] and (given["shard"] or given["gather"]):
        raise usage("--distill trains a whole model, not a part", "drop --distill")


def _asked(
    session: Session, settings: Any, code: str, budget: str | None, embedding: bool | None, states: str,
    two_sided: bool, bits: int | None, distill: int, compensate: bool | None, **rest: Any,
) -> Any:  # fmt: skip
    """What --code entropy is asked for; None for fixed codes."""
    from bntools.tools.quantize.budget import parse_budget

    if code == "fixed":
        return None
    if settings.grid.meta:
        raise usage("--scales is for fixed codes; --code entropy has steps of its own", "drop --scales")
    from bntools.tools.quantize.entropy import Asked

    value, unit = parse_budget(budget) if budget is not None else (float(bits or 4), "bits")
    coded = unit == "bytes" if embedding is None else embedding
    return Asked(value, unit, states == "8", two_sided, coded, session.seed, distill, compensate is not False)


def _check(settings: Any, items: list[Any], model: Any) -> None:
    unused = settings.unused([*model.linears, *model.routers])
    if unused:
        raise usage(
            f"{unused[0]!r} matches no linear weight of {model.label}",
            f"bntools info {model.label} --tensors",
        )
    if not any(item.grid for item in items):
        raise usage(f"nothing to quantize in {model.label}", "loosen --include or --exclude")


def _dry_run(session: Session, model: Any, items: list[Any], settings: Any, asked: Any, given: Any) -> None:
    import time

    from bntools.tools.quantize import entropy_cost, fixed_cost
    from bntools.tools.quantize.pass_cost import Text
    from bntools.tools.quantize.pipeline import estimate
    from bntools.tools.quantize.run import entropy_calibration
    from bntools.tools.quantize.windows import calibration

    session.apply()
    report = estimate(model, items)
    started = time.time() - session.started
    if asked is not None:
        found = entropy_calibration(model, items, settings, given["calib"])
        windows = found.stand_in()
        assert windows is not None
        text = Text(*windows.shape)
        report |= {"calib_tokens": text.tokens, **entropy_cost.sizes(model, items, asked)}
        report["memory_bytes"] = entropy_cost.memory_bytes(model, items, asked, text)
        seconds = entropy_cost.seconds(model, items, asked, text)
    else:
        found = calibration(model, items, settings, given["calib"], given["distill"] > 0)
        windows = found.stand_in()
        if windows is not None:
            report["calib_tokens"] = windows.numel()
        report |= fixed_cost.plan(model, items, settings, windows, given["group_size"] is None)
        seconds = report["seconds"]
    report["calibration"] = found.report()
    if found.source == "made":
        seconds += fixed_cost.making_seconds(model, found.shape[0] * found.shape[1])
        report["memory_bytes"] = max(report["memory_bytes"], fixed_cost.making_bytes(model))
    report["seconds"] = round(started + seconds, 1)
    rows = [
        ["tensors to quantize", str(report["tensors"])],
        ["reads", terminal.megabytes(report["reads_bytes"])],
        ["writes, about", terminal.megabytes(report["writes_bytes"])],
        ["memory, about", terminal.megabytes(report["memory_bytes"])],
        ["seconds, about", terminal.three(report["seconds"])],
        ["bits per weight (linear)", f"{report['bits_per_weight']['linear']:.3f}"],
    ]
    terminal.emit(session, report, lambda console: console.print(terminal.table(["plan", "value"], rows)))
