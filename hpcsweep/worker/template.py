"""Command templates: how the values of a run become the arguments of its program.

A template is split into arguments first and values are put in afterwards, so a value with spaces, quotes, `$`
or newlines arrives unchanged. With `shell: true` the template is a shell line and each value is quoted:
placeholders then stand outside quotation marks. Besides `{name}` a template may have

- `{args}`: every parameter that it does not name otherwise, as `--name value` or by a pattern such as
  `{args:--name=value}`;
- `{name?fragment}`: the fragment, which may be several arguments, where `name` has a value.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from hpcsweep.core.text import close_matches, truncate
from hpcsweep.errors import TrainerError

CONFIG_FILE: Final = "config_file"
#: Placeholders besides the parameters; a parameter of the same name comes first.
#: `python` is the interpreter that runs hpcsweep.
PLACEHOLDERS: Final = (
    "trial",
    "rung",
    "resource",
    "start",
    "resume_from",
    "checkpoint_dir",
    "output_dir",
    "epochs_left",
    "seed",
    "python",
    CONFIG_FILE,
)
ARGS: Final = "args"
#: How `{args}` writes a parameter unless it is told.
DEFAULT_PATTERN: Final = ("--name", "value")
#: Forms of `train.flags` that give a flag instead of a text.
PRESENT: Final = "present"
NEGATED: Final = "no-"

_BRACE: Final = re.compile(r"\{\{|\}\}|[{}]")
_UP_TO_BRACE: Final = re.compile(r"[^{}?]*")
_NAME_OR_VALUE: Final = re.compile("name|value")


class Placeholder(msgspec.Struct, frozen=True):
    """`{name}`."""

    name: str


class Arguments(msgspec.Struct, frozen=True):
    """`{args:PATTERN}`; the words of the pattern hold `name` and `value` once each."""

    pattern: tuple[str, ...]


class Fragment(msgspec.Struct, frozen=True):
    """`{name?...}` with its arguments; of a shell line it is one text."""

    name: str
    words: tuple[tuple[Part, ...], ...]


Part = str | Placeholder | Arguments | Fragment


class Style(msgspec.Struct, frozen=True):
    """How values become text.

    Attributes:
        flags: How a boolean is written: `present`, `no-`, or its two texts such as `true/false`; empty where
            the pattern of `{args}` says it.
        dashes: Names that `{args}` writes have dashes for underscores.
        formats: Parameter -> `json`, `comma`, `repeat` or `append`.
    """

    flags: str = ""
    dashes: bool = False
    formats: Mapping[str, str] = {}


class Template(msgspec.Struct, frozen=True):
    """A parsed template: its arguments, or one text for a shell.

    Attributes:
        names: What it names outside of `{args}`.
    """

    words: tuple[tuple[Part, ...], ...]
    shell: bool

    @property
    def names(self) -> set[str]:
        return {part.name for part, _ in self.walk() if isinstance(part, Placeholder | Fragment)}

    @property
    def patterns(self) -> list[tuple[str, ...]]:
        """The pattern of each `{args}`."""
        return [part.pattern for part, _ in self.walk() if isinstance(part, Arguments)]

    @property
    def joined(self) -> set[str]:
        """The placeholders that are only a part of an argument."""
        return set() if self.shell else set(_joined(self.words))

    def walk(self) -> Iterator[tuple[Part, tuple[str, ...]]]:
        """Every part, with the names of the fragments that it is in."""
        return _walk(self.words, ())

    def arguments(self, values: Mapping[str, Any], config: Mapping[str, Any], style: Style) -> list[str]:
        """The arguments of a program.

        Args:
            values: Of all names; None where there is none.
            config: The active parameters, from which `{args}` takes those that the template does not name.
            style: How they become text.
        """
        return _Filling(values, self._unnamed(config), style).words(self.words)

    def line(self, values: Mapping[str, Any], config: Mapping[str, Any], style: Style) -> str:
        """The line for a shell; arguments as those of `arguments`."""
        return _Filling(values, self._unnamed(config), style, quote=shlex.quote).text(self.words[0])

    def _unnamed(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in config.items() if name not in self.names}


def parse_template(template: str, *, shell: bool, parameters: Collection[str]) -> Template:
    """Parse a command.

    Raises:
        TrainerError: It cannot be split, a placeholder is unknown or a brace is not closed.
    """
    try:
        words = _Parser(template, shell=shell, parameters=parameters).parse()
    except TrainerError as error:
        raise TrainerError(f"train.command: {error}") from None
    if not words:
        raise TrainerError("train.command: is empty")
    return Template(words, shell)


class _Parser:
    def __init__(self, text: str, *, shell: bool, parameters: Collection[str]) -> None:
        self._text = text
        self._at = 0
        self._shell = shell
        self._parameters = parameters

    def parse(self) -> tuple[tuple[Part, ...], ...]:
        return self._split(self._parts())

    def _parts(self, *, fragment: str = "") -> list[Part]:
        """The parts up to the end, or up to the brace that closes the fragment."""
        parts: list[Part] = []
        literals = 0  # plain braces that are open
        while (match := _BRACE.search(self._text, self._at)) is not None:
            parts.append(self._text[self._at : match.start()])
            brace, self._at = match[0], match.end()
            if brace == "{{":
                literals += 1
                parts.append("{")
            elif brace == "}}" and (literals > 0 or not fragment):
                literals -= 1
                parts.append("}")
            elif brace == "{":
                parts.append(self._placeholder())
            elif fragment:  # the first of two braces may close it, as in {a?--a {a}}
                self._at = match.start() + 1
                return parts
            else:
                raise self._single("}")
        if fragment:
            raise TrainerError(f"{{{fragment}?...}} is not closed in {truncate(self._text)!r}")
        return [*parts, self._text[self._at :]]

    def _placeholder(self) -> Part:
        match = _UP_TO_BRACE.match(self._text, self._at)
        assert match is not None
        name, self._at = match[0], match.end() + 1
        end = self._text[match.end() : self._at]
        if end == "?":
            self._check_known(name)
            return Fragment(name, self._split(self._parts(fragment=name)))
        if end != "}":
            raise self._single("{")
        head, colon, pattern = name.partition(":")
        if head == ARGS and ARGS not in self._parameters:
            return Arguments(_pattern(pattern) if colon else DEFAULT_PATTERN)
        self._check_known(name)
        return Placeholder(name)

    def _single(self, brace: str) -> TrainerError:
        return TrainerError(
            f"a single {brace!r} in {truncate(self._text)!r}; write {brace * 2!r} for a plain one"
        )

    def _check_known(self, name: str) -> None:
        known = [*self._parameters, *PLACEHOLDERS]
        if name in known:
            return
        near = close_matches(name, [*known, ARGS], n=1)
        hint = f"did you mean {{{near[0]}}}?" if near else "write {{ and }} for plain braces"
        raise TrainerError(f"unknown placeholder {{{name}}}; {hint}")

    def _split(self, parts: Sequence[Part]) -> tuple[tuple[Part, ...], ...]:
        """The words: what is not text is a word's part, whatever is in it."""
        if self._shell:
            return (tuple(part for part in parts if part != ""),)
        mark = next(char for char in map(chr, range(0xE000, 0xF8FF)) if char not in self._text)
        text = "".join(
            part if isinstance(part, str) else f"{mark}{index}{mark}" for index, part in enumerate(parts)
        )
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise TrainerError(f"cannot be split into arguments: {error}") from error
        found = []
        for word in words:
            pieces = word.split(mark)
            each = tuple(parts[int(piece)] if n % 2 else piece for n, piece in enumerate(pieces))
            found.append(tuple(part for part in each if part != ""))
        for word_parts in found:
            _check_word(word_parts)
        return tuple(found)


