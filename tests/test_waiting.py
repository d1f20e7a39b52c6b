"""How threads wait for each other, in the processes of the command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.system.waiting import wait_asleep

ASKED = """
import os, sys
from bench.cli import main
assert "torch" not in sys.modules
main(["list", "nothing"])
print(os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"), ({"GOMP_SPINCOUNT": "1000"}, "None")],
)
def test_threads_of_the_command_sleep_unless_the_user_says_otherwise(given: dict[str, str], found: str) -> None:
    import os

    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")}
    done = subprocess.run([sys.executable, "-c", ASKED], env=clean | given, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == found


def test_a_process_that_has_torch_already_is_left_alone() -> None:
    import torch  # noqa: F401

    environment: dict[str, str] = {}
    wait_asleep(environment)
    assert environment == {}
