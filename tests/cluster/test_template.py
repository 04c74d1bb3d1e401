"""The script is what sbatch and the shell read as meant, or an error that names the line."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import msgspec
import pytest

from hpcsweep.cluster import script as template_module
from hpcsweep.cluster.script import (
    Template,
    exports,
    packaged_templates,
)
from hpcsweep.cluster.setup_lines import setup_lines
from hpcsweep.cluster.slurm.options import SlurmOptions
from hpcsweep.cluster.slurm.scripts import header, render, sbatch_options, tick_options
from hpcsweep.core.cluster_protocol import Batch, TaskResources
from hpcsweep.errors import SpecError
from tests.waiting import PATIENCE_S

from .programs import changed

BATCH = Batch(
    name="a1b2-7",
    folder=Path("/r/batches/a1b2-7"),
    tasks=81,
    throttle=16,
    shape=TaskResources(gpus=2, cpus=8, mem_mib=16384, time_s=1801),
)
SITE = SlurmOptions(partition="gpu", account="acc", gpu_type="a100", signal_s=90)

PLAIN = Template(Path("/t/plain.sbatch"), "#!/bin/bash\n{{ header }}\n{{ command }}\n")

HOSTILE = [
    "plain",
    "with space",
    "it's",
    'say "hi"',
    "$HOME `id` $(id)",
    "a;b&c|d",
    "50%j",
    "#x",
    "*?~!",
    "é",
]


def read_template(name: str, *, spec_dir: Path) -> Template:
    return template_module.read_template(name, spec_dir=spec_dir, suffix=".sbatch")


def worker_command(python: str, folder: Path, *, import_from: Path | None = None) -> str:
    launcher = "hpcsweep.cluster.slurm.task"
    return template_module.module_command(python, launcher, folder, import_from=import_from)


def script(text: str, *, site: SlurmOptions = SITE, batch: Batch = BATCH) -> str:
    return render(Template(Path("/t/x.sbatch"), text), batch, site=site, command="exec work")


def test_whole_script_of_the_default_template() -> None:
    template = read_template("default.sbatch", spec_dir=Path("/nowhere"))
    site = changed(SITE, setup=["module load cuda"], environment={"A": "b c"})
    text = render(template, BATCH, site=site, command=worker_command("/env/bin/python", BATCH.folder))
    assert text == (
        "#!/bin/bash\n"
        "#SBATCH --job-name=a1b2-7\n"
        "#SBATCH --comment=a1b2-7\n"
        "#SBATCH --array=0-80%16\n"
        "#SBATCH --nodes=1\n"
        "#SBATCH --ntasks=1\n"
        "#SBATCH --cpus-per-task=8\n"
        "#SBATCH --gres=gpu:a100:2\n"
        "#SBATCH --mem=16384M\n"
        "#SBATCH --time=31\n"
        "#SBATCH --partition=gpu\n"
        "#SBATCH --account=acc\n"
        "#SBATCH --chdir=/r/batches/a1b2-7\n"
        "#SBATCH --output=/r/batches/a1b2-7/logs/%a.log\n"
        "#SBATCH --error=/r/batches/a1b2-7/logs/%a.log\n"
        "#SBATCH --open-mode=append\n"
        "#SBATCH --requeue\n"
        "#SBATCH --signal=B:USR2@90\n"
        "\n"
        "export A='b c'\n" + setup_lines(["module load cuda"], failed="exit 1") + "\n"
        "exec /env/bin/python -P -m hpcsweep.cluster.slurm.task /r/batches/a1b2-7\n"
    )


@pytest.mark.parametrize(
    "path", sorted(packaged_templates().glob("*.sbatch")), ids=lambda path: str(path.name)
)
def test_own_template_gives_a_script_that_bash_can_read(path: Path) -> None:
    site = changed(SITE, setup=["module load cuda"], environment={"A": "b"})
    for each in (SlurmOptions(), site):
        text = render(read_template(path.name, spec_dir=Path()), BATCH, site=each, command="exec work")
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        assert text.endswith("\nexec work\n"), "the worker takes the shell's place, so it comes last"
        assert not re.search(r"{{|{%|{#", text.replace("${#", "")), "no Jinja is left"


def test_a_task_of_several_nodes_is_one_process_on_each() -> None:
    shape = TaskResources(gpus=8, cpus=32, mem_mib=1024, nodes=2)
    batch = msgspec.structs.replace(BATCH, shape=shape)
    lines = [line for line in script(PLAIN.text, batch=batch).splitlines() if "--array" not in line]
    assert lines[3:9] == [
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks=2",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --cpus-per-task=32",
        "#SBATCH --gres=gpu:a100:8",
        "#SBATCH --mem=1024M",
    ]


def test_what_is_not_asked_for_is_not_in_the_header() -> None:
    bare = sbatch_options(msgspec.structs.replace(BATCH, shape=TaskResources()), SlurmOptions())
    assert {"gres", "mem", "time", "partition", "account", "qos", "constraint"}.isdisjoint(bare)
    assert {"nodelist", "exclude"}.isdisjoint(bare)


@pytest.mark.parametrize(("time_s", "minutes"), [(1, 1), (60, 1), (61, 2), (3600, 60), (3601, 61)])
def test_time_is_rounded_up_to_minutes(time_s: int, minutes: int) -> None:
    batch = msgspec.structs.replace(BATCH, shape=TaskResources(time_s=time_s))
    assert sbatch_options(batch, SITE)["time"] == minutes


def test_throttle_is_never_zero_which_slurm_takes_for_unlimited() -> None:
    assert sbatch_options(msgspec.structs.replace(BATCH, throttle=0), SITE)["array"] == "0-80%1"


def test_site_options_win_by_name_and_can_drop_ours() -> None:
    options = {"mem_per_cpu": "2G", "--comment": "x y", "exclusive": True, "nodes": False, "gpus": 2}
    ours = sbatch_options(BATCH, SITE)
    theirs = sbatch_options(BATCH, changed(SITE, options=options))
    # The same in another form takes the place of ours.
    expected = {key: value for key, value in ours.items() if key not in ("nodes", "mem", "gres")}
    more = {"mem-per-cpu": "2G", "comment": "x y", "exclusive": True, "gpus": 2}
    assert theirs == {**expected, **more}


def test_nodes_to_stay_away_from_are_added_to_those_of_the_site() -> None:
    site = changed(SITE, exclude="n[1-2]")
    batch = msgspec.structs.replace(BATCH, exclude=("n7", "n9"))
    assert sbatch_options(batch, site)["exclude"] == "n[1-2],n7,n9"
    assert sbatch_options(batch, SITE)["exclude"] == "n7,n9"
    assert sbatch_options(BATCH, site)["exclude"] == "n[1-2]"


def test_batch_that_is_not_to_be_requeued_says_so_in_place_of_the_opposite() -> None:
    once = sbatch_options(msgspec.structs.replace(BATCH, requeue=False), SITE)
    assert (once.get("requeue"), once.get("no-requeue")) == (None, True)
    again = sbatch_options(BATCH, SITE)
    assert (again.get("requeue"), again.get("no-requeue")) == (True, None)


def test_batch_that_waits_for_another_job_starts_after_it_however_it_ends() -> None:
    assert sbatch_options(msgspec.structs.replace(BATCH, after="71_3"), SITE)["dependency"] == "afterany:71_3"
    assert "dependency" not in sbatch_options(BATCH, SITE)


def test_job_that_ticks_asks_for_next_to_nothing_and_its_options_win_by_name() -> None:
    site = changed(SITE, options={"mail-type": "END"}, constraint="fast", exclude="n1")
    small = {
        "job-name": "t",
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": 1,
        "mem": "1024M",
        "time": 15,
        "partition": "gpu",
        "account": "acc",
        "chdir": "/r/50%j",
        "output": "/r/50%%j/ticks.log",
        "error": "/r/50%%j/ticks.log",
        "open-mode": "append",
        "requeue": True,
    }
    assert tick_options("t", Path("/r/50%j"), site) == small
    site = changed(site, tick_options={"partition": "cpu", "mem": None, "--comment": "x"})
    after = {"partition": "cpu", "comment": "x", "dependency": "afterany:71", "begin": "now+60"}
    expected = {key: value for key, value in small.items() if key != "mem"} | after
    assert tick_options("t", Path("/r/50%j"), site, after="71", delay_s=59.1) == expected


@pytest.mark.parametrize("key", ["job-name", "job_name", "array", "wait", "test-only", "wrap", "clusters"])
def test_options_of_a_tick_that_the_driver_relies_on_cannot_be_replaced(key: str) -> None:
    with pytest.raises(SpecError, match=rf"^cluster\.tick_options\.{key}: "):
        tick_options("t", Path("/r"), changed(SITE, tick_options={key: "x"}))


@pytest.mark.parametrize(
    "key", ["job-name", "job_name", "array", "wait", "test-only", "wrap", "clusters", "time"]
)
def test_options_that_the_driver_relies_on_cannot_be_replaced(key: str) -> None:
    with pytest.raises(SpecError, match=rf"^cluster\.options\.{key}: "):
        sbatch_options(BATCH, changed(SITE, options={key: "x"}))


def test_percent_signs_of_the_folder_are_not_replaced_in_log_names() -> None:
    options = sbatch_options(msgspec.structs.replace(BATCH, folder=Path("/r/50%j/b")), SITE)
    assert options["output"] == options["error"] == "/r/50%%j/b/logs/%a.log"
    assert options["chdir"] == "/r/50%j/b"


def test_folder_with_a_backslash_is_refused_because_slurm_could_not_log_there() -> None:
    with pytest.raises(SpecError, match="backslash"):
        sbatch_options(msgspec.structs.replace(BATCH, folder=Path("/r/a\\b")), SITE)


def test_header_quotes_the_way_sbatch_reads() -> None:
    # sbatch takes a backslash for an escape everywhere, single quotes included.
    assert header({"a": "x y", "b": 'q"q', "c": "back\\slash", "d": "it's", "e": True, "f": 7, "g": ""}) == (
        '#SBATCH --a="x y"\n#SBATCH --b="q\\"q"\n#SBATCH --c="back\\\\slash"\n#SBATCH --d="it\'s"\n'
        '#SBATCH --e\n#SBATCH --f=7\n#SBATCH --g=""'
    )


def test_option_with_a_line_break_is_refused() -> None:
    with pytest.raises(SpecError, match=r"cluster\.options\.comment: must be one line"):
        header({"comment": "x\n#SBATCH --partition=other"})


@pytest.mark.parametrize("value", [*HOSTILE, "a\\b", "two\nlines"])
def test_exported_value_reaches_the_command_unchanged(value: str) -> None:
    text = exports({"V": value}) + '\nprintf %s "$V"'
    assert subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True).stdout == value


@pytest.mark.parametrize("name", ["A B", "1A", "A-B", "", "Ä", "A=B"])
def test_export_of_an_impossible_name_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="not a name of a variable"):
        exports({name: "x"})


@pytest.mark.parametrize("part", HOSTILE)
def test_command_reaches_the_worker_as_one_folder_whatever_its_name(part: str) -> None:
    folder = Path("/r") / part / "b"
    command = worker_command("/my env/python", folder)
    assert shlex.split(command) == [
        "exec",
        "/my env/python",
        "-P",
        "-m",
        "hpcsweep.cluster.slurm.task",
        str(folder),
    ]


def test_package_that_is_not_installed_is_found_without_a_word_in_the_environment() -> None:
    command = worker_command("/usr/bin/python3", Path("/r"), import_from=Path("/my package"))
    script = "/my package/hpcsweep/bootstrap.py"
    assert shlex.split(command) == [
        "exec",
        "/usr/bin/python3",
        "-P",
        script,
        "hpcsweep.cluster.slurm.task",
        "/r",
    ]


def test_script_is_the_same_length_for_one_task_and_five_thousand() -> None:
    one, many = (
        render(PLAIN, msgspec.structs.replace(BATCH, tasks=n), site=SITE, command="exec work")
        for n in (1001, 5001)
    )
    assert len(one) == len(many)


def test_facts_are_there_for_a_site_s_own_conditions() -> None:
    facts = ["name", "folder", "tasks", "throttle", "gpus", "cpus", "mem_mib", "time_s", "lanes"]
    facts += ["partition", "account", "qos", "constraint", "gpu_type"]
    line = " ".join(f"{{{{ {fact} }}}}" for fact in facts)
    text = script(f"#!/bin/bash\n{{{{ header }}}}\n# {line} {{{{ options.time }}}}\n{{{{ command }}}}\n")
    assert "# a1b2-7 /r/batches/a1b2-7 81 16 2 8 16384 1801 1 gpu acc None None a100 31\n" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#!/bin/bash\n{{ header }}\n\n{{ comand }}\n", r"^/t/x\.sbatch:4: 'comand' is undefined$"),
        ("#!/bin/bash\n{{ header }}\n{% if gpus %}\n", r"^/t/x\.sbatch:3: Unexpected end of template"),
        ("#!/bin/bash\n{{ header }}\n{{ 1 // 0 }}\n", r"^/t/x\.sbatch:3: .*zero"),
        ("#!/bin/bash\n{{ header }}\n", r"^/t/x\.sbatch:1: uses no \{\{ command \}\}$"),
        ("#!/bin/bash\n{{ command }}\n", r"^/t/x\.sbatch:1: uses no \{\{ header \}\}$"),
        ("{{ header }}\n{{ command }}\n", r"^/t/x\.sbatch:1: sbatch wants #!/bin/bash"),
        ("#!/bin/bash\nmodule load x\n{{ header }}\n{{ command }}\n", "reads no options after a command"),
        ("#!/bin/bash\n{{ header }}\n{{ command }}\n{{ '\\r' }}", "DOS line ends"),
    ],
)
def test_wrong_template_is_refused_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        script(text)


def test_template_beside_the_spec_goes_before_one_of_ours(tmp_path: Path) -> None:
    (tmp_path / "default.sbatch").write_text("mine")
    assert read_template("default.sbatch", spec_dir=tmp_path).text == "mine"
    assert read_template("default.sbatch", spec_dir=tmp_path / "else").path.parent == packaged_templates()
    assert read_template(str(tmp_path / "default.sbatch"), spec_dir=Path("/")).text == "mine"
    assert read_template("gpu", spec_dir=tmp_path).path.name == "gpu.sbatch"


def test_missing_template_is_refused_with_the_names_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"^cluster\.template: no file .*own are: default\.sbatch, gpu\.sbatch$"
    ):
        read_template("nope.sbatch", spec_dir=tmp_path)


# --------------------------------------------------------------------------- set-up

#: Reports a module that is not there as Lmod does, and returns 1 as its last command does.
MODULE = """\
module() {
    test "$2" = cuda/12.4 && return
    echo "Lmod has detected the following error: $2 is unknown" >&2
    false
}
"""
SOURCED = {
    # A test that fails, an unset variable, a command that fails: harmless, since it ends well.
    "activate": '[ -n "" ]\nfalse\necho "${NOBODY_SET_THIS}"\ngrep -q x /dev/null\ntrue\n',
    "broken": "true\nreturn 3\n",
}


def set_up(folder: Path, *lines: str, before: str = "", shell: str = "bash") -> tuple[int, str, str]:
    """Run a script with these lines of set-up; its exit code, what it printed, and on standard error."""
    for name, text in SOURCED.items():
        (folder / name).write_text(text)
    text = f"#!/bin/{shell}\n{before}{MODULE}{setup_lines(lines, failed='exit 5')}\necho trains\n"
    path = folder / "script"
    path.write_text(text)
    done = subprocess.run(
        [shell, str(path)], cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("lines", "status", "failing"),
    [
        (["module load cuda/99.9"], 1, "module load cuda/99.9"),
        (["module load cuda/12.4", "  module load cuda/99.9  # mine"], 1, "  module load cuda/99.9  # mine"),
        (["module load cuda/12.4\nmodule load cuda/99.9"], 1, "module load cuda/99.9"),
        (["module load cuda/99.9; echo and on"], 1, "module load cuda/99.9; echo and on"),
        (["for m in cuda/12.4 cuda/99.9; do", "  module load $m", "done"], 1, "  module load $m"),
        (["source ./broken"], 3, "source ./broken"),
        (["source ./nowhere"], 1, "source ./nowhere"),
        (["conda-is-not-here activate"], 127, "conda-is-not-here activate"),
        (["cd /no/where"], 1, "cd /no/where"),
        (["(exit 4)"], 4, "(exit 4)"),
    ],
)
def test_the_line_of_the_set_up_that_fails_ends_the_job_and_is_named(
    tmp_path: Path, lines: list[str], status: int, failing: str
) -> None:
    code, printed, told = set_up(tmp_path, *lines)
    assert (code, printed) == (5, "")
    assert told.splitlines()[-1] == (f"[hpcsweep] cluster.setup: failed with exit status {status}: {failing}")


@pytest.mark.parametrize(
    "lines",
    [
        ["module load cuda/12.4"],
        ["module load cuda/99.9 || true"],
        ["source ./activate", ". ./activate"],
        ["if [ -f nowhere ]; then", "  source nowhere", "fi"],
        ["[ -f nowhere ] && source nowhere"],
        ["module load cuda/99.9 && echo more"],  # as with set -e
        ["export X=$(false)", "unset NOBODY", 'echo "$NOBODY" >/dev/null'],
        ["! true"],
        ["case x in", "  x) true ;;", "esac"],
        ["cat <<EOF >/dev/null", "it's", "EOF"],
    ],
)
@pytest.mark.parametrize("before", ["", "set -u\n"], ids=["", "set -u"])
def test_what_fails_harmlessly_in_the_set_up_lets_the_training_begin(
    tmp_path: Path, lines: list[str], before: str
) -> None:
    if before and any("NOBODY" in line or "activate" in line for line in lines):
        before = ""  # which the template itself would not survive
    code, printed, _ = set_up(tmp_path, *lines, before=before)
    assert (code, printed.split()) == (0, ["trains"])


def test_a_template_s_own_trap_is_there_again_after_the_set_up(tmp_path: Path) -> None:
    template = "trap 'echo \"mine: $?\"' ERR\n"
    code, printed, _ = set_up(tmp_path, "module load cuda/12.4", before=template)
    assert (code, printed) == (0, "trains\n")
    (tmp_path / "script").write_text((tmp_path / "script").read_text() + "false\ntrue\n")
    done = subprocess.run(["bash", "script"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "trains\nmine: 1\n"


def test_another_shell_runs_the_set_up_as_it_is(tmp_path: Path) -> None:
    assert set_up(tmp_path, "true", "false", shell="sh")[:2] == (0, "trains\n")
