"""Finds what of plotly.js pages need, and writes it down: `python -m tests.html.plotly_parts`.

plotly.js is built by esbuild: one function whose top-level statements are modules (`var a=W((e,t)=>{...})`).
The last of them registers all kinds of traces, `x.register([bar(),box(),...])`. Kept are the traces that
pages draw, and every statement that what is kept mentions. Names decide, scopes do not: what shares its name
with something else is kept needlessly. The tests in the browser draw every figure with what is left.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from plotly.offline import get_plotlyjs

from hpcsweep.html.plotly_js import PARTS

#: Kinds of traces in figures of `hpcsweep.html`; `scatter` is always there.
TRACES: Final = frozenset({"bar", "contour", "heatmap", "parcoords"})
_TEMPLATE: Final = r"`(?:[^`\\$]|\\.|\$(?!\{)|\$\{(?:[^{}`]|`(?:[^`\\]|\\.)*`|\{[^{}`]*\})*\})*`"
#: Text, comments and regular expressions; then brackets and semicolons, in groups.
_TOKEN: Final = re.compile(
    r""" "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | """
    + _TEMPLATE
    + r"""
    | //[^\n]* | /\*.*?\*/
    | (?:(?<=[(,=:\[!&|?{};+\-*%~^<>\n])|(?<=\breturn)|(?<=\btypeof)|(?<=\bcase))
      /(?![*/])(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/[a-z]*
    | ([(\[{]) | ([)\]}]) | (;)""",
    re.VERBOSE | re.DOTALL,
)
_OPEN, _CLOSE = 1, 2
_IN_TEMPLATE: Final = re.compile(r"\$\{((?:[^{}`]|`(?:[^`\\]|\\.)*`|\{[^{}`]*\})*)\}")
_MENTION: Final = re.compile(r"(?<![\w$.])([A-Za-z_$][\w$]*)(\()?")
_MODULE: Final = re.compile(r"var ([\w$]+)=[\w$]+\(")
_FUNCTION: Final = re.compile(r"(?:async )?function\*? ?([\w$]+)|class ([\w$]+)")
_HEAD: Final = "var Plotly=(()=>{"
_REGISTER: Final = re.compile(r"\.register\(\[([\w$(),]+)\]\)")


class Statement(NamedTuple):
    """A top-level statement, `start` to `end` in the file."""

    start: int
    end: int
    text: str
    names: tuple[str, ...]  # that it declares; none: it is always kept
    module: bool = False  # it declares a function that is only ever called


def statements(text: str, start: int, end: int) -> Iterator[Statement]:
    depth, began = 0, start
    for token in _TOKEN.finditer(text, start, end):
        kind = token.lastindex
        if kind is None:
            continue
        depth += {_OPEN: 1, _CLOSE: -1}.get(kind, 0)
        ends = token[0] == ";" or (token[0] == "}" and _FUNCTION.match(text, began))
        if depth == 0 and ends:
            yield _statement(text, began, token.end())
            began = token.end()
    if depth:
        raise ValueError("brackets of plotly.js do not match")
    yield _statement(text, began, end)


def _statement(text: str, start: int, end: int) -> Statement:
    source = text[start:end]
    if function := _FUNCTION.match(source):
        return Statement(start, end, source, (function[1] or function[2],))
    if source.startswith("var "):
        names = tuple(re.findall(r"(?:^|,)([\w$]+)(?==|,|;|$)", _outermost(source[4:])))
        return Statement(start, end, source, names, module=len(names) == 1 and bool(_MODULE.match(source)))
    exports = re.match(r"[\w$]+\(([\w$]+),\{", source)
    return Statement(start, end, source, (exports[1],) if exports else ())


def _outermost(source: str) -> str:
    """Without what stands in brackets, text and regular expressions."""
    kept, depth, last = [], 0, 0
    for token in _TOKEN.finditer(source):
        step = {_OPEN: 1, _CLOSE: -1}.get(token.lastindex or 0)
        if depth == 0 and token[0] != ";":
            kept.append(source[last : token.start()])
        depth += step or 0
        if depth == 0 and token[0] != ";":
            last = token.end()
    return "".join([*kept, source[last:]])


