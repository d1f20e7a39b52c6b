"""`bench run`: fit detectors where needed, attack them, write results."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from .attacks import RunRequest
from .common import Request, assignments, known, names, option, whole
from .grid import images_and_place


@click.command(
    epilog="""\b
examples:
  bench run --detector advrad --attack pgd-linf --eps 2/255
  bench run --detector patchcore,autoencoder --attack pgd-linf,square-linf --eps 1/255,2/255 \\
            --dataset folder --data-root photos/ --category bottle --image-size 128 \\
            --param weights=mobilenetv2_100.safetensors --attack-param square.queries=500
"""
)
@option(
    "--detector",
    "detectors",
    callback=names,
    metavar="D[,D2..]",
    shell_complete=known("detectors"),
    help="names (`bench list detectors`), path/to/mine.py:MyDetector, outer+inner (diffpure+patchcore), or all",
)
@option(
    "--attack",
    "attacks",
    default="pgd-linf",
    show_default=True,
    callback=names,
    metavar="A[,A2..]",
    shell_complete=known("attacks"),
    help="method-norm (`bench list attacks`), or path/to/mine.py:MyAttack-norm",
)
@option(
    "--eps",
    default="2/255",
    show_default=True,
    callback=names,
    metavar="E[,E2..]",
    help="budgets in pixel units in [0, 1], or pixels in l0, kept exact",
)
@images_and_place
@option(
    "--attack-param",
    "attack_params",
    multiple=True,
    callback=assignments,
    metavar="K=V",
    help="of the attacks that have it; ATTACK.K=V for one (repeatable)",
)
@option(
    "--draws",
    callback=whole(1),
    metavar="N",
    help="noise draws whose mean is the score of a randomized detector  [default: 32]",
)
@option(
    "--goal",
    type=click.Choice(("rank", "threshold", "map")),
    default="rank",
    show_default=True,
    help="rank: as far as possible, for AUROC; threshold: until the decision is wrong, for accuracy; map: the anomaly "
    "map, for pixel AUROC and AUPRO",
)
@option(
    "--save-images",
    callback=whole(1),
    metavar="N",
    help="of each attacked class, keep the N images whose score moved most and the N hardest ones, clean and "
    "attacked, below the cell's folder  [default: none]",
)
@option(
    "--suite",
    metavar="NAME",
    help="smoke, paper, standard, leaderboard, or a file.toml that says detectors, images, attacks and certificates",
)
@click.pass_context
def command(context: click.Context, /, suite: str | None, **options: Any) -> Request:
    """Fit detectors where needed, attack them, write results."""
    if suite is not None:
        from .suite import request_of

        typed = {
            parameter.name: parameter.opts[0]
            for parameter in context.command.params
            if parameter.name in options and context.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT
        }
        return request_of(suite, options, typed)
    if options["detectors"] is None:
        raise click.UsageError("missing option '--detector', or '--suite'", context)
    return RunRequest(**options)
