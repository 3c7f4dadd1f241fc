"""Records leave in a secret order, each encoding with its label, and only the simulator knows the order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from attacks.audits import opened
from hospital.asked import AskedHospital
from safetensors.torch import load_file
from support import Run, simulated_nodes

from fl_ppae.data.sources import resolve
from fl_ppae.errors import UserError
from fl_ppae.hospital.simulated import in_dealt_order
from fl_ppae.leakage.similarity import similarity
from fl_ppae.messages import ARRAYS, ENCODINGS
from fl_ppae.models.build import released_format_of
from fl_ppae.models.encoding import encode
from fl_ppae.privacy.labels import randomised_response
from fl_ppae.privacy.randomness import seeded_stream
from fl_ppae.server.evaluation import LEAKAGE_IMAGES

SHARES = ["encodings", "updates+encodings"]


def sorted_by_label(hospital: AskedHospital) -> np.ndarray:
    """Sort a hospital's data file by label, as many are; returns the labels (N,) of its train part."""
    with np.load(hospital.data) as data:
        arrays = dict(data)
    order = np.argsort(arrays["y_train"], kind="stable")
    arrays |= {name: arrays[name][order] for name in ("x_train", "y_train")}
    np.savez(hospital.data, **arrays)
    own = hospital.config.model_copy(update={"data_source": "file", "data_file": str(hospital.data)})
    labels = np.array(resolve(own).train.labels)
    assert np.all(np.diff(labels) >= 0)
    return labels


def guessed_by_place(released: np.ndarray, truth: np.ndarray) -> float:
    """The share of labels that an attacker finds who knows that the file is sorted, and its class counts.

    The records of one class lie together, so the most frequent released label there is theirs.
    """
    places = np.split(np.arange(len(truth)), np.flatnonzero(np.diff(truth)) + 1)
    guesses = np.concatenate([np.full(len(place), np.bincount(released[place]).argmax()) for place in places])
    return float(np.mean(guesses == truth))


def test_a_sorted_file_does_not_undo_randomised_response(tmp_path: Path) -> None:
    hospital = AskedHospital(tmp_path / "a")
    truth = sorted_by_label(hospital)
    hospital.train_all()
    reply = hospital.ask(ENCODINGS, hospital.honest(ENCODINGS))
    released = reply.content[ARRAYS]["labels"].numpy()
    in_place = randomised_response(truth, 2.0, 10, seeded_stream("any"))
    assert guessed_by_place(in_place, truth) > 0.9, "the control: labels in the order of the file"
    assert guessed_by_place(released, truth) < 0.5
    assert not [path for path in tmp_path.rglob("*") if "order" in path.name], "it is kept nowhere"


@pytest.mark.parametrize("share", SHARES)
def test_no_row_keeps_its_place_and_no_two_uploads_share_an_order(
    federate: Callable[..., Run], share: str
) -> None:
    run = federate("run", share=share)
    orders = [np.load(path) for path in sorted(run.path.glob("audit-only/*-order.npy"))]
    assert len(orders) == (6 if share == "encodings" else 3)
    for order in orders:
        assert np.array_equal(np.sort(order), np.arange(len(order)))
        assert np.mean(order == np.arange(len(order))) < 0.2
    for part in ("train", "test"):
        same = [np.load(path).tolist() for path in run.path.glob(f"audit-only/*-{part}-order.npy")]
        assert all(one != other for index, one in enumerate(same) for other in same[index + 1 :])


@pytest.mark.parametrize("share", SHARES)
def test_each_encoding_leaves_with_its_own_label_and_audits_pair_it_with_its_image(
    federate: Callable[..., Run], share: str
) -> None:
    run = federate("run", share=share)
    audited = opened(run)
    assert audited.deal is not None
    for name, records in audited.deal.train.items():
        encoder = audited.encoder or audited.own_encoder(name)
        assert encoder is not None
        encodings = audited.uploaded(name)
        np.testing.assert_allclose(encode(encoder, records.images()), encodings, atol=1e-5)
        (labels,) = (run.path / "hospitals" / name).glob("released-*-train-labels.npy")
        assert np.array_equal(in_dealt_order(np.load(labels), name, "train", run.path), records.labels())
        assert not np.allclose(np.load(audited.uploads(name)[0]), encodings), "they left in another order"


