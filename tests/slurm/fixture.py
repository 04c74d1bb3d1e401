"""A private Slurm cluster on this machine: real daemons, its own ports, folder and munge socket.

Nothing is shared with a Slurm that the machine may already run, nor with a second private one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

#: How long a daemon may take for anything, on a machine that is busy.
WAIT_S = 120.0
NODES = ("n1", "n2", "n3", "n4")
GPUS_PER_NODE = 4
CPUS_PER_NODE = 16

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "setpriv")
#: Needed beside them where it keeps accounts.
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacctmgr", "sacct")

#: Debian keeps the daemons where a plain user's PATH does not look.
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")

CONF = """\
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge/socket,cred_expire={requeue_wait}
CredType=cred/munge
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool/%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/%n.pid
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=20
InactiveLimit=0
KillWait={kill_wait}
MinJobAge={min_job_age}
MaxJobCount={max_job_count}
MaxArraySize={max_array_size}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{accounting}
{memory}
GresTypes=gpu
{extra}
{nodes}
PartitionName=gpu Nodes=n[1-4] Default=YES PriorityTier=1 MaxTime=1-0 DefaultTime=60 State=UP
PartitionName=urgent Nodes=n[1-4] PriorityTier=10 MaxTime=1-0 DefaultTime=60 State=UP
"""

NO_MEMORY_CONF = "JobAcctGatherType=jobacct_gather/none"
MEMORY_CONF = """\
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
"""
NO_ACCOUNTING_CONF = "AccountingStorageType=accounting_storage/none"
ACCOUNTING_CONF = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={dir}/munge/socket
AccountingStorageEnforce=limits,qos
AccountingStorageTRES=gres/gpu
"""
DBD_CONF = """\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge/socket
PidFile={dir}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
"""
#: A database that starts in a second: small files, nothing forced to disk, no port.
DATABASE_OPTIONS = (
    "--no-defaults",
    "--user=root",
    "--innodb-buffer-pool-size=8M",
    "--innodb-log-file-size=4M",
    "--innodb-flush-method=nosync",
)
SERVER_OPTIONS = (
    "--skip-networking",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-fast-shutdown=2",
)
ACCOUNT = "lab"


class JobRow(NamedTuple):
    """One line of squeue, pending array tasks each on their own."""

    job: str
    task: str
    state: str
    reason: str
    node: str
    name: str


#: States of a start that has not ended, as far as the accounts know.
UNSETTLED = ("PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "RESIZING")


class AccountRow(NamedTuple):
    """One start of a task in the accounts."""

    task: str
    state: str
    seconds: int
    gpus: int
    node: str
    partition: str


def missing(*, accounting: bool = False) -> str | None:
    """What this machine lacks for a private cluster, with or without accounts; None if nothing."""
    if os.geteuid() != 0:
        return "the daemons of a private Slurm cluster need root"
    programs, packages = list(PROGRAMS), "slurmctld slurmd slurm-client munge"
    if accounting:
        programs += ACCOUNTING_PROGRAMS
        packages += " slurmdbd mariadb-server-core mariadb-client-core"
    path = _path()
    absent = [program for program in programs if shutil.which(program, path=path) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: apt install {packages})"
    return None


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *SBIN])


def _gpus_of(tres: str) -> int:
    """2 of `billing=1,cpu=1,gres/gpu=2,node=1`."""
    counts = dict(each.split("=") for each in tres.split(",") if each)
    return int(counts.get("gres/gpu", 0))


