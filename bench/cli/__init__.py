"""The command line: bench run, certify, report, compare, list, check-detector, check-run, verify, submit."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..errors import UserError

if TYPE_CHECKING:
    from fractions import Fraction

    from rich.console import Console

    from ..audit.check_run import Rechecked
    from ..audit.rebuild import Overrides
    from ..audit.verify import Verified
    from ..core.data import Data
    from ..core.threat import ThreatModel
    from ..plugins.fitting import DetectorSpec
    from .progress import Bars

EXAMPLES = """\
examples:
  bench run --detector advrad --attack pgd-linf --eps 2/255
  bench run --detector patchcore,autoencoder --attack pgd-linf --eps 1/255,2/255 --dataset folder \\
            --data-root photos/ --category bottle --image-size 128 --param weights=mobilenetv2_100.safetensors
  bench certify --detector patchcore --sigma 0.25 --radius 0.1,0.2
  bench report
"""


BOARDS_SHOWN = 8

CERTIFY_EXAMPLES = """\
examples:
  bench certify --detector autoencoder --sigma 0.12,0.25 --radius 0.1,0.2,0.5 --samples 1000 --alpha 0.001
  bench run --detector smoothed+autoencoder --param sigma=0.25 --attack apgd-l2 --eps 0.2    # the other side of it
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bench: {message} (bench {self.prog.partition(' ')[2]} --help)\n".replace("bench  ", "bench "))


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bench",
        description="Clean and robust AUROC of image anomaly detectors.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="fit detectors where needed, attack them, write results",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument(
        "--detector",
        required=True,
        metavar="D[,D2..]",
        help="names (`bench list detectors`), path/to/mine.py:MyDetector, outer+inner (diffpure+patchcore), or all",
    )
    run.add_argument("--attack", default="pgd-linf", metavar="A[,A2..]", help="method-norm (default: pgd-linf)")
    run.add_argument(
        "--eps",
        default="2/255",
        metavar="E[,E2..]",
        help="budgets in pixel units in [0, 1], or pixels in l0, kept exact (default: 2/255)",
    )
    _add_test_bed(run)
    run.add_argument("--attack-param", action="append", default=[], metavar="K=V", help="of the attack (repeatable)")
    run.add_argument(
        "--draws",
        type=int,
        metavar="N",
        help="noise draws whose mean is the score of a randomized detector (default: 8)",
    )
    run.add_argument(
        "--goal",
        default="rank",
        metavar="GOAL",
        help="rank (default): as far as possible, for AUROC; threshold: until the decision is wrong, for accuracy",
    )
    run.add_argument(
        "--save-images",
        type=int,
        metavar="N",
        help="of each attacked class, keep the N images whose score moved most and the N hardest ones, clean and "
        "attacked, below the cell's folder (default: none)",
    )
    run.set_defaults(act=_run)

    certify = commands.add_parser(
        "certify",
        help="bound what any attack of an l2 ball can do, by randomized smoothing",
        description="Puts each detector behind Gaussian noise (its score becomes the median over draws) and\n"
        "bounds that score over the l2 ball of each radius: certified AUROC and accuracy, which\n"
        "no attack can break.",
        epilog=CERTIFY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    certify.add_argument(
        "--detector",
        required=True,
        metavar="D[,D2..]",
        help="as of run; D and smoothed+D mean the same, denoised+D removes the noise before D",
    )
    certify.add_argument(
        "--sigma",
        default="0.25",
        metavar="S[,S2..]",
        help="standard deviation of the noise, in pixel units in [0, 1] (default: 0.25)",
    )
    certify.add_argument(
        "--radius",
        metavar="R[,R2..]",
        help="of the l2 ball, in pixel units in [0, 1]; all of them rest on the same draws (default: 0.2)",
    )
    certify.add_argument("--norm", default="l2", metavar="NORM", help="l2 (linf: an explanation)")
    certify.add_argument("--samples", type=int, default=1000, metavar="N", help="noise draws per image (default: 1000)")
    certify.add_argument(
        "--alpha",
        type=float,
        default=0.001,
        metavar="A",
        help="chance with which a bound of any image may fail (default: 0.001)",
    )
    certify.add_argument(
        "--center",
        metavar="C",
        help="median (default), mean (needs --param low=.. and high=..), or p between 0 and 1 for a percentile",
    )
    certify.add_argument(
        "--goal",
        default="rank",
        metavar="GOAL",
        help="rank (default): bounds of every score, for AUROC; threshold: of the decision, with fewer draws",
    )
    _add_test_bed(certify)
    certify.set_defaults(act=_certify)

    report = commands.add_parser("report", help="tables, LEADERBOARD.md, CSV and plots from results")
    report.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    report.add_argument("--out", type=Path, metavar="DIR", help="where the files go (default: the results folder)")
    report.add_argument(
        "--format",
        default="md,html,csv",
        metavar="F[,F2..]",
        help="of md, html, csv, json, parquet (default: md,html,csv)",
    )
    report.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="K=V[,K2=V2..]",
        help="only cells that fit, e.g. detector=advrad,eps=2/255; the same key again is an alternative (repeatable)",
    )
    report.add_argument(
        "--sort",
        default="",
        metavar="COLUMN",
        help="a metric (clean_auroc), a cost (seconds) or detector, best first; =-COLUMN the other way round",
    )
    report.set_defaults(act=_report)

    compare = commands.add_parser(
        "compare",
        help="is one detector better than another? paired by image, and over data sets",
        description="The difference of a metric between two detectors (or two cells), with an interval and a p-value\n"
        "from a bootstrap that is paired by image. With six data sets or more in common (a category is\n"
        "one; its attacks and budgets share images, so their mean counts): Wilcoxon's test of two\n"
        "detectors, Friedman's of more, and a critical-difference plot.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument(
        "names", nargs="+", metavar="A B [C ..]", help="detectors as the leaderboard names them, or two cells' folders"
    )
    compare.add_argument(
        "--metric", metavar="M", help="a column of leaderboard.csv (default: robust_auroc, or what the board ranks by)"
    )
    compare.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    compare.set_defaults(act=_compare)

    listing = commands.add_parser("list", help="what there is")
    listing.add_argument("kind", choices=("detectors", "attacks", "datasets", "checks"))
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.set_defaults(act=_list)

    check = commands.add_parser(
        "check-detector",
        help="does a detector keep the contract? one line per check",
        description="Fits a detector on a toy task and checks its contract. Exit code 0 if "
        "all checks pass, 1 if one fails, 2 on bad input.",
    )
    check.add_argument("detector", metavar="NAME", help="a name, path/to/mine.py:MyDetector, or outer+inner")
    check.add_argument("--param", action="append", default=[], metavar="K=V")
    check.add_argument("--image-size", type=int, metavar="N")
    check.set_defaults(act=_check)

    again = commands.add_parser(
        "check-run",
        help="may a stored cell be believed? one line per check",
        description="Rebuilds the detector of a stored cell from its record, scores the images again, attacks a few of "
        "them, and compares every check with the sentence that is stored. Exit code 0 if all checks pass as they did, "
        "1 if one fails or its verdict is not the stored one, 2 on bad input.",
    )
    again.add_argument("path", type=Path, metavar="PATH", help="a cell's folder (with run.json), or a folder of cells")
    _add_given(again)
    again.add_argument("--attack-param", action="append", default=[], metavar="K=FILE", help="the same, of the attack")
    again.set_defaults(act=_check_run)

    verify = commands.add_parser(
        "verify",
        help="do the files of a cell still say what was computed? one line per test",
        description="Computes every published metric of a cell from its rows, looks at hashes, budgets and columns, "
        "and scores its stored images again. Exit code 0 if nothing differs, 1 if something does, 2 on bad input.",
    )
    verify.add_argument(
        "path",
        type=Path,
        nargs="?",
        default=Path("results"),
        metavar="PATH",
        help="a cell's folder, a folder of cells, or a submission (default: results)",
    )
    verify.add_argument("--no-scores", action="store_true", help="fit nothing and score nothing")
    _add_given(verify)
    verify.set_defaults(act=_verify, attack_param=[])

    submit = commands.add_parser(
        "submit",
        help="pack finished cells into one file, for others' leaderboards",
        description="Verifies one cell, or all finished ones below a folder, as `bench verify --no-scores` does, and "
        "packs them into one file. Exit code 2, and no file, if one is not what its record says.",
    )
    submit.add_argument("path", type=Path, metavar="PATH", help="a cell's folder (with run.json), or a folder of cells")
    submit.add_argument("--out", type=Path, default=Path("submission.zip"), metavar="FILE.zip")
    submit.set_defaults(act=_submit)
    return parser


