import csv
import json
from pathlib import Path

import pytest

from fl_ppae.cli import main


def _study(data_file: Path, folder: Path, *more: str) -> int:
    source = ["--datasets", "mnist", "--data", f"mnist={data_file}", "--workers", "1"]
    return main(["study", "paper", *source, "--output-dir", str(folder), *more])


def test_a_study_resumes_and_refuses_the_folder_of_another_study(
    data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    # More than the 33 images of the server's split would be needed to fit PCA, so this cell fails.
    assert _study(data_file, folder, "--seeds", "0", "--only", "pca", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert "needs more than 49 images" in document["failed"][0]["error"]
    assert document["settings"]["sources"]["mnist"]["stand_in"] is False
    before = (folder / "cells.csv").read_bytes()
    assert _study(data_file, folder, "--seeds", "0", "--only", "pca") == 1
    assert (folder / "cells.csv").read_bytes() == before
    assert _study(data_file, folder, "--scale", "full", "--only", "pca") == 2
    assert "holds another study (scale differ)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--datasets", "minst"], "did you mean 'mnist'"),
        (["--data", "mnist"], "must be DATASET=FILE"),
        (["--data", "mnist=/nowhere.npz"], "no such file"),
        (["--only", "nothing-like-it"], "matches no cell"),
        (["--only", "("], "not a regular expression"),
        (["--seeds", "a"], "comma-separated numbers"),
        (["--workers", "-1"], "--workers -1"),
    ],
)
def test_mistakes_give_a_one_line_error(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "paper", "--output-dir", str(tmp_path / "s"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_a_stand_in_is_marked_in_every_row(tmp_path: Path) -> None:
    pytest.importorskip("kymatio", reason="kymatio is the extra `study`")
    folder = tmp_path / "study"
    arguments = ["study", "paper", "--datasets", "mnist", "--data-source", "stand-in", "--seeds", "0"]
    assert (
        main([*arguments, "--only", "scatternet|conv/eps1/autoencoder/h5", "--output-dir", str(folder)]) == 0
    )
    with (folder / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {(row["stand_in"], row["source"]) for row in rows} == {("true", "stand-in for MNIST")}
    assert (folder / "figures" / "frontier.png").stat().st_size > 10_000