def _reserve_ports(n: int) -> dict[int, int]:
    """Free ports, each with the descriptor of a locked file: other clusters start at the same time.

    They are outside of the range from which clients get theirs.
    """
    first_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    folder = Path(tempfile.gettempdir(), "hpcsweep-slurm-ports")
    folder.mkdir(exist_ok=True)
    reserved: dict[int, int] = {}
    while len(reserved) < n:
        port = random.randrange(10_000, first_of_clients)
        lock = os.open(folder / str(port), os.O_CREAT | os.O_WRONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(lock)
        else:
            reserved[port] = lock
    return reserved


def _wait(what: str, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"private Slurm: {what}: not within {WAIT_S:g} s")
        time.sleep(0.1)


class PrivateSlurm:
    """Four nodes of four GPUs and 16 CPUs, partitions `gpu` (default) and `urgent` (preempts it).

    Ends only processes that it started. Daemons die with the process that made them.

    Args:
        max_array_size: `MaxArraySize`; the largest index is one less.
        max_job_count: `MaxJobCount`.
        min_job_age: Seconds until an ended job vanishes from squeue.
        kill_wait: Seconds between TERM and KILL.
        requeue_wait: Seconds before a requeued job may start again; Slurm's default is 120.
        accounting: It keeps accounts in a database of its own, and enforces limits by them.
        memory_limits: It looks each second whether a task takes more memory than it may, and kills it.
        extra: Further lines of slurm.conf.
    """

    def __init__(
        self,
        *,
        max_array_size: int = 1001,
        max_job_count: int = 10_000,
        min_job_age: int = 300,
        kill_wait: int = 5,
        requeue_wait: int = 5,
        accounting: bool = False,
        memory_limits: bool = False,
        extra: str = "",
    ) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="hpcsweep-slurm-"))
        self.conf = self.dir / "slurm.conf"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._accounting = accounting
        self._ports = _reserve_ports(2 + len(NODES))
        port, self._dbd_port, *node_ports = self._ports
        host = socket.gethostname().split(".")[0]
        lines = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port}"
            f" CPUs={CPUS_PER_NODE} RealMemory=64000 Gres=gpu:a100:{GPUS_PER_NODE} State=UNKNOWN"
            for node, node_port in zip(NODES, node_ports, strict=True)
        ]
        accounts = ACCOUNTING_CONF if accounting else NO_ACCOUNTING_CONF
        self._conf_text = CONF.format(
            host=host,
            port=port,
            dir=self.dir,
            nodes="\n".join(lines),
            max_array_size=max_array_size,
            max_job_count=max_job_count,
            min_job_age=min_job_age,
            kill_wait=kill_wait,
            requeue_wait=requeue_wait,
            accounting=accounts.format(port=self._dbd_port, dir=self.dir),
            memory=MEMORY_CONF if memory_limits else NO_MEMORY_CONF,
            extra=extra,
        )

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Bring it up; back when every node is idle.

        Raises:
            RuntimeError: It did not come up; the message holds the daemons' last log lines.
        """
        try:
            self._write_files()
            self._start_munged()
            if self._accounting:
                self._start_database()
                self._start_accounting()
            self.start_controller()
            for node in NODES:
                self.start_node(node)
            _wait("all nodes idle", self.idle)
        except BaseException as error:
            logs = self.last_log_lines()
            self.stop()
            raise RuntimeError(f"{error}\n{logs}") from error

    def stop(self) -> None:
        """End every process that it started and remove its folder."""
        if self._alive("slurmctld"):
            with contextlib.suppress(TimeoutError, subprocess.SubprocessError):
                self.cancel_all()
        # The newest first: each can still tell those that it reports to.
        for name in reversed([name for name in self._processes if name != "munged"]):
            self._end(name)
        for pid in self._job_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._end("munged")
        while self._ports:
            os.close(self._ports.popitem()[1])
        shutil.rmtree(self.dir, ignore_errors=True)

    def reset(self) -> None:
        """Daemons that a test ended are started again, all jobs cancelled, all nodes idle."""
        if not self._alive("slurmctld"):
            self.start_controller()
        for node in NODES:
            if not self._alive(node):
                self.start_node(node)
        self.cancel_all()
        _wait("all nodes idle again", self._resumed)

    def _resumed(self) -> bool:
        """Whether all nodes are idle; those that are down are asked to resume, once they have registered."""
        for node, state in self._node_states().items():
            if state.startswith(("down", "drain")):
                self.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        return self.idle()

    def stop_controller(self) -> None:
        """End slurmctld; nodes and their jobs go on."""
        self._end("slurmctld")

    def start_controller(self) -> None:
        """Start slurmctld (it reads the state that it left); back when it answers."""
        self._spawn("slurmctld", ["slurmctld", "-D", "-f", str(self.conf)])
        _wait("slurmctld answers", lambda: self._answers("slurmctld", "scontrol", "ping"))

    def kill_node(self, node: str) -> None:
        """KILL the node's slurmd at once; the processes of its jobs live on."""
        self._processes[node].kill()
        self._processes.pop(node).wait()

    def start_node(self, node: str) -> None:
        """Start the node's slurmd."""
        self._spawn(node, ["slurmd", "-D", "-N", node, "-f", str(self.conf)])

    # ------------------------------------------------------------------ use

    @property
    def env(self) -> dict[str, str]:
        """The environment for a subprocess that is to see this cluster and no other."""
        foreign = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_")
        env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        return {**env, "SLURM_CONF": str(self.conf), "LC_ALL": "C"}

    def run(self, *argv: str, check: bool = True, timeout_s: float = 120) -> str:
        """Run a client program; its stdout. With `check`, a failure raises with its stderr."""
        done = subprocess.run(
            argv, env=self.env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def squeue(self, *, states: str = "all") -> list[JobRow]:
        """Every array task and job that the controller knows, in these states."""
        text = self.run("squeue", "-h", "-r", f"--states={states}", "-o", "%F\t%K\t%T\t%r\t%N\t%j")
        return [JobRow(*line.split("\t", 5)) for line in text.splitlines()]

    def limit_submits(self, *, association: int | None = None, qos: int | None = None) -> None:
        """Let so many tasks of the user wait or run, by association and by QOS; None: any number."""
        user = ("modify", "user", "root", "where", f"account={ACCOUNT}", "set")
        self.sacctmgr(*user, f"maxsubmitjobs={-1 if association is None else association}")
        self.sacctmgr("modify", "qos", "normal", "set", f"maxsubmitjobsperuser={-1 if qos is None else qos}")

    def sacctmgr(self, *words: str) -> None:
        """Change the accounts; it counts at once."""
        self.run("sacctmgr", "--immediate", "--quiet", *words)

    def accounted(self, *jobs: str) -> list[AccountRow]:
        """Every start of every task of these jobs, as the accounts have it."""
        argv = ["sacct", "-X", "-D", "-n", "-P", f"--jobs={','.join(jobs)}"]
        text = self.run(*argv, "--format=JobID,State,ElapsedRaw,AllocTRES,NodeList,Partition")
        rows = (line.split("|") for line in text.splitlines())
        return [
            AccountRow(job, state, int(seconds), _gpus_of(tres), node, partition)
            for job, state, seconds, tres, node, partition in rows
        ]

    def settled(self, *jobs: str) -> list[AccountRow]:
        """The same of jobs that have ended, as soon as the accounts have their ends: they come later."""
        rows: list[AccountRow] = []

        def are_there() -> bool:
            rows[:] = self.accounted(*jobs)
            known = {row.task.partition("_")[0] for row in rows}
            return known >= set(jobs) and not any(row.state in UNSETTLED for row in rows)

        _wait(f"the accounts have the ends of {', '.join(jobs)}", are_there)
        return rows

    def cancel_all(self) -> None:
        """Cancel every job, and those that they submit meanwhile; back when none is active any more."""
        active = "PENDING,RUNNING,SUSPENDED,COMPLETING,CONFIGURING,REQUEUED,REQUEUE_HOLD,STAGE_OUT"
        left: list[JobRow] = []

        def none_is_left() -> bool:
            left[:] = self.squeue(states=active)
            if left:
                self.run("scancel", f"--user={os.geteuid()}", check=False)
            return not left

        try:
            _wait("all jobs ended", none_is_left)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {left}\n{self.last_log_lines()}") from error

    def idle(self) -> bool:
        """Whether every node is idle."""
        states = self._node_states()
        return len(states) == len(NODES) and set(states.values()) == {"idle"}

    def last_log_lines(self, n: int = 15) -> str:
        """The last lines that each daemon wrote."""
        logs = sorted(self.dir.glob("*.log"))
        texts = [(log.name, log.read_text(errors="replace").splitlines()[-n:]) for log in logs]
        return "\n".join(f"--- {name}\n" + "\n".join(lines) for name, lines in texts)

    # ------------------------------------------------------------------ inside

    def _write_files(self) -> None:
        for sub in ("state", "spool", "munge", *(f"spool/{node}" for node in NODES)):
            (self.dir / sub).mkdir(parents=True, exist_ok=True)
        self.dir.chmod(0o755)
        devices = [self.dir / f"gpu{i}" for i in range(GPUS_PER_NODE)]
        for device in devices:
            if not device.exists():
                os.mknod(device, 0o20666, os.makedev(1, 3))  # a character device, as a GPU is
        self.conf.write_text(self._conf_text)
        (self.dir / "gres.conf").write_text(
            f"AutoDetect=off\nNodeName=n[1-4] Name=gpu Type=a100 File={self.dir}/gpu[0-{GPUS_PER_NODE - 1}]\n"
        )

    def _start_munged(self) -> None:
        folder = self.dir / "munge"
        key = folder / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        argv = ["munged", "--foreground"]
        argv += [f"--{name}-file={folder / name}" for name in ("key", "pid", "log", "seed")]
        argv += [f"--socket={folder / 'socket'}", "--num-threads=2"]
        user: str | None = "munge"
        try:
            entry = pwd.getpwnam("munge")
        except KeyError:
            user = None
        else:
            for path in (folder, key):
                os.chown(path, entry.pw_uid, entry.pw_gid)
        folder.chmod(0o755)
        self._spawn("munged", argv, user=user)
        probe = ("munge", "-n", f"--socket={folder / 'socket'}")
        _wait("munged answers", lambda: self._answers("munged", *probe))

    def _start_database(self) -> None:
        folder = self.dir / "database"
        folder.mkdir()
        options = [*DATABASE_OPTIONS, f"--datadir={folder / 'data'}"]
        # By the socket authentication only root, without a password, may enter.
        argv = ["mariadb-install-db", *options, "--auth-root-authentication-method=socket"]
        argv += ["--skip-test-db", "--skip-name-resolve"]
        done = subprocess.run(
            argv, env={**self.env, "PATH": _path()}, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            raise RuntimeError(f"mariadb-install-db: {done.stdout}{done.stderr}")
        socket_path = folder / "socket"
        self._spawn("mariadbd", ["mariadbd", *options, *SERVER_OPTIONS, f"--socket={socket_path}"])
        _wait("the database is there", socket_path.exists)

    def _start_accounting(self) -> None:
        conf = self.dir / "slurmdbd.conf"
        conf.write_text(DBD_CONF.format(port=self._dbd_port, dir=self.dir))
        conf.chmod(0o600)
        self._spawn("slurmdbd", ["slurmdbd", "-D"], MYSQL_UNIX_PORT=str(self.dir / "database/socket"))
        _wait("slurmdbd answers", lambda: self._answers("slurmdbd", "sacctmgr", "show", "cluster"))
        self.sacctmgr("add", "cluster", "private")
        self.sacctmgr("add", "account", ACCOUNT)
        self.sacctmgr("add", "user", "root", f"account={ACCOUNT}")
        self.sacctmgr("modify", "user", "root", "set", f"defaultaccount={ACCOUNT}")

    def _spawn(self, name: str, argv: list[str], *, user: str | None = None, **env: str) -> None:
        # The pid stays the same through setpriv, and a test run that is killed leaves no daemons.
        argv = ["setpriv", "--pdeathsig", "TERM", *argv]
        if user is not None:
            argv[1:1] = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        with (self.dir / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                argv,
                env={**self.env, "PATH": _path(), **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.dir,
                start_new_session=True,
            )

    def _alive(self, name: str) -> bool:
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def _answers(self, daemon: str, *argv: str) -> bool:
        if not self._alive(daemon):
            raise RuntimeError(f"private Slurm: {daemon} ended by itself")
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(argv, env=self.env, capture_output=True, timeout=5, check=False)
            return done.returncode == 0 and b"DOWN" not in done.stdout
        return False

    def _node_states(self) -> Mapping[str, str]:
        rows = self.run("sinfo", "-h", "-N", "-o", "%N %T", check=False).splitlines()
        return dict(row.split(maxsplit=1) for row in rows if " " in row)

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _job_processes(self) -> Iterator[int]:
        """Step daemons and job processes of this cluster that outlived their slurmd."""
        ours = f"SLURM_CONF={self.conf}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environ = (folder / "environ").read_bytes().split(b"\0")
                stepd = (folder / "comm").read_text().startswith("slurmstepd")
                in_job = any(each.startswith(b"SLURM_JOB_ID=") for each in environ)
                if ours in environ and (stepd or in_job) and int(folder.name) != os.getpid():
                    yield int(folder.name)
