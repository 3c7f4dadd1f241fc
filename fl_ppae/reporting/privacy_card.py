"""The privacy card: what a run guarantees and what it doesn't, in plain words, from its own artefacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fl_ppae.config import shared_artefacts
from fl_ppae.files import read_json
from fl_ppae.privacy.randomness import FROM_ENTROPY
from fl_ppae.source_label import attack_in_words

_TITLES = {
    "updates": "encoder updates",
    "encodings": "encodings",
    "labels": "labels of encodings",
    "classifier": "classifier",
    "diagnostics": "diagnostics",
    "total": "everything together",
}


def privacy_card(run: Path) -> str:
    """Markdown, from the run's `config.json`, `summary.json` and `ledger.json`."""
    config, summary, ledger = (
        read_json(run / name) for name in ("config.json", "summary.json", "ledger.json")
    )
    shared = shared_artefacts(config["config"]["share"])
    parts = [
        f"# Privacy card: {summary['simulation']}",
        f"Data: **{summary['data_source']}**. {config['hospitals']} hospitals, {summary['rounds']} rounds.",
        *_attack(summary),
        _verdict(summary, ledger, shared),
        "## Per artefact",
        _artefacts(summary["guarantees"]),
        "## Per hospital",
        _hospitals(summary, ledger, config["records"]),
        "## What these numbers mean",
        _meaning(config, ledger),
        "## Of encodings and labels",
        _uploads(config["config"], shared),
        "## What the server learns besides",
        _besides(config["config"], shared),
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
        "under attack. What is promised below holds or fails as it would without: altered records were "
        "trained on by the honest procedure, and an altered update was made from what had been paid for, or "
        "from no record. A real adversary may also leave its own noise out: that costs the guarantee of its "
        "own records and of no other hospital's."
    ]


def _verdict(summary: Mapping[str, Any], ledger: Mapping[str, Any], shared: Sequence[str]) -> str:
    promised = summary["guarantees"]
    if summary["formal"]:
        total = f"epsilon {promised['total']['epsilon']:.3f} if one record is replaced by another"
        if "encodings" not in shared:
            total = f"epsilon {summary['epsilon_max']:.3f} if one record is added or removed, {total}"
        return (
            f"**Guarantee: record-level differential privacy at delta {ledger['delta']:g}, for everything "
            f"that left a hospital: {total}.**"
        )
    without = [
        _TITLES[name] for name, guarantee in promised.items() if not guarantee["formal"] and name != "total"
    ]
    return f"**No guarantee for this run as a whole.** Without one: {', '.join(without)}."