@pytest.mark.parametrize("share", SHARES)
def test_an_encoding_leaves_as_its_bits_and_is_learned_from_and_audited_as_rounded(
    federate: Callable[..., Run], share: str
) -> None:
    run = federate("run", share=share, encoding_bits=2)
    audited = opened(run)
    assert audited.deal is not None
    form = released_format_of(audited.config)
    for name, records in audited.deal.train.items():
        encoder = audited.encoder or audited.own_encoder(name)
        assert encoder is not None
        (path,) = audited.uploads(name)
        sent = np.load(path)
        assert (sent.dtype, sent.shape) == (np.uint8, (len(records), form.numbers // 4))
        rounded = audited.uploaded(name)
        differing = np.mean(rounded != encode(encoder, records.images(), bits=2))
        assert differing < 1e-3  # a number at the edge of two cells may fall into either
    assert (
        f"k = {form.numbers} numbers x 2 bits = {2 * form.numbers} bits"
        in (run.path / "privacy_card.md").read_text()
    )


def test_a_run_that_uploads_nothing_learns_from_rounded_encodings(federate: Callable[..., Run]) -> None:
    run = federate("run", share="updates", encoding_bits=1)
    fitted = load_file(run.path / "classifier.safetensors")
    varied = fitted["scale"] < 1  # others are the same for all images
    assert varied.any()
    squares = fitted["mean"] ** 2 + fitted["scale"] ** 2  # of numbers that are 0.5 or -0.5
    torch.testing.assert_close(squares[varied], torch.full_like(squares[varied], 0.25))


def test_leakage_of_released_test_encodings_is_that_of_their_own_images(federate: Callable[..., Run]) -> None:
    run = federate("run", share="encodings")
    audited = opened(run)
    assert audited.deal is not None
    images, rows = [], []
    for name, records in audited.deal.test.items():
        encoder = audited.own_encoder(name)
        assert encoder is not None
        images.append(records.images())
        rows.append(torch.from_numpy(encode(encoder, records.images())))
    paired = similarity(torch.cat(images)[:LEAKAGE_IMAGES], torch.cat(rows)[:LEAKAGE_IMAGES])
    for metric in ("cosine", "cosine_centred", "retrieval_top1"):
        assert run.summary["leakage"][metric] == pytest.approx(getattr(paired, metric), abs=1e-4)


def test_an_order_that_is_missing_or_is_another_uploads_is_refused(federate: Callable[..., Run]) -> None:
    run = federate("run", share="encodings")
    audited = opened(run)
    path = run.path / "audit-only" / "hospital-1-train-order.npy"
    np.save(path, np.load(run.path / "audit-only" / "hospital-1-test-order.npy"))
    with pytest.raises(UserError, match="not an order of the 100 rows"):
        audited.uploaded("hospital-1")
    path.unlink()
    with pytest.raises(UserError, match="can't be paired"):
        audited.uploaded("hospital-1")
    assert audited.hospitals == ("hospital-0", "hospital-2")


def test_an_upload_with_numbers_that_are_not_finite_is_not_measured(federate: Callable[..., Run]) -> None:
    run = federate("run", share="encodings")
    audited = opened(run)
    (path,) = audited.uploads("hospital-1")
    rows = np.load(path)
    rows[3, 2] = np.nan
    np.save(path, rows)
    with pytest.raises(UserError, match="not finite"):
        audited.uploaded("hospital-1")


def test_a_hospital_that_keeps_its_test_part_is_left_out_of_the_test(federate: Callable[..., Run]) -> None:
    nodes = simulated_nodes(3)
    nodes[1]["allow-test-encodings"] = False
    run = federate("run", nodes=nodes, share="encodings")
    assert run.summary["status"] == "completed"
    assert [run.summary["uploads"][f"hospital-{index}"]["records"] for index in range(3)] == [100, 100, 100]
    tested = {path.parent.name for path in run.path.glob("hospitals/*/released-*-test.npy")}
    assert tested == {"hospital-0", "hospital-2"}
