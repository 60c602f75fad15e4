"""What TAB offers beyond click's own: files where files are meant, and values behind `--option=`.

Imported only while a shell completes. click's scripts for the shells are used as they are.
"""

from __future__ import annotations

import re

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
)

_PATHS = re.compile(r"FILE|PATH|DIR|MODEL|INPUT")
_EMBEDDED = "default:"


class PathName(click.ParamType):
    """Text that names a file or directory; read as it is, completed as a path."""

    name = "text"

    def __init__(self, embedded: bool) -> None:
        self._embedded = embedded

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        items = [CompletionItem(incomplete, type="file")]
        if self._embedded and incomplete and _EMBEDDED.startswith(incomplete):
            items.append(CompletionItem(_EMBEDDED))
        return items


def complete_paths(command: click.Command) -> click.Command:
    """Have TAB offer files for every parameter whose metavar says that it names one."""
    for parameter in command.params:
        metavar = parameter.metavar or ""
        if isinstance(parameter.type, type(click.STRING)) and _PATHS.search(metavar):
            parameter.type = PathName(embedded="INPUT" in metavar or "MODEL" in metavar)
    return command


class _Bash(BashComplete):
    """bash breaks words at `=`: the sign stands between option and value as a word of its own."""

    def get_completion_args(self) -> tuple[list[str], str]:
        words, incomplete = super().get_completion_args()
        return [word for word in words if word != "="], "" if incomplete == "=" else incomplete


class _Whole:
    """zsh and fish keep `--option=value` one word, and want whole words back."""

    _prefix = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        words, incomplete = super().get_completion_args()  # type: ignore[misc]
        name, equals, value = incomplete.partition("=")
        if not name.startswith("--") or not equals:
            return words, incomplete
        self._prefix = f"{name}="
        return [*words, name], value

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        items = super().get_completions(args, incomplete)  # type: ignore[misc]
        return [CompletionItem(self._prefix + item.value, type=item.type, help=item.help) for item in items]


class _Zsh(_Whole, ZshComplete):
    pass


class _Fish(_Whole, FishComplete):
    pass


def install() -> None:
    """Have click answer the three shells by these classes."""
    for shell in (_Bash, _Zsh, _Fish):
        add_completion_class(shell)
