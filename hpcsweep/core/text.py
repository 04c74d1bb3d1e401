"""Text for people and shells: numbers of things, quoting, what a terminal would obey, secrets. Pure.

What looks like a key, a token or a password is masked wherever it is passed on.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

#: What stands in the place of a secret.
MASK: Final = "***"
#: Values that are shorter are no secrets, and would be found everywhere.
_SHORTEST: Final = 4

#: Parts of a name: `WANDB_API_KEY` and `wandbApiKey` both have `key`.
_PART: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_PARTS: Final = frozenset({"key", "auth", "pwd", "pat", "pass"})
_ANYWHERE: Final = re.compile(r"passw|passphrase|passcode|secret|credential|apikey", re.IGNORECASE)

_URL: Final = re.compile(r"(://[^/\s:@]*:)[^@\s/]+(?=@)")
#: `name=value`, `name: value` and their like in quotes.
_PAIR: Final = re.compile(r"""([A-Za-z_][\w.-]*)(["']?\s*[:=]\s*["']?)([^\s,{}\[\]"']+)""")
_OPTION: Final = re.compile(r"(--?[A-Za-z][\w-]*)(\s+)([^\s-]\S*)")


def is_secret(name: str) -> bool:
    """Whether a variable, an option or a key of this name holds a secret, as far as its name tells."""
    if _ANYWHERE.search(name):
        return True
    parts = [part.lower() for part in _PART.findall(name)]
    return any(part in _PARTS or part.endswith("token") for part in parts)


def secret_values(environment: Mapping[str, str | None]) -> list[str]:
    """The values of those variables that are secret by their names, the longest first."""
    return _forms(value for name, value in environment.items() if value and is_secret(name))


def secret_arguments(arguments: Sequence[str]) -> list[str]:
    """The values of `name=value` on a command line that are secret by their names, the longest first."""
    pairs = (word.partition("=") for word in arguments)
    return _forms(value for name, _, value in pairs if value and is_secret(name.rpartition(".")[2]))


def _forms(values: Iterable[str]) -> list[str]:
    """The values as they are and as a shell has them, without those that are too short."""
    found = {form for value in values if len(value) >= _SHORTEST for form in (value, shell_quote(value))}
    return sorted(found, key=len, reverse=True)


def mask_values(text: str, values: Iterable[str]) -> str:
    """The text with these values masked."""
    for value in values:
        text = text.replace(value, MASK)
    return text


def mask_secrets(text: str) -> str:
    """A text in which `name=value`, `--name value` and URLs hold no secrets any more."""
    text = _URL.sub(rf"\1{MASK}", text)
    text = _OPTION.sub(lambda m: f"{m[1]}{m[2]}{MASK}" if is_secret(m[1]) else m[0], text)
    return _PAIR.sub(lambda m: f"{m[1]}{m[2]}{MASK}" if is_secret(m[1]) else m[0], text)


def mask_arguments(arguments: Sequence[str]) -> tuple[str, ...]:
    """A command line without its secrets, word by word."""
    return tuple(_words(arguments))


def _words(arguments: Sequence[str]) -> Iterator[str]:
    follows = False
    for word in arguments:
        name, equals, _ = word.partition("=")
        if follows and not word.startswith("-"):
            yield MASK
        elif equals and re.fullmatch(r"[\w.-]+", name) and is_secret(name.rpartition(".")[2]):
            yield f"{name}={MASK}"
        else:
            yield mask_secrets(word)
        follows = not equals and word.startswith("-") and is_secret(word)


def plural(number: int, noun: str) -> str:
    """`1 trial`, `2,000 trials`; the noun is a regular one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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


def sanitize(text: str) -> str:
    """One line without escapes, line breaks and changes of direction."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)


def sanitize_lines(text: str) -> str:
    """The same for a text of several lines, in which tabs stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else sanitize(char) for char in text)


def suggest_name(name: str, known: Sequence[str], *, kind: str) -> str:
    """Says that the name is unknown, and which known one is nearest."""
    near = difflib.get_close_matches(str(name)[:_COMPARED], known[:_COMPARED], n=1)
    if near:
        return f"unknown {kind}; did you mean {near[0]!r}?"
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"unknown {kind}; expected one of: {', '.join(known[:_LISTED])}{more}"


#: Names among which the nearest is looked for, and that are listed.
_COMPARED: Final = 2000


_LISTED: Final = 20
