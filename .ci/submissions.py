"""Verifies the submissions that a pull request adds, by the code of the branch that it goes to.

    python ours/.ci/submissions.py ours theirs [--owner]

ours, theirs: checkouts of that branch and of the pull request. Whoever is not the owner may add or change zips in
results/published/submissions, and nothing else below results/published: neither cells nor a record of a rerun, which
would rank what nobody has run again. Exit code 0 if all is well, 1 if not.
"""

from __future__ import annotations

import argparse
import filecmp
import subprocess
import sys
from pathlib import Path

PUBLISHED = Path("results/published")
SUBMISSIONS = PUBLISHED / "submissions"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours", type=Path)
    parser.add_argument("theirs", type=Path)
    parser.add_argument("--owner", action="store_true", help="the pull request is of the repository itself")
    options = parser.parse_args()
    worst, changes = 0, changed(options.ours, options.theirs)
    for path in changes:
        if not is_submission(options.theirs, path):
            if not options.owner:
                print(f"FAIL    {str(path)!r}: a submission is a zip in {SUBMISSIONS}, and changes nothing else there")
                worst = 1
            continue
        print(f"bench verify {str(path)!r} --no-scores", flush=True)
        command = [sys.executable, "-m", "bench.cli", "verify", "--no-scores", "--", str(options.theirs / path)]
        worst = max(worst, min(subprocess.run(command, check=False).returncode, 1))
    if not changes:
        print(f"nothing below {PUBLISHED} is changed")
    return worst


def changed(ours: Path, theirs: Path) -> list[Path]:
    """Files below results/published, relative to a checkout, that are new, other or gone."""
    found = {path.relative_to(root) for root in (ours, theirs) for path in (root / PUBLISHED).rglob("*") if _leaf(path)}
    return sorted(path for path in found if not _same(ours / path, theirs / path))


def is_submission(theirs: Path, path: Path) -> bool:
    """A file, not a link, in the folder itself."""
    there = theirs / path
    plain = there.is_file() and not any((theirs / part).is_symlink() for part in (path, *path.parents))
    return plain and path.parent == SUBMISSIONS and path.suffix == ".zip"


def _leaf(path: Path) -> bool:
    return path.is_symlink() or not path.is_dir()


def _same(one: Path, other: Path) -> bool:
    plain = all(path.is_file() and not path.is_symlink() for path in (one, other))
    return plain and filecmp.cmp(one, other, shallow=False)


if __name__ == "__main__":
    sys.exit(main())
