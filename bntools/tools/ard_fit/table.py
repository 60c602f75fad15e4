"""What a person sees of a fit, and what of the report travels in the artifact."""

from __future__ import annotations

from typing import Any

from bntools import terminal

_RULES = {
    "held_out": "held-out error within tolerance", "paying": "pays for itself on held-out rows",
    "paper": "share of (E|J|)^2 v (paper)", "paper_squared": "share of E[J^2] v", "kl": "rate over 0.05 nat",
    "snr": "signal over 1 % of prior", "ablation": "costs over 0.1 % alone", "rank": "signal directions over noise",
    "variance": "share of prior variance",
}  # fmt: skip
_LEFT_OUT = ("curve", "trajectory", "network")


def short(report: dict[str, Any]) -> dict[str, Any]:
    """The report without curves, for metadata."""
    return {key: value for key, value in report.items() if key not in _LEFT_OUT}


def draw(console: Any, report: dict[str, Any]) -> None:
    """Models side by side, the linear ones first, then the count by each rule."""
    three, tables = terminal.three, [_models(report)]
    parts = _parts(report)
    heads = ["axes, by rule", *parts]
    tables.append(terminal.table(heads, [
        [text, *(str(part["by_criterion"][name]) for part in parts.values())] for name, text in _RULES.items()
    ]))  # fmt: skip
    for table in tables:
        console.print(table)
    low, high = report["n_relevant"]["low"], report["n_relevant"]["high"]
    console.print(
        f"{report['n_relevant']['value']} of {report['max_dim']} axes ({low} to {high} over restarts), "
        f"{report['arch']}, {'converged' if report['converged'] else 'not converged'}; Minka "
        f"{report['linear']['minka']}, PCA {report['linear']['pca']}; "
        f"{report['input']['rows']:,} rows, {report['input']['held_out']:,} held out, "
        f"sigma {three(report['sigma2'] ** 0.5)}"
    )


def _parts(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The models by the name a person sees, baselines first."""
    parts = {"linear": report["linear"]}
    if "vae" in report:
        parts["plain VAE"] = report["vae"]
    if "network" in report:
        parts[report["network"]["method"]] = report["network"]
    return parts


def _models(report: dict[str, Any]) -> Any:
    three = terminal.three
    rows = [["no axis", "0", "-", three(report["error"]["none"]["mean"]), "-", "-"]]
    for name, part in _parts(report).items():
        error = part["error"]
        rows.append([
            name, str(part["count"]), three(error["full"]["mean"]), three(error["pruned"]["mean"]),
            f"{100 * error['cost']['mean']:+.2f}", three(part["nats"]["mean"]),
        ])  # fmt: skip
    return terminal.table(
        ["held-out rows", "axes", "error, all", "error, kept", "cost (%)", "nats/row"], rows
    )
