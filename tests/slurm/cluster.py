"""A real Slurm cluster on one machine: munge, MariaDB, slurmdbd, slurmctld and several slurmd on loopback.

    python tests/slurm/cluster.py install    # Debian's packages, where root and apt-get are there
    python tests/slurm/cluster.py up [--root FOLDER] [--nodes 2] [--preempt-signal] [--memory-limits]
    export SLURM_CONF=FOLDER/slurm.conf      # `up` prints it; sbatch, squeue, sacct then speak to this cluster
    python tests/slurm/cluster.py status
    python tests/slurm/cluster.py down

Needs root and Debian's packages slurm-wlm, slurmdbd, munge and mariadb-server, but neither systemd nor any file
outside FOLDER: keys, ports, sockets, logs and the database are the cluster's own, and `down` leaves nothing behind.

Nodes have imaginary processors, memory and GPUs (counted, never looked for). Partitions: `main` (default) and `spot`,
whose jobs are requeued for a job of `urgent`, and `scrap`, whose jobs are cancelled for one. Without
`--preempt-signal` preemption comes without warning, as by default; with it, jobs get SIGTERM (and the signal of their
`--signal`) and 30 seconds. With `--memory-limits` the kernel holds jobs to the memory that they asked for, but to
400 MB at least, where it has the memory controller of control groups, version 1; without it memory is a number only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from memory_limits import MemoryLimits

PACKAGES = ("slurm-wlm", "slurmdbd", "munge", "mariadb-server")
DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "squeue", "sacct", "sinfo", "scancel", "scontrol", "srun", "sacctmgr", "mariadb-install-db")
DEFAULT_ROOT = Path("/tmp/promptecho-slurm")
WAIT_S = 180.0  # only a failure takes so long, also on a busy machine


class ClusterError(RuntimeError):
    """The cluster can't be started or stopped; one line with the culprit, and the end of its log."""


def missing() -> list[str]:
    """What this machine lacks for a test cluster; empty if it can have one."""
    lacks = [name for name in (*DAEMONS, *CLIENTS) if shutil.which(name, path=_path()) is None]
    return lacks if os.geteuid() == 0 else ["root rights", *lacks]


def own_plugins() -> Path | None:
    """The plugins of a Slurm that other_slurm.py has unpacked, if PATH finds that one; None for an installed Slurm."""
    found = shutil.which("slurmctld", path=_path())
    folder = Path(found).parent.parent / "plugins" if found else None
    return folder if folder and folder.is_dir() else None


def slurm_version() -> tuple[int, int]:
    """Of the Slurm that PATH finds: (22, 5) for 22.05.8."""
    done = subprocess.run(["slurmctld", "-V"], env={**os.environ, "PATH": _path()}, capture_output=True, text=True)
    year, month = done.stdout.split()[-1].split(".")[:2]
    return int(year), int(month)


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def install() -> None:
    """Install what a test cluster needs; says loudly why not where it can't. Nothing is started."""
    if not missing():
        return
    if os.geteuid() or not shutil.which("apt-get"):
        print(f"NO SLURM CLUSTER: this machine lacks {', '.join(missing())}, and apt-get as root", file=sys.stderr)
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", "-qq", *words], env=environment, capture_output=True, text=True)
        if done.returncode:
            end = " | ".join(done.stderr.strip().splitlines()[-3:])
            print(f"NO SLURM CLUSTER: apt-get {words[0]}: exit code {done.returncode}: {end}", file=sys.stderr)
            return


