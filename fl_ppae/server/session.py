"""A run before round 1: its data, its hospitals, their enrolments and the server ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from logging import WARNING

from flwr.common.logger import log
from flwr.serverapp import Grid

from fl_ppae.adversary import HONEST, check_adversaries
from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Dataset
from fl_ppae.data.deal import Deal, make_deal, pooled
from fl_ppae.data.repeats import examine
from fl_ppae.data.sources import resolve
from fl_ppae.environment import used
from fl_ppae.errors import UserError
from fl_ppae.files import write_json
from fl_ppae.hardware import device_of, server_threads, uses_bfloat16
from fl_ppae.hospital.simulated import write_deal
from fl_ppae.messages import RESUMED
from fl_ppae.models.build import check_released
from fl_ppae.paths import path_text
from fl_ppae.plotting import plot_label_distributions
from fl_ppae.privacy.plan import Plan, make_plan, planned_terms
from fl_ppae.privacy.repeated_records import in_words, planned_costs, repeated_in
from fl_ppae.protection import check_quorum
from fl_ppae.runs.checkpoint import Checkpoint
from fl_ppae.runs.directory import RunDirectory, versions
from fl_ppae.server.evaluation import Labelled
from fl_ppae.server.resuming import check_same_run, exclude_those_behind, restore_accounts
from fl_ppae.source_label import data_label
from strategies.chains import SeenChain, remembered
from strategies.enrolment import Enrolment, Member, enrol, meet
from strategies.robust import check_enough
from strategies.server_ledger import ACTIVE, STOPPED, Account, ServerLedger


@dataclass(frozen=True)
class Session:
    """Everything that a run needs, made before its first round.

    Attributes:
        run_id: what the hospitals' ledgers call the run.
        deal: None in a deployment.
        checkpoint: what the run goes on from; None for a new run.
    """

    grid: Grid
    config: RunConfig
    run: RunDirectory
    dataset: Dataset
    members: tuple[Member, ...]
    enrolments: dict[str, Enrolment]
    server_ledger: ServerLedger
    deal: Deal | None
    run_id: str
    checkpoint: Checkpoint | None = None

    @property
    def where(self) -> dict[str, str]:
        """The config of every message of the run."""
        return where_of(self.run, self.checkpoint)

    @cached_property
    def nodes(self) -> dict[str, int]:
        """Node ids by hospital name, in the hospitals' order: one dict for the whole run, in which
        `find_returned` notes new ids.
        """
        return {member.name: member.node_id for member in self.members}

    @property
    def labelled(self) -> Labelled:
        """The records for baselines: the same ones as the classifier's encodings.

        Shared encodings are those of the hospitals' records, which only a simulation has; otherwise the
        server uses its own split.
        """
        if self.deal is not None and self.config.shares_encodings:
            return Labelled(*pooled(self.deal.train))
        return Labelled(self.dataset.val.images, self.dataset.val.labels)


def where_of(run: RunDirectory, checkpoint: Checkpoint | None) -> dict[str, str]:
    """The config of every message: where a simulated hospital finds its records, and which run goes on."""
    where = {"run-directory": path_text(run.path)}
    return where if checkpoint is None else {**where, RESUMED: checkpoint.run}


def start_session(
    grid: Grid,
    config: RunConfig,
    simulation: str,
    run: RunDirectory,
    deal: Deal | None = None,
    checkpoint: Checkpoint | None = None,
) -> Session:
    """Meet the hospitals, deal the data to them (simulation only), enrol them and open the server ledger.

    Args:
        deal: made by the caller in this process; None if the server has to find and deal the data.
        checkpoint: of the run to go on with; None for a new run.

    Raises:
        UserError: the data, the partition, the plan or a hospital is invalid, or not that of the run to go
            on with.
    """
    dataset = resolve(config, warn=_warn) if deal is None else deal.dataset
    check_released(config, len(dataset.val))
    findings = examine(dataset)
    run.update(data_source=dataset.source.label, data_findings=findings.document())
    members = meet(grid, config.reply_timeout)
    check_enough(config.aggregation, len(members))
    check_quorum(config, len(members))
    if config.adversary != HONEST:
        _note_adversaries(run, config, members)
    if not any(member.deployed for member in members):
        deal = deal or make_deal(dataset, config, [member.name for member in members])
        write_deal(deal, run.path)
        _draw_label_distributions(deal, run)
    elif not config.shares_updates:
        raise UserError(
            'share = "encodings" is tested on encodings of the official test split, which only a simulation '
            'can give to hospitals; in a deployment, use share = "updates" or "updates+encodings"'
        )
    enrolments = enrol(grid, members, where_of(run, checkpoint), config.reply_timeout)
    records = {name: enrolment.records for name, enrolment in enrolments.items()}
    plan = make_plan(config, records)
    costs = [] if deal is None else planned_costs(repeated_in(deal, config), plan, config)
    for warning in (*plan.warnings, *findings.in_words(), *in_words(costs)):
        _warn(warning)
    source = dataset.source
    run_id = str(grid.run.run_id) if checkpoint is None else checkpoint.run
    document = {
        "simulation": simulation,
        "run": run_id,
        "config": config.to_flat(),
        "data_source": {"label": source.label, "kind": source.kind, "file": source.file, "md5": source.md5},
        "hospitals": len(members),
        "records": records,
        "deployed": deal is None,
        "seed": config.seed,
        "versions": versions(),
        "environment": {**used(), "server_threads": server_threads(), "precision": _precision(config)},
    }
    if checkpoint is None:
        write_json(run.path / "config.json", document)
    else:
        check_same_run(run.path, document)
    seen = {
        member.name: SeenChain(member.name, remembered(member.name) if member.deployed else None)
        for member in members
    }
    server_ledger = _open_server_ledger(plan, config, run, run_id, enrolments, seen, checkpoint)
    return Session(grid, config, run, dataset, members, enrolments, server_ledger, deal, run_id, checkpoint)


def _open_server_ledger(
    plan: Plan,
    config: RunConfig,
    run: RunDirectory,
    run_id: str,
    enrolments: Mapping[str, Enrolment],
    seen: Mapping[str, SeenChain],
    checkpoint: Checkpoint | None,
) -> ServerLedger:
    accounts = {}
    for hospital in plan.hospitals:
        terms, history = planned_terms(hospital, config, run_id), enrolments[hospital.name].history
        accounts[hospital.name] = Account(terms, history, seen=seen[hospital.name])
    server_ledger = ServerLedger(accounts)
    if checkpoint is not None:
        restore_accounts(server_ledger, checkpoint, run.path)
        if not config.local_steps:  # then local training has no state
            exclude_those_behind(server_ledger, run.path, checkpoint, enrolments)
    for name, enrolment in enrolments.items():
        account = server_ledger.accounts[name]
        if enrolment.declined and account.status == ACTIVE:
            account.status, account.reason = STOPPED, enrolment.declined
        if not enrolment.chain and enrolment.declined:  # without having opened its ledger
            continue
        if problem := server_ledger.settle_enrolment(name, enrolment.history, enrolment.chain):
            _warn(f"{name} is excluded: {problem}")
    return server_ledger


def _draw_label_distributions(deal: Deal, run: RunDirectory) -> None:
    spec = deal.dataset.spec
    counts = {name: spec.class_counts(records.labels().numpy()) for name, records in deal.train.items()}
    figure = run.path / "figures" / "label_distributions.png"
    counted = "labels of train records" if spec.multi_label else "train records"
    plot_label_distributions(counts, spec.class_names, data_label(run.summary), figure, counted=counted)


def _precision(config: RunConfig) -> str:
    """What `precision` means on this machine; a deployed hospital resolves it on its own."""
    return "bfloat16" if uses_bfloat16(config.precision, device_of(config.device)) else "float32"


def _warn(text: str) -> None:
    log(WARNING, "%s", text)


def _note_adversaries(run: RunDirectory, config: RunConfig, members: tuple[Member, ...]) -> None:
    """Write the adversaries into the summary before any artefact could look like an ordinary one."""
    if any(member.deployed for member in members):
        raise UserError(
            f'adversary = "{config.adversary}" is only for simulations; for hospitals with their own data '
            'files, use "none"'
        )
    check_adversaries(config, len(members))
    names = [members[number].name for number in sorted(config.adversary_numbers())]
    run.update(adversary={"behaviour": config.adversary, "hospitals": names})
