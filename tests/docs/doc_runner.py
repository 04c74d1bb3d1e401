"""Runs a page of the documentation: writes its files and runs its commands, in order.

- A block whose first line is a comment with nothing but a file name is that file.
- A `sh` block is run by bash, and must succeed. A `python` block without a name is run by Python.
- A `yaml` block without a name changes the page's newest sweep file, key by key, and must leave it valid.
- A `text` block is what something prints: it is not run.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML

import hpcsweep
from hpcsweep.spec import load_spec

DOCS = Path(hpcsweep.__file__).parent / "docs"
#: Pages that run on a real cluster; the others on this machine.
ON_SLURM = {"clusters.md"}

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+\.(?:py|yaml|sbatch))\n")

#: A newcomer makes an environment first; here it is the one that runs the tests.
_INSTALL = re.compile(r"python3 -m venv \S+ && \S+/pip install (?:-e )?\S+ && ")

#: Code 3 says that the sweep goes on, as it is meant to when nobody stays with it.
_PRELUDE = """
hpcsweep() {
    command hpcsweep "$@" || { test $? -eq 3 && [[ " $* " == *" --detach "* || " $* " == *" --once "* ]]; }
}
"""


class Block(NamedTuple):
    """One fenced block; `name` is of the file that it is, else empty."""

    language: str
    name: str
    text: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    """Those of a page in Markdown."""
    for match in _BLOCK.finditer(page):
        language, text = match.groups()
        named = _FILE.match(text)
        name = named[1] if named else ""
        if name.endswith(".sbatch"):  # the first line of a script says who runs it
            text = text.split("\n", 1)[1]
        yield Block(language, name, text, page[: match.start()].count("\n") + 1)


def _shortened(text: str) -> str:
    """Hyperband of 6 runs or halving of 3 in place of 22 or 7. Whole sweeps are tested elsewhere."""
    text = re.sub(r"(name: hyperband, min_resource: 1, max_resource: )9\b", r"\g<1>3", text)
    short = "name: halving, max_resource: 2, eta: 2}"
    text = re.sub(r"name: (hyperband|halving), max_resource: [349]\b[^}]*}", short, text)
    return text.replace("hs.Hyperband(max_resource=9)", "hs.Halving(max_resource=2, eta=2)")


class DocRunner:
    """Runs the blocks of a page in one folder."""

    def __init__(self, folder: Path, environ: Mapping[str, str], *, timeout_s: float = 300) -> None:
        self.folder = folder
        self._environ = {**environ, "PATH": f"{Path(sys.executable).parent}:{environ['PATH']}"}
        self._timeout_s = timeout_s
        self._spec: Path | None = None

    def run_page(self, page: Path) -> None:
        """All of it."""
        for block in blocks(page.read_text(encoding="utf-8")):
            self.run(block)

    def run(self, block: Block) -> None:
        """Do what the block says."""
        if block.name:
            path = self.folder / block.name
            if path.suffix == ".yaml":
                self._spec = path
                path.write_text(block.text)
                load_spec(path)
            path.write_text(_shortened(block.text))
            return
        match block.language:
            case "sh":
                self._run(block, ["bash", "-euo", "pipefail", "-c", _PRELUDE + self._here(block.text)])
            case "python":
                self._run(block, [sys.executable, "-c", block.text])
            case "yaml":
                self._change(block)
            case "text":
                pass
            case other:
                raise AssertionError(f"line {block.line}: nobody runs a block of {other!r}")

    @staticmethod
    def _here(commands: str) -> str:
        return _INSTALL.sub("", commands).replace(".venv/bin/", "")

    def _run(self, block: Block, argv: list[str]) -> None:
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=self._timeout_s,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"line {block.line}: exit {done.returncode}\n{block.text}\n{done.stdout}"
        assert "Traceback" not in done.stdout, f"line {block.line}:\n{done.stdout}"

    def _change(self, block: Block) -> None:
        assert self._spec is not None, f"line {block.line}: there is no sweep file that this could change"
        yaml = YAML()
        changed = yaml.load(self._spec) | yaml.load(block.text)
        path = self.folder / f"changed-at-{block.line}.yaml"
        with path.open("w") as file:
            yaml.dump(changed, file)
        load_spec(path)
