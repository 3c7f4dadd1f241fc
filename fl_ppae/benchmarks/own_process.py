"""Measures in a fresh Python process, which prints its result last."""

from __future__ import annotations

import subprocess
import sys

from fl_ppae.errors import UserError


def last_number(module: str, *arguments: str) -> float:
    """The number that `python -m module arguments` prints last.

    Raises:
        UserError: the process failed; names the last line of its errors.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.splitlines() or ["no reason given"])[-1]
        raise UserError(f"the measured process ({module}) failed: {reason}")
    return float(done.stdout.splitlines()[-1])
