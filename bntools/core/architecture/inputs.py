"""What a model can be fed: how long a window, which ids, and whether token ids alone are enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bntools.core.architecture import linears
from bntools.core.errors import bad_input

_LENGTHS = (
    "max_position_embeddings", "n_positions", "n_ctx", "max_target_positions", "max_seq_len", "max_sequence_length",
)  # fmt: skip
_PARTS = ("text_config", "decoder", "language_config")


def longest_window(config: Mapping[str, Any], wanted: int) -> int:
    """The longest window up to `wanted` tokens that a model has positions for.

    By every name that configs give it, and by the rows of a table of learned positions.
    """
    places = [config, *(config[part] for part in _PARTS if isinstance(config.get(part), dict))]
    said = [place.get(name) for place in places for name in _LENGTHS]
    limits = [int(value) for value in said if isinstance(value, int | float) and value > 0]
    return min([wanted, *limits, *_learned(dict(config))])


def _learned(config: dict[str, Any]) -> list[int]:
    """Rows of the tables of learned positions that a position can have."""
    import torch

    lengths = []
    for path, module in linears.skeleton(config).named_modules():
        last = path.rpartition(".")[2]
        if not isinstance(module, torch.nn.Embedding) or not ("position" in last or last == "wpe"):
            continue
        padded = module.padding_idx + 1 if module.padding_idx is not None else 0
        first = getattr(module, "offset", padded)
        if "distance" not in last and "relative" not in path:
            lengths.append(module.num_embeddings - (first if isinstance(first, int) else padded))
    return [rows for rows in lengths if rows > 0]


def vocabulary(config: Mapping[str, Any]) -> int | None:
    """Rows of the input embedding."""
    inner: Any = linears.skeleton(dict(config)).get_input_embeddings()
    rows = (
        getattr(inner, "num_embeddings", None) or getattr(getattr(inner, "weight", None), "shape", [None])[0]
    )
    return int(rows) if rows else None


def check_ids(config: Mapping[str, Any], ids: Iterable[int], tokens: int, label: str) -> None:
    """Raises BnError (exit 3) where a text has ids that the model has no row for. tokens: of the tokenizer."""
    rows, largest = vocabulary(config), max(ids, default=0)
    if rows is not None and largest >= rows:
        raise bad_input(
            f"{label}: its tokenizer has {tokens:,} ids, its embedding {rows:,} rows; the text has the id {largest:,}",
            "give it the tokenizer it was trained with",
        )


def refuse_pairs(config: Mapping[str, Any], label: str) -> None:
    """Raises BnError (exit 3) for an encoder-decoder, which is not run on one text."""
    if config.get("is_encoder_decoder") and linears.hf_config(dict(config)).is_encoder_decoder:
        raise bad_input(
            f"{label} is an encoder-decoder: it is not run on one text alone", "--method rtn --calib-tokens 0"
        )
