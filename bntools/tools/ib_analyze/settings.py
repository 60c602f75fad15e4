"""How a plane is made, and the ways of the papers by name."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bntools.core.errors import usage

SIGMAS = {"compressed": (0.03, 0.1, 0.3), "mixture": (0.3, 0.6, 1.0), "binning": (1.0,)}
"""Sizes of the noise by estimator. All coordinates of a mixture carry it: at a tenth no two rows of a layer meet."""
PAPERS = {
    "szt2017": {"estimator": "binning", "limits": (-1.0, 1.0), "bins": 30, "sigmas": ()},
    "saxe2018": {"estimator": "mixture", "noise": "absolute", "sigmas": (0.1**0.5,)},
    "butakov2023": {
        "estimator": "compressed",
        "neighbours": 5,
        "components": 4,
        "noise": "absolute",
        "sigmas": (1e-3,),
    },
}
"""Shwartz-Ziv and Tishby; Saxe et al., whose noise has variance 0.1; Butakov et al., as their notebook for MNIST."""


@dataclass(frozen=True)
class Planes:
    """estimator: of SIGMAS; noise: `relative` to each layer's root mean square, or `absolute`.

    sigmas: sizes of the noise, the middle one shown, () for those of SIGMAS; limits: of the bins; queries: rows
    measured, against all; components: of `compressed`, got by `compress`: pca, random or autoencoder; conditional:
    whether I(X; T | Y) is also measured by class.
    """

    estimator: str = "compressed"
    noise: str = "relative"
    sigmas: tuple[float, ...] = ()
    bins: int = 30
    limits: str | tuple[float, float] = "auto"
    components: int = 4
    neighbours: int = 3
    queries: int = 1000
    compress: str = "pca"
    units: str = "nats"
    seed: int = 0
    conditional: bool = False

    def __post_init__(self) -> None:
        if not self.sigmas:
            object.__setattr__(self, "sigmas", SIGMAS[self.estimator])
        if min(self.sigmas) <= 0:
            raise usage(f"--sigma {self.sigmas}: noise has a size above 0", "--sigma 0.03,0.1,0.3")

    @property
    def shown(self) -> int:
        """Which sigma the plane shows."""
        return len(self.sigmas) // 2


def of_paper(name: str, base: Planes) -> Planes:
    """The settings of a paper, with the units and the seed of `base`."""
    return replace(base, **PAPERS[name])  # type: ignore[arg-type]


def parse_limits(text: str) -> str | tuple[float, float]:
    """`auto`, `quantile`, or `fixed:LOW,HIGH`."""
    if text in ("auto", "quantile"):
        return text
    kind, _, numbers = text.partition(":")
    try:
        low, high = map(float, numbers.split(","))
    except ValueError:
        kind, low, high = "", 0.0, 0.0
    if kind != "fixed" or not low < high:
        raise usage(f"no range {text!r}", "auto, quantile or fixed:-1,1")
    return low, high


def parse_sigmas(text: str) -> tuple[float, ...]:
    """Numbers above 0, ascending."""
    try:
        return tuple(sorted(float(word) for word in text.split(",")))
    except ValueError:
        raise usage(f"no sizes of noise {text!r}", "--sigma 0.03,0.1,0.3") from None