def _check_word(word: Sequence[Part]) -> None:
    """Check that what gives several arguments stands alone."""
    if len(word) == 1:
        return
    for part in word:
        if isinstance(part, Arguments):
            raise TrainerError("{args} must be an argument of its own, with spaces around it")
        if isinstance(part, Fragment):
            if len(part.words) > 1:
                raise TrainerError(
                    f"{{{part.name}?...}} stands within an argument, so it must hold one argument only"
                )
            for inner in part.words:
                _check_word((*inner, ""))


def _pattern(text: str) -> tuple[str, ...]:
    words = tuple(text.split(" "))
    if sorted(_NAME_OR_VALUE.findall(text)) != ["name", "value"] or len(words) > 2 or not all(words):
        raise TrainerError(
            f"{{args:{text}}}: expected a pattern that holds name and value once each, in one argument or in "
            "two with a space between them, such as {args:--name=value} or {args:-name value}"
        )
    return words


def _walk(words: Iterable[Sequence[Part]], within: tuple[str, ...]) -> Iterator[tuple[Part, tuple[str, ...]]]:
    for word in words:
        for part in word:
            yield part, within
            if isinstance(part, Fragment):
                yield from _walk(part.words, (*within, part.name))


def _joined(words: Iterable[Sequence[Part]]) -> Iterator[str]:
    for word in words:
        for part in word:
            if isinstance(part, Placeholder) and len(word) > 1:
                yield part.name
            elif isinstance(part, Fragment):
                yield from _joined(part.words if len(word) == 1 else [(*inner, "") for inner in part.words])


