"""From a file to all that it shows of a training program."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from hpcsweep.errors import SpecError
from hpcsweep.init.argparse_options import read_absl, read_argparse, read_argv, read_environment
from hpcsweep.init.configured import read_globals, read_hydra
from hpcsweep.init.files import Paths, read_files, saved_files
from hpcsweep.init.found import Interface, MetricFile, Script
from hpcsweep.init.libraries import library_lines, lightning_file
from hpcsweep.init.loops import ends, starts_from_checkpoint
from hpcsweep.init.other_languages import LANGUAGES, language_of, read_script
from hpcsweep.init.own import read_own, read_own_trial
from hpcsweep.init.printed import read_lines
from hpcsweep.init.signatures import read_click, read_dataclasses, read_fire, read_typer
from hpcsweep.init.sources import Source, module_name, read_program, read_text

#: Each finds one kind of interface; the surest first.
INTERFACES: Final[tuple[Callable[[Sequence[Source]], Interface | None], ...]] = (
    read_hydra,
    read_dataclasses,
    read_typer,
    read_click,
    read_fire,
    read_argparse,
    read_absl,
    read_globals,
    read_argv,
    read_environment,
    read_own,
)
#: Libraries that train on GPUs.
_GPU: Final = {
    "torch",
    "tensorflow",
    "jax",
    "flax",
    "lightning",
    "pytorch_lightning",
    "keras",
    "cupy",
    "transformers",
}


def read(script: Path) -> Script:
    """What the script shows, without running it.

    Raises:
        SpecError: It cannot be read, or is Python that does not parse.
    """
    if script.is_dir():
        raise SpecError(
            f"{script}: is a folder: expected a script; `hpcsweep init` lists those of this folder"
        )
    text = read_text(script)
    language = language_of(script, text)
    if language is not None:
        return read_script(language, text)
    if "\0" in text and script.suffix == ".py":
        raise SpecError(f"{script}: is not text: expected a script")
    if "\0" in text or (script.suffix not in (".py", "") and not text.startswith("#!")):
        return _started_as_it_is(script)
    try:
        sources = read_program(script)
    except SpecError:
        if script.suffix == ".py" or "python" in text.partition("\n")[0]:
            raise
        return _started_as_it_is(script)
    return _python(script, sources)


def _started_as_it_is(script: Path) -> Script:
    """A program of which nothing is known but that it can be started.

    Raises:
        SpecError: It cannot.
    """
    if script.suffix == ".ipynb":
        raise SpecError(f"{script}: is a notebook: `jupyter nbconvert --to script` makes a script of it")
    if not os.access(script, os.X_OK):
        raise SpecError(
            f"{script}: is no script of a known language, and not executable: expected a program that trains"
        )
    return Script("")


def _python(script: Path, sources: Sequence[Source]) -> Script:
    interfaces = tuple(found for read in INTERFACES if (found := read(sources)) is not None)
    names = {argument.name.replace("-", "_") for each in interfaces[:1] for argument in each.arguments}
    imported = {name.partition(".")[0] for source in sources for name in source.imported}
    return Script(
        "python",
        interfaces,
        lines=tuple(line for source in sources for line in (*read_lines(source), *library_lines(source))),
        files=tuple(file for source in sources for file in _files(source, names)),
        saved=tuple(dict.fromkeys(saved for source in sources for saved in saved_files(source, names))),
        constants=tuple(
            (name, value)
            for name, value in sources[0].constants.items()
            if isinstance(value, int | float) and not name.startswith("_")
        ),
        loops=tuple(ends(sources)),
        resumes_in_loop=starts_from_checkpoint(sources),
        gpu=bool(imported & _GPU),
        module=module_name(script, sources[0]),
        own=read_own_trial(sources),
    )


def _files(source: Source, names: Collection[str]) -> Iterator[MetricFile]:
    """Files with metrics, those that Lightning writes by itself included."""
    yield from read_files(source, names)
    file = lightning_file(source, Paths(source, names))
    if file is not None:
        yield file


#: Names and contents of scripts that train.
_LIKELY: Final = re.compile(r"train|main|fit|run|finetune|tune|experiment")
_MARKS: Final = re.compile(r"\b(epochs?|loss|accuracy|fit\(|learning_rate|lr\b)")
#: Scripts that are read to find candidates.
_MOST: Final = 200


def candidates(folder: Path) -> list[Path]:
    """Scripts of the folder that seem to train, the likeliest first."""
    suffixes = {".py", *(suffix for language in LANGUAGES for suffix in language.suffixes)}
    try:
        names = sorted(name for name in os.listdir(folder) if Path(name).suffix in suffixes)
    except OSError as error:
        raise SpecError(f"{folder}: cannot be read: {error.strerror}") from None
    found = []
    for name in names[:_MOST]:
        path = folder / name
        if not path.is_file() or name.startswith(("test_", "conftest", "setup.", "__")):
            continue
        try:
            marks = len(set(_MARKS.findall(read_text(path))))
        except SpecError:
            continue
        if marks:
            found.append((-int(bool(_LIKELY.search(name.lower()))), -marks, path))
    return [path for *_, path in sorted(found)]
