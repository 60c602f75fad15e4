"""The estimate as tables."""

from __future__ import annotations

from typing import Any

from bntools import terminal

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def si(value: float | None, unit: str = "") -> str:
    """Three digits with a prefix: 12.3 G."""
    if value is None:
        return "-"
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{terminal.three(value / size)} {prefix}{unit}"
    return f"{terminal.three(value)} {unit}".rstrip()


def draw(console: Any, report: dict[str, Any]) -> None:
    model = report["model"]
    active = model["active_parameters"]
    rows = [
        ["parameters", f"{model['parameters']:,}"],
        *([["of them met by a token", f"{active:,}"]] if active != model["parameters"] else []),
        [
            "weights",
            f"{si(model['weight_bytes'], 'B')}, {terminal.three(model['bits_per_weight'])} bits each",
        ],
        ["cache a token", f"{si(report['kv']['bytes_per_token'], 'B')} at {report['kv']['bits']:g} bits"],
    ]
    console.print(terminal.facts(f"{model['family']}, {model['layers']} layers", rows))
    _runs(console, report)
    for name, limits in report["devices"].items():
        console.print(_limits(name, limits))
    for request in report.get("requests", []):
        for name, time in request["seconds"].items():
            console.print(
                f"{request['batch']} x ({request['prompt']:,} + {request['generate']:,} tokens) on {name}: "
                f"first token {terminal.three(time['first_token'])} s, all {terminal.three(time['total'])} s at least"
            )
    for line in report["assumptions"]:
        console.print(f"- {line}")


def _runs(console: Any, report: dict[str, Any]) -> None:
    headers = ["batch", "context", "prefill", "of rule", "decode", "bytes", "FLOP/B", "memory"]
    rows = []
    for run in report["runs"]:
        prefill, decode = run["prefill"], run["decode"]
        rows.append([
            f"{run['batch']:,}", f"{run['context']:,}", si(prefill["flops"]),
            terminal.three(prefill["flops"] / prefill["flops_rule"]), si(decode["flops"]),
            si(decode["bytes_weights"] + decode["bytes_kv"]), terminal.three(decode["intensity"]),
            si(run["memory_bytes"], "B"),
        ])  # fmt: skip
    console.print(
        terminal.table(headers, rows, title="FLOPs of prefill and of a decoding step, and its bytes")
    )
    rows = []
    for run in report["runs"]:
        for name, rate in run["decode"]["tokens_per_s"].items():
            prefill = run["prefill"]["seconds"][name]
            fits = {True: "yes", False: "no"}.get(run["fits"].get(name), "-")
            rows.append([
                f"{name}, {run['batch']:,} x {run['context']:,}", terminal.three(prefill["value"]), prefill["bound"],
                terminal.three(rate["value"]), rate["bound"], fits,
            ])  # fmt: skip
    if rows:
        headers = ["not faster than", "prefill s", "limit", "tokens/s", "limit", "fits"]
        console.print(terminal.table(headers, rows))


def _limits(name: str, limits: dict[str, Any]) -> str:
    batch, context = limits["compute_bound_batch"], limits["max_context"]
    return (
        f"{name}: {si(limits['peak'])}FLOP/s {limits['peak_type']}, {si(limits['bandwidth'])}B/s, ridge "
        f"{terminal.three(limits['ridge'])} FLOP/B; decoding is bound by compute from batch "
        f"{'-' if batch is None else f'{batch:,}'}; longest context {'-' if context is None else f'{context:,}'}"
    )


def draw_devices(console: Any, report: dict[str, Any]) -> None:
    rows = []
    for device in report["devices"]:
        best = max(device["peak"].items(), key=lambda item: item[1])
        half = device["peak"].get("bf16") or device["peak"].get("fp16")
        rows.append([device["name"], si(half), f"{si(best[1])} {best[0]}", si(device["bandwidth"], "B/s"),
                     si(device["memory"], "B"), device["date"]])  # fmt: skip
    console.print(terminal.table(["device", "bf16 FLOP/s", "most", "bandwidth", "memory", "sheet"], rows))
    for device in report["devices"]:
        console.print(f"{device['name']}: {device['source']}", style="dim")