def _artefacts(guarantees: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| artefact | epsilon | delta | guarantee | what it is |", "|---|---|---|---|---|"]
    for name, guarantee in guarantees.items():
        formal = guarantee["formal"]
        number = _number(guarantee["epsilon"], formal)
        delta = "none" if guarantee["delta"] is None else f"{guarantee['delta']:g}"
        verdict = "yes" if formal else "**NO**"
        lines.append(f"| {_TITLES[name]} | {number} | {delta} | {verdict} | {guarantee['note']} |")
    return "\n".join(lines)


def _hospitals(summary: Mapping[str, Any], ledger: Mapping[str, Any], records: Mapping[str, int]) -> str:
    lines = [
        "| hospital | records | rounds paid | updates (PRV) | updates (PLD) | counted | all, replace-one |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, spent in summary["epsilon"].items():
        account = ledger["hospitals"][name]
        formal = account["formal"]
        prv, pld = (_number(account["epsilon"][by], formal) for by in ("prv", "pld"))
        total = _number(account["epsilon"]["replace_one"] if summary["formal"] else None, formal)
        rounds = sum(event["mechanism"] == "poisson-gaussian" for event in account["events"])
        lines.append(
            f"| {name} | {records[name]} | {rounds} | {prv} | {pld} | {_number(spent, formal)} | {total} |"
        )
    lines.append("")
    lines.append(
        "Epsilon of the updates is for adding or removing one record, by two accountants; the larger counts. "
        "The last column is for replacing one record, by PLD; there is none where something left without a "
        "guarantee. Hospitals hold disjoint records, so the federation's "
        "epsilon is the largest of them, not the sum."
    )
    return "\n".join(lines)


def _meaning(config: Mapping[str, Any], ledger: Mapping[str, Any]) -> str:
    history = (
        "The ledger belongs to the records: it counts this run and every earlier one on the same data file."
        if config["deployed"]
        else "This run alone: a simulation starts each ledger at zero. Running it again on the same records "
        "adds to what they have spent, and nothing here counts that."
    )
    values = config["config"]
    combined = (
        [
            f"- Updates were combined by `{values['aggregation']}`, which is post-processing: what is done "
            "with an update after it has left costs nothing more."
        ]
        if "updates" in shared_artefacts(values["share"])
        else []
    )
    return "\n".join(
        [
            f"- Scope of the noise: `{ledger['scope']}`: {ledger['note']}.",
            "- Unit: one record (one image with its label) of one hospital. A patient with several images "
            "is protected less: this is not patient-level privacy.",
            "- Neighbours: for updates alone, data sets that differ by adding or removing one record. For "
            "encodings, labels and the total, data sets in which one record is replaced by another: the same "
            "updates then cost more, about twice as much and at large epsilon more than twice.",
            "- Sampling: Poisson, as accounted; empty batches add noise and count.",
            "- Composed over all rounds. No accountant is restarted.",
            *combined,
            f"- {history}",
            "- It protects the records that the encoder was trained on. It does not protect images that are "
            "later encoded with that encoder: an encoding is not encryption.",
        ]
    )


def _uploads(config: Mapping[str, Any], shared: Sequence[str]) -> str:
    if "encodings" not in shared:
        return "None left a hospital."
    noise, label = config["encoding-noise-epsilon"], config["label-epsilon"]
    lines = []
    if noise:
        lines.append(
            f"- Encodings were centred and projected to {config['projection-size']} numbers by public data "
            f"(the server's own split), each was clipped, and noise for epsilon {noise:g} at delta "
            f"{config['target-delta']:g} was added to it (Gaussian mechanism, replace-one). That is the cost "
            "of the encoding alone; the encoder that made it was trained on the same records, so the cost of "
            "the training comes on top. Where that has no guarantee, the encodings have none either."
        )
    else:
        lines.append(
            "- Encodings left **plain**. They have no guarantee, whatever epsilon the encoder was trained "
            "with: that epsilon is about the encoder, not about an image that goes through it. What they "
            "show of their images can be measured, not bounded."
        )
    if label:
        lines.append(
            f"- Labels were randomised (k-ary randomised response, epsilon {label:g}, delta 0)."
            + ("" if noise else " A plain encoding shows its label all the same.")
        )
    else:
        lines.append("- Labels left **in the clear**, without a guarantee.")
    return "\n".join(lines)


def _besides(config: Mapping[str, Any], shared: Sequence[str]) -> str:
    lines = [
        "- The number of records of each hospital, taken to be public: it sets sample rate, noise, steps "
        "and averaging weight.",
        "- Which hospitals took part in a round, declined, or failed.",
    ]
    if "encodings" in shared:
        lines.append("- One encoding and one label for each train record that was uploaded.")
    if config["diagnostics"]:
        lines.append(
            "- Un-noised losses, clipped fractions and signal-to-noise (`diagnostics`): no guarantee."
        )
    return "\n".join(lines)


def _randomness(seed: int, *, deployed: bool) -> str:
    if seed == FROM_ENTROPY or deployed:
        return (
            "Noise and sampling started from the operating system's entropy. The generator (PCG64) is not "
            "a cryptographic one."
        )
    return (
        f"**Seeded ({seed}), so that the run can be repeated: whoever knows the seed can subtract the "
        "noise.** The numbers above hold against those who don't. Real hospitals start from the "
        "operating system's entropy."
    )


def _number(epsilon: float | None, formal: bool) -> str:
    if epsilon is None:
        return "none"
    return f"{epsilon:.3f}" if formal else f"{epsilon:.3f} nominal, not a guarantee"
