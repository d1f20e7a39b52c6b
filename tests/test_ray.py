"""Jobs on a Ray cluster: the same rows as without one, also where a node is lost in the middle."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Run, on_tree, one_line, rows_of
from conftest import MEAN, make_tree

from bench.cli.running import Place, cluster_of

pytestmark = pytest.mark.usefixtures("own_cache")
SLOW = (
    MEAN.replace("        return", "        wait()\n        return")
    + """
import os, time
from pathlib import Path

def wait():
    (Path({folder!r}) / str(os.getpid())).touch()
    while not (Path({folder!r}) / "goes_on").exists():
        time.sleep(0.02)
"""
)


def test_options_of_a_cluster_are_for_one(run_cli: Run, tmp_path: Path, tree: Path) -> None:
    for more, says in (
        (("--address", "auto"), "--executor ray"),
        (("--gpus-per-worker", "0.5"), "--executor ray"),
        (("--executor", "ray", "--in-process"), "--in-process"),
        (("--executor", "ray", "--gpus-per-worker", "-1"), "--gpus-per-worker -1"),
    ):
        code, _, err = run_cli("run", "--detector", "autoencoder", *more, *on_tree(tree, tmp_path / "r"))
        assert code == 2 and says in one_line(err)


@pytest.mark.parametrize(("said", "threads"), [("3", 3), ("2,1", 2), ("", 1), ("many", 1), ("0", 1)])
def test_a_task_takes_as_many_cores_as_torch_has_threads(
    said: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    cluster = cluster_of(Place("cpu", executor="ray", workers=2))
    assert (cluster.address, cluster.workers, cluster.threads, cluster.gpus) == (None, 2, threads, 0)
    assert cluster_of(Place("cuda")).gpus == 1 and cluster_of(Place("cuda", gpus_per_worker=0.5)).gpus == 0.5


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    found = pytest.importorskip("ray", reason="ray is not installed (the extra `cluster`)")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    yield found
    found.shutdown()


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A tree of two categories."""
    for name in ("nut", "bolt"):
        make_tree(tmp_path / "two" / name, good=5, bad=4)
    return tmp_path / "two"


@pytest.mark.slow
def test_rows_on_ray_are_those_of_one_process(run_cli: Run, tmp_path: Path, two: Path, ray: Any) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(MEAN + "\nclass Ends(Mean):\n    def score(self, x):\n        import os; os._exit(3)\n")
    command = ("run", "--detector", f"{plugin}:Mean,{plugin}:Ends,autoencoder", "--param", "steps=3")
    code, out, err = run_cli(*command, *on_tree(two, tmp_path / "one"), "--workers", 1)
    assert code == 2 and "4 finished cells" in out
    code, out, ray_err = run_cli(*command, *on_tree(two, tmp_path / "ray"), "--executor", "ray", "--workers", 2)
    assert code == 2 and "4 finished cells" in out and "exit status 3" in one_line(ray_err), ray_err
    assert one_line(err).replace("/one", "") == one_line(ray_err).replace("/ray", "")
    assert len(rows_of(tmp_path / "one")) == 4 and rows_of(tmp_path / "one") == rows_of(tmp_path / "ray")


@pytest.mark.slow
def test_no_cluster_is_one_line(run_cli: Run, tmp_path: Path, tree: Path, ray: Any) -> None:
    command = ("run", "--detector", "autoencoder", "--executor", "ray", "--address", "127.0.0.1:1")
    code, _, err = run_cli(*command, *on_tree(tree, tmp_path / "r"))
    assert code == 2 and "127.0.0.1:1" in one_line(err)


@pytest.mark.slow
def test_a_node_that_is_lost_costs_nothing(run_cli: Run, tmp_path: Path, two: Path, ray: Any) -> None:
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    plugin, folder = tmp_path / "waits.py", tmp_path / "pids"
    folder.mkdir()
    plugin.write_text(SLOW.format(folder=str(folder)))
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()

    def lose() -> None:
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.05)
        cluster.remove_node(nodes[0], allow_graceful=False)
        (folder / "goes_on").touch()

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        command = ("run", "--detector", f"{plugin}:Mean", "--executor", "ray", "--address", cluster.address)
        code, out, err = run_cli(*command, *on_tree(two, tmp_path / "ray"))
    finally:
        (folder / "goes_on").touch()
        thread.join()
        ray.shutdown()
        cluster.shutdown()
    assert code == 0 and "2 finished cells" in out, err
    assert run_cli("run", "--detector", f"{plugin}:Mean", *on_tree(two, tmp_path / "one"))[0] == 0
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "ray")
    assert len(list(folder.iterdir())) >= 4  # a process of each first try, of the second, and the file
