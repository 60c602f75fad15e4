"""What a plan of a cache is made from."""

from __future__ import annotations

from dataclasses import dataclass

from bntools.core.errors import usage

LEAST, MOST = 0.1, 16.0
MEASURED_STEPS = (0.3, 1.0)
"""Steps at which layers are measured: of keys in units of a logit, of values in standard deviations."""


@dataclass(frozen=True)
class Settings:
    """One of bits, max_kl and size decides the plan; size: bytes and the tokens they are for."""

    method: str = "rate"
    bits: float | None = None
    max_kl: float | None = None
    size: tuple[int, int] | None = None
    code: str = "entropy"
    sink: int = 4
    recent: int = 32
    tokens: float = 0.25
    exact: str = "auto"
    calib_tokens: int = 4096
    context: int = 2048
    tau: float = 0.975
    sparse_prefill: bool = False
    budget: float = 0.25
    seed: int = 0


def validate(settings: Settings) -> None:
    """Raises BnError (exit 2) where the settings do not fit each other."""
    if settings.sparse_prefill and settings.method != "zipvl":
        raise usage(
            f"--sparse-prefill is for zipvl, not for {settings.method}", "--method zipvl --sparse-prefill"
        )
    named = [settings.bits, settings.max_kl, settings.size]
    if settings.method == "rate" and sum(value is not None for value in named) != 1:
        raise usage("--bits, --bytes and --max-kl: one of them is needed", "--bits 1.5")
    if settings.max_kl is not None and settings.method != "rate":
        raise usage(f"--max-kl is for rate, not for {settings.method}", "--bits 3")
    if settings.bits is not None and not LEAST <= settings.bits <= MOST:
        raise usage(f"--bits {settings.bits:g} is not within {LEAST:g} and {MOST:g}", "--bits 1.5")
    if settings.method in ("rotated", "kivi") and (settings.bits is None or settings.bits not in range(1, 9)):
        raise usage(f"--method {settings.method} takes whole bits of a code, 1 to 8", "--bits 3")
    if settings.exact != "auto":
        share = _number(settings.exact)
        if share is None or not 0 <= share <= 0.2:
            raise usage(f"--exact {settings.exact} is neither auto nor a share from 0 to 0.2", "--exact 0.01")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def baseline_options(settings: Settings) -> dict[str, float | int]:
    """What the plan of a baseline records, by the names of its function's parameters."""
    bits = {"bits": int(settings.bits)} if settings.bits is not None else {}
    return {
        "kivi": bits, "rotated": {**bits, "seed": settings.seed}, "zipvl": {"tau": settings.tau},
        "zipvl-evict": {"tau": settings.tau},
    }.get(settings.method, {"budget": settings.budget})  # fmt: skip