def _add_given(parser: argparse.ArgumentParser) -> None:
    """What `check-run` and `verify` have in common: where things lie that a cell names."""
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder of the images, where the cell had one")
    parser.add_argument("--param", action="append", default=[], metavar="K=FILE", help="a parameter that was a file")
    parser.add_argument("--detector", metavar="FILE:CLASS", help="where the detector came from a file")
    parser.add_argument("--attack", metavar="FILE:CLASS", help="where the attack came from a file")
    parser.add_argument("--dataset", metavar="FILE", help="where the data set came from a file")
    parser.add_argument("--device", default="auto", metavar="DEV", help="auto (default), cpu, cuda:0, ...")


def _add_test_bed(parser: argparse.ArgumentParser) -> None:
    """What `run` and `certify` have in common: the images, the detectors' parameters, and where results go."""
    parser.add_argument("--dataset", default="textures", metavar="NAME", help="default: textures (built in)")
    parser.add_argument("--category", default="all", metavar="C[,C2..]", help="default: all")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder of the images; nothing is downloaded")
    parser.add_argument("--image-size", type=int, metavar="N", help="side in pixels (default: the data set's)")
    parser.add_argument(
        "--targets",
        default="both",
        metavar="WHO",
        help="test images the adversary controls: both (default), normal, anomalous",
    )
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="K=V",
        help="of the detectors that have it; DETECTOR.K=V, or OUTER.K=V, for one (repeatable)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N test images, both classes in proportion")
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="changes speed and memory, not results (default: 32 up to 128 px, fewer above)",
    )
    parser.add_argument("--device", default="auto", metavar="DEV", help="auto (default), cpu, cuda:0, ...")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--force", action="store_true", help="redo finished cells")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 a check failed, 2 something the person can mend (one line on stderr)."""
    options = build_parser().parse_args(_join_negative(sys.argv[1:] if arguments is None else arguments))
    try:
        return int(options.act(options))
    except UserError as error:
        _complain(str(error))
    except KeyboardInterrupt:
        _complain("stopped; the rows so far are kept, and the same command goes on with them")
    except BrokenPipeError:  # `bench list | head`
        sys.stderr.close()
    except OSError as error:
        _complain(f"{error.filename or 'system'}: {error.strerror or error}")
    return 2


