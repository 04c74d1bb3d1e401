"""Imports point one way, and compute nodes and `--help` load little."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import hpcsweep

PACKAGE = Path(hpcsweep.__file__).parent

#: What each room may import of the others; of itself and of the package's root each may.
MAY_IMPORT: dict[str, set[str]] = {
    "bootstrap": set(),
    "errors": set(),
    "clock": set(),
    "plugins": {"errors"},
    "options": {"core", "errors"},
    "core": {"errors"},
    "searchers": {"core", "errors", "plugins"},
    "schedulers": {"core", "errors", "plugins"},
    "store": {"bootstrap", "core", "errors"},
    "trial": {"core", "errors", "store"},
    "worker": {"bootstrap", "core", "errors", "store", "training", "trial"},
    "training": {"errors", "trial"},
    "cluster": {"bootstrap", "core", "errors", "options", "plugins", "store"},
    "testing": {"cluster", "core", "errors", "store"},
    "views": {"core", "errors", "schedulers", "store"},
    "html": {"core", "errors", "schedulers", "store", "views"},
    "server": {"core", "errors", "html", "store", "views"},
    "exports": {"core", "errors", "searchers", "store", "views"},
    "driver": {"core", "errors", "store"},
    "spec": {"cluster", "core", "errors", "options", "plugins", "schedulers", "searchers", "store", "worker"},
    "session": {
        "bootstrap",
        "clock",
        "cluster",
        "core",
        "driver",
        "errors",
        "init",
        "plugins",
        "schedulers",
        "searchers",
        "spec",
        "store",
        "worker",
    },
    "tick": {"bootstrap", "core", "driver", "errors", "session", "spec", "store", "worker"},
    "rerun": {
        "bootstrap",
        "cluster",
        "core",
        "errors",
        "session",
        "spec",
        "store",
        "trial",
        "views",
        "worker",
    },
    "simulation": {
        "cluster",
        "core",
        "driver",
        "errors",
        "html",
        "plugins",
        "schedulers",
        "session",
        "spec",
        "store",
        "views",
    },
    "init": {"errors", "spec"},
    "try_run": {"core", "init", "session", "spec", "store", "views"},
    "doctor": {"bootstrap", "cluster", "core", "errors", "session", "spec", "store"},
    "cli": {
        "clock",
        "core",
        "doctor",
        "driver",
        "errors",
        "exports",
        "html",
        "init",
        "options",
        "rerun",
        "schedulers",
        "server",
        "session",
        "simulation",
        "spec",
        "store",
        "tick",
        "try_run",
        "views",
    },
    "api": {
        "bootstrap",
        "cli",
        "clock",
        "cluster",
        "core",
        "driver",
        "errors",
        "session",
        "spec",
        "store",
        "training",
        "trial",
        "views",
        "worker",
    },
    "optuna": {"api", "bootstrap", "errors", "exports", "spec", "training", "views"},
    "ray": {"api", "errors", "store", "training", "views"},
    "__main__": {"bootstrap", "cli"},
    "__init__": {"api", "optuna", "ray", "trial", "views"},
}

#: What a module may import beyond its room, and why.
EXCEPTIONS = {
    ("cluster/local/task.py", "worker"),  # the process that this machine runs in place of a Slurm task
    ("worker/__main__.py", "cluster"),  # what scripts of earlier versions, still queued, leave to it
    ("store/compaction/worker.py", "views"),  # the tables that it writes are those that analysis reads
    ("views/folder.py", "spec"),  # reads the budget in the spec, when somebody asks for it
    ("views/results.py", "spec"),  # reads the spec and the space back, when somebody asks for them
    ("views/results.py", "html"),  # draws the figures of the page, when somebody asks for them
    ("views/health.py", "searchers"),  # the versions of the searchers, whose modules it does not need
    ("cli/status.py", "cluster"),  # asks the queue alone whether jobs live
    ("cli/completion.py", "cluster"),  # names them
    ("cli/watch.py", "cluster"),  # asks the queue alone, for what it draws
}

#: Not for compute nodes: slow to import from a shared filesystem, or not installed there.
HEAVY = {
    "jinja2",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "rich",
    "ruamel",
    "scipy",
    "submitit",
    "torch",
    "typer",
}

#: The world outside: not for what is pure.
EFFECTS = {
    "asyncio",
    "datetime",
    "io",
    "multiprocessing",
    "os",
    "random",
    "secrets",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
}


class Import(NamedTuple):
    """One imported module in one file of the package."""

    file: str
    line: int
    module: str
    for_types: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    @property
    def room(self) -> str | None:
        """Of our own package; None for the root, and for other packages."""
        parts = self.module.split(".")
        return parts[1] if parts[0] == "hpcsweep" and len(parts) > 1 else None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.module}"


def room_of(file: str) -> str:
    return file.removesuffix(".py").partition("/")[0]


def imports_of(path: Path) -> Iterator[Import]:
    """Every import, those inside functions included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    file = path.relative_to(PACKAGE).as_posix()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names, level=0):
                modules = [module]
                if module == "hpcsweep":  # from hpcsweep import room
                    known = [name.name for name in names if name.name in MAY_IMPORT]
                    modules = [f"hpcsweep.{name}" for name in known] or [module]
            case ast.ImportFrom():
                modules = [f"relative import in {file}"]
            case _:
                continue
        for module in modules:
            yield Import(file, node.lineno, module, id(node) in for_types)


