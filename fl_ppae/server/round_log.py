"""Writes each round as it ends: every hospital's status, the epsilon spent, the measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from fl_ppae.files import write_json
from fl_ppae.messages import DIAGNOSTICS, METRICS, TRAINED
from fl_ppae.privacy.accounting import epsilon
from fl_ppae.privacy.events import THIS_RUN, Event, as_dict, updates
from fl_ppae.privacy.figures import REFUTED, Figure, is_guarantee, largest
from fl_ppae.privacy.guarantees import Spending
from fl_ppae.privacy.scopes import SCOPES
from fl_ppae.runs.directory import RunDirectory
from strategies.replies import RoundReport, TrainReply
from strategies.server_ledger import EXCLUDED, STOPPED, ServerLedger


@dataclass(frozen=True)
class RoundLog:
    """The tables of one run."""

    run: RunDirectory
    server_ledger: ServerLedger
    scope: str
    delta: float

    def write(self, report: RoundReport, measured: Mapping[str, float | None]) -> None:
        """Append a round to `rounds.csv` and `hospitals.csv`, and rewrite `ledger.json`."""
        figures = self.server_ledger.figures()
        together = largest(figures.values())
        for name in self.server_ledger.accounts:
            reply = report.replies.get(name)
            self.run.append_hospital(self._hospital_row(name, report.server_round, reply, figures[name]))
        statuses = [account.status for account in self.server_ledger.accounts.values()]
        self.run.append_round(
            {
                "round": report.server_round,
                "hospitals_trained": sum(reply.status == TRAINED for reply in report.replies.values()),
                "hospitals_declined": statuses.count(STOPPED),
                "hospitals_excluded": statuses.count(EXCLUDED),
                "epsilon_max": together.epsilon,
                "epsilon_basis": together.basis,
                **measured,
            }
        )
        self.mark_refuted()
        self.write_ledger()

    def mark_refuted(self) -> None:
        """Mark earlier rows too: a hospital with one false claim has no figure that is a guarantee."""
        refuted = self.server_ledger.refuted()
        if refuted:
            self.run.correct("hospitals.csv", lambda row: row["hospital"] in refuted, epsilon_basis=REFUTED)
            self.run.correct("rounds.csv", lambda row: True, epsilon_basis=REFUTED)

    def write_ledger(self, spent: Mapping[str, Spending] | None = None) -> None:
        """Write `ledger.json`: every hospital's events, the epsilon of its updates by both accountants and,
        given `spent` at the end, the total epsilon for replace-one neighbours. With joint noise, also that
        of the updates if all other hospitals collude."""
        hospitals = {}
        for name, account in self.server_ledger.accounts.items():
            events = account.counted_events()
            both: dict[str, float | None] = {"prv": None, "pld": None}
            figure = account.figure()
            if figure.epsilon is not None:
                both = asdict(epsilon(updates(events), self.delta))
            hospitals[name] = {
                "events": [_event_row(event, account.terms.run) for event in events],
                "epsilon": {
                    **both,
                    "replace_one": spent[name].total if spent is not None else None,
                    "alone": figure.alone,
                },
                "formal": is_guarantee(figure.basis),
                "basis": figure.basis,
                **({"refuted": account.refuted} if account.refuted else {}),
            }
        note = SCOPES[self.scope].note
        document = {"delta": self.delta, "scope": self.scope, "note": note, "hospitals": hospitals}
        write_json(self.run.path / "ledger.json", document)

    def _hospital_row(
        self, name: str, server_round: int, reply: TrainReply | None, figure: Figure
    ) -> dict[str, object]:
        account = self.server_ledger.accounts[name]
        trained = reply is not None and reply.status == TRAINED
        row: dict[str, object] = {
            "round": server_round,
            "hospital": name,
            "records": account.terms.records,
            "noise_multiplier": account.terms.noise_multiplier,
            "sample_rate": account.terms.sample_rate,
            "steps": account.terms.steps if trained else 0,
            "epsilon": figure.epsilon,
            "epsilon_basis": figure.basis,
            "epsilon_alone": figure.alone,
            "status": reply.status if reply is not None else account.status,
            "reason": reply.reason if reply is not None else account.reason,
        }
        if reply is not None and reply.content is not None:
            metrics = reply.content.metric_records[METRICS]
            row |= {key.replace("-", "_"): metrics[key] for key in DIAGNOSTICS if key in metrics}
        return row


def _event_row(event: Event, run: str) -> dict[str, str | float | int]:
    row = as_dict(event)
    return {**row, "run": THIS_RUN} if row.get("run") == run else row
