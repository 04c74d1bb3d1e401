"""`provenance/<n>.json`: who launched what, where, and with which code and packages.

Immutable records, each written by the launch that claimed its number. A launch without relevant changes
writes none, so that cron piles up nothing. Environment variables are not recorded: they hold secrets.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final

import msgspec

import hpcsweep
from hpcsweep.core.text import mask_arguments
from hpcsweep.errors import NewerFormatError
from hpcsweep.store import git
from hpcsweep.store.batch import Program
from hpcsweep.store.files import make_dirs, open_new, read_bytes, write_atomic
from hpcsweep.store.layout import Layout, Skipped, decode, regular_files, version_field
from hpcsweep.store.process_id import ProcessId
from hpcsweep.store.snapshot import code_folder, split_command, training_file

#: Larger files that a command names are taken for data, and not hashed.
FILE_BYTES: Final = 10 * 2**20

#: A record or its diff.
_NAME: Final = re.compile(r"(?P<record>[0-9]+)\.json|(?P<diff>[0-9]+)\.diff")
_HEADER: Final = re.compile(r"^(Name|Version):[ \t]*(\S+)", re.MULTILINE)


class Python(msgspec.Struct, frozen=True, omit_defaults=True):
    """The interpreter of the launch, and the one that runs trials if it is another."""

    version: str
    executable: str
    trials: str = ""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One launch, and later ones without relevant changes.

    Attributes:
        at: Unix time.
        argv: The command line with the interpreter's options; what looks like a secret is masked.
        packages: Versions of installed packages, by name.
        spec_sha256: Of the resolved spec as canonical JSON.
        files: SHA-256 of the training files by path.
        copied: The folder that the snapshot was copied from, if the snapshot runs.
        diff: Name of the file beside this one with the changes since the commit.
        diff_note: Why it is incomplete.
    """

    at: float
    host: str
    user: str
    cwd: str
    argv: tuple[str, ...]
    python: Python
    hpcsweep: str
    cluster: str
    packages: dict[str, str]
    spec_sha256: str
    files: dict[str, str]
    code: git.GitState
    copied: str = ""
    diff: str = ""
    diff_note: str = ""
    version: int = version_field()


_decoder = msgspec.json.Decoder(Record)


def record_launch(
    layout: Layout,
    program: Program,
    spec: Mapping[str, Any],
    *,
    cluster: str,
    python: str | None,
) -> Path | None:
    """Record this launch (`spec` is resolved); the new file, or None if the newest record says the same."""
    newest = next(reversed(list_records(layout)), None)
    record, diff = current_record(program, spec, cluster=cluster, python=python, first=newest is None)
    if newest is not None and _essence(newest[1]) == _essence(record):
        return None
    make_dirs(layout.provenance)
    path = _claimed(layout)
    if newest is not None and newest[1].code.diff_sha256 == record.code.diff_sha256:
        record = msgspec.structs.replace(record, diff=newest[1].diff)
    elif diff:
        record = msgspec.structs.replace(record, diff=f"{path.stem}.diff")
        write_atomic(path.with_suffix(".diff"), diff)
    write_atomic(path, msgspec.json.encode(record))
    return path


def list_records(layout: Layout, skipped: Skipped | None = None) -> list[tuple[Path, Record]]:
    """The records, oldest first; unreadable ones are noted in `skipped`."""
    skipped = Skipped() if skipped is None else skipped
    files = regular_files(layout.provenance, _NAME, skipped)
    numbers = {int(match["record"]): name for name, match in files if match["record"]}
    found = []
    for number in sorted(numbers):
        path = layout.provenance / numbers[number]
        try:
            found.append((path, decode(read_bytes(path), _decoder, path)))
        except (OSError, msgspec.MsgspecError, NewerFormatError) as error:
            skipped.note(path, error)
    return found


def spec_digest(spec: Mapping[str, Any]) -> str:
    """SHA-256 of the spec as JSON with sorted keys."""
    return hashlib.sha256(msgspec.json.encode(spec, order="sorted")).hexdigest()


def _claimed(layout: Layout) -> Path:
    """The next name, taken by creating it: of two launches at a time each has its own."""
    matches = (_NAME.fullmatch(name) for name in os.listdir(layout.provenance))
    number = max((int(match["record"] or match["diff"]) for match in matches if match), default=0) + 1
    while True:
        path = layout.provenance / f"{number}.json"
        try:
            os.close(open_new(path))
            return path
        except FileExistsError:
            number += 1


def _essence(record: Record) -> Record:
    """The record without what differs between launches of the same thing: time, login node, new outputs."""
    code = msgspec.structs.replace(record.code, untracked=())
    return msgspec.structs.replace(record, at=0.0, host="", cwd="", code=code, diff="")


def current_record(
    program: Program, spec: Mapping[str, Any], *, cluster: str, python: str | None, first: bool
) -> tuple[Record, bytes]:
    """What a launch would record now, and the diff since the commit, perhaps cut.

    `first`: no launch was recorded yet; then the record of a snapshot describes the original.
    """
    original = Path(program.snapshot.workdir) if program.snapshot else None
    diff, note = b"", ""
    if program.snapshot is None or first:
        # The copy is no repository; what it was made of is told by the first launch.
        code, diff = git.repository_state(_original_folder(program))
        if len(diff) >= git.DIFF_BYTES:
            note = f"cut after {git.DIFF_BYTES >> 20} MiB"
    else:
        code = git.GitState(str(original), problem="the copy that was made when the sweep began is run")
    record = Record(
        at=round(time.time(), 3),
        host=socket.gethostname(),
        user=ProcessId.me().user,
        cwd=_cwd(),
        argv=mask_arguments(sys.orig_argv),
        python=Python(
            sys.version.split()[0], sys.executable, python if python and python != sys.executable else ""
        ),
        hpcsweep=hpcsweep.__version__,
        cluster=cluster,
        packages=_packages(),
        spec_sha256=spec_digest(spec),
        files=_digests(training_files(program)),
        code=code,
        copied=program.snapshot.root if program.snapshot else "",
        diff_note=note,
    )
    return record, diff


def _original_folder(program: Program) -> Path:
    """Where the code is, or was copied from."""
    folder = code_folder(program)
    if program.snapshot is None:
        return folder
    inside = os.path.relpath(folder, program.snapshot.code)
    return Path(program.snapshot.root, inside)


def training_files(program: Program) -> Sequence[Path]:
    """The function's file, or the files in the workdir that the command names."""
    file, workdir = training_file(program), Path(program.workdir)
    if file is not None:
        return [file]
    if program.function is not None:
        module = workdir.joinpath(*program.function.partition(":")[0].split("."))
        return [path for path in (module.with_suffix(".py"), module / "__init__.py") if path.is_file()]
    return [path for word in split_command(program.command or "") if (path := workdir / word).is_file()]


def _digests(files: Sequence[Path]) -> dict[str, str]:
    found = {}
    for path in files:
        try:
            if path.stat().st_size <= FILE_BYTES:
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            continue  # no file of ours to complain about: the training code is checked elsewhere
    return found


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for distribution in distributions():
        name, version = _name_and_version(distribution)
        if name and name not in found:  # the first on the path is the one that is imported
            found[name] = version
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _name_and_version(distribution: Distribution) -> tuple[str, str]:
    """Both from the head of the metadata: parsing whole descriptions would cost more than all the rest."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    facts = dict(reversed(_HEADER.findall(text.partition("\n\n")[0])))
    return facts.get("Name", ""), facts.get("Version", "")


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""  # it was removed
