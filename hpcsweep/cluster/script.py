"""The script of a batch from a site's template: what is the same for every cluster that takes scripts."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec

import hpcsweep
from hpcsweep.cluster import processes
from hpcsweep.core.cluster_protocol import Batch
from hpcsweep.errors import SpecError

#: What a task runs, unless a probe takes its place.
WORKER: Final = "hpcsweep.worker"
SCRIPT_BYTES: Final = 64 * 1024


class Template(msgspec.Struct, frozen=True):
    """A template's text and the file that it came from, for error messages."""

    path: Path
    text: str


def packaged_templates() -> Path:
    """The folder of our own templates: in the installed package, or beside it in a checkout."""
    package = Path(hpcsweep.__file__).parent
    inside = package / "sbatch_templates"
    return inside if inside.is_dir() else package.parent / "sbatch_templates"


def read_template(name: str, *, spec_dir: Path, suffix: str) -> Template:
    """Read the template: a file by its path (a relative one from the spec's folder), else one of ours."""
    own = packaged_templates()
    candidates = [spec_dir / Path(name).expanduser(), own / name, own / f"{name}{suffix}"]
    for path in candidates:
        if os.path.isfile(path):  # False also for a name that is too long
            try:
                return Template(path, path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise SpecError(f"{path}: cluster.template: cannot be read: {error}") from error
    known = ", ".join(sorted(path.name for path in own.glob(f"*{suffix}")))
    raise SpecError(f"cluster.template: no file {candidates[0]}, and hpcsweep's own are: {known}")


def exports(environment: Mapping[str, str]) -> str:
    """The export lines, values quoted for the shell: nothing in them is expanded."""
    wrong = [name for name in environment if not (name.isascii() and name.isidentifier())]
    if wrong:
        raise SpecError(*(f"cluster.environment.{name}: not a name of a variable" for name in wrong))
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items())


def module_command(python: str, module: str, folder: Path, *, import_from: Path | None = None) -> str:
    """The shell command that runs a module of ours with this folder.

    `-P`: no module in the folder where the script starts can take the place of one of Python's.

    Args:
        python: Absolute path of the interpreter.
        module: The module, and further arguments.
        folder: Its last argument.
        import_from: Folder that holds the package, where the interpreter does not find it itself. It does
            not go on PYTHONPATH, which training inherits: see `hpcsweep.bootstrap`.
    """
    run = f"-m {module}"
    if import_from is not None:
        run = f"{shlex.quote(str(import_from / 'hpcsweep' / 'bootstrap.py'))} {module}"
    return f"exec {shlex.quote(python)} -P {run} {shlex.quote(str(folder))}"


def package_folder(python: str) -> Path | None:
    """The folder in which this interpreter is to find this package, None if it finds it by itself.

    The interpreter is asked, as it would start in a job: that is right for wheels, editable
    installs and checkouts alike. One that does not run here, in a container for example, is
    trusted to have the package.
    """
    ours = Path(hpcsweep.__file__).resolve()
    code = "import importlib.util as u; s = u.find_spec('hpcsweep'); print(s.origin if s else '')"
    try:
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        answer = processes.run_process([python, "-P", "-c", code], timeout_s=60, env=env)
    except OSError:
        return None
    found = answer.out.strip()
    if answer.code != 0 or (found and python != sys.executable):
        return None
    return None if found and os.path.realpath(found) == str(ours) else ours.parent.parent


def render_template(
    template: Template,
    batch: Batch,
    *,
    header: str,
    command: str,
    setup: str,
    environment: str,
    **facts: Any,
) -> str:
    """The template's text for this batch; it must use the header and the command."""
    values: dict[str, Any] = {
        "header": header,
        "command": command,
        "environment": environment,
        "setup": setup,
        "name": batch.name,
        "folder": str(batch.folder),
        "tasks": batch.tasks,
        "throttle": batch.throttle,
        "nodes": batch.shape.nodes,
        "gpus": batch.shape.gpus,
        "cpus": batch.shape.cpus,
        "mem_mib": batch.shape.mem_mib,
        "time_s": batch.shape.time_s,
        "lanes": batch.shape.lanes,
        **facts,
    }
    jinja = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda _: (template.text, str(template.path), None)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    try:
        return jinja.get_template(template.path.name).render(**values)
    except jinja2.TemplateSyntaxError as error:
        raise SpecError(f"{template.path}:{error.lineno}: {error.message}") from error
    except Exception as error:  # a template can call anything
        raise SpecError(f"{template.path}:{_line_of(error, template)}: {error}") from error


def _line_of(error: Exception, template: Template) -> int:
    """The template's line that raised; Jinja puts the template's own frames into the traceback."""
    line = 1
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(template.path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def script_problems(template: Template, text: str, *, header: str, command: str, program: str) -> list[str]:
    """Why the program would refuse the script, pass its options over in silence, or not keep it."""
    parts = {"header": header, "command": command}
    problems = [f"{template.path}:1: uses no {{{{ {k} }}}}" for k, v in parts.items() if v not in text]
    if not text.startswith("#!"):
        problems.append(f"{template.path}:1: {program} wants #!/bin/bash or the like at the very start")
    if "\r" in text:
        problems.append(f"{template.path}:1: has DOS line ends, which {program} refuses")
    before = text.partition(header)[0].splitlines() if header in text else []
    if any(line.strip() and not line.lstrip().startswith("#") for line in before):
        problems.append(
            f"{template.path}:1: {program} reads no options after a command: {{{{ header }}}} goes first"
        )
    if len(text.encode()) > SCRIPT_BYTES:
        problems.append(f"{template.path}: gives a script of more than {SCRIPT_BYTES // 1024} kB")
    return problems
