"""Text to token ids with the tokenizer that travels with a model; transformers is not imported for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bntools.core.errors import bad_input

if TYPE_CHECKING:
    from tokenizers import Tokenizer as _Tokenizer


@dataclass(frozen=True)
class Tokenizer:
    """A model's tokenizer, its special ids, and whether the model expects a text to start with BOS."""

    inner: _Tokenizer
    bos: int | None
    eos: int | None
    adds_bos: bool

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, no special token added. Raises BnError (exit 3) where its parts do not go together."""
        try:
            return self.inner.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises nothing narrower
            raise bad_input(f"tokenizer.json: {error}", "it is damaged: get the model again") from error

    @property
    def size(self) -> int:
        """How many ids there are, added ones too."""
        return self.inner.get_vocab_size()

    @property
    def window_bos(self) -> int | None:
        """BOS where every window of text is to start with it."""
        return self.bos if self.adds_bos else None


def open_tokenizer(files: Mapping[str, bytes], config: Mapping[str, Any], label: str) -> Tokenizer:
    """The tokenizer among a model's side files. Raises BnError (exit 3) where there is none to read."""
    from tokenizers import Tokenizer as Inner

    text = files.get("tokenizer.json")
    if text is None:
        raise bad_input(
            f"{label} carries no tokenizer.json", "save it with a fast tokenizer, beside the weights"
        )
    try:
        inner = Inner.from_str(text.decode("utf-8"))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise bad_input(f"{label}: tokenizer.json: {str(error)[:160]}") from error
    inner.no_truncation()
    inner.no_padding()
    bos, eos = (_special(config, files, inner, name) for name in ("bos", "eos"))
    return Tokenizer(inner, bos, eos, _adds_bos(inner, bos))


def _special(
    config: Mapping[str, Any], files: Mapping[str, bytes], inner: _Tokenizer, name: str
) -> int | None:
    value = config.get(f"{name}_token_id")
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, int) and 0 <= value < inner.get_vocab_size():
        return value
    try:
        settings = json.loads(files.get("tokenizer_config.json", b"{}"))
    except ValueError:
        return None
    token = settings.get(f"{name}_token") if isinstance(settings, dict) else None
    token = token.get("content") if isinstance(token, dict) else token
    return inner.token_to_id(token) if isinstance(token, str) else None


def _adds_bos(inner: _Tokenizer, bos: int | None) -> bool:
    """Whether the tokenizer itself puts BOS in front of a text."""
    return bos is not None and inner.encode("a").ids[:1] == [bos]
