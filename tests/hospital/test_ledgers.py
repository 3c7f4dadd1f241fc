"""A ledger belongs to a site: files inherit it, only an operator opens another, and no record has two."""

import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import SMALL, Run, write_npz

from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Dataset
from fl_ppae.data.sources import resolve
from fl_ppae.errors import UserError
from fl_ppae.hospital.failures import FAILED, LOG
from fl_ppae.hospital.ledgers import MAIN, Site, site_of
from fl_ppae.hospital.record_sets import keyed_digests
from fl_ppae.privacy import ledger as ledger_module
from fl_ppae.privacy.events import PoissonGaussian
from fl_ppae.privacy.ledger import Ledger, read_ledger
from fl_ppae.privacy.terms import Terms

TERMS = Terms("run-a", "autoencoder", 100, 1.5, 0.25, 4, 1.0, 8.0, 1e-3)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_of(str(tmp_path / "state"), str(tmp_path / "site"))


def dataset_of(path: Path) -> Dataset:
    return resolve(RunConfig.from_flat({**SMALL, "data-file": str(path)}))


def pay(site: Site, ledger: str, dataset: Dataset) -> Ledger:
    state = site.state_of(ledger, dataset)
    with state.lock():
        opened = state.open_ledger(TERMS)
        return opened.announce(PoissonGaussian(1.5, 0.25, 4, len(opened.events) + 1))


