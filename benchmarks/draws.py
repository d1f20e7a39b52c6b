"""How far an attack on a detector that draws noise gets with more steps, and with more draws in each of them.

    python benchmarks/draws.py [--detector advrad] [--steps 20,50,100,200] [--draws 4,8,16,32] [--limit 32]

Printed is a markdown table of robust AUROC, of the mean of 32 fresh draws: `apgd` with so many steps and so many draws
whose mean it follows, and `standard` below; in brackets the standard error of the AUROC by the draws of the reported
score alone, and the AUROC against an adversary who knows the draw. What is there is not run again.
"""

from __future__ import annotations

import argparse

import bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="advrad")
    parser.add_argument("--category", default="brick")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--eps", default="2/255")
    parser.add_argument("--steps", default="20,50,100,200")
    parser.add_argument("--draws", default="4,8,16,32")
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--results", default="draws")
    options = parser.parse_args()
    data = bench.load_data("textures", category=options.category, image_size=options.image_size)
    detector = bench.fit_or_load(options.detector, data)

    def found(attack: str, **params: object) -> str:
        rows = bench.evaluate(
            detector,
            data,
            attack,
            eps=options.eps,
            attack_params=params,
            limit=options.limit,
            results=options.results,
        )
        metrics = rows.metrics
        noise, known = metrics["robust_auroc_noise"], metrics["known_noise_auroc"]
        return f"{metrics['robust_auroc']:.3f} ({noise:.3f}; {known:.3f})"

    columns = options.draws.split(",")
    print(f"| steps | {' | '.join(f'{n} draws' for n in columns)} |\n|{' --- |' * (len(columns) + 1)}")
    for steps in options.steps.split(","):
        cells = [found("apgd-linf", steps=int(steps), draws=int(draws)) for draws in columns]
        print(f"| {steps} | {' | '.join(cells)} |", flush=True)
    print(f"\n`standard`: {found('standard-linf', transfer=False)}")


if __name__ == "__main__":
    main()
