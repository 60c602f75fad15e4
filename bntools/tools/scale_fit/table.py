"""The report as a person reads it on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bntools.terminal import table, three

Row = list[str]


def tables(result: dict[str, Any], source: str) -> Iterator[Any]:
    """Renderables for a console at least 80 columns wide."""
    percent = f"{100 * result['bootstrap']['level']:g} %"
    rows = [*_quality(result), *_parameters(result), *_regimes(result), *_kernel(result)]
    if "compute_optimal" in result:
        rows += [["N* grows as C to the", *_three(result["compute_optimal"]["N_exponent"])]]
    yield table([source, "value", f"{percent} interval"], rows)
    yield f"L = {result['formula']} of {' and '.join(result['variables'])}, {result['runs']} runs"
    if result.get("compute_optimal", {}).get("allocations"):
        yield _allocations(result["compute_optimal"]["allocations"])
    if "predictions" in result:
        yield _predictions(result["predictions"], result["variables"])


def _three(value: dict[str, Any]) -> Row:
    if value.get("low") is None:
        return [three(value["value"]), ""]
    return [three(value["value"]), f"{three(value['low'])} to {three(value['high'])}"]


def _quality(result: dict[str, Any]) -> list[Row]:
    rows = []
    if result["baseline"]:
        simple = result["baseline"]
        rows.append([f"rms residual (%) of {simple['formula']}", three(100 * simple["residual_rms"]), ""])
    rows.append(["rms residual (%) of the law", three(100 * result["residual_rms"]), ""])
    starts = result["starts"]
    rows.append(
        ["objective", f"{result['objective']:.6g}", f"{starts['reached']} of {starts['tried']} starts"]
    )
    return rows


def _parameters(result: dict[str, Any]) -> list[Row]:
    return [[name, *_three(value)] for name, value in result["parameters"].items()]


def _regimes(result: dict[str, Any]) -> list[Row]:
    rows = []
    for name in ("alpha", "beta"):
        regime = result["regime"].get(name)
        if regime is None:
            continue
        rows.append([f"regime of {name}", regime["label"], ""])
        if "times_dimension" in regime:
            rows.append([f"{name} x data dimension (4 if 4/d)", *_three(regime["times_dimension"])])
        elif "implied_dimension" in regime:
            rows.append([f"dimension if {name} = 4/d", *_three(regime["implied_dimension"])])
    return rows


def _kernel(result: dict[str, Any]) -> list[Row]:
    if "kernel" not in result:
        return []
    return [["alpha by the features' spectrum", *_three(result["kernel"]["alpha"])]]


def _allocations(allocations: list[dict[str, Any]]) -> Any:
    rows = []
    for each in allocations:
        numbers = [_count(each[name]) for name in ("N", "D", "tokens_per_parameter")]
        rows.append([f"{each['C']:.3g}", *numbers, three(each["loss"]["value"])])
    return table(["budget C (FLOPs)", "N (parameters)", "D (tokens)", "D/N", "loss"], rows)


def _count(value: dict[str, Any]) -> str:
    if value["value"] is None:
        return "-"
    if value["low"] is None:
        return f"{value['value']:.3g}"
    return f"{value['value']:.3g}\n{value['low']:.2g} to {value['high']:.2g}"


def _predictions(predictions: list[dict[str, Any]], variables: list[str]) -> Any:
    rows = []
    for each in predictions:
        loss, run = each["loss"], each["run"]
        value = "-" if loss["value"] is None else f"{loss['value']:.4g}"
        law = "" if loss["low"] is None else f"{loss['low']:.4g} to {loss['high']:.4g}"
        new = "" if run["low"] is None else f"{run['low']:.4g} to {run['high']:.4g}"
        rows.append([", ".join(f"{name} {each[name]:.3g}" for name in variables), value, law, new])
    return table(["prediction at", "loss", "the law", "a run"], rows)
