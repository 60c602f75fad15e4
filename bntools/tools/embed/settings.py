"""What decides the rows."""

from __future__ import annotations

from dataclasses import dataclass

from bntools.core.errors import usage

POOLS = ("mean", "cls", "last")
PERS = ("token", "document")


@dataclass(frozen=True)
class Settings:
    """layers: numbers of blocks, () for the model's own output. site: resid, attn or mlp. per: token or document.

    pool: of the tokens of a document. window: tokens a window. limit: tokens at most. dtype: of the rows written.
    """

    layers: tuple[int, ...] = ()
    site: str = "resid"
    per: str = "token"
    pool: str = "mean"
    normalize: bool = False
    window: int = 256
    limit: int | None = None
    batch_tokens: int = 2048
    dtype: str = "float16"
    compute: str = "float32"
    field: str = "text"

    def tensor(self, index: int) -> str:
        """Name of the tensor of one layer."""
        return "x" if len(self.layers) < 2 else f"layer.{self.layers[index]}"


def parse_layers(text: str | None) -> tuple[int, ...]:
    """`15` or `5,15,25`. Raises BnError (exit 2)."""
    if text is None:
        return ()
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise usage(f"--layer {text}: not numbers of blocks", "--layer 15, or --layer 5,15,25")
    return tuple(dict.fromkeys(int(part) for part in parts))
