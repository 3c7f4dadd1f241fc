"""The command line: one line and exit code 2 for a mistake, and no slow import before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands.command_line import run

from fl_ppae import cli


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "COMMAND"),
        (("rnu",), "'rnu'"),
        (("run", "pathmnist_idd"), "did you mean 'pathmnist_iid'"),
        (("run", "pathmnist_iid", "-c", "dp-scop=none"), "did you mean 'dp-scope'"),
        (("run", "pathmnist_iid", "-c", "dp-scope=all"), "'frozen-decoder'"),
        (("run", "pathmnist_iid", "-c", "seed"), "not key=value"),
        (("run", "pathmnist_iid", "-c", "checkpoint-every=101"), "less than or equal to 100"),
        (("run", "pathmnist_iid", "-c", f"output-dir={Path(__file__).parent}"), "is taken"),
        (("run", "pathmnist_iid", "-c", f"output-dir={__file__}"), "is taken"),
        (("run",), "name a simulation"),
        (("run", "--resume", "nothing"), "no run 'nothing'"),
        (("run", "--resume", "x", "--hospitals", "3"), "leave out -c and --hospitals"),
        (("run", "pathmnist_iid", "-c", "resume=x", "-c", "output-dir=y"), "leave it empty"),
        (("plan", "pathmnist_iid", "-c", "target-epsilon=-1"), "greater than 0"),
        (("plan", "pathmnist_iid", "--hospitals", "0"), "--hospitals 0"),
        (("plan", "pathmnist_iid", "--hospitals", "two"), "'two'"),
        (("plan", "mnist_iid", "-c", "data-source=stand-in", "--hospitals", "900"), "min-records"),
        (("plan", "mnist_iid", "-c", "data-source=stand-in", "-c", "target-delta=0.1"), "1/records"),
        (("show", "nothing"), "no run 'nothing'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == cli.USER_MISTAKE
    out, err = capsys.readouterr()
    assert words in err
    assert err.startswith("fl-ppae: ")
    assert err.count("\n") == 1
    assert not out


def test_the_command_line_itself_imports_nothing_slow() -> None:
    code = "import sys, fl_ppae.cli as c; c._parser(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not {"torch", "flwr", "ray", "numpy", "pydantic", "rich"} & set(modules.split())