FILES = sorted(path for path in PACKAGE.rglob("*.py") if "sbatch_templates" not in path.parts)


@cache
def all_imports() -> list[Import]:
    return [found for path in FILES for found in imports_of(path)]


def offending(*, unless: set[str], rooms: set[str], modules: set[str]) -> list[str]:
    """Imports of these top modules by these rooms, files in `unless` aside."""
    return [
        str(found)
        for found in all_imports()
        if room_of(found.file) in rooms
        and found.top in modules
        and not found.for_types
        and found.file not in unless
    ]


def test_the_rules_are_about_the_rooms_that_there_are() -> None:
    assert {room_of(path.relative_to(PACKAGE).as_posix()) for path in FILES} == set(MAY_IMPORT)
    assert len(all_imports()) > 200


def test_no_import_is_relative() -> None:
    assert [str(found) for found in all_imports() if found.module.startswith("relative")] == []


def test_each_room_imports_only_the_rooms_below_it() -> None:
    wrong = []
    for found in all_imports():
        room = room_of(found.file)
        if found.room is None or found.room == room:
            continue
        if found.room not in MAY_IMPORT[room] and (found.file, found.room) not in EXCEPTIONS:
            wrong.append(str(found))
    assert wrong == []


def test_the_rules_themselves_point_one_way() -> None:
    below = {room: set(others) for room, others in MAY_IMPORT.items()}
    while free := [room for room, others in below.items() if not others]:
        for room in free:
            del below[room]
        for others in below.values():
            others.difference_update(free)
    assert below == {}


def test_only_the_slurm_cluster_imports_submitit() -> None:
    files = {found.file for found in all_imports() if found.top == "submitit"}
    assert files == {name for name in files if name.startswith("cluster/slurm")}
    assert "cluster/slurm/submitit_options.py" in files


def test_what_is_pure_touches_no_files_no_clock_no_processes_and_no_global_randomness() -> None:
    rooms = {"core", "searchers", "schedulers"}
    assert offending(unless=set(), rooms=rooms, modules=EFFECTS) == []
    seams = {"core/protocols.py", "core/cluster_protocol.py"}
    assert offending(unless=seams, rooms=rooms, modules={"pathlib"}) == []


def test_the_driver_knows_neither_a_concrete_cluster_nor_the_spec() -> None:
    known = {found.room for found in all_imports() if room_of(found.file) == "driver" and found.room}
    assert known == {"core", "driver", "errors", "store"}


def test_what_runs_on_compute_nodes_imports_nothing_heavy_even_late() -> None:
    tables = {"store/compaction/worker.py"}  # a process beside the driver
    assert offending(unless=tables, rooms={"errors", "store", "trial", "worker"}, modules=HEAVY) == []
    light = {"core/__init__.py", "core/events.py", "core/state.py", "core/protocols.py"}
    heavy = [str(i) for i in all_imports() if i.file in light and i.top in HEAVY and not i.for_types]
    assert heavy == []


def loaded_by(*modules: str) -> set[str]:
    """Top modules that a fresh process has after importing these."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def modules_of(*rooms: str) -> list[str]:
    names = []
    for path in FILES:
        file = path.relative_to(PACKAGE).as_posix()
        if room_of(file) in rooms:
            names.append("hpcsweep." + file.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
    return names


@pytest.mark.parametrize("room", ["store", "trial", "worker"])
def test_a_compute_node_loads_nothing_heavy(room: str) -> None:
    loaded = loaded_by(*modules_of(room))
    assert "hpcsweep" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("module", ["worker.__main__", "worker.entrypoint"])
def test_a_run_starts_without_modules_that_only_typing_extensions_needs(module: str) -> None:
    assert loaded_by(f"hpcsweep.{module}") & {"typing_extensions", "inspect", "ast"} == set()
    code = f"import hpcsweep.{module}, typing_extensions; print(typing_extensions.NotRequired)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "typing.NotRequired\n", "training code gets the true one"


def test_public_names_of_the_training_side_load_nothing_heavy() -> None:
    code = "import sys, hpcsweep; hpcsweep.Trial; hpcsweep.current_trial; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()} & HEAVY == set()


@pytest.mark.parametrize("module", ["worker.task", "worker.entrypoint", "cli.launch", "tick"])
def test_the_objects_of_a_spec_are_loaded_only_where_they_are_used(module: str) -> None:
    code = f"import sys, hpcsweep.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in done.stdout.split() if name.startswith("hpcsweep.api")] == []


def test_the_package_alone_loads_nothing_heavy() -> None:
    assert loaded_by("hpcsweep") & HEAVY == set()


def test_a_job_that_imports_a_file_with_a_sweep_in_it_loads_nothing_heavy() -> None:
    assert loaded_by("hpcsweep.api.sweep", "hpcsweep.optuna", "hpcsweep.ray.tune.schedulers") & HEAVY == set()


def test_the_command_line_s_own_import_loads_no_arrays_no_tables_and_no_models() -> None:
    loaded = loaded_by("hpcsweep.cli", "hpcsweep.__main__")
    assert "typer" in loaded
    assert loaded & (HEAVY - {"typer", "rich"}) == set()


def test_what_reads_a_sweep_stops_it_or_takes_in_its_results_loads_no_arrays() -> None:
    loaded = loaded_by("hpcsweep.cli.status", "hpcsweep.cli.requests", "hpcsweep.session.session")
    assert "ruamel" in loaded
    assert loaded & {"numpy", "pandas", "pyarrow", "scipy"} == set()
