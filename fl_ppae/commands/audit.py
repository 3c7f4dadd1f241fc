"""`fl-ppae audit`: attack what a finished run left, and show how far each attack gets."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from functools import partial

from fl_ppae.commands.output import notes, show
from fl_ppae.errors import UserError, printable
from fl_ppae.runs.stored import find_run
from fl_ppae.steps import step


def command(arguments: argparse.Namespace) -> int:
    """List the attacks, or carry them out on one run and write its `audit/`."""
    if arguments.list:
        return _list(arguments)
    if arguments.run is None:
        raise UserError("audit needs a run: its folder, its name, or 'latest' (or --list)")
    if arguments.threads < 1:
        raise UserError(f"--threads {arguments.threads}: must be at least 1")
    if arguments.shadows is not None and (arguments.shadows < 0 or arguments.shadows % 2):
        raise UserError(f"--shadows {arguments.shadows}: must be even, since they come in pairs (0: none)")
    stored = find_run(arguments.run)
    # Imported here: these take seconds, and a wrong run should be reported at once.
    from fl_ppae.attacks import audited_run
    from fl_ppae.attacks.audited_run import open_for_audit
    from fl_ppae.attacks.kept_findings import kept_findings
    from fl_ppae.attacks.registry import ATTACKS, choose_attacks
    from fl_ppae.attacks.runner import run_attacks
    from fl_ppae.hardware import limited_threads
    from fl_ppae.reporting.audit_report import audit_tables, write_audit

    attacks = ATTACKS if arguments.attacks is None else choose_attacks(arguments.attacks)
    console, named = notes(), arguments.attacks is not None
    effort = audited_run.QUICK if arguments.quick else audited_run.FULL
    if arguments.shadows is not None:
        effort = replace(effort, shadows=arguments.shadows, shadow_passes=sys.maxsize)
    start = time.perf_counter()
    with limited_threads(arguments.threads):
        audited = open_for_audit(stored, effort, partial(step, aloud=True), arguments.data_file)
        kept = kept_findings(audited, arguments.threads)
        audit = run_attacks(audited, attacks, named=named, attacker=arguments.attacker, kept=kept)
    seconds = time.perf_counter() - start
    step("writing the results")
    document = write_audit(audited, audit, quick=arguments.quick, seconds=seconds)
    kept.drop()
    show(document, audit_tables(stored.name, stored.data_label, audit), as_json=arguments.json)
    if arguments.quick:
        console.print(
            "--quick: fewer images and weaker attackers; a low value here is no sign of protection",
            style="yellow",
            highlight=False,
        )
    console.print(f"artefacts: {printable(str(audited.path / 'audit'))}", soft_wrap=True, highlight=False)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from fl_ppae.attacks.registry import ATTACKS
    from fl_ppae.reporting.audit_report import attack_documents, attack_table

    show({"attacks": attack_documents(ATTACKS)}, [attack_table(ATTACKS)], as_json=arguments.json)
    return 0
