"""`fl-ppae data check` and `make-example`: a user's own images, before and in a run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.own_sets import WRITERS, first_image, rewritten, save, small_arrays
from PIL import Image

from fl_ppae import cli
from fl_ppae.commands.prepared import choose, prepare
from fl_ppae.errors import UserError
from fl_ppae.privacy.plan import plan_hospital


def checked(capsys: pytest.CaptureFixture[str], path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    code = cli.main(["data", "check", str(path), "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def test_a_sound_manifest_is_described_and_priced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = WRITERS["manifest"](tmp_path, small_arrays())
    code, found = checked(capsys, manifest)
    assert (code, found["usable"], found["wrong"]) == (0, True, [])
    assert found["keys"] == {"image-shape": "3,8,8", "class-names": "blue,green,red"}
    assert found["records"] == {"train": 24, "val": 6, "test": 9}
    assert found["classes"]["test"] == {"blue": 3, "green": 3, "red": 3}
    assert found["hospitals"] == {"Nord": 12, "Ost": 12}
    assert found["patients"] == 13
    pixels = np.concatenate([small_arrays()[f"{split}_images"].ravel() for split in ("train", "val", "test")])
    assert found["intensities"] == [pixels.min(), pixels.max()]
    assert [(row["records"], row["epsilon"]) for row in found["privacy"]] == [(12, 1.0), (12, 3.0), (12, 8.0)]
    config = choose("own_data", [f"data-file={manifest}", "target-epsilon=3"]).config
    planned = plan_hospital("a", 12, config).noise_multiplier
    assert found["privacy"][1]["noise_multiplier"] == pytest.approx(planned)


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = WRITERS["manifest"](tmp_path, small_arrays())
    os.truncate(first_image(manifest.parent), 60)
    save(manifest.parent / "images" / "val-00002.png", small_arrays()["val_images"][0][:4])
    manifest.write_text(manifest.read_text().replace("test-0,", "train-0,"))
    code, found = checked(capsys, manifest)
    assert (code, found["usable"], found["privacy"]) == (2, False, [])
    assert len(found["wrong"]) == 3
    for line, words in zip(found["wrong"], ("1 patients have records", "damaged", "resize = 8"), strict=True):
        assert words in line
    assert cli.main(["data", "check", str(manifest)]) == cli.USER_MISTAKE
    assert "can't be used as it is" in capsys.readouterr().out


def test_a_manifest_that_divides_patients_is_still_looked_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = WRITERS["manifest"](tmp_path, small_arrays())
    rewritten(manifest, lambda rows: [row for row in rows if row[2] != "val"])
    manifest.write_text(manifest.read_text().replace("test-0,", "train-0,"))
    os.truncate(first_image(manifest.parent), 60)
    code, found = checked(capsys, manifest)
    assert code == 2
    assert ["patients have" in found["wrong"][0], "damaged" in found["wrong"][1]] == [True, True]


def test_copies_between_splits_are_named_exact_or_nearly_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    arrays = small_arrays(side=32)
    for split in ("train", "val", "test"):
        coarse = rng.integers(40, 200, (len(arrays[f"{split}_labels"]), 8, 8, 3))
        arrays[f"{split}_images"] = np.kron(coarse, np.ones((1, 4, 4, 1))).astype(np.uint8)
    arrays["test_images"][0] = arrays["train_images"][5]
    folder = WRITERS["folder"](tmp_path, arrays)
    Image.fromarray(arrays["train_images"][7]).save(folder / "test" / "green" / "00001.jpg", quality=75)
    (folder / "test" / "green" / "00001.png").unlink()
    code, found = checked(capsys, folder)
    assert code == 0, found["wrong"]
    assert any("1 image stands in both train and test" in line for line in found["warnings"])
    assert any(
        "1 test images are nearly the same as one in train" in line
        and "test/green/00001.jpg and train/green/00007.png" in line
        for line in found["warnings"]
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_a_run_finds_shape_and_classes_by_itself(kind: str, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path, small_arrays())
    chosen = choose("own_data", [f"data-file={path}", "min-records=4"])
    names = "0,1,2" if kind == "npz" else "blue,green,red"
    assert (chosen.config.image_shape, chosen.config.class_names) == ("3,8,8", names)
    assert set(chosen.overrides) == {"data-file", "min-records", "image-shape", "class-names"}
    assert sum(prepare(chosen, 3).records.values()) == 24


def test_a_natural_partition_deals_as_the_manifest_says(tmp_path: Path) -> None:
    manifest = WRITERS["manifest"](tmp_path, small_arrays())
    rewritten(manifest, lambda rows: [row for row in rows if row[3] not in ("train-1", "train-3")])
    pairs = [f"data-file={manifest}", "min-records=4", "partition=natural"]
    assert prepare(choose("own_data", pairs), 2).records == {"hospital-0": 12, "hospital-1": 6}
    with pytest.raises(UserError, match="of 2 hospitals, but the federation has 5; use --hospitals 2"):
        prepare(choose("own_data", pairs), 5)


@pytest.mark.parametrize(
    ("pairs", "line"),
    [
        (["dataset=custom"], 'dataset = "custom" needs data-file'),
        (["resize=64"], "resize = 64 is only used with dataset"),
        (["partition=natural"], 'partition = "natural" needs dataset = "custom"'),
        (["dataset=custom", "data-file=a", "data-source=medmnist"], 'data-source must be "file"'),
        (["dataset=custom", "data-file=a", "image-size=64"], 'with dataset = "custom", use resize'),
        (["dataset=custom", "data-file=a", "intensity-range=percentile"], "can't be asked for"),
        (["dataset=custom", "data-file=a", "intensity-range=9,3"], "must be two numbers, the lower first"),
        (["dataset=custom", "data-file=a", "image-shape=28,28"], 'such as "3,28,28"'),
        (["dataset=custom", "data-file=a", "class-names=one"], "must be two or more different names"),
    ],
)
def test_keys_of_own_images_that_do_not_fit_are_one_line(pairs: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        choose("pathmnist_iid", pairs)


@pytest.mark.slow
def test_the_example_is_three_times_the_same_and_any_of_them_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "example"
    assert cli.main(["data", "make-example", str(folder), "--json"]) == cli.OK
    written = json.loads(capsys.readouterr().out)
    deals = [
        prepare(choose("own_data", [f"data-file={written[kind]}", "min-records=20"]), 5).deal
        for kind in ("folder", "manifest", "dicom")
    ]
    images = [deal.dataset.train.images for deal in deals]
    assert len(images[0]) == 400
    assert all(np.array_equal(images[0], other) for other in images[1:])
    assert cli.main(["data", "make-example", str(folder)]) == cli.USER_MISTAKE
    assert "not empty" in capsys.readouterr().err
