r"""Words of a command line as they can be pasted into a shell, whatever they hold. Pure.

What a terminal would obey, or a page would not show, is written as an escape in `$'...'`, which bash,
zsh and ksh read: `$'\x1b'`. Everything else is quoted as any POSIX shell reads it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", "'": "\\'"}


def shell_quote(word: str) -> str:
    """The word for a shell, in one line of printable characters."""
    return shlex.quote(word) if word.isprintable() else f"$'{''.join(map(_escaped, word))}'"


def shell_join(words: Iterable[str]) -> str:
    """The command line of these words."""
    return " ".join(map(shell_quote, words))


def _escaped(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    if char.isprintable():
        return char
    # Bytes in octal, of three digits always: \x takes as many digits as follow in some shells, and \u
    # means another byte in another language.
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))
