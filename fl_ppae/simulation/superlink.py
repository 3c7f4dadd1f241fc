"""Runs a simulation on its own SuperLink and leaves no process behind.

`flwr run` alone starts a background SuperLink that keeps running with the first caller's environment, and
exits 0 even if the run failed. Here each run has its own SuperLink, port, `FLWR_HOME` and Ray folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fl_ppae.config import Scalar
from fl_ppae.environment import for_run
from fl_ppae.files import home
from fl_ppae.hardware import usable_cores
from fl_ppae.paths import path_of
from fl_ppae.runs.status import RunFailed, mark_failed, one_line
from fl_ppae.simulation import guard
from fl_ppae.simulation.flower_files import as_toml, last_error, without_mark
from fl_ppae.steps import step

_START_SECONDS = 60.0  # of the SuperLink
_SERVER_SECONDS = 300.0  # of Ray and the server, which then makes the run directory
_ANSWER_SECONDS = 60.0  # of a command to the SuperLink
_POLL_SECONDS = 0.25
_LOG_NAME = 60  # letters of a run directory's name: with four bytes each, still a name that a file may have


@dataclass(frozen=True)
class Submission:
    """A run to submit with `flwr run`.

    Attributes:
        directory: the simulation's folder.
        values: the keys that differ from its configuration, including `output-dir` or `resume`.
        hospitals: number of hospitals.
        threads: CPU threads per hospital.
        gpus: share of a CUDA device per hospital; 0 for none.
    """

    directory: Path
    values: Mapping[str, Scalar]
    hospitals: int
    threads: int
    gpus: float = 0.0

    @property
    def output_dir(self) -> Path:
        """The run directory: a new one, or that of the run to go on with."""
        key = "resume" if self.values.get("resume") else "output-dir"
        return path_of(str(self.values[key]), key)


@dataclass(frozen=True)
class SuperLink:
    """A running SuperLink: its process, the environment of its commands, and its log."""

    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]
    scratch: Path
    log: Path

    def flwr(self, *arguments: str) -> str:
        """Standard output of a `flwr` command against this SuperLink; empty if it does not answer."""
        try:
            done = subprocess.run(
                [_script("flwr"), *arguments],
                env=dict(self.environment),
                cwd=self.scratch,
                capture_output=True,
                encoding="utf-8",
                check=False,
                timeout=_ANSWER_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout


@contextlib.contextmanager
def superlink(log: Path, *, tracked: bool = False) -> Iterator[SuperLink]:
    """A SuperLink in simulation mode on a free port; on exit, its processes and scratch files are gone.

    `tracked`: the run logs to a tracking server.

    Raises:
        RunFailed: it doesn't start.
    """
    # Ray's sockets are under this folder, and the path of a socket must stay below about 100 characters.
    try:
        scratch = Path(tempfile.mkdtemp(prefix="fl-ppae-", dir="/tmp"))
    except OSError as error:
        raise RunFailed(f"Ray needs a folder in /tmp, which can't be written: {error.strerror}") from None
    mark = uuid.uuid4().hex
    watcher = guard.start(mark, str(scratch))
    process: subprocess.Popen[bytes] | None = None
    try:
        port = _free_port()
        environment = _environment(scratch, mark, tracked=tracked)
        (scratch / "config.toml").write_text(
            f'[superlink]\ndefault = "own"\n[superlink.own]\naddress = "127.0.0.1:{port}"\ninsecure = true\n',
            encoding="utf-8",
        )
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [
                    *(_script("flower-superlink"), "--simulation", "--insecure"),
                    *("--host", "127.0.0.1", "--port", str(port)),
                    "--disable-runtime-dependency-installation",  # this environment already has everything
                ],
                env=environment,
                cwd=scratch,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        _wait_until_up(process, port, log)
        yield SuperLink(process, environment, scratch, log)
    finally:
        if watcher.stdin is not None:
            watcher.stdin.close()
        if process is not None:
            process.wait()
        watcher.wait()


def run_simulation(submission: Submission, on_poll: Callable[[], None]) -> None:
    """Run a simulation to its end; call `on_poll` several times a second.

    Afterwards the log is in the run directory, as `flower.log`.

    Raises:
        RunFailed: names the cause and the log.
    """
    output_dir = submission.output_dir
    log = home() / "logs" / f"{output_dir.name[-_LOG_NAME:]}.log"
    cause: str | None = "interrupted"
    if (output_dir / "flower.log").exists():  # of a run that goes on
        log.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(output_dir / "flower.log", log)
    try:
        step("starting Flower's SuperLink")
        with superlink(log, tracked=bool(submission.values.get("mlflow-tracking-uri"))) as link:
            step("starting Ray and the server")
            cause = _submit_and_follow(link, submission, on_poll)
            step("stopping Flower and Ray")
    except RunFailed as error:
        cause = str(error)
    finally:
        if cause is not None:
            cause = mark_failed(output_dir, cause)
        if log.exists():
            with contextlib.suppress(OSError):  # on a full disk it stays where it is
                log = Path(shutil.move(log, output_dir / "flower.log"))
    if cause is not None:
        raise RunFailed(f"{cause} (log: {log})")


def _submit_and_follow(link: SuperLink, submission: Submission, on_poll: Callable[[], None]) -> str | None:
    """Why the run failed, or None if it completed."""
    overrides = link.scratch / "run-config.toml"
    overrides.write_text(as_toml(submission.values), encoding="utf-8")
    command = [
        *(_script("flwr"), "run", str(without_mark(submission.directory, link.scratch)), "--stream"),
        *("--run-config", str(overrides), "--federation-config", _federation(submission)),
    ]
    with link.log.open("ab") as output:
        submitted = subprocess.Popen(
            command,
            env=dict(link.environment),
            cwd=link.scratch,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + _SERVER_SECONDS
    while submitted.poll() is None:
        on_poll()
        if time.monotonic() > deadline and not (submission.output_dir / "summary.json").exists():
            submitted.terminate()
            raise RunFailed(f"Ray and the server did not start within {_SERVER_SECONDS:g} s")
        time.sleep(_POLL_SECONDS)
    on_poll()
    if submitted.returncode != 0:
        return last_error(link.log)
    return _outcome(link, on_poll)


def _federation(submission: Submission) -> str:
    """How many nodes there are, and what Ray reserves for each."""
    # Ray is told the number of cores: it counts those of the machine, not those that this process may use.
    cores = usable_cores()
    # A hospital that asks for more than there are never starts.
    cpus = min(submission.threads, cores)
    federation = f"num-supernodes={submission.hospitals} client-resources-num-cpus={cpus}"
    federation += f" init-args-num-cpus={cores}"
    return federation + (f" client-resources-num-gpus={submission.gpus:.6f}" if submission.gpus else "")


def _outcome(link: SuperLink, on_poll: Callable[[], None]) -> str | None:
    """Wait until the SuperLink reports its only run as finished; returns why it failed, or None.

    Raises:
        RunFailed: the SuperLink runs and does not answer.
    """
    answered = time.monotonic()
    while link.process.poll() is None:
        on_poll()
        if time.monotonic() - answered > _ANSWER_SECONDS:
            raise RunFailed(f"the SuperLink did not say within {_ANSWER_SECONDS:g} s how the run ended")
        with contextlib.suppress(json.JSONDecodeError, LookupError):
            run = json.loads(link.flwr("list", "--format", "json"))["runs"][0]
            status, answered = str(run["status"]), time.monotonic()
            if status == "finished:completed":
                return None
            if status.startswith("finished"):
                return one_line(run["status-details"]).removeprefix("Simulation failed with exception: ")
        time.sleep(_POLL_SECONDS)
    return last_error(link.log)


def _wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RunFailed(f"the SuperLink did not start: {last_error(log)}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise RunFailed(f"the SuperLink did not start within {_START_SECONDS:.0f} s")


def _environment(scratch: Path, mark: str, *, tracked: bool = False) -> dict[str, str]:
    """What the run uses of the caller's environment, and the run's own settings of Flower, Ray and Python."""
    no_proxy = ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1", "localhost")))
    caches = home() / "cache"
    return {
        **for_run(tracked=tracked),
        guard.MARK: mark,
        "FL_PPAE_HOME": str(home()),
        "TMPDIR": str(scratch),
        "MPLCONFIGDIR": str(caches / "matplotlib"),
        "XDG_CACHE_HOME": str(caches),
        "HF_HOME": str(caches / "huggingface"),
        "PYTHONUTF8": "1",
        "COLUMNS": "200",
        "FLWR_HOME": str(scratch),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_TMPDIR": str(scratch),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONIOENCODING": "utf-8",  # Flower draws frames around its errors, whatever the terminal takes
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        # Flower starts its commands by name.
        "PATH": _path(),
    }


def _path() -> str:
    return os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))


def _script(name: str) -> str:
    return shutil.which(name, path=_path()) or name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
