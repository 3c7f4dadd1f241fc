"""The privacy card: what a run guarantees and what it doesn't, in plain words, from the run's artefacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fl_ppae.config import RunConfig, shared_artefacts
from fl_ppae.files import read_json
from fl_ppae.models.build import released_format_of
from fl_ppae.models.codes import capacity_in_words
from fl_ppae.privacy.events import THIS_RUN, JointGaussian, PoissonGaussian, Unprotected
from fl_ppae.privacy.figures import formal_if, is_guarantee, written
from fl_ppae.privacy.randomness import FROM_ENTROPY
from fl_ppae.protection import SECAGG
from fl_ppae.reporting.grounds import grounds, grounds_in_words, threats_in_words
from fl_ppae.reporting.joint_card import honest_in, joint_noise_in_words, masked_in_words
from fl_ppae.reporting.own_code_card import own_code
from fl_ppae.reporting.records_card import about_records
from fl_ppae.reporting.worth_line import headline
from fl_ppae.runs.stored import basis_of
from fl_ppae.source_label import attack_in_words

_TRAINING = (PoissonGaussian.mechanism, JointGaussian.mechanism)
_TITLES = {
    "updates": "encoder updates",
    "head": "head update",
    "encodings": "encodings",
    "labels": "labels of encodings",
    "classifier": "classifier",
    "diagnostics": "diagnostics",
    "total": "everything together",
}


def privacy_card(run: Path) -> str:
    """Return the card as Markdown, from `config.json`, `summary.json` and `ledger.json` in `run`."""
    config, summary, ledger = (
        read_json(run / name) for name in ("config.json", "summary.json", "ledger.json")
    )
    shared = shared_artefacts(config["config"]["share"])
    parts = [
        f"# Privacy card: {summary['simulation']}",
        f"Data: **{summary['data_source']}**. {config['hospitals']} hospitals, {summary['rounds']} rounds.",
        *_attack(summary),
        _verdict(summary, ledger, shared),
        *filter(None, [headline(summary)]),
        "## Per artefact",
        _artefacts(summary["guarantees"], shared),
        "## Per hospital",
        _hospitals(summary, ledger, config["records"]),
        "## Records",
        about_records(summary, deployed=config["deployed"]),
        "## Proven, conjectured, measured",
        grounds_in_words(),
        "## Against whom",
        threats_in_words(deployed=config["deployed"], honest=honest_in(summary)),
        "## What these numbers mean",
        _meaning(config, ledger, honest_in(summary)),
        "## Encodings and labels",
        _uploads(config["config"], shared),
        "## What else the server learns",
        _also_learned(config["config"], config["hospitals"], shared),
        "## Randomness",
        _randomness(config["seed"], deployed=config["deployed"]),
    ]
    return "\n\n".join(parts) + "\n"


def _attack(summary: Mapping[str, Any]) -> list[str]:
    attack = attack_in_words(summary)
    if not attack:
        return []
    return [
        f"**ATTACK RUN, not an ordinary result: {attack}.** Accuracy and leakage are those of a federation "
        "under attack. The attack does not change the guarantees below: altered records went through the "
        "honest training procedure, and an altered update was computed from an update whose cost had been "
        "charged, or from no record at all. A real adversary may also omit its own noise. Its own records "
        "then lose their guarantee; those of the other hospitals do not."
    ]


def _verdict(summary: Mapping[str, Any], ledger: Mapping[str, Any], shared: Sequence[str]) -> str:
    guarantees = summary["guarantees"]
    if refuted := summary.get("refuted"):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refuted.items())
        return f"**No guarantee for this run: a claim was refuted.** {reasons}."
    if summary["formal"] and not guarantees["total"]["formal"]:
        return (
            "**Everything that left a hospital in this run has a guarantee, but there is no total: "
            f"{guarantees['total']['note']}.**"
        )
    if summary["formal"]:
        replaced = f"If one record is replaced by another (conjectured): {_in_full(guarantees['total'])}."
        changed = f"If one record is added or removed (proven): {_in_full(guarantees['updates'])}. "
        return (
            f"**Guarantee: record-level differential privacy at delta {ledger['delta']:g}, for everything "
            f"that left a hospital. {changed if 'encodings' not in shared else ''}{replaced}**"
        )
    without = [
        _TITLES[name] for name, guarantee in guarantees.items() if not guarantee["formal"] and name != "total"
    ]
    return f"**No guarantee for this run as a whole.** Without one: {', '.join(without)}."


def _artefacts(guarantees: Mapping[str, Mapping[str, Any]], shared: Sequence[str]) -> str:
    lines = [
        "| artefact | epsilon | delta | guarantee | grounds | what it is |",
        "|---|---|---|---|---|---|",
    ]
    for name, guarantee in guarantees.items():
        basis = basis_of(guarantee)
        number = _number(guarantee["epsilon"], basis, guarantee.get("epsilon_alone"))
        delta = "none" if guarantee["delta"] is None else f"{guarantee['delta']:g}"
        verdict = "yes" if is_guarantee(basis) else "**NO**"
        columns = (_TITLES[name], number, delta, verdict, grounds(name, guarantee, shared), guarantee["note"])
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def _hospitals(summary: Mapping[str, Any], ledger: Mapping[str, Any], records: Mapping[str, int]) -> str:
    lines = [
        "| hospital | records | rounds charged | updates (PRV) | updates (PLD) | counted "
        "| all, replace-one |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, spent in summary["epsilon"].items():
        account = ledger["hospitals"][name]
        basis = basis_of({"epsilon": spent, **account})
        prv, pld = (_number(account["epsilon"][by], basis) for by in ("prv", "pld"))
        total = _number(account["epsilon"]["replace_one"] if summary["formal"] else None, basis)
        rounds = sum(event["mechanism"] in _TRAINING for event in account["events"])
        counted = _number(spent, basis, account["epsilon"].get("alone"))
        lines.append(f"| {name} | {records[name]} | {rounds} | {prv} | {pld} | {counted} | {total} |")
    lines.append("")
    lines += _earlier(summary, ledger)
    lines += _interrupted(summary)
    lines.append(
        "The epsilon of the updates is for adding or removing one record. Two accountants compute it, and "
        "the larger value counts. The last column is for replacing one record, by PLD; it is none if "
        "anything left without a guarantee. All are for a record that stands once in one hospital."
    )
    return "\n".join(lines)


def _earlier(summary: Mapping[str, Any], ledger: Mapping[str, Any]) -> list[str]:
    """One line for each hospital whose records have no total because of an earlier run."""
    lines = []
    for name, added in (summary.get("epsilon_added") or {}).items():
        spoiled = [
            event
            for event in ledger["hospitals"][name]["events"]
            if event["mechanism"] == Unprotected.mechanism and event["run"] != THIS_RUN
        ]
        if not spoiled:
            continue
        first = spoiled[0]
        line = (
            f"{name}: total none since run {first['run']}, which released {first['artefact']} "
            "without a guarantee"
        )
        if added is not None and name not in summary["refuted"]:
            basis = formal_if(honest_in(summary))
            line += f"; this run adds at most epsilon {_number(added, basis)} to whatever was known before"
        lines += [f"{line}.", ""]
    return lines


def _interrupted(summary: Mapping[str, Any]) -> list[str]:
    """What interruptions cost the records; nothing for a run that had none."""
    if not (after := summary.get("resumed")):
        return []
    twice = {name: count for name, count in summary["rounds_paid_twice"].items() if count}
    paid = "; ".join(f"{name} {count}" for name, count in twice.items()) or "none"
    rounds = ", ".join(map(str, after))
    return [
        f"The run was interrupted and went on after round {rounds}. Rounds that were paid for twice, with "
        f"fresh noise each time, and are counted twice: {paid}.",
        "",
    ]


def _meaning(config: Mapping[str, Any], ledger: Mapping[str, Any], honest: int | None) -> str:
    history = (
        "The ledger belongs to the site: it counts this run and every earlier one there, whatever their "
        "data files."
        if config["deployed"]
        else "These numbers cover this run alone: a simulation starts each ledger at zero. Another run on "
        "the same records costs them more, and nothing here counts that."
    )
    values = config["config"]
    combined = (
        [
            f"- Updates were combined by `{values['aggregation']}`, which is post-processing: "
            "processing an update after it has left a hospital adds no cost."
        ]
        if "updates" in shared_artefacts(values["share"])
        else []
    )
    return "\n".join(
        [
            f"- Scope of the noise: `{ledger['scope']}`: {ledger['note']}.",
            "- Unit: one record (one image with its label) of one hospital. A patient with several images "
            "is less protected: this is not patient-level privacy.",
            "- Neighbours: for updates alone, data sets that differ by adding or removing one record. For "
            "encodings, labels and the total, data sets that differ by replacing one record: the same "
            "updates then cost about twice as much, and more than twice at large epsilon.",
            "- Sampling: Poisson, as accounted. An empty batch adds noise and is counted too.",
            "- Composition: over all rounds. No accountant is restarted.",
            *(joint_noise_in_words(honest) if honest is not None else []),
            *combined,
            *own_code(values.get("encoder", "")),
            f"- {history}",
            "- The guarantee protects the records that the encoder was trained on. It does not protect "
            "images that are later encoded with that encoder: an encoding is not encryption.",
        ]
    )


def _uploads(config: Mapping[str, Any], shared: Sequence[str]) -> str:
    if "encodings" not in shared:
        return "None left a hospital."
    noise, label = config["encoding-noise-epsilon"], config["label-epsilon"]
    lines = []
    if noise:
        lines.append(
            f"- Encodings were centred and projected to {config['projection-size']} numbers, both fitted on "
            "public data (the server's own split). Each was clipped, and noise for epsilon "
            f"{noise:g} at delta {config['target-delta']:g} was added (Gaussian mechanism, replace-one). "
            "This is the cost of the encoding alone. Its encoder was trained on the same records, so the "
            "cost of training is added. If training has no guarantee, neither have the encodings."
        )
    else:
        lines.append(
            "- Encodings left **plain**. They have no guarantee, whatever epsilon the encoder was trained "
            "with: that epsilon covers the encoder, not an image that passes through it. What encodings "
            "reveal about their images can be measured, but not bounded."
        )
        if words := capacity_in_words(released_format_of(RunConfig.from_flat(config))):
            lines.append(f"- {words}")
    if label:
        lines.append(
            f"- Labels were randomised (k-ary randomised response, epsilon {label:g}, delta 0)."
            + ("" if noise else " A plain encoding still reveals its label.")
        )
    else:
        lines.append("- Labels left **in the clear**, without a guarantee.")
    return "\n".join(lines)


def _also_learned(config: Mapping[str, Any], hospitals: int, shared: Sequence[str]) -> str:
    lines = [
        "- The number of records of each hospital, assumed to be public: it determines the sample rate, the "
        "noise, the number of steps and the averaging weight.",
        "- Which hospitals took part in each round, declined, or failed.",
    ]
    if config.get("protection") == SECAGG:
        lines.append(masked_in_words(config, hospitals))
    if "encodings" in shared:
        lines.append(
            "- One encoding and one label for each uploaded train record, in a secret order. From a hospital "
            "that also releases its test part: the number of its test records, and one encoding for each."
        )
    if config["diagnostics"]:
        lines.append(
            "- Exact losses, clipped fractions and signal-to-noise ratios (`diagnostics`): no guarantee."
        )
    return "\n".join(lines)


def _randomness(seed: int, *, deployed: bool) -> str:
    if seed == FROM_ENTROPY or deployed:
        return (
            "Noise, batches and permutations come from a stream cipher (ChaCha20) with keys from the "
            "operating system. The guarantee assumes that nobody can tell its output from random bits."
        )
    return (
        f"**Seeded ({seed}), so that the run can be repeated: anyone who knows the seed can subtract the "
        "noise.** The numbers above hold against those who don't know it. The mechanism is that of a real "
        "hospital (ChaCha20), which takes its keys from the operating system instead."
    )


def _number(epsilon: float | None, basis: str, alone: float | None = None) -> str:
    return written(epsilon, basis, alone=alone, digits=3, nothing="none")


def _in_full(guarantee: Mapping[str, Any]) -> str:
    number = _number(guarantee["epsilon"], basis_of(guarantee), guarantee.get("epsilon_alone"))
    return f"epsilon {number}"