def boolean_texts(pattern: Sequence[str]) -> str:
    """How a pattern of `{args}` writes booleans where `train.flags` does not say it; empty: that is unknown.

    `name=value` is how Hydra takes parameters, whose booleans are those of YAML. Programs that read
    `--name=value` by themselves mostly take Python literals; absl and Hugging Face take any case.
    """
    if len(pattern) != 1 or not pattern[0].endswith("name=value"):
        return ""
    return "True/False" if pattern[0].startswith("--") else "true/false"


def as_text(value: Any, flags: str = "") -> str:
    """A value as text for arguments and the environment: numbers read back exactly, None is empty."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            yes, slash, no = flags.partition("/")
            return (yes if value else no) if slash else ("true" if value else "false")
        case int() | float():
            return repr(value)
        case _:
            return msgspec.json.encode(value).decode()


class _Filling(msgspec.Struct, frozen=True):
    """Puts the values of one run into a template."""

    values: Mapping[str, Any]
    unnamed: Mapping[str, Any]  # the parameters for `{args}`
    style: Style
    quote: Callable[[str], str] = str

    def words(self, words: Iterable[Sequence[Part]]) -> list[str]:
        return [argument for word in words for argument in self._word(word)]

    def _word(self, word: Sequence[Part]) -> list[str]:
        if len(word) == 1:
            match word[0]:
                case Fragment() as fragment:
                    return self.words(fragment.words) if self._filled(fragment) else []
                case Placeholder(name=name) if self._is_repeated(name):
                    return [self._item(each) for each in self.values[name]]
                case Arguments(pattern=pattern):
                    return self._args(pattern)
        return [self.text(word)]

    def text(self, word: Sequence[Part]) -> str:
        """The parts of one argument, or of a shell line, joined."""
        return "".join(map(self._text, word))

    def _text(self, part: Part) -> str:
        match part:
            case str():
                return part
            case Placeholder(name=name):
                if self._is_repeated(name):
                    return " ".join(self.quote(self._item(each)) for each in self.values[name])
                return self.quote(self._value(name, self.values.get(name), self.style.flags))
            case Arguments(pattern=pattern):
                return " ".join(map(self.quote, self._args(pattern)))
            case Fragment():
                return "".join(map(self.text, part.words)) if self._filled(part) else ""

    def _filled(self, fragment: Fragment) -> bool:
        """Whether it has a value; false is one only where the fragment shows it."""
        value = self.values.get(fragment.name)
        if value is False:
            shown = (part for part, _ in _walk(fragment.words, ()))
            return any(isinstance(part, Placeholder) and part.name == fragment.name for part in shown)
        return value is not None

    def _is_repeated(self, name: str) -> bool:
        return self.style.formats.get(name) == "repeat" and isinstance(self.values.get(name), list | tuple)

    def _value(self, name: str, value: Any, flags: str) -> str:
        match self.style.formats.get(name):
            case "json":
                return msgspec.json.encode(value).decode()
            case "comma" if isinstance(value, list | tuple):
                return ",".join(as_text(item, flags) for item in value)
            case _:
                return as_text(value, flags)

    def _item(self, value: Any) -> str:
        return as_text(value, self.style.flags)

    def _args(self, pattern: tuple[str, ...]) -> list[str]:
        return [word for name, value in self.unnamed.items() for word in self._option(pattern, name, value)]

    def _option(self, pattern: tuple[str, ...], name: str, value: Any) -> list[str]:
        """A parameter by the pattern; nothing for None."""
        form, flags = self.style.formats.get(name, ""), self.style.flags or boolean_texts(pattern)
        label = name.replace("_", "-") if self.style.dashes else name
        if value is None and form != "json":
            return []
        if isinstance(value, bool) and form != "json" and flags in (PRESENT, NEGATED):
            flag = next(word for word in pattern if "name" in word).partition("name")[0]
            no = [f"{flag}no-{label}"] if flags == NEGATED else []
            return [f"{flag}{label}"] if value else no
        if isinstance(value, list | tuple) and form in ("repeat", "append"):
            texts = [as_text(item, flags) for item in value]
            if form == "append" or len(pattern) == 1:
                return [word for text in texts for word in _fill_pattern(pattern, label, text)]
            # `--name=value` has room for one: those with a dash stand as they are
            return [_fill(pattern[0], label, ""), *(_fill(pattern[1], label, text) for text in texts)]
        return _fill_pattern(pattern, label, self._value(name, value, flags))


def _fill_pattern(pattern: tuple[str, ...], label: str, text: str) -> list[str]:
    if pattern == DEFAULT_PATTERN and text.startswith("-"):
        pattern = ("--name=value",)  # argparse takes a word with a dash for an option
    return [_fill(word, label, text) for word in pattern]


def _fill(word: str, label: str, text: str) -> str:
    filled = {"name": label, "value": text}
    return _NAME_OR_VALUE.sub(lambda match: filled[match[0]], word)