def changed(path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
    """A copy of a data file with `change` made to its arrays."""
    arrays = dict(np.load(path))
    change(arrays)
    other = path.with_name(f"changed-{path.name}")
    np.savez_compressed(other, **arrays)
    return other


def drop_one(arrays: dict[str, np.ndarray]) -> None:
    arrays["x_train"], arrays["y_train"] = arrays["x_train"][1:], arrays["y_train"][1:]


def reverse(arrays: dict[str, np.ndarray]) -> None:
    """All train records in another order, so that other ones become the server's split."""
    arrays["x_train"], arrays["y_train"] = arrays["x_train"][::-1], arrays["y_train"][::-1]


def keep_one(arrays: dict[str, np.ndarray]) -> None:
    """One old record among new ones."""
    one = arrays["x_train"][:1]
    fresh = np.random.default_rng(5).integers(0, 255, arrays["x_train"].shape).astype(np.uint8)
    arrays["x_train"] = np.concatenate([fresh[1:], one])
    arrays["x_test"] = 255 - arrays["x_test"]


def flip_a_bit(arrays: dict[str, np.ndarray]) -> None:
    """Of each image."""
    for part in ("x_train", "x_test"):
        arrays[part] = arrays[part] ^ 1


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_npz(tmp_path / "own.npz", 130)


@pytest.mark.parametrize("change", [lambda _: None, drop_one, reverse, keep_one])
def test_a_file_that_is_saved_again_or_lacks_a_record_starts_no_new_budget(
    site: Site, own: Path, change: Callable[[dict[str, np.ndarray]], None]
) -> None:
    pay(site, MAIN, dataset_of(own))
    other = dataset_of(changed(own, change))
    assert len(pay(site, MAIN, other).events) == 2
    with pytest.raises(UserError, match="belong to another ledger"):
        site.open("second", other)
    assert site.ledgers == (MAIN,)


def test_a_further_ledger_is_for_other_records_and_for_no_others(
    site: Site, own: Path, tmp_path: Path
) -> None:
    mine, new = dataset_of(own), dataset_of(write_npz(tmp_path / "new.npz", 130, seed=1))
    pay(site, MAIN, mine)
    with pytest.raises(UserError, match=r"no ledger 'second'.*an operator opens one"):
        site.state_of("second", new)
    site.open("second", new)
    assert site.ledgers == (MAIN, "second")
    assert len(pay(site, "second", new).events) == 1
    for ledger, records in ((MAIN, new), ("second", mine)):
        with pytest.raises(UserError, match="belong to another ledger"):
            site.state_of(ledger, records)
    assert len(pay(site, MAIN, mine).events) == 2
    with pytest.raises(UserError, match="has a ledger 'second' already"):
        site.open("second", new)


def test_a_fresh_state_directory_of_the_same_site_is_not_a_fresh_budget(
    site: Site, own: Path, tmp_path: Path
) -> None:
    pay(site, MAIN, dataset_of(own))
    elsewhere = Site(tmp_path / "elsewhere", site.guard)
    with pytest.raises(UserError, match="belong to another ledger"):
        elsewhere.state_of(MAIN, dataset_of(own))
    unknown = Site(tmp_path / "elsewhere", tmp_path / "unguarded")
    assert len(pay(unknown, MAIN, dataset_of(own)).events) == 1, "said in docs/privacy.md"


def test_a_copied_state_directory_is_refused(site: Site, own: Path, tmp_path: Path) -> None:
    pay(site, MAIN, dataset_of(own))
    shutil.copytree(site.state, tmp_path / "copy")
    state = Site(tmp_path / "copy", site.guard).state_of(MAIN)
    with state.lock(), pytest.raises(UserError, match=r"the counter .* is missing"):
        state.open_ledger(TERMS)


def test_a_deleted_state_directory_is_refused(site: Site, own: Path) -> None:
    pay(site, MAIN, dataset_of(own))
    shutil.rmtree(site.state)
    with pytest.raises(UserError, match="is missing although it had 2 lines"):
        pay(site, MAIN, dataset_of(own))


def test_records_are_a_ledgers_only_once_it_pays_and_before_its_payment_is_written(
    site: Site, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = site.state_of(MAIN, dataset_of(own))
    claimed: list[int] = []
    monkeypatch.setattr(ledger_module, "append", lambda *_: claimed.append(len(site.records(MAIN))) or 1 / 0)
    with state.lock():
        opened = state.open_ledger(TERMS)
        assert len(site.records(MAIN)) == 0, "a run that is declined binds no records"
        with pytest.raises(ZeroDivisionError):
            opened.announce(PoissonGaussian(1.5, 0.25, 4, 1))
    assert claimed == [190]


def test_altered_pixels_are_not_recognised(site: Site, own: Path) -> None:
    """Known and said in docs/privacy.md."""
    pay(site, MAIN, dataset_of(own))
    site.open("second", dataset_of(changed(own, flip_a_bit)))


def test_digests_depend_on_the_sites_key_and_on_every_pixel(own: Path) -> None:
    records = dataset_of(own)
    digests = keyed_digests(records, bytes(32))
    assert len(digests) == 190
    assert not digests & keyed_digests(records, bytes(31) + b"\1")
    assert not digests & keyed_digests(dataset_of(changed(own, flip_a_bit)), bytes(32))


def test_the_key_is_its_owners_alone_outside_the_state_directory_and_never_replaced(
    site: Site, own: Path
) -> None:
    pay(site, MAIN, dataset_of(own))
    key = site.guard / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert site.state not in key.parents
    key.unlink()
    with pytest.raises(UserError, match="restore it from a backup"):
        site.open("second", dataset_of(changed(own, flip_a_bit)))
    assert not key.exists()


@pytest.mark.parametrize(("state", "guard"), [("a", "a"), ("a", "a/b"), ("a/b", "a")])
def test_directories_that_would_be_lost_together_are_refused(tmp_path: Path, state: str, guard: str) -> None:
    with pytest.raises(UserError, match="must not contain each other"):
        site_of(str(tmp_path / state), str(tmp_path / guard))


def test_by_default_every_run_of_a_site_inherits_what_was_spent_also_per_file(
    federate: Callable[..., Run], own: Path, tmp_path: Path
) -> None:
    """The home of an older version: a ledger for each data file, named by its MD5."""
    home = tmp_path / "home" / "hospital"
    old = Site(home / f"{7:032x}", tmp_path / "other").state_of(MAIN)
    with old.lock():
        old.open_ledger(TERMS).announce(PoissonGaussian(1.5, 0.25, 4, 1), PoissonGaussian(1.5, 0.25, 4, 2))
    node: dict[str, Any] = {
        "partition-id": 0,
        "num-partitions": 1,
        "data-file": str(own),
        "max-epsilon": 60.0,
        "max-delta": 1e-3,
    }
    first = federate("first", nodes=[node], target_epsilon=50.0)
    node["data-file"] = str(changed(own, drop_one))
    second = federate("second", nodes=[node], target_epsilon=50.0)
    assert first.summary["epsilon"]["hospital-0"] < second.summary["epsilon"]["hospital-0"]
    assert len(second.ledger["hospitals"]["hospital-0"]["events"]) == 6
    assert len(read_ledger(home / "ledger.jsonl").events) == 6


def test_a_server_excludes_a_hospital_whose_whole_machine_was_restored(
    federate: Callable[..., Run], own: Path, tmp_path: Path
) -> None:
    """State and guard go back together, so that the hospital itself can't notice."""
    home = tmp_path / "home"
    limits = {"max-epsilon": 60.0, "max-delta": 1e-3}
    directories = {"state-dir": str(tmp_path / "hospital"), "site-dir": str(tmp_path / "site")}
    node = {"partition-id": 0, "num-partitions": 1, "data-file": str(own), **limits, **directories}
    federate("first", nodes=[node], target_epsilon=50.0, num_server_rounds=1)
    for name in ("hospital", "site"):
        shutil.copytree(tmp_path / name, tmp_path / "backup" / name)
    second = federate("second", nodes=[node], target_epsilon=50.0, num_server_rounds=1)
    assert [row["status"] for row in second.rows("hospitals.csv")] == ["trained"]
    for name in ("hospital", "site"):
        shutil.rmtree(tmp_path / name)
        shutil.copytree(tmp_path / "backup" / name, tmp_path / name)
    third = federate("third", nodes=[node], target_epsilon=50.0, num_server_rounds=1)
    (row,) = third.rows("hospitals.csv")
    assert row["status"] == "excluded"
    assert "its ledger" in row["reason"]
    assert not third.summary["formal"]
    (kept,) = (home / "server" / "hospitals").glob("*.json")
    kept.unlink()
    fourth = federate("fourth", nodes=[node], target_epsilon=50.0, num_server_rounds=1)
    assert [one["status"] for one in fourth.rows("hospitals.csv")] == ["trained"]


@pytest.mark.parametrize("why", ["overlap", "deleted"])
def test_why_a_site_refuses_its_own_file_or_ledger_is_told_to_its_operator_alone(
    federate: Callable[..., Run], own: Path, tmp_path: Path, why: str
) -> None:
    site = Site(tmp_path / "state", tmp_path / "home" / "site")
    pay(site, MAIN, dataset_of(own))
    state_dir = tmp_path / ("state" if why == "deleted" else "fresh")
    if why == "deleted":
        site.state_of(MAIN).ledger_path.unlink()
    limits = {"max-epsilon": 60.0, "max-delta": 1e-3, "state-dir": str(state_dir)}
    node: dict[str, Any] = {"partition-id": 0, "num-partitions": 1, "data-file": str(own), **limits}
    with pytest.raises(UserError) as told:
        federate("run", nodes=[node], target_epsilon=50.0)
    assert str(told.value) == f"a hospital could not answer query.enrol: {FAILED}"
    words = "is missing although it had" if why == "deleted" else "190 records of own.npz belong to another"
    assert words in (state_dir / LOG).read_text()
