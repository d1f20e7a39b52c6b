"""Looks into what `python -m build` has made: does the wheel claim `bench` alone, does the sdist hold the checkout?

    python -m build && python .ci/packages.py dist

PyPI has a package `detectors` of our field; ours must be installable beside it, so no other name than `bench` may lie
at the top of the wheel. The sdist holds every file under version control, tests, website and published rows too. Exit
code 1 if not.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACES = {
    "detectors": "bench/detectors",
    "attacks": "bench/attacks",
    "results": "bench/results",
    "suites": "bench/suites",
}
"""Folder of the checkout -> where the wheel has it."""


def main() -> int:
    (wheel,), (sdist,) = (list(Path(sys.argv[1]).glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    with zipfile.ZipFile(wheel) as whole, tarfile.open(sdist) as source:
        wrong = [*of_wheel(whole.namelist(), tracked), *of_sdist(source.getnames(), tracked)]
    for sentence in wrong:
        print(sentence)
    print(f"{wheel.name}, {sdist.name}: " + (f"{len(wrong)} wrong" if wrong else "as they should be"))
    return int(bool(wrong))


def of_wheel(names: list[str], tracked: list[str]) -> list[str]:
    """What is wrong with it."""
    tops = {name.split("/")[0] for name in names}
    claimed = {top for top in tops if not top.endswith(".dist-info")}
    wrong = [] if claimed == {"bench"} else [f"the wheel claims {', '.join(sorted(claimed))}"]
    for path in tracked:
        top, _, rest = path.partition("/")
        place = path if top == "bench" else f"{PLACES[top]}/{rest}" if top in PLACES else None
        if place and not path.endswith(".md") and not path.startswith("results/published/") and place not in names:
            wrong.append(f"the wheel lacks {place}")
    return wrong


def of_sdist(names: list[str], tracked: list[str]) -> list[str]:
    """What is wrong with it."""
    there = {name.partition("/")[2] for name in names}
    return [f"the sdist lacks {path}" for path in tracked if path not in there]


if __name__ == "__main__":
    sys.exit(main())