def _join_negative(arguments: Sequence[str]) -> list[str]:
    """`--eps -2/255` -> `--eps=-2/255`: argparse would take the value for an option, and hide what is wrong."""
    joined: list[str] = []
    for argument in arguments:
        if (
            joined
            and joined[-1] in ("--eps", "--radius", "--sigma")
            and argument[:1] == "-"
            and argument[1:2].isdigit()
        ):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _complain(message: str) -> None:
    line = " ".join(message.split())
    print(f"bench: {line}", file=sys.stderr)


def _console() -> Console:
    """A terminal that shows names, paths and sentences as they are: nothing in them is markup."""
    from rich.console import Console

    return Console(markup=False, emoji=False)


def _names(text: str, what: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UserError(f"{what} {text!r} has an empty name")
    return list(dict.fromkeys(names))


def _before_work(options: argparse.Namespace) -> None:
    """Refuses a device or a results folder that cannot be used; from here on, freed memory is kept."""
    from ..system.memory import keep_freed_memory
    from ..system.provenance import choose_device

    keep_freed_memory()
    choose_device(options.device)
    if options.results.exists() and not options.results.is_dir():
        raise UserError(f"--results {options.results} is a file; a folder is expected")


def _run(options: argparse.Namespace) -> int:
    from ..core.threat import ThreatModel
    from ..engine.saved_images import refuse_less_than_one
    from ..plugins.lookup import make_attack
    from .progress import Bars

    # everything that can be wrong is looked at before any work
    refuse_less_than_one(options.save_images)
    attacks = [
        (name, make_attack(name, _assigned(options.attack_param))[1]) for name in _names(options.attack, "--attack")
    ]
    pairs = [
        (name, ThreatModel(norm or "linf", eps, options.targets))
        for name, norm in attacks
        for eps in _names(options.eps, "--eps")
    ]
    pairs.sort(key=lambda pair: pair[1].eps)  # a larger ball starts from the smaller one's result
    _before_work(options)
    with Bars() as screen:
        candidates = _candidates(options, _names(options.detector, "--detector"), screen)
        beds = _beds(options)
        failures = [f for bed in beds for c in candidates for f in _cells(options, bed, c, pairs, screen)]
    _summary(options.results, beds)
    return _say(failures)


def _beds(options: argparse.Namespace) -> list[Data]:
    """The categories that were asked for."""
    from ..plugins.lookup import categories, load_data

    known = categories(options.dataset, options.data_root)
    wanted = list(known) if options.category == "all" else _names(options.category, "--category")
    return [
        load_data(options.dataset, category=c, root=options.data_root, image_size=options.image_size) for c in wanted
    ]


def _say(failures: list[tuple[str, str]]) -> int:
    """(cell, what went wrong), each reason once; the exit code."""
    cells_of: dict[str, list[str]] = {}
    for cell, why in failures:
        cells_of.setdefault(why, []).append(cell)
    for why, cells in cells_of.items():
        more = f" (and {len(cells) - 1} more)" if len(cells) > 1 else ""
        _complain(f"{cells[0]}{more}: {why}")
    return 2 if failures else 0


def _cells(
    options: argparse.Namespace, bed: Data, candidate: DetectorSpec, pairs: list[tuple[str, ThreatModel]], screen: Bars
) -> Iterator[tuple[str, str]]:
    """Run every attack and budget on one detector and category; yields (cell, what went wrong), and goes on."""
    from ..harness.evaluate import evaluate

    for attack, threat in pairs:
        sweep = [ball for name, ball in pairs if name == attack and ball.norm == threat.norm]
        label = f"{candidate.label} on {bed.category}: {attack.removesuffix(f'-{threat.norm}')} {threat}"
        try:
            with screen.cell(label) as monitor:
                evaluate(
                    candidate,
                    bed,
                    attack,
                    threat,
                    attack_params=_assigned(options.attack_param),
                    results=options.results,
                    seed=options.seed,
                    limit=options.limit,
                    draws=options.draws,
                    goal=options.goal,
                    smaller=[ball for ball in sweep if ball.eps < threat.eps],
                    keep_images=any(ball.eps > threat.eps for ball in sweep),
                    save_images=options.save_images,
                    batch_size=options.batch_size,
                    force=options.force,
                    monitor=monitor,
                )
        except UserError as error:
            yield label, str(error)


def _certify(options: argparse.Namespace) -> int:
    from ..engine.certifier import OUTER, Certificate
    from ..harness.certify import candidate, parse_radius, parse_sigma
    from .progress import Bars

    Certificate(options.samples, options.alpha)
    sigmas = [parse_sigma(text) for text in _names(options.sigma, "--sigma")]
    texts = _names("0.2" if options.radius is None else options.radius, "--radius")
    if options.norm != "l2":
        _refuse_norm(options, sigmas, texts[0])
    radii = sorted({parse_radius(text): text for text in texts}.items())
    _before_work(options)
    if options.center is not None:
        options.param.append(f"{OUTER}.center={options.center}")
    outer = f"{OUTER}+"
    names = [n if n.startswith(outer) or n == "all" else outer + n for n in _names(options.detector, "--detector")]
    with Bars() as screen:
        candidates = [
            candidate(c.name, sigma, c.given, c.seed, c.device, progress=c.progress, tell=c.tell)
            for c in _candidates(options, names, screen, outer)
            for sigma in sigmas
        ]
        beds = _beds(options)
        failures = [f for bed in beds for c in candidates for f in _certificates(options, bed, c, radii, screen)]
    _summary(options.results, beds)
    return _say(failures)


def _refuse_norm(options: argparse.Namespace, sigmas: list[float], eps: str) -> NoReturn:
    from ..engine.certifier import Certificate
    from ..harness.certify import explain_linf

    if options.norm != "linf":
        raise UserError(f"--norm {options.norm}: certificates by Gaussian noise are in l2")
    if options.radius is None:
        raise UserError("--norm linf: give the budget as --radius, for example 2/255, to see what it takes in l2")
    beds = [bed.limited(options.limit) for bed in _beds(options)]
    settings = Certificate(options.samples, options.alpha)
    images = max(len(bed.test) for bed in beds)
    raise UserError(explain_linf(eps, beds[0].image_size, sigmas, settings, images))


def _certificates(
    options: argparse.Namespace, bed: Data, candidate: DetectorSpec, radii: list[tuple[Fraction, str]], screen: Bars
) -> Iterator[tuple[str, str]]:
    """Every radius of one detector, sigma and category; yields (cell, what went wrong), and goes on."""
    from ..engine.certifier import OUTER
    from ..harness.certify import certify

    sigma = candidate.values[OUTER]["sigma"]
    for _, radius in radii:
        label = f"{candidate.label} on {bed.category}: certificate, sigma {sigma:g}, l2 {radius}"
        try:
            with screen.cell(label) as monitor:
                certify(
                    candidate,
                    bed,
                    radius,
                    samples=options.samples,
                    alpha=options.alpha,
                    goal=options.goal,
                    targets=options.targets,
                    results=options.results,
                    seed=options.seed,
                    limit=options.limit,
                    batch_size=options.batch_size,
                    force=options.force,
                    monitor=monitor,
                )
        except UserError as error:
            yield label, str(error)


def _candidates(options: argparse.Namespace, typed: list[str], screen: Bars, outer: str = "") -> list[DetectorSpec]:
    """The detectors with their parameters; a parameter goes to every detector that has it, and to one at least.

    outer: goes in front of those that `all` stands for.
    """
    from ..errors import unknown
    from ..plugins import registry
    from ..plugins.fitting import DetectorSpec
    from ..system.provenance import choose_device
    from .progress import FitBar

    names = typed
    if "all" in names:
        gpu = choose_device(options.device).type != "cpu"
        every = [row for row in registry.listing("detectors") if not row.wraps]
        fit = [row.name for row in every if gpu or "GPU" not in row.needs]
        names = list(dict.fromkeys([*(outer + name for name in fit), *(name for name in names if name != "all")]))
        if left := [row.name for row in every if outer + row.name not in names]:
            screen.tell(f"left out on a CPU: {', '.join(left)} (name them to run them nevertheless)")
    given: dict[str, dict[str, str]] = {name: {} for name in names}
    candidates = {
        name: DetectorSpec(name, given[name], options.seed, options.device, FitBar(screen, name), screen.tell)
        for name in names
    }
    known = {name: candidate.accepted for name, candidate in candidates.items()}  # an unknown name is said first
    for key, value in _assigned(options.param).items():
        chosen = [name for name in names if key in known[name]]
        if not chosen:
            owner, dot, _ = key.rpartition(".")
            if dot and not any(owner == part.plugin.name for c in candidates.values() for part in c.parts):
                raise UserError(f"--param {key}={value}: no detector {owner!r} in this run")
            raise unknown(f"parameter of {', '.join(names)}", key, {p for ps in known.values() for p in ps})
        for name in chosen:
            given[name][key] = value
    for name, candidate in candidates.items():
        try:
            candidate.build()  # a parameter out of range is said now
        except UserError:
            if name in typed:
                raise
            # of `all`, one that cannot be built is reported with its cells
    return list(candidates.values())


def _assigned(texts: list[str]) -> dict[str, str]:
    from ..core.parameters import parse_assignments

    return parse_assignments(texts)


def _summary(root: Path, beds: list[Data]) -> None:
    """The boards of what was just run."""
    from ..analysis.boards import boards
    from ..cells.reader import find_cells
    from ..report.terminal import rich_table

    folder = root / beds[0].name
    try:
        results, _, damaged = find_cells(folder)
    except UserError as error:
        _complain(str(error))
        return
    for sentence in damaged:
        _complain(sentence)
    if not results:
        return
    categories = {bed.category for bed in beds}
    console = _console()
    for board in boards([r for r in results if r.category in categories]):
        console.print(rich_table(board))
    console.print(f"{len(results)} finished cells in {folder}; `bench report` writes the leaderboard", style="dim")


def _report(options: argparse.Namespace) -> int:
    from ..analysis.boards import boards
    from ..cells.bracket import broken_brackets
    from ..cells.filters import Filters
    from ..report.terminal import rich_table
    from ..report.write import write_report
    from ..system.memory import keep_freed_memory

    keep_freed_memory()
    filters = Filters(options.filter) if options.filter else None
    (results, notes, damaged), written = write_report(
        options.results, options.out, _names(options.format, "--format"), filters, options.sort
    )
    console = _console()
    shown = boards(results, options.sort)
    for board in shown[:BOARDS_SHOWN]:
        console.print(rich_table(board))
    if len(shown) > BOARDS_SHOWN:
        console.print(f"and {len(shown) - BOARDS_SHOWN} more tables, in the files", style="dim")
    for note in (*damaged, *notes):
        console.print(note, style="yellow", highlight=False)
    violations = broken_brackets(results)
    for violation in violations:
        console.print(f"impossible: {violation}", style="red", highlight=False)
    for path in written:
        console.print(f"written: {path}", style="dim", highlight=False)
    return 1 if violations or damaged else 0


def _compare(options: argparse.Namespace) -> int:
    from rich import box
    from rich.table import Table

    from ..analysis.compare import FEWEST_BLOCKS, cliques, compare, over_data_sets
    from ..cells.reader import read_results
    from ..report.figures.ranks import write_ranks

    names = list(dict.fromkeys(options.names))
    if len(names) < 2:
        raise UserError("two different detectors are needed, for example: bench compare advrad autoencoder")
    results, _, damaged = read_results(options.results)
    for sentence in damaged:
        _complain(sentence)
    console = _console()
    for other in names[1:]:
        table = Table(title=f"{names[0]} - {other}", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
        table.add_column("on", overflow="fold")
        for column in (names[0], other, "difference", "in std. errors", "p"):
            table.add_column(column, justify="right", overflow="fold")
        for found in compare(names[0], other, results, options.metric):
            scope = f"mean of {len(found.categories)}" if len(found.categories) > 1 else found.categories[0]
            numbers = (str(value).replace(" ", "\n", 1) for value in (found.a, found.b, found.difference))
            table.add_row(f"{found.title} ({scope})", *numbers, f"{found.errors:+.1f}", f"{found.p:.3g}")
        console.print(table)
    ranks = over_data_sets(names, results, options.metric)
    if ranks is None:
        console.print(f"over data sets: fewer than {FEWEST_BLOCKS} in common, too few for a test", style="dim")
        return 0
    test = "Wilcoxon" if ranks.critical is None else "Friedman"
    order = ", ".join(f"{name} {rank:.2f}" for name, rank in sorted(ranks.ranks.items(), key=lambda item: item[1]))
    console.print(f"over {ranks.blocks} data sets: mean rank {order}; {test} p = {ranks.p:.3g}", highlight=False)
    if ranks.critical is not None:
        alike = "; ".join(" = ".join(group) for group in cliques(ranks)) or "all are told apart"
        console.print(f"critical difference {ranks.critical:.2f} (Nemenyi, 0.05): {alike}", highlight=False)
        path = write_ranks(ranks, options.metric or "ranking metric", options.results)
        console.print(f"written: {path}", style="dim", highlight=False)
    return 0


def _list(options: argparse.Namespace) -> int:
    if options.kind == "checks":
        return _list_checks(options.json)
    from ..plugins import registry

    rows = registry.listing(options.kind)
    if options.json:
        import json

        print(json.dumps([row._asdict() for row in rows], indent=1, ensure_ascii=False))
        return 0
    from rich.table import Table

    detectors = options.kind == "detectors"
    table = Table(box=None, pad_edge=False)
    for column in ("name", *(("gradient", "needs") if detectors else ()), "what it is"):
        table.add_column(column, no_wrap=column != "what it is")
    for row in rows:
        gradient = {True: "yes", False: "no", None: "?"}[row.differentiable]
        summary = row.summary if row.where == registry.BUILT_IN else f"{row.summary} ({row.where})"
        table.add_row(row.name + "+..." * row.wraps, *((gradient, row.needs) if detectors else ()), summary)
    _console().print(table)
    return 0


def _list_checks(as_json: bool) -> int:
    from ..checks.explanations import EXPLAINED

    if as_json:
        import json

        print(json.dumps([{"name": n} | e._asdict() for n, e in EXPLAINED.items()], indent=1, ensure_ascii=False))
        return 0
    for name, check in EXPLAINED.items():
        print(f"{name}\n  raised if {check.raised_if}\n  meaning: {check.meaning}\n  remedy: {check.remedy}")
    return 0


def _check_run(options: argparse.Namespace) -> int:
    from ..audit.check_run import check_run
    from ..cells.submission import cells_below

    given = _given(options)
    return _each_cell([(str(cell), cell) for cell in cells_below(options.path)], lambda cell: check_run(cell, given))


def _verify(options: argparse.Namespace) -> int:
    from ..audit.verify import verify
    from ..cells.submission import cells_in

    given = _given(options)
    places = cells_in(options.path)
    submitted = {place.folder for place in places if place.source}
    return _each_cell(
        [(place.name, place.folder) for place in places],
        lambda cell: verify(cell, given, not options.no_scores, cell in submitted),
    )


def _submit(options: argparse.Namespace) -> int:
    from ..audit.submit import submit

    for line in submit(options.path, options.out):
        print(line, flush=True)
    return 0


def _given(options: argparse.Namespace) -> Overrides:
    from ..audit.rebuild import Overrides

    return Overrides(
        _assigned(options.param),
        _assigned(options.attack_param),
        options.detector,
        options.attack,
        options.dataset,
        options.data_root,
        options.device,
        lambda message: print(message, file=sys.stderr),
    )


def _each_cell(
    cells: Sequence[tuple[str, Path]], lines_of: Callable[[Path], Iterator[Rechecked] | Iterator[Verified]]
) -> int:
    """Print the lines of every cell, which is named where there are several; the exit code."""
    worst = 0
    for name, cell in cells:
        if len(cells) > 1:
            print(name, flush=True)
        try:
            for line in lines_of(cell):
                print(line, flush=True)
                worst = max(worst, int(line.status in ("FAIL", "changed")))
        except UserError as error:
            _complain(str(error))
            worst = 2
    return worst


def _check(options: argparse.Namespace) -> int:
    from ..checks.of_detector import check_detector
    from ..plugins.fitting import DetectorSpec

    given = _assigned(options.param)
    toy = {k: v for k, v in DetectorSpec(options.detector).toy.items() if k.rpartition(".")[2] not in given}
    candidate = DetectorSpec(options.detector, toy | given, device="cpu")
    candidate.build()
    passed = True
    for check in check_detector(candidate, options.image_size):
        print(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.sentence}", flush=True)
        passed &= check.passed
    return 0 if passed else 1
