"""Where the project keeps its own files on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The folder of caches, runs and locks: `FL_PPAE_HOME`, or `~/.fl_ppae`. It may not exist yet."""
    chosen = os.environ.get("FL_PPAE_HOME")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".fl_ppae"