def _code(source: str) -> str:
    """Without text, regular expressions and keys of objects."""

    def replaced(token: re.Match[str]) -> str:
        if token.lastindex:
            return token[0]
        inner = _IN_TEMPLATE.findall(token[0]) if token[0].startswith("`") else ()
        return f'"{";".join(map(_code, inner))}"'

    return re.sub(r"(?<=[{,])[\w$]+(?=:)", "", _TOKEN.sub(replaced, source))


class Bundle:
    """The statements of plotly.js, and who declares which name."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.start, self.end = text.index(_HEAD) + len(_HEAD), text.rindex("})();\n")
        self.all = list(statements(text, self.start, self.end))
        self.of: dict[str, list[int]] = {}
        for index, each in enumerate(self.all):
            for name in each.names:
                self.of.setdefault(name, []).append(index)

    def mentions(self, statement: Statement) -> set[str]:
        """Names of other statements that it may use."""
        found = set()
        for name, called in set(_MENTION.findall(_code(statement.text))):
            owners = [self.all[index] for index in self.of.get(name, ())]
            if not owners or (owners[0].module and not called) or (len(name) == 1 and name.islower()):
                continue
            local = rf"(?:[(,]|var |let |const |function ){re.escape(name)}(?=[,=)]|=>|\()"
            one_of_many = len(name) == 2 and not owners[0].module and owners[0].names != (name,)
            if not (one_of_many and re.search(local, statement.text)):
                found.add(name)
        return found

    def kind(self, name: str, hops: int = 4) -> str | None:
        """Which trace the module is, or passes on."""
        source = "".join(self.all[index].text for index in self.of[name])
        if found := re.search(r'moduleType:"trace",name:"(\w+)"', source):
            return found[1]
        passed = re.findall(r"=([\w$]+)\(\)", source) if len(source) < 300 and hops else []
        kinds = (self.kind(each, hops - 1) for each in passed if each in self.of)
        return next((kind for kind in kinds if kind), None)

    def kept(self) -> list[tuple[int, int]]:
        """Parts of the file, first character and the one after the last."""
        register = list(_REGISTER.finditer(self.text, self.start, self.end))[-1]
        entries = list(re.finditer(r"([\w$]+)\(\),?", self.text[register.start(1) : register.end(1)]))
        chosen = [entry for entry in entries if self.kind(entry[1]) in TRACES]
        if len(chosen) != len(TRACES):
            raise ValueError(f"plotly.js has not all of {', '.join(sorted(TRACES))}, or names them otherwise")
        own = {entry[1] for entry in entries} - {entry[1] for entry in chosen}
        pending = [index for index, each in enumerate(self.all) if not each.names]
        seen: set[int] = set()
        while pending:
            index = pending.pop()
            if index in seen:
                continue
            seen.add(index)
            each = self.all[index]
            skipped = own if each.start < register.start() < each.end else set()
            for name in self.mentions(each) - skipped:
                pending += self.of[name]
        parts = [(0, self.start)]
        for index in sorted(seen):
            each = self.all[index]
            if each.start < register.start() < each.end:
                parts.append((each.start, register.start(1)))
                offset = register.start(1)
                parts += [(offset + entry.start(), offset + entry.end()) for entry in chosen]
                parts.append((register.end(1), each.end))
            else:
                parts.append((each.start, each.end))
        return joined([*parts, (self.end, len(self.text))])


def joined(parts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Parts that follow each other as one."""
    found: list[tuple[int, int]] = []
    for start, end in parts:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def main() -> None:
    text = get_plotlyjs()
    kept = Bundle(text).kept()
    digest = hashlib.sha256(text.encode()).hexdigest()
    PARTS.write_text(json.dumps({"sha256": digest, "kept": kept}, separators=(",", ":")) + "\n")
    size = sum(end - start for start, end in kept)
    print(f"{PARTS.name}: {size:,} of {len(text):,} characters in {len(kept)} parts")


if __name__ == "__main__":
    main()
