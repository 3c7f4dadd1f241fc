"""Opens a finished run for attacks with little effort, and audits it by the command."""

from __future__ import annotations

import json

from support import Run

from fl_ppae import cli
from fl_ppae.attacks.audited_run import AuditedRun, Effort, open_for_audit
from fl_ppae.runs.stored import open_run

TINY = Effort(50, 200, 2, 4, 60, 30)
CHEAP = "similarity,retrieval,dependence,hospital-inference,model-extraction"
INVERSIONS = "inversion-black-box,inversion-white-box"


def opened(run: Run, effort: Effort = TINY) -> AuditedRun:
    return open_for_audit(open_run(run.path), effort, lambda _: None)


def audited(run: Run, *options: str) -> dict:
    assert cli.main(["audit", str(run.path), "--quick", *options]) == 0
    return json.loads((run.path / "audit" / "results.json").read_text())
