"""What decides a fit."""

from __future__ import annotations

from dataclasses import dataclass

from bntools.core.errors import usage

METHODS = ("ard-vae", "vae", "bpca")
ARCHS = ("auto", "linear", "mlp", "conv")
SCORES = ("ablation", "kl", "snr", "jacobian")
DEFECTS = ("schedule", "generation")
MOST_AXES = 64
_STEPS, _FEWEST_EPOCHS, _MOST_EPOCHS = 3000, 20, 200
PAPER_BETA, PAPER_EPOCHS, PAPER_RATE, PAPER_BATCH, PAPER_FILTERS = 0.5, 50, 5e-4, 100, 64


@dataclass(frozen=True)
class Settings:
    """method, arch, score: of METHODS, ARCHS, SCORES. max_dim: axes to start with, None for 64 or the width.

    variance: of the decoder, in squared units of the data; None to learn it. update: of the prior, `step` or `epoch`.
    tolerance: share of the held-out error that pruning may cost. explained: of the paper's rule. restarts: seeds.
    epochs: None for about 3,000 steps. rate, batch: of Adam, None for the default. baseline: whether a plain VAE is
    fitted too. paper: the paper's schedule, with `beta`, `filters` and `defects` of its code. memory: bytes of rows
    held, beyond which they are read as they are needed.
    """

    method: str = "ard-vae"
    arch: str = "auto"
    max_dim: int | None = None
    variance: float | None = None
    update: str = "step"
    score: str = "ablation"
    tolerance: float = 0.01
    explained: float = 0.99
    restarts: int = 3
    epochs: int | None = None
    batch: int | None = None
    rate: float | None = None
    baseline: bool = True
    paper: bool = False
    beta: float | None = None
    filters: int = PAPER_FILTERS
    defects: tuple[str, ...] = ()
    bad: str = "raise"
    memory: int = 1 << 30
    seed: int = 0

    def axes(self, width: int) -> int:
        """Axes to start with, for rows of a number of varying values."""
        return self.max_dim or min(MOST_AXES, width)

    def batch_size(self) -> int:
        return self.batch or (PAPER_BATCH if self.paper else 128)

    def epochs_for(self, rows: int) -> int:
        """Epochs, chosen for about 3,000 steps within 20 to 200 where none are asked for."""
        if self.epochs or self.paper:
            return self.epochs or PAPER_EPOCHS
        steps = max(1, rows // self.batch_size())
        return min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, -(-_STEPS // steps)))


def validate(settings: Settings) -> None:
    """Raises BnError (exit 2) for options that do not fit each other."""
    if settings.beta is not None and not settings.paper:
        raise usage("--beta is of --paper", "--paper, or --decoder-var beta:B")
    if settings.defects and not settings.paper:
        raise usage("--defect is of --paper, whose code has them", "--paper, or leave it out")
    if settings.paper and settings.method == "bpca":
        raise usage("--paper has no --method bpca", "--method ard-vae or vae")
    if settings.paper and settings.variance is not None:
        raise usage("--paper has a fixed decoder variance, beta / 2", "--beta B in place of --decoder-var")
    if settings.paper and settings.arch == "linear":
        raise usage("--paper trains by gradients, and --arch linear is solved", "--arch mlp or conv")
    if settings.method == "bpca" and settings.arch not in ("auto", "linear"):
        raise usage(f"--method bpca is linear, not --arch {settings.arch}", "leave out --arch")
