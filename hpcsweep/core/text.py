"""Text for people and shells: JSON values in messages, quoting, what a terminal would obey, secrets. Pure."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

#: Characters of a value that a message shows.
MAX_SHOWN: Final = 200
#: Lists and mappings within each other, in a value of a parameter and in a whole spec.
MAX_NESTING: Final = 50
#: What a JSON reader anywhere takes as an integer: 64 bits.
_INT_RANGE: Final = (-(2**63), 2**64 - 1)
#: Names among which the nearest is looked for, and that are listed.
_COMPARED: Final = 2000
_LISTED: Final = 20
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
    return tuple(_masked(arguments))


def _masked(arguments: Sequence[str]) -> Iterator[str]:
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


def format_bytes(count: int) -> str:
    """Bytes as `812 B`, `1.5 MB`, `82 GB`; powers of 1000, as quotas and `ls` have them."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


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


def close_matches(name: str, known: Sequence[str], n: int, cutoff: float = 0.6) -> list[str]:
    """As `difflib` has it, which not every worker imports."""
    import difflib

    return difflib.get_close_matches(name, known, n, cutoff)


def suggest_name(name: str, known: Sequence[str], *, kind: str) -> str:
    """Says that the name is unknown, and which known one is nearest."""
    near = close_matches(str(name)[:_COMPARED], known[:_COMPARED], n=1)
    if near:
        return f"unknown {kind}; did you mean {near[0]!r}?"
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"unknown {kind}; expected one of: {', '.join(known[:_LISTED])}{more}"


def near_name(name: str, names: Iterable[str]) -> str:
    """The one of `names` that is most like it, as `val_loss` is like `val/loss`; empty if none is."""
    plain = {re.sub(r"[\W_]+", "", each).lower(): each for each in names}
    close = close_matches(re.sub(r"[\W_]+", "", name).lower(), [*plain][:_COMPARED], n=1, cutoff=0.7)
    return plain[close[0]] if close else ""


#: Types of JSON values that are their own keys: nearly all values of a configuration.
_PLAIN: Final = frozenset({int, float, str, type(None)})


def json_key(value: Any) -> Hashable:
    """A key that is equal for equal JSON values: 1 is 1.0, but True is not 1."""
    match value:
        case bool():
            return ("bool", value)
        case list() | tuple():
            return ("list", *(json_key(item) for item in value))
        case dict():
            items = [(key, item if type(item) in _PLAIN else json_key(item)) for key, item in value.items()]
            return ("dict", frozenset(items))
        case _:
            return value  # type: ignore[no-any-return]


def json_problem(value: Any, *, depth: int = 0) -> str | None:
    """Why the value cannot be written as JSON and read back the same, None if it can."""
    if depth > MAX_NESTING:
        return f"must be nested at most {MAX_NESTING} deep"
    match value:
        case None | bool():
            return None
        case int():
            low, high = _INT_RANGE
            if low <= value <= high:
                return None
            return f"must be an integer of 64 bits, got {format_value(value)}; quote it if it is text"
        case str():
            return text_problem(value)
        case float():
            return None if math.isfinite(value) else f"must be finite (JSON has no {value}), got {value}"
        case list() | tuple():
            return next(filter(None, (json_problem(item, depth=depth + 1) for item in value)), None)
        case dict():
            if not all(isinstance(key, str) for key in value):
                return f"must have text keys only, got {format_value(value)}"
            parts = (part for pair in value.items() for part in pair)
            return next(filter(None, (json_problem(part, depth=depth + 1) for part in parts)), None)
        case _:
            return f"must be a number, text, true, false, null, list or mapping, got {format_value(value)}"


def text_problem(text: str) -> str | None:
    """Why the text cannot be written to a file as UTF-8, None if it can."""
    if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
        return None
    words = "half of a surrogate pair, which UTF-8 cannot hold"
    return f"must be Unicode text, got {format_value(text)} with {words}; write the character itself"


def format_value(value: Any) -> str:
    """The value as a message shows it: `true`, `null` and lists as in YAML, texts quoted, long ones cut."""
    return truncate(_as_yaml(value, room=MAX_SHOWN + 1))


def must_be_absent(when: Mapping[str, Sequence[Any]]) -> str:
    """What is wrong with a value for a parameter that is inactive for want of these values of others."""
    conditions = (f"{other} is {' or '.join(map(format_value, values))}" for other, values in when.items())
    return f"must be absent, it is active only when {' and '.join(conditions)}"


def truncate(text: str) -> str:
    """The text, or its beginning where it is long."""
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 4]} ..."


def _as_yaml(value: Any, *, room: int) -> str:
    """The text, or the first `room` characters of it and perhaps some more."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() if value.bit_length() > 4 * MAX_SHOWN:
            return f"an integer of about {int(value.bit_length() * math.log10(2)) + 1} digits"
        case str():
            return repr(value[:room])
        case list() | tuple():
            return f"[{_joined((('', item) for item in value), room=room)}]"
        case dict():
            return f"{{{_joined(((f'{_key(key)}: ', item) for key, item in value.items()), room=room)}}}"
        case _:
            return repr(value)


def _key(key: Any) -> str:
    return str(key)[:MAX_SHOWN]


def _joined(items: Iterable[tuple[str, Any]], *, room: int) -> str:
    texts: list[str] = []
    for before, item in items:
        if room <= 0:
            break
        texts.append(before + _as_yaml(item, room=room))
        room -= len(texts[-1]) + 2
    return ", ".join(texts)
