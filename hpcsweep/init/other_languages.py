"""Arguments and printed metrics of scripts that are not Python: found by patterns in their text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from hpcsweep.init.argparse_options import Kind, kind_of
from hpcsweep.init.found import Argument, Interface, MetricLine, Script
from hpcsweep.init.names import data_of, is_step, metric_name, words

#: Characters before a printed line in which its loop begins.
_NEAR: Final = 10_000
_LOOP: Final = re.compile(r"\b(?:for|while)\b")
_DONE: Final = re.compile(r"\bdone\b")
_NUMBER: Final = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


class Language(NamedTuple):
    """How scripts of a language are recognised and started."""

    name: str
    suffixes: tuple[str, ...]
    interpreters: tuple[str, ...]
    command: str


LANGUAGES: Final = (
    Language("shell", (".sh", ".bash"), ("sh", "bash", "dash", "zsh", "ksh"), "bash"),
    Language("R", (".r", ".R"), ("Rscript",), "Rscript"),
    Language("awk", (".awk",), ("awk", "gawk", "mawk"), "awk -f"),
    Language("Julia", (".jl",), ("julia",), "julia"),
    Language("Perl", (".pl",), ("perl",), "perl"),
    Language("Lua", (".lua",), ("lua",), "lua"),
    Language("Octave", (".m",), ("octave",), "octave"),
    Language("JavaScript", (".js", ".mjs"), ("node",), "node"),
    Language("Ruby", (".rb",), ("ruby",), "ruby"),
)


def language_of(path: Path, text: str) -> Language | None:
    """By the first line, else by the suffix; None for Python and for what is not known."""
    first = text.partition("\n")[0] if text.startswith("#!") else ""
    program = [word.rpartition("/")[2] for word in first[2:].split() if not word.startswith("-")]
    named = program[1] if program[:1] == ["env"] and len(program) > 1 else next(iter(program), "")
    by_line = next((each for each in LANGUAGES if named in each.interpreters), None)
    if by_line is not None:
        return by_line._replace(command=f"{named} -f" if by_line.name == "awk" else named)
    if named.startswith("python"):
        return None
    return next((each for each in LANGUAGES if path.suffix in each.suffixes), None)


def read_script(language: Language, text: str) -> Script:
    """What a script of this language shows."""
    code = "\n".join(line for line in text.split("\n") if not re.match(r"\s*(#|//|%)", line))
    readers = {"shell": _shell, "R": _r, "awk": _awk, "Julia": _julia}
    interfaces = tuple(readers.get(language.name, _generic)(code))
    return Script(language.name, interfaces, tuple(_lines(code, language.name)), loops=tuple(_loops(code)))


def _value(text: str | None) -> Any:
    """A default as written: a number if it is one; None for what only the script knows."""
    if text is None or "$" in text:
        return None
    bare = text.strip().strip("'\"")
    for read in (int, float):
        try:
            return read(bare)
        except ValueError:
            continue
    return bare


def _argument(name: str, option: str, default: Any = None, kind: str = "") -> Argument:
    kinds: dict[str, Kind] = {"d": "float", "i": "int"}
    known = kinds.get(kind[:1].lower()) or kind_of(default)
    return Argument(name, option, known, default, required=default is None)


def _unique(arguments: list[Argument]) -> tuple[Argument, ...]:
    return tuple({each.name: each for each in reversed(arguments)}.values())[::-1]


def _shell(code: str) -> Iterator[Interface]:
    """Options of `case`, `getopts`, positions, and variables with a default."""
    assigned = {m[1]: _value(m[2]) for m in re.finditer(r"^\s*(\w+)=([^\s$`;(]+)", code, re.MULTILINE)}
    options = []
    # `--lr) lr="$2"`, `--lr=*) lr="${1#*=}"` and, of getopts, `l) lr=$OPTARG`
    for match in re.finditer(
        r"^\s*(?:-\w\s*\|\s*)?(--?[\w-]+|\w)(=\*)?\)\s*(\w+)=[\"']?\$(?:\{?(2|OPTARG)|\{1#)",
        code,
        re.MULTILINE,
    ):
        getopts = match[4] == "OPTARG" and not match[1].startswith("-")
        option = f"-{match[1]}" if getopts else match[1]
        name = match[1].lstrip("-") if not getopts else match[3]
        default = assigned.get(match[3])
        options.append(_argument(name, option, default)._replace(required=False))
    if options:
        joined = "=*)" in code
        yield Interface(
            "options of a shell script", "--name=value" if joined else "--name value", _unique(options)
        )
    positions = {
        int(match[2]): _argument(match[1].lower(), "", _value(match[3]))
        for match in re.finditer(r"\b(\w+)=[\"']?\$\{?(\d)(?::-([^}]*))?\}?", code)
    }
    if positions and sorted(positions) == list(range(1, len(positions) + 1)):
        yield Interface("positions", "positional", tuple(positions[key] for key in sorted(positions)))
    variables = [
        _argument(match[1].lower(), match[1], _value(match[2]))
        for match in re.finditer(r"\$\{([A-Za-z_]\w*):?[-=]([^}]*)\}", code)
    ]
    if variables:
        yield Interface("environment variables", "environment", _unique(variables))


def _r(code: str) -> Iterator[Interface]:
    """Options of optparse and argparse for R, and positions of `commandArgs`."""
    found = []
    for match in re.finditer(r"(?:make_option|add_argument)\s*\(((?:[^()]|\([^()]*\))*)\)", code):
        names = re.findall(r"[\"'](--[\w-]+)[\"']", match[1])
        if names:
            default = re.search(rf"default\s*=\s*({_NUMBER}|[\"'][^\"']*[\"'])", match[1])
            kind = re.search(r"type\s*=\s*[\"'](\w+)[\"']", match[1])
            value = _value(default[1] if default else None)
            found.append(
                _argument(names[0][2:], names[0], value, kind[1] if kind else "")._replace(required=False)
            )
    if found:
        yield Interface("options of R", "--name=value", _unique(found))
    holder = re.search(r"(\w+)\s*(?:<-|=)\s*commandArgs", code)
    if holder:
        yield from _positions(code, rf"{holder[1]}\s*\[{{1,2}}\s*(\d+)\s*\]{{1,2}}", r"(?:<-|=)", first=1)


def _awk(code: str) -> Iterator[Interface]:
    """Variables that are given with `-v`: those with a default for the case that they are not set."""
    found = [
        _argument(match[1], match[1], _value(match[2]))
        for match in re.finditer(rf"if\s*\(\s*!?(\w+)[^)]*\)\s*\{{?\s*\1\s*=\s*({_NUMBER})", code)
    ]
    used = set(re.findall(r"\b([a-z_]\w*)\b", re.sub(r'"[^"]*"', "", code), re.IGNORECASE))
    assigned = set(re.findall(r"\b(\w+)\s*(?:[-+*/]?=(?!=)|\+\+|--)", code)) | set(
        re.findall(r"\((\w+) in", code)
    )
    keywords = {
        "BEGIN",
        "END",
        "for",
        "while",
        "if",
        "else",
        "print",
        "printf",
        "exit",
        "in",
        "getline",
        "next",
    }
    functions = set(re.findall(r"\b(\w+)\s*\(", code)) | {"NR", "NF", "FS", "OFS", "RS", "ORS", "FILENAME"}
    for name in sorted(used - assigned - keywords - functions):
        found.append(_argument(name, name))
    if found:
        yield Interface("awk variables", "environment", _unique(found))


def _julia(code: str) -> Iterator[Interface]:
    """Options of ArgParse, and positions of ARGS."""
    found = []
    for match in re.finditer(r"[\"'](--[\w-]+)[\"'][^\n]*\n((?:(?!\s*[\"']--)[^\n]*\n){0,6})", code):
        if not re.search(r"arg_type|default|help|action", match[0]):
            continue
        default = re.search(rf"default\s*=\s*({_NUMBER}|\"[^\"]*\")", match[0])
        kind = re.search(r"arg_type\s*=\s*(\w+)", match[0])
        value = _value(default[1] if default else None)
        shown = {"Float64": "double", "Float32": "double", "Int": "int", "Int64": "int"}
        known = shown.get(kind[1], "") if kind else ""
        found.append(_argument(match[1][2:], match[1], value, known)._replace(required=False))
    if found:
        yield Interface("ArgParse", "--name value", _unique(found))
    yield from _positions(code, r"ARGS\[(\d+)\]", "=", first=1)


def _generic(code: str) -> Iterator[Interface]:
    """Positions of `ARGV`, `arg` or `process.argv`."""
    yield from _positions(code, r"(?:\$ARGV|ARGV|\barg)\[(\d+)\]", "=", first=1 if "arg[" in code else 0)
    yield from _positions(code, r"process\.argv\[(\d+)\]", "=", first=2)


def _positions(code: str, pattern: str, sign: str, *, first: int) -> Iterator[Interface]:
    found: dict[int, Argument] = {}
    for match in re.finditer(rf"\b([A-Za-z_]\w*)\s*{sign}\s*([^\n;]*?){pattern}([^\n;]*)", code):
        default = re.search(rf"(?:\belse\b|:|\|\||\?\?)\s*({_NUMBER})", match[4])
        value = _value(default[1] if default else None)
        kind = "int" if re.search(r"int", match[2], re.IGNORECASE) else ""
        kind = "double" if re.search(r"float|numeric|double", match[2], re.IGNORECASE) else kind
        found.setdefault(int(match[3]), _argument(match[1], "", value, kind))
    if found and sorted(found) == list(range(first, first + len(found))):
        yield Interface("positions", "positional", tuple(found[key] for key in sorted(found)))


def _loops(code: str) -> Iterator[str | int]:
    """What loops over epochs run to."""
    patterns = (
        r"(\w+)\s*<=?\s*\$?\{?(\w+)\}?\s*;",
        r"for\s+(\w+)\s+in\s+\$\(seq\s+(?:1\s+)?[\"']?\$?\{?(\w+)",
        r"for\s*\(?\s*(\w+)\s+in\s+(?:1:|seq_len\()(\w+)",
    )
    for pattern in patterns:
        for match in re.finditer(pattern, code):
            if is_step(match[1]) or match[1] in ("i", "e", "t"):
                yield int(match[2]) if match[2].isdigit() else match[2]


def _lines(code: str, language: str) -> Iterator[MetricLine]:
    """Printed lines: a format with its values, or texts and values one after another."""
    seen = set()
    for match in re.finditer(
        r"\b(?:echo|printf|print|cat|println|message|sprintf|paste0?|say|puts|console\.log|@printf|io\.write|disp)\b"
        r"([^\n]*)",
        code,
    ):
        pieces = list(_pieces(match[1], language))
        line = _line(pieces, repeated=_in_loop(code, match.start()))
        if line is not None and line.pattern not in seen:
            seen.add(line.pattern)
            yield line


_PERCENT: Final = re.compile(r"%[-+ #0]*(\d+)?(?:\.\d+)?[a-zA-Z]")


def _pieces(text: str, language: str) -> Iterator[tuple[str, str]]:
    """Literal text as (text, ""), values as ("", name)."""
    strings = list(re.finditer(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'', text))
    template = next((s for s in strings if _PERCENT.search(s[1] or s[2] or "")), None)
    if template is not None:
        values = re.findall(
            r"[A-Za-z_]\w*",
            re.sub(r'"[^"]*"', "", text[template.end() :]) if language != "shell" else text[template.end() :],
        )
        at, body = 0, template[1] or template[2]
        for mark in _PERCENT.finditer(body):
            yield body[at : mark.start()], ""
            yield "", values.pop(0) if values else "value"
            at = mark.end()
        yield body[at:], ""
        return
    if language in ("shell", "Julia", "Perl", "Ruby"):
        body = text.strip().strip("()\"' ;")
        for index, part in enumerate(re.split(r"\$[({]*(\w+)[^\s\"',;|]*?[)}]*(?=[\s\"',;|]|$)", body)):
            yield ("", part) if index % 2 else (part, "")
        return
    at = 0
    for string in strings:
        yield from _names(text[at : string.start()])
        yield string[1] if string[1] is not None else string[2], ""
        at = string.end()
    yield from _names(text[at:])


def _names(text: str) -> Iterator[tuple[str, str]]:
    """The values between two literals: one for each part between commas, or between blanks as in awk."""
    for part in re.split(r",", text):
        names = re.findall(r"[A-Za-z_]\w*", part)
        if names and not re.fullmatch(r"\s*(sep|end|file|collapse)\s*=.*", part):
            yield " ", ""
            yield "", names[-1] if len(names) == 1 else " ".join(names)
            yield " ", ""


def _in_loop(code: str, at: int) -> bool:
    """Whether a loop has begun before, and not ended as shells end theirs; of a long script near by."""
    before = code[max(0, at - _NEAR) : at]
    return len(_LOOP.findall(before)) > len(_DONE.findall(before))


def _line(pieces: list[tuple[str, str]], *, repeated: bool) -> MetricLine | None:
    """The pattern of a line; texts before the first group are kept, blanks are any."""
    literal = " ".join(text for text, _ in pieces)
    named = {data_of([word]) for word in words(literal)} - {""}
    data = next(iter(named)) if len(named) == 1 else ""
    out, groups, label = [], [], ""
    for text, name in pieces:
        if not name:
            clean = re.sub(r"\\[nrt]", " ", text)
            out.append(("text", clean))
            label = re.split(r"[,;|()]", clean.rstrip(" :=\t"))[-1] or label if clean.strip() else label
            continue
        if "step" not in groups and (is_step(label) or (not metric_name(label) and is_step(name))):
            groups.append("step")
            out.append(("group", r"(?P<step>\d+)"))
        else:
            metric = metric_name(label, data=data) or metric_name(name, data=data)
            if metric and metric not in groups:
                groups.append(metric)
                out.append(("group", rf"(?P<{metric}>[-+.\w]+)"))
            else:
                out.append(("other", r"\S+"))
        label = ""
    metrics = tuple(group for group in groups if group != "step")
    if not metrics:
        return None
    kinds = [kind for kind, _ in out]
    first, last = kinds.index("group"), len(kinds) - 1 - kinds[::-1].index("group")
    start = first
    while start and kinds[start - 1] == "text":
        start -= 1
    parts = [
        re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", text) if kind == "text" else text
        for kind, text in out[start : last + 1]
    ]
    pattern = re.sub(r"(?:\s|\\s\*)+", r"\\s*", "".join(parts))
    pattern = pattern.removeprefix(r"\s*")
    return MetricLine(pattern, metrics, repeated)
