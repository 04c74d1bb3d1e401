"""qsub, qstat, qselect, qdel and qalter in one program, for the PATH: it really runs the subjobs of arrays.

The folder STATE holds a file for each job; a process of its own runs the subjobs of each.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STATE = Path(os.environ["FAKE_PBS"])


def load(path: Path) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(path.read_text())
    return job


def save(path: Path, value: object) -> None:
    new = path.with_suffix(f".{os.getpid()}.new")
    new.write_text(json.dumps(value))
    new.rename(path)


def number_of(job: str) -> str:
    return str(re.findall("[0-9]+", job)[0])


def qsub(script: str) -> None:
    lines = [line[5:] for line in Path(script).read_text().splitlines() if line.startswith("#PBS ")]
    given = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if len(line.split()) > 1}
    if "nowhere" in given.get("-q", ""):
        sys.exit("qsub: Unknown queue")
    array = re.fullmatch(r"0-(\d+)%(\d+)", given["-J"]) if "-J" in given else None
    if array and int(array[1]) < 1:
        sys.exit("qsub: illegal -J value")
    number = 1 + len(list(STATE.glob("*.job")))
    tasks = int(array[1]) + 1 if array else 1
    job = {"number": number, "name": given["-N"], "array": bool(array), "script": script, "log": given["-o"]}
    job |= {"cap": int(array[2]) if array else 1, "tasks": [{"job_state": "Q"} for _ in range(tasks)]}
    save(STATE / f"{number}.job", job)
    subprocess.Popen(
        [sys.executable, __file__, "serve", str(number)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    print(f"{number}{'[]' if array else ''}.fake")


def serve(number: str) -> None:
    """Run the subjobs of a job, as many at a time as its cap allows."""
    path = STATE / f"{number}.job"
    running: dict[int, subprocess.Popen[bytes]] = {}
    while True:
        job = load(path)
        for index, task in enumerate(job["tasks"]):
            deleted = (STATE / f"{number}.{index}.deleted").exists()
            if index in running:
                code = running[index].poll()
                if code is not None:
                    del running[index]
                    task |= {"job_state": "F", "Exit_status": code if code >= 0 else 256 - code}
                elif deleted:
                    os.killpg(running[index].pid, signal.SIGTERM)
            elif task["job_state"] == "Q" and deleted:
                task["job_state"] = "F"
            elif task["job_state"] == "Q" and len(running) < cap(job):
                running[index] = start(job, index)
                task |= {"job_state": "R", "exec_host": "n1/0"}
        save(path, job)
        if all(task["job_state"] == "F" for task in job["tasks"]):
            return
        time.sleep(0.05)


def cap(job: dict[str, Any]) -> int:
    changed = STATE / f"{job['number']}.cap"
    return int(changed.read_text()) if changed.exists() else job["cap"]


def start(job: dict[str, Any], index: int) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PBS_JOBID": full_id(job, index)}
    if job["array"]:
        env["PBS_ARRAY_INDEX"] = str(index)
    with open(job["log"].replace("^array_index^", str(index)), "ab") as log:
        return subprocess.Popen(
            ["bash", job["script"]],
            env=env,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def full_id(job: dict[str, Any], index: int) -> str:
    return f"{job['number']}[{index}].fake" if job["array"] else f"{job['number']}.fake"


def qstat(arguments: list[str]) -> None:
    if "-B" in arguments:
        print(
            "Server: fake\n    max_array_size = 50" if "-f" in arguments else "Server Max\n---- ---\nfake 0"
        )
        return
    shown: dict[str, Any] = {}
    unknown = False
    for name in arguments[arguments.index("json") + 1 :]:
        path = STATE / f"{number_of(name)}.job"
        if not path.exists():
            print(f"qstat: Unknown Job Id {name}", file=sys.stderr)
            unknown = True
            continue
        job = load(path)
        if job["array"]:
            shown[f"{job['number']}[].fake"] = {"job_state": "B"}
        shown |= {full_id(job, index): task for index, task in enumerate(job["tasks"])}
    if shown:
        print(json.dumps({"pbs_version": "23", "Jobs": shown}))
    sys.exit(153 if unknown else 0)


def qselect(name: str) -> None:
    for path in sorted(STATE.glob("*.job")):
        job = load(path)
        if job["name"] == name:
            print(f"{job['number']}{'[]' if job['array'] else ''}.fake")


def qdel(names: list[str]) -> None:
    gone = False
    for name in names:
        number, index = number_of(name), (re.findall(r"\[(\d+)\]", name) or ["0"])[0]
        path = STATE / f"{number}.job"
        if not path.exists() or load(path)["tasks"][int(index or 0)]["job_state"] == "F":
            print(f"qdel: Job has finished {name}", file=sys.stderr)
            gone = True
        else:
            (STATE / f"{number}.{index or 0}.deleted").touch()
    sys.exit(35 if gone else 0)


def main(program: str, arguments: list[str]) -> None:
    match program:
        case "qsub":
            qsub(arguments[-1])
        case "qstat":
            qstat(arguments)
        case "qselect":
            qselect(arguments[arguments.index("-N") + 1])
        case "qdel":
            qdel(arguments)
        case "qalter":
            (STATE / f"{number_of(arguments[-1])}.cap").write_text(arguments[1].partition("=")[2])


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        main(sys.argv[1], sys.argv[2:])
