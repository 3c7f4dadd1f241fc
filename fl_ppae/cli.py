"""The command `fl-ppae`: arguments, exit codes, and one line for a user's mistake."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from fl_ppae import __version__
from fl_ppae.commands import streams
from fl_ppae.commands.progress import displayed
from fl_ppae.environment import forget_settings_of_libraries
from fl_ppae.errors import UserError, printable

OK, RUN_FAILED, USER_MISTAKE, INTERRUPTED = 0, 1, 2, 130
# What a file system refuses: no permission, no space, no such place. The path says the rest.
_OF_THE_MACHINE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line, as for any other mistake."""
        self.exit(USER_MISTAKE, f"fl-ppae: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    has_stdout = streams.open_closed_ones()
    streams.exit_on_signals()
    forget_settings_of_libraries()
    with streams.forgiving_stderr():
        if not has_stdout:
            return _refuse("standard output is closed; send it to a file, or to /dev/null")
        if not _has_current_folder():
            return _refuse("the current folder is gone; change to another one, for example with cd ~")
        try:
            with streams.flushed_stdout():
                return _run(argv)
        except streams.OutputLost as lost:
            return OK if lost.reader_is_gone else _refuse(f"the output can't be written: {lost}")


def _run(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        with displayed():
            return _command(arguments.handler)(arguments)
    except UserError as error:
        return _refuse(str(error))
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE or error.filename is None:
            raise
        return _refuse(f"{printable(os.fsdecode(error.filename))}: {error.strerror}")
    except (KeyboardInterrupt, streams.Ended) as end:
        print("fl-ppae: interrupted", file=sys.stderr)
        return INTERRUPTED if isinstance(end, KeyboardInterrupt) else int(end.code or 0)


def _has_current_folder() -> bool:
    """Without one, no relative path means anything, and torch ends the process as it is loaded."""
    try:
        return bool(Path.cwd())
    except OSError:
        return False


def _refuse(text: str) -> int:
    """Print one line, and return the exit code of a mistake."""
    print(f"fl-ppae: {text}", file=sys.stderr)
    return USER_MISTAKE


def _command(handler: str) -> Callable[[argparse.Namespace], int]:
    """Import a command when it is called: some take seconds to import."""
    module, function = handler.split(":")
    command: Callable[[argparse.Namespace], int] = getattr(
        import_module(f"fl_ppae.commands.{module}"), function
    )
    return command


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fl-ppae",
        description="Federated learning between hospitals through privacy-preserving autoencoders.",
        epilog="Exit codes: 0 success, 1 the run failed or the audit refutes the claim, "
        "2 a mistake in the input.",
    )
    parser.add_argument("--version", action="version", version=f"fl-ppae {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = _add(commands, "run", "run:command", "run a simulation and show its results")
    _add_simulation(run, optional=True)
    run.set_defaults(hospitals=None)  # a resumed run has its own number
    run.add_argument(
        "--resume",
        default="",
        metavar="RUN",
        help="go on with an interrupted run, its folder, its name, or 'latest'; its keys stay as they were",
    )
    run.add_argument(
        "--in-process",
        action="store_true",
        help="run the hospitals one after another in this process, without Ray",
    )
    plan = _add(commands, "plan", "plan:command", "show what each hospital would spend, without training")
    _add_simulation(plan)
    _add_audit(commands)
    _add(commands, "runs", "stored:runs", "list the runs on this machine")
    show = _add(commands, "show", "stored:show_run", "show one run's results")
    show.add_argument("run", metavar="RUN", help="a run's folder, its name, or 'latest'")
    report = _add(commands, "report", "report:command", "write a run's or a study's report.html")
    report.add_argument("run", metavar="RUN|STUDY", help="its folder, its name, or 'latest'")
    report.add_argument("--output", default="", metavar="FILE", help="default: report.html in its folder")
    report.add_argument(
        "--data-file", default="", metavar="FILE", help="the run's data file, if it has moved"
    )
    compare = _add(commands, "compare", "compare:command", "show runs side by side, and which keys differ")
    compare.add_argument("runs", metavar="RUN", nargs="+", help="a run's folder, its name, or 'latest'")
    audit = _add(commands, "audit", "audit:command", "attack a finished run and measure what still leaks")
    audit.add_argument(
        "run", metavar="RUN", nargs="?", help="a completed run's folder, its name, or 'latest'"
    )
    audit.add_argument("--attacks", metavar="A,B,...", help="only these (default: all; see --list)")
    audit.add_argument(
        "--attacker",
        choices=("server-split", "colluding-hospital"),
        help="who inverts encodings: a server with the validation split, or a hospital (default: both)",
    )
    audit.add_argument("--list", action="store_true", help="describe each attack in one line and stop")
    audit.add_argument("--quick", action="store_true", help="fewer images and weaker attackers: 2 minutes")
    audit.add_argument(
        "--shadows",
        type=int,
        metavar="N",
        help="shadow models of each membership attack, even (default 64, or fewer if they take long)",
    )
    audit.add_argument(
        "--threads", type=int, default=1, metavar="N", help="CPU threads (default 1: best on a busy machine)"
    )
    audit.add_argument("--data-file", default="", metavar="FILE", help="the run's data file, if it has moved")
    _add_study(commands)
    _add_recommend(commands)
    _add_ledger(commands)
    _add_data(commands)
    _add_make_start(commands)
    _add_bench(commands)
    return parser


def _add(
    commands: argparse._SubParsersAction[Any], name: str, handler: str, text: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    command.set_defaults(handler=handler)
    command.add_argument("--json", action="store_true", help="print one JSON document to stdout")
    return command


def _add_audit(commands: argparse._SubParsersAction[_Parser]) -> None:
    audit = _add(
        commands,
        "audit-epsilon",
        "audit_epsilon:command",
        "train a hospital with canaries, and test the epsilon that its ledger claims",
    )
    _add_simulation(audit)
    audit.add_argument(
        "--hospital", type=int, default=0, metavar="K", help="number of the hospital (default 0)"
    )
    audit.add_argument(
        "--canaries",
        type=int,
        metavar="M",
        help="canaries in each training (default: as many as fit, at most 15000)",
    )
    audit.add_argument(
        "--trainings", type=int, default=12, metavar="R", help="independent trainings or uploads (default 12)"
    )
    audit.add_argument(
        "--artefact",
        choices=("updates", "encodings", "labels"),
        default="updates",
        help="what is audited (default updates)",
    )
    audit.add_argument(
        "--figure",
        choices=("joint", "alone"),
        help="with joint noise, which epsilon: of the sum of the honest hospitals (default), or of this "
        "hospital's own share, if all others collude",
    )
    audit.add_argument(
        "--confidence", type=float, default=0.95, metavar="P", help="of the bound, one-sided (default 0.95)"
    )
    audit.add_argument(
        "--claim", type=float, metavar="E", help="compare with this epsilon instead of the ledger's"
    )


def _add_bench(commands: argparse._SubParsersAction[_Parser]) -> None:
    bench = _add(
        commands,
        "bench",
        "bench:command",
        "measure speed and memory on this machine, and compare with the aims",
    )
    bench.add_argument(
        "--only",
        metavar="A,B,...",
        help="of step, epoch, federation, scale, memory, accountant, secagg, startup (default: all)",
    )
    sizes = bench.add_mutually_exclusive_group()
    for name, text in (
        ("quick", "smaller measurements: 3 minutes"),
        ("tiny", "a smoke test: no Ray, seconds"),
    ):
        sizes.add_argument(
            f"--{name}", action="store_const", dest="size", const=name, default="full", help=text
        )
    bench.add_argument(
        "--threads", type=int, default=1, metavar="N", help="CPU threads of each measured step (default 1)"
    )


def _add_study(commands: argparse._SubParsersAction[_Parser]) -> None:
    study: argparse.ArgumentParser = commands.add_parser(
        "study",
        help="run a grid: the paper's comparison, splits of the data, codes of few bits, or who gains",
    )
    studies = study.add_subparsers(title="studies", metavar="STUDY", required=True)
    paper = _add(
        studies, "paper", "study:paper", "repeat the paper's comparison in a federation, and test its claims"
    )
    paper.add_argument("--scale", choices=("small", "full"), default="small", help="(default small)")
    paper.add_argument("--datasets", metavar="A,B,...", help="only these (default: those of the scale)")
    split = _add(
        studies, "partitions", "study:partitions", "measure what non-IID hospitals cost, and which ones pay"
    )
    codes = _add(studies, "frontier", "study:frontier", "measure how far codes of few bits hide their images")
    codes.add_argument(
        "--scale", choices=("small", "medium", "full"), default="small", help="(default small)"
    )
    value = _add(
        studies, "value", "study:value", "measure where joining a federation pays, and what it costs"
    )
    for one in (paper, split, codes, value):
        one.add_argument(
            "--data",
            action="append",
            default=[],
            metavar="DATASET=FILE",
            help="the .npz of a data set (default: the official files); repeatable",
        )
        one.add_argument("--data-source", choices=("stand-in",), help="use drawn images, marked in every row")
        one.add_argument("--seeds", default="0,1,2", metavar="A,B,...", help="(default 0,1,2)")
        one.add_argument("--only", metavar="REGEX", help="only cells whose name matches")
        one.add_argument(
            "--workers", type=int, default=0, metavar="N", help="processes (default: one per core)"
        )
        one.add_argument("--retry-failed", action="store_true", help="run failed cells again")
        one.add_argument("--output-dir", default="", metavar="DIR", help="(default ~/.fl_ppae/studies/NAME)")


def _add_ledger(commands: argparse._SubParsersAction[_Parser]) -> None:
    ledger: argparse.ArgumentParser = commands.add_parser(
        "ledger", help="for a hospital's operator: what its records have spent, and further ledgers"
    )
    ledgers = ledger.add_subparsers(title="actions", metavar="ACTION", required=True)
    seen = _add(ledgers, "show", "ledger:show_ledgers", "list a site's ledgers and what each has spent")
    seen.add_argument("--delta", type=float, default=1e-5, metavar="D", help="of the total (default 1e-5)")
    opened = _add(ledgers, "open", "ledger:open_ledger", "open a further ledger, for records in no other one")
    opened.add_argument("ledger", metavar="NAME", help="lower-case letters, digits and dashes")
    opened.add_argument(
        "--data-file", required=True, metavar="FILE", help="the records, as in the node config"
    )
    opened.add_argument("--dataset", required=True, metavar="NAME", help="the data set whose layout it has")
    _add_overrides(opened, "for your own images: a key of the node config that says how they are read")
    lost = _add(
        ledgers,
        "accept-loss",
        "ledger:accept_loss",
        "charge a ledger for what it has lost, and go on with it",
    )
    lost.add_argument("ledger", metavar="NAME", help="'main', or a further ledger")
    lost.add_argument(
        "--max-epsilon",
        type=float,
        required=True,
        metavar="E",
        help="what may have been spent: the max-epsilon of the node config",
    )
    lost.add_argument(
        "--delta", type=float, required=True, metavar="D", help="the largest target-delta of the lost runs"
    )
    for one in (seen, opened, lost):
        one.add_argument("--state-dir", default="", metavar="DIR", help="(default ~/.fl_ppae/hospital)")
        one.add_argument("--site-dir", default="", metavar="DIR", help="(default ~/.fl_ppae/site)")


def _add_data(commands: argparse._SubParsersAction[_Parser]) -> None:
    data = _add(commands, "data", "stored:data", "list the official data files, or check your own images")
    actions = data.add_subparsers(title="actions", metavar="ACTION")
    check = _add(actions, "check", "data:check", "say what your own images hold and what is wrong with them")
    check.add_argument("path", metavar="PATH", help="an .npz, a folder, or a manifest (.csv or .parquet)")
    _add_overrides(check, "a key that says how they are read, such as resize=64")
    example = _add(actions, "make-example", "data:make_example", "write a small data set of every kind")
    example.add_argument("folder", metavar="FOLDER", help="a new folder")


def _add_recommend(commands: argparse._SubParsersAction[_Parser]) -> None:
    recommend = _add(
        commands,
        "recommend",
        "recommend:command",
        "choose a configuration from a study, or ask it if joining pays",
    )
    recommend.add_argument("--max-epsilon", type=float, required=True, metavar="E", help="of encoder updates")
    recommend.add_argument(
        "--max-inversion-ssim", type=float, default=1.0, metavar="S", help="of the best attacker (default 1)"
    )
    recommend.add_argument(
        "--joining", type=int, metavar="N", help="should a hospital join N hospitals? From a value study"
    )
    recommend.add_argument(
        "--public", type=int, default=0, metavar="N", help="labelled images that the server has (default 0)"
    )
    recommend.add_argument("--min-accuracy", type=float, metavar="A", help="from 0 to 1")
    recommend.add_argument("--dataset", metavar="NAME", help="needed if the study has several")
    recommend.add_argument("--study", default="", metavar="DIR", help="(default: under ~/.fl_ppae/studies)")
    recommend.add_argument(
        "--formal-only",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="only epsilons that are a guarantee (default), which excludes the paper's scope",
    )


def _add_make_start(commands: argparse._SubParsersAction[_Parser]) -> None:
    make = _add(
        commands,
        "make-start",
        "make_start:command",
        "train a residual encoder on a public data set, as a file for the key start",
    )
    make.add_argument("dataset", metavar="DATASET", help="a data set's name, as the key dataset")
    make.add_argument("--output", required=True, metavar="FILE", help="where to write the .safetensors file")
    make.add_argument("--data-source", default="", metavar="SOURCE", help="as the key (default auto)")
    make.add_argument("--data-root", default="", metavar="DIR", help="as the key")
    make.add_argument("--data-file", default="", metavar="FILE", help="as the key, with --data-source file")
    make.add_argument(
        "--channels",
        type=int,
        choices=(1, 3),
        default=0,
        help="of the images that it is for: grey is repeated, colours are averaged (default: as they are)",
    )
    make.add_argument(
        "--encoding-size", type=int, default=0, metavar="K", help="numbers in an encoding (default 16)"
    )
    make.add_argument("--steps", type=int, default=2000, metavar="N", help="of 128 images (default 2000)")
    make.add_argument("--seed", type=int, default=0, metavar="S", help="of weights and batches (default 0)")


def _add_simulation(command: argparse.ArgumentParser, *, optional: bool = False) -> None:
    command.add_argument(
        "simulation",
        metavar="NAME|DIR",
        nargs="?" if optional else None,
        help="a simulation by name, or its folder",
    )
    command.add_argument(
        "--hospitals", type=int, default=5, metavar="N", help="number of hospitals (default 5)"
    )
    _add_overrides(command, "override a key of the simulation")


def _add_overrides(command: argparse.ArgumentParser, meaning: str) -> None:
    command.add_argument(
        "-c",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help=f"{meaning}; repeatable",
    )


if __name__ == "__main__":
    sys.exit(main())
