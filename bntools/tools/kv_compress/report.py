"""Plans and their cost, as a person reads them."""

from __future__ import annotations

from typing import Any

from bntools import terminal
from bntools.tools.kv_compress.settings import Settings


def cost(config: dict[str, Any], settings: Settings, tokens: int) -> dict[str, Any]:
    """What a plan would read and run. passes: over the continuation of a window, the cache reused."""
    layers = int(config.get("num_hidden_layers") or config.get("n_layer") or 0)
    windows = max(1, min(tokens, settings.calib_tokens) // settings.context)
    calibrated = settings.method == "rate" or settings.sparse_prefill
    continued = 8 * windows if settings.sparse_prefill else 2 * layers + 3 * windows
    return {
        "kind": "plan", "method": settings.method, "windows": windows if calibrated else 0,
        "window": settings.context, "passes": continued if calibrated else 0,
        "tokens": min(tokens, windows * settings.context) if calibrated else 0,
    }  # fmt: skip


def prompt_cost(facts: dict[str, Any], tokens: int) -> dict[str, Any]:
    """What a stored prompt would take."""
    return {"kind": "plan", "tokens": tokens, "bytes": round(tokens * (facts.get("bytes_per_token") or 0))}


def draw_cost(console: Any, cost: dict[str, Any]) -> None:
    rows = [[key.replace("_", " "), str(value)] for key, value in cost.items() if key != "kind"]
    console.print(terminal.table(["plan", "value"], rows))


def draw_plan(console: Any, facts: dict[str, Any]) -> None:
    """Size and divergence, and what each layer got."""
    if facts["method"] != "rate":
        known = ", ".join(f"{name} {value:g}" for name, value in facts["options"].items())
        console.print(f"{facts['method']} {known}: scored by bntools eval MODEL --kv")
        if facts.get("sparse_prefill"):
            draw_prefill(console, facts["sparse_prefill"], facts["predicted_kl"])
        return
    three = terminal.three
    rows = [
        [str(layer["index"]), three(layer["k"]["bits"]), three(layer["v"]["bits"]),
         three(layer["k"]["sensitivity"]), three(layer["v"]["sensitivity"])]
        for layer in facts["layers"]
    ]  # fmt: skip
    heads = ["layer", "bits, keys", "bits, values", "sensitivity, keys", "values"]
    console.print(terminal.table(heads, rows))
    size = f"{facts['bits']:.3f} bits a value, {facts['bytes_per_token']:,.0f} bytes a token (16 bits: "
    full = 16 / facts["bits"] * facts["bytes_per_token"]
    console.print(
        f"{size}{full:,.0f}), KL on the calibration text {three(facts['predicted_kl'])} nats a token"
    )


def draw_prefill(console: Any, parts: dict[str, Any], both: float) -> None:
    """What a sparse prefill costs alone, beside the codes of the cache alone and both."""
    three = terminal.three
    share = sum(parts["important"]) / len(parts["important"])
    rows = [["codes of the cache alone", three(parts["codes"]["kl"])],
            ["sparse prefill alone", three(parts["prefill"]["kl"])], ["both", three(both)]]  # fmt: skip
    console.print(terminal.table(["KL, nats a token", "calibration text"], rows))
    console.print(
        f"{100 * share:.0f} % of the tokens are important, {100 * parts['products']:.0f} % of the products left"
    )


def draw_prompt(console: Any, cache: Any, tokens: int) -> None:
    rows = [["tokens", f"{tokens:,}"], ["bits a value", f"{cache.bits_per_value:.3f}"],
            ["cache", terminal.megabytes(cache.nbytes)],
            ["the same in 16 bits", terminal.megabytes(round(cache.nbytes * 16 / cache.bits_per_value))]]  # fmt: skip
    console.print(terminal.table(["prompt", "value"], rows))


def draw_scales(console: Any, budgets: dict[str, Any]) -> None:
    """Divergence of each method at one size, the same budget for all layers first, and the tokens of each layer."""
    three = terminal.three
    if "kl" in budgets:
        names = {
            "uniform": "the same for all layers",
            "scalekv": "ScaleKV's roles",
            "rate": "rate, every token",
        }
        rows = [[names[name], three(one["mean"]), three(one["se"])] for name, one in budgets["kl"].items()]
        console.print(terminal.table([f"{100 * budgets['budget']:g} % of the history", "KL", "± se"], rows))
    heads = ["layer", *(f"scale {scale}" for scale in range(1, len(budgets["maps"])))]
    rows = [
        [str(layer), *(f"{n}{' d' if low else ''}" for n, low in zip(line[1:], marks[1:], strict=True))]
        for layer, (line, marks) in enumerate(zip(budgets["tokens"], budgets["drafter"], strict=True))
    ]
    console.print(terminal.table(heads, rows))
    console.print(
        f"tokens of history kept for each scale, d: a drafter; spread of layers {budgets['spread']:.2f}, "
        f"agreement of halves {budgets['agreement']:.2f}"
    )
