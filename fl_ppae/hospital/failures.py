"""What a failing hospital tells the server: that it failed. Why is in its own log.

Flower sends the text of an exception to the server, and that text may hold paths, file names or numbers
computed from records. So no exception of a hospital gets that far. A simulated hospital's text is sent: its
records and errors are the simulator's own, and the user must see the cause.
"""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from logging import ERROR
from pathlib import Path

from flwr.app import ConfigRecord, Error, Message
from flwr.common.constant import ErrorCode
from flwr.common.logger import log

from fl_ppae.errors import PublicMistake, UserError, printable
from fl_ppae.files import home
from fl_ppae.hospital.node_keys import NodeConfig
from fl_ppae.hospital.simulated import directory_of
from fl_ppae.messages import CONFIG, reason_text
from fl_ppae.paths import path_of

FAILED = "the hospital failed; its own log says why"
LOG = "errors.log"


def failure(message: Message, node: NodeConfig, problem: Exception) -> Message:
    """Log `problem` at the hospital, and return the error that the server gets."""
    path = _log_path(message, node)
    if path is not None:
        _append(path, problem)
    log(ERROR, "%s (%s has the traceback)", _in_one_line(problem), printable(str(path or "no log")))
    public = "data-file" not in node or isinstance(problem, PublicMistake)
    text = reason_text(_in_one_line(problem)) if public else FAILED
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, text), reply_to=message)


def _log_path(message: Message, node: NodeConfig) -> Path | None:
    """Beside the hospital's ledger; None if a simulated hospital was not told where the run is."""
    try:
        if "data-file" in node:
            return path_of(str(node.get("state-dir", home() / "hospital")), "state-dir") / LOG
        config = message.content.config_records.get(CONFIG, ConfigRecord())
        run, name = config.get("run-directory"), node.get("hospital", f"hospital-{node.get('partition-id')}")
        return directory_of(path_of(run, ""), str(name)) / LOG if isinstance(run, str) and run else None
    except UserError:  # there is no such path: the server still gets the problem
        return None


def _append(path: Path, problem: Exception) -> None:
    lines = traceback.format_exception(problem)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join([f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n", *lines, "\n"]))
    except OSError as unwritten:  # a full disk must not make this failure another one
        log(ERROR, "%s can't be written: %s", printable(str(path)), unwritten)


def _in_one_line(problem: Exception) -> str:
    text = str(problem) if isinstance(problem, UserError) else f"{type(problem).__name__}: {problem}"
    return printable(" ".join(text.split()))