@dataclass(frozen=True)
class Cluster:
    """A cluster in the folder `root`; running or not is read from its pid files."""

    root: Path = DEFAULT_ROOT

    @property
    def conf(self) -> Path:
        return self.root / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's commands need to speak to this cluster and no other."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        return {**kept, "SLURM_CONF": str(self.conf), "PATH": _path()}

    def run(self, *command: str | Path, check: bool = True, timeout: float = 60) -> str:
        """A Slurm command's standard output."""
        done = subprocess.run(
            [str(word) for word in command], env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        if check and done.returncode:
            words = " ".join(map(str, command))
            raise ClusterError(f"{words}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    # Life.

    def up(
        self, nodes: int = 2, cpus: int = 8, gpus: int = 2, preempt_signal: bool = False, max_array_size: int = 101,
        memory_limits: bool = False,
    ) -> None:  # fmt: skip
        """Start all daemons and wait until every node is idle.

        Raises:
            ClusterError: something is missing, runs already, or does not come up.
        """
        lacks = missing()
        if lacks:
            raise ClusterError(f"no test cluster here: this machine lacks {', '.join(lacks)}")
        if self.root.exists():
            raise ClusterError(f"{self.root}: exists; `cluster.py down --root {self.root}` removes it")
        # Root's own, because the keys of the cluster lie in it.
        self.root.mkdir(parents=True, mode=0o755)
        for name in ("log", "spool", "state", "db", "tmp", "munge", "pid"):
            (self.root / name).mkdir(mode=0o755)
        try:
            self._write(nodes, cpus, gpus, preempt_signal, max_array_size)
            if memory_limits:
                MemoryLimits(self.root).set_up(slurm_version())  # an OSError where the machine can't
            self.start("munged")
            self._start_database()
            self.start("slurmdbd")
            self._accounts()
            self.start("slurmctld")
            for node in self.nodes():
                self.start(f"slurmd.{node}")
            self.wait(self.all_idle, "all nodes idle")
        except BaseException:
            self.down(keep_logs=True)
            raise

    def down(self, keep_logs: bool = False) -> None:
        """Stop everything that runs here, jobs included, and remove the folder (with `keep_logs`: all but its logs)."""
        if self.conf.exists() and self.alive("slurmctld"):
            with contextlib.suppress(ClusterError, subprocess.TimeoutExpired):
                self.run("scancel", "--state=PENDING,RUNNING,SUSPENDED", "--user", "root", timeout=20)
                self.wait(lambda: not self.run("squeue", "-h"), "an empty queue", 20)
        names = [path.stem for path in sorted((self.root / "pid").glob("*.pid"))] if self.root.exists() else []
        last = ["slurmctld", "slurmdbd", "mariadbd", "munged"]
        for name in [*(n for n in names if n not in last), *last]:
            with contextlib.suppress(ClusterError):
                self.stop(name)
        for pid in self._leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not self.root.exists():
            return
        MemoryLimits(self.root).remove()
        for entry in self.root.iterdir():
            if keep_logs and entry.name == "log":
                continue
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if not keep_logs:
            self.root.rmdir()

    def nodes(self) -> list[str]:
        return [
            line.split()[0].split("=")[1] for line in self.conf.read_text().splitlines() if line[:10] == "NodeName=n"
        ]

    def start(self, name: str, before: Sequence[str] = ()) -> None:
        """Start one daemon: munged, mariadbd, slurmdbd, slurmctld or slurmd.NODE; `before` runs it."""
        pid = self.root / "pid" / f"{name}.pid"
        log = self.root / "log" / f"{name}.log"
        kind, _, node = name.partition(".")
        plugins = own_plugins()
        command: list[str | Path] = {
            "munged": [
                "munged", "--foreground", "--force", "--key-file", self.root / "munge/key", "--socket",
                self.root / "munge/socket", "--pid-file", self.root / "munge/pid", "--seed-file",
                self.root / "munge/seed", "--log-file", self.root / "log/munge.log",
            ],
            "mariadbd": ["mariadbd", f"--defaults-file={self.root / 'my.cnf'}"],
            "slurmdbd": ["slurmdbd", "-D"],
            "slurmctld": ["slurmctld", "-D", "-f", self.conf],
            "slurmd": [
                "slurmd", "-D", "-f", self.conf, "-N", node,
                *(["-d", plugins.parent / "bin/slurmstepd"] if plugins else []),
            ],
        }[kind]  # fmt: skip
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [*before, *map(str, command)], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                env=self.environment, cwd=self.root, start_new_session=True,
            )  # fmt: skip
        pid.write_text(str(process.pid))
        _STARTED.append(process)
        ready: Callable[[], bool] = {
            "munged": lambda: (self.root / "munge/socket").is_socket(),
            "mariadbd": lambda: (self.root / "db.socket").is_socket(),
            "slurmdbd": lambda: self._answers("sacctmgr", "-n", "list", "cluster"),
            "slurmctld": lambda: self._answers("scontrol", "ping") and "UP" in self.run("scontrol", "ping"),
            "slurmd": lambda: True,
        }[kind]
        self.wait(lambda: ready() or not self.alive(name), f"{name} to answer")
        if not self.alive(name):
            raise ClusterError(f"{name} has ended: {tail(log)}")

    def stop(self, name: str, number: int = signal.SIGTERM, timeout: float = 60) -> None:
        """Send one daemon a signal and wait until it is gone; SIGKILL for the one that does not go."""
        pid = self.pid(name)
        if pid is None or not self.alive(name):
            return
        os.kill(pid, number)
        try:
            self.wait(lambda: not self.alive(name), f"{name} to end", timeout)
        except ClusterError:
            os.kill(pid, signal.SIGKILL)
            self.wait(lambda: not self.alive(name), f"{name} to end", timeout)

    def pid(self, name: str) -> int | None:
        path = self.root / "pid" / f"{name}.pid"
        return int(path.read_text()) if path.exists() else None

    def alive(self, name: str) -> bool:
        pid = self.pid(name)
        if pid is None:
            return False
        for process in _STARTED:  # reaps our own children, which would stay as zombies
            if process.pid == pid:
                return process.poll() is None
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    def wait(self, condition: Callable[[], bool], what: str, timeout: float = WAIT_S) -> None:
        """Poll until `condition()`.

        Raises:
            ClusterError: not within `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                nodes = self.nodes() if self.conf.exists() else []
                states = ", ".join(f"{node} {self.state_of(node)}" for node in nodes)
                raise ClusterError(f"{self.root}: waited {timeout:.0f} s for {what}; {states}")
            time.sleep(0.1)

    # Files.

    def _write(self, nodes: int, cpus: int, gpus: int, preempt_signal: bool, max_array_size: int) -> None:
        root, host = self.root, socket.gethostname()
        ctld, dbd, db, *ports = free_ports(3 + nodes)
        key = root / "munge/key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        password = secrets.token_hex(16)
        self._private("password", password)
        self._private(
            "my.cnf",
            f"[mariadbd]\ndatadir={root}/db\nsocket={root}/db.socket\npid-file={root}/munge/db.pid\nport={db}\n"
            f"bind-address=127.0.0.1\nuser=root\nskip-name-resolve\nplugin-dir=/usr/lib/mysql/plugin\n"
            # Of its own: a server that starts removes what looks like its temporary tables, another's too.
            f"tmpdir={root}/tmp\n"
            "innodb_buffer_pool_size=64M\ninnodb_log_file_size=16M\ninnodb_lock_wait_timeout=900\n"
            "innodb_flush_log_at_trx_commit=0\nperformance_schema=off\n",
        )
        self._private(
            "slurmdbd.conf",
            f"AuthType=auth/munge\nAuthInfo=socket={root}/munge/socket\nDbdHost=localhost\nDbdAddr=127.0.0.1\n"
            f"DbdPort={dbd}\nSlurmUser=root\nLogFile={root}/log/slurmdbd.log\nPidFile={root}/munge/slurmdbd.pid\n"
            f"StorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\nStoragePort={db}\nStorageUser=slurm\n"
            f"StoragePass={password}\nStorageLoc=slurm_acct\n",
        )
        version, plugins = slurm_version(), own_plugins()
        if plugins:
            with (root / "slurmdbd.conf").open("a") as file:
                file.write(f"PluginDir={plugins}\n")
        slurmctld_parameters = "enable_configless,preempt_send_user_signal" if preempt_signal else "enable_configless"
        grace = " GraceTime=30" if preempt_signal else ""
        lines = [
            "ClusterName=promptecho", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmctldPort={ctld}", "SlurmUser=root",
            "AuthType=auth/munge", f"AuthInfo=socket={root}/munge/socket,cred_expire=5", "CredType=cred/munge",
            f"StateSaveLocation={root}/state", f"SlurmdSpoolDir={root}/spool/%n",
            f"SlurmctldPidFile={root}/munge/slurmctld.pid", f"SlurmdPidFile={root}/munge/slurmd.%n.pid",
            f"SlurmctldLogFile={root}/log/slurmctld.log", f"SlurmdLogFile={root}/log/slurmd.%n.log",
            "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none", "SwitchType=switch/none", "MpiDefault=none",
            "JobAcctGatherType=jobacct_gather/none", "ReturnToService=2", "SlurmdParameters=config_overrides",
            f"SlurmctldParameters={slurmctld_parameters}", "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU_Memory", "DefMemPerCPU=500", "GresTypes=gpu", f"MaxArraySize={max_array_size}",
            "PreemptType=preempt/partition_prio", "PreemptMode=REQUEUE", "JobRequeue=1", "MinJobAge=600", "KillWait=5",
            "SlurmdTimeout=10", "SlurmctldTimeout=10", "InactiveLimit=0", "MessageTimeout=10",
            "UnkillableStepTimeout=120",
            "SchedulerType=sched/backfill",
            "SchedulerParameters=batch_sched_delay=0,sched_min_interval=200000,bf_interval=1,sched_interval=2",
            "AccountingStorageType=accounting_storage/slurmdbd", "AccountingStorageHost=127.0.0.1",
            # The socket for accounting connections, which don't read AuthInfo.
            f"AccountingStoragePort={dbd}", f"AccountingStoragePass={root}/munge/socket",
            "AccountingStorageEnforce=associations,limits,qos",
            "AccountingStoreFlags=job_comment" if version >= (21, 8) else "AccountingStoreJobComment=YES",
            "AccountingStorageTRES=gres/gpu",
            *([f"PluginDir={plugins}"] if plugins else []),
            *(
                f"NodeName=n{i + 1} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=64000 "
                f"Gres=gpu:{gpus}"
                for i, port in enumerate(ports)
            ),
            "PartitionName=main Nodes=ALL Default=YES MaxTime=2-00:00:00 PriorityTier=1 PreemptMode=OFF",
            f"PartitionName=spot Nodes=ALL MaxTime=2-00:00:00 PriorityTier=1 PreemptMode=REQUEUE{grace}",
            f"PartitionName=scrap Nodes=ALL MaxTime=2-00:00:00 PriorityTier=1 PreemptMode=CANCEL{grace}",
            "PartitionName=urgent Nodes=ALL MaxTime=01:00:00 PriorityTier=100 PreemptMode=OFF",
        ]  # fmt: skip
        self.conf.write_text("\n".join(lines) + "\n")
        # slurmd drops GPUs without a device file; empty files serve, because nothing opens them.
        (root / "dev").mkdir()
        for index in range(gpus):
            (root / "dev" / f"gpu{index}").touch()
        (root / "gres.conf").write_text(f"Name=gpu File={root}/dev/gpu[0-{gpus - 1}]\n" if gpus else "\n")
        (root / "cgroup.conf").write_text("CgroupPlugin=disabled\n" if version >= (23, 11) else "CgroupAutomount=no\n")

    def _private(self, name: str, text: str) -> None:
        path = self.root / name
        path.touch(mode=0o600)
        path.write_text(text)

    def _start_database(self) -> None:
        log = self.root / "log" / "mariadb-install.log"
        with log.open("wb") as sink:
            done = subprocess.run(
                ["mariadb-install-db", f"--defaults-file={self.root / 'my.cnf'}", "--user=root", "--skip-test-db",
                 "--auth-root-authentication-method=socket"],
                stdout=sink, stderr=sink, env=self.environment,
            )  # fmt: skip
        if done.returncode:
            raise ClusterError(f"mariadb-install-db: exit code {done.returncode}: {tail(log)}")
        self.start("mariadbd")
        password = (self.root / "password").read_text()
        statements = (
            "CREATE DATABASE slurm_acct; "
            f"CREATE USER 'slurm'@'127.0.0.1' IDENTIFIED BY '{password}'; "
            "GRANT ALL ON slurm_acct.* TO 'slurm'@'127.0.0.1';"
        )
        done = subprocess.run(  # by standard input: an argument could be read by every user of the machine
            ["mariadb", "--no-defaults", "-u", "root", "-S", self.root / "db.socket"],
            input=statements, text=True, capture_output=True, env=self.environment,
        )  # fmt: skip
        if done.returncode:
            raise ClusterError(f"mariadb: {done.stderr.strip()}")

    def _accounts(self) -> None:
        """The cluster, an account `lab` and its user root."""
        self.run("sacctmgr", "-i", "add", "cluster", "promptecho")
        self.run("sacctmgr", "-i", "add", "account", "lab", "Cluster=promptecho")
        self.run("sacctmgr", "-i", "add", "user", "root", "Account=lab", "DefaultAccount=lab", check=False)

    def _answers(self, *command: str) -> bool:
        done = subprocess.run(command, env=self.environment, capture_output=True, timeout=30)
        return done.returncode == 0

    def all_idle(self) -> bool:
        """Whether every node waits for work."""
        return all(map(self.is_idle, self.nodes()))

    def take_back(self) -> None:
        """Resume nodes that Slurm has drained, as it does where it took a node for down, requeued its jobs, and then
        finds them still running there ("Duplicate jobid")."""
        for node in self.nodes():
            if self.state_of(node).startswith("drain"):
                self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)

    def all_idle_again(self) -> bool:
        """`all_idle`, after nodes that were drained are taken back."""
        self.take_back()
        return self.all_idle()

    def is_idle(self, node: str) -> bool:
        """Whether a node waits for work. It stays `planned` where the job that it was planned for was cancelled and no
        other is queued."""
        return self.state_of(node) in ("idle", "planned")

    def state_of(self, node: str) -> str:
        try:
            return self.run("sinfo", "-h", "-N", "-p", "main", "-n", node, "-o", "%T", timeout=20).strip()
        except (ClusterError, subprocess.TimeoutExpired):
            return "unknown: sinfo does not answer"

    def processes_of(self, job: str) -> list[int]:
        """A job's daemon and processes; other clusters on this machine may have a job of the same number."""
        daemon, mark = f"slurmstepd: [{job}.".encode(), f"SLURM_JOB_ID={job}".encode()
        return [
            pid for pid, command, environment in self._processes() if command.startswith(daemon) or mark in environment
        ]

    def _leftovers(self) -> list[int]:
        """This cluster's job daemons, batch scripts and jobs' processes that are still there; no other cluster's."""
        spool = f"{self.root}/spool/".encode()
        return [
            pid for pid, command, environment in self._processes()
            if command.startswith(b"slurmstepd: [") or spool in command
            or any(one.startswith(b"SLURM_JOB_ID=") for one in environment)
        ]  # fmt: skip

    def _processes(self) -> Iterator[tuple[int, bytes, list[bytes]]]:
        """Process id, command line and environment of what runs with this cluster's configuration or from its spool."""
        ours, spool = f"SLURM_CONF={self.conf}".encode(), f"{self.root}/spool/".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes().split(b"\0")
                # A newer slurmstepd has overwritten its environment; it works in the folder of its slurmd.
                if (
                    ours in environment
                    or spool in command
                    or (
                        command.startswith(b"slurmstepd: [")
                        and os.readlink(entry / "cwd").removesuffix(" (deleted)") == str(self.root)
                    )
                ):
                    yield int(entry.name), command, environment


_STARTED: list[subprocess.Popen] = []


def free_ports(n: int) -> list[int]:
    """`n` different TCP ports of loopback that nothing listens on now."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def tail(log: Path, lines: int = 3) -> str:
    return " | ".join(log.read_text(errors="replace").strip().splitlines()[-lines:]) if log.exists() else "no log"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("verb", choices=["install", "up", "down", "status"])
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=8, help="Imaginary processors per node.")
    parser.add_argument("--gpus", type=int, default=2, help="Imaginary GPUs per node.")
    parser.add_argument("--preempt-signal", action="store_true", help="Warn jobs 30 s before they are preempted.")
    parser.add_argument("--memory-limits", action="store_true", help="Hold jobs to their memory.")
    given = parser.parse_args(arguments)
    cluster = Cluster(given.root.absolute())
    try:
        if given.verb == "install":
            install()
        elif given.verb == "up":
            cluster.up(given.nodes, given.cpus, given.gpus, given.preempt_signal, memory_limits=given.memory_limits)
            print(f"export SLURM_CONF={cluster.conf}")
        elif given.verb == "down":
            cluster.down()
        else:
            names = ["munged", "mariadbd", "slurmdbd", "slurmctld"]
            names += [f"slurmd.{node}" for node in cluster.nodes()] if cluster.conf.exists() else []
            for name in names:
                print(
                    f"{name:<12} {'running, pid ' + str(cluster.pid(name)) if cluster.alive(name) else 'not running'}"
                )
            if cluster.alive("slurmctld"):
                print(cluster.run("sinfo"), end="")
            return 0 if all(map(cluster.alive, names)) else 1
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
