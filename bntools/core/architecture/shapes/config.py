"""A config.json with its keys checked: a size that is missing, or is none, is an error that names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bntools.core.errors import bad_input

TEXT = ("text_config", "language_config", "llm_config")


class Config:
    """Sizes by name; several names are one key under the spellings of several architectures."""

    def __init__(self, values: Mapping[str, Any], label: str) -> None:
        self.values, self.label = values, label

    def has(self, *names: str) -> bool:
        return any(self.values.get(name) is not None for name in names)

    def get(self, *names: str, default: Any = None) -> Any:
        return next((self.values[name] for name in names if self.values.get(name) is not None), default)

    def size(self, name: str, *others: str, default: int | None = None) -> int:
        """A positive integer. Raises BnError (exit 3) where it is missing without a default, or is no size."""
        value = self.get(name, *others, default=default)
        if value is None:
            spellings = f" (or {', '.join(others)})" if others else ""
            raise bad_input(f"{self.label} lacks {name}{spellings}", "is this the config.json of a model?")
        if isinstance(value, list) and value and len(set(map(str, value))) == 1:
            value = value[0]  # one size for every layer, written as a list
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 40:
            raise bad_input(f"{self.label}: {name} is {value!r}, not a size")
        return value

    def flag(self, *names: str, default: bool = False) -> bool:
        return bool(self.get(*names, default=default))

    def texts(self, name: str) -> list[str]:
        """A list of words, empty where there is none."""
        value = self.values.get(name)
        return [str(item) for item in value] if isinstance(value, list) else []


def text_part(values: Mapping[str, Any]) -> tuple[Mapping[str, Any], str | None]:
    """The language model inside a config with other towers, and the key it stands under."""
    for key in TEXT:
        inner = values.get(key)
        if isinstance(inner, dict) and inner.get("model_type"):
            return {"tie_word_embeddings": values.get("tie_word_embeddings"), **inner}, key
    return values, None
