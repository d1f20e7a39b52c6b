"""What somebody may do to an honest submission, and the test of a rerun that says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from lying import Forged, Honest

import bench
from bench.cells.schema import DataRecord
from bench.plugins import registry
from bench.plugins.lookup import make_attack


def eased(forged: Forged, share: float = 0.98) -> None:
    for row in forged.rows:
        for name in row.keys() - {"id", "label", "clean", "distance"}:
            row[name] += share * (row["clean"] - row[name])


def without_images(forged: Forged) -> None:
    forged.record["images"] = []
    forged.others = {name: content for name, content in forged.others.items() if "/images/" not in name}


def eased_without_images(forged: Forged) -> None:
    without_images(forged)
    eased(forged)


def eased_where_no_image_is_stored(forged: Forged) -> None:
    stored = {image["id"] for image in forged.record["images"]}
    kept = [dict(row) for row in forged.rows]
    eased(forged)
    forged.rows = [old if old["id"] in stored else new for old, new in zip(kept, forged.rows, strict=True)]


def hard_images_dropped(forged: Forged) -> None:
    without_images(forged)
    forged.rows = [row for row in forged.rows if int(row["id"][-3:]) < 10]


def easy_rows_twice(forged: Forged) -> None:
    without_images(forged)
    forged.rows += [{**row, "id": f"{row['id']}b"} for row in forged.rows if int(row["id"][-3:]) < 4]


def relabelled(forged: Forged) -> None:
    without_images(forged)
    by_worst = sorted(forged.rows, key=lambda row: row["worst"])
    for at, row in enumerate(by_worst):
        if abs(row["worst"] - row["clean"]) > 0:
            row["label"] = str(int(at >= len(by_worst) // 2))
            row["worst"] = max(row["worst"], row["clean"]) if row["label"] == "0" else min(row["worst"], row["clean"])


def larger_eps(forged: Forged) -> None:
    forged.record["spec"]["eps"] = "12/255"


def smaller_eps_run(forged: Forged) -> None:
    without_images(forged)
    eased(forged, 0.6)
    forged.each(lambda row: row.update(distance=0.4 * row["distance"]))


def standard_for_pgd(forged: Forged) -> None:
    few = {"steps": 5, "queries": 20, "transfer": False}  # the sources of transfer would be fitted
    method = make_attack("standard-linf", few)[2]
    forged.record["spec"] |= {"attack": "standard", "attack_parameters": few}
    forged.record["attack"] |= {
        "code": registry.load("attacks", "standard").sha256,
        "parameters": json.loads(json.dumps(method.parameters_record)),
        "parts": list(method.parts),
    }
    forged.each(lambda row: row.update(dict.fromkeys(method.parts, row["worst"])))


def no_checks(forged: Forged) -> None:
    forged.record["checks"] = []


def all_checks_passed(forged: Forged) -> None:
    assert not all(check["passed"] for check in forged.record["checks"])
    for check in forged.record["checks"]:
        check["passed"] = True


def failed_checks_removed(forged: Forged) -> None:
    forged.record["checks"] = [check for check in forged.record["checks"] if check["passed"]]


def foreign_name(forged: Forged) -> None:
    forged.record["spec"]["detector"] = "Corners"


def threshold_of_the_test_images(forged: Forged) -> None:
    normal = [row["worst"] for row in forged.rows if row["label"] == "0"]
    forged.record["threshold"]["value"] = sum(normal) / len(normal)


def clean_raised(forged: Forged) -> None:
    without_images(forged)
    for row in forged.rows:
        if row["label"] == "1":
            row["clean"] += 0.05


def of_another_category(forged: Forged, honest: Honest) -> None:
    data = bench.load_data("folder", category="gadget", root=honest.root / "images/gadget", image_size=16)
    forged.record["spec"]["category"] = "gadget"
    forged.record["data"] = DataRecord.of(data).as_json()
    without_images(forged)


def radii_raised(forged: Forged) -> None:
    forged.each(lambda row: row.update(certified_radius=2 * row["certified_radius"] + 0.01))


def more_draws(forged: Forged) -> None:
    for part in (forged.record["spec"]["attack_parameters"], forged.record["attack"]["parameters"]):
        part["samples"] = 400
    forged.record["forwards"] *= 4


def smaller_alpha(forged: Forged) -> None:
    for part in (forged.record["spec"]["attack_parameters"], forged.record["attack"]["parameters"]):
        part["alpha"] = 1e-6


def one_score_is_far(forged: Forged) -> None:
    """So that bounds may be off by a share of the spread."""
    radii_raised(forged)
    forged.rows[-1].update(clean=1e30, high=1e31, high_0=1e30)


def other_versions(forged: Forged) -> None:
    forged.record["versions"]["torch"] = "1.0"


def other_weights(forged: Forged) -> bytes:
    from safetensors.torch import load, save

    (name,) = (name for name in forged.others if name.startswith("weights/"))
    return save({key: value + 0.02 for key, value in load(forged.others[name]).items()})


def weights_of_another_fit(forged: Forged) -> None:
    without_images(forged)
    content = other_weights(forged)
    digest = hashlib.sha256(content).hexdigest()
    forged.others = {f"weights/{digest}.safetensors": content}
    forged.record["detector"]["fit"]["model_sha256"] = digest


def weights_under_a_wrong_name(forged: Forged) -> None:
    (name,) = (name for name in forged.others if name.startswith("weights/"))
    forged.others[name] = other_weights(forged)


def no_longer_random(forged: Forged) -> None:
    forged.record["detector"]["weights"] = 10**9


def cheaper(forged: Forged) -> None:
    forged.record["forwards"] //= 8
    forged.record["backwards"] //= 8


def rounding_improved(forged: Forged) -> None:
    forged.each(lambda row: row.update(rounded=row["clean"]))


def further_away(forged: Forged) -> None:
    """Of an attack that looks for the nearest image on the other side."""
    forged.each(lambda row: row.update(radius=3 * row["radius"]))


LIES: list[tuple[str, Callable[[Forged], object], str]] = [
    ("attacked", eased, "attack"),
    ("attacked", eased_without_images, "attack"),
    ("attacked", eased_where_no_image_is_stored, "attack"),
    ("attacked", hard_images_dropped, "data"),
    ("attacked", easy_rows_twice, "data"),
    ("attacked", relabelled, "data"),
    ("attacked", larger_eps, "attack"),
    ("attacked", smaller_eps_run, "attack"),
    ("attacked", standard_for_pgd, "parts"),
    ("attacked", no_checks, "checks"),
    ("weak", all_checks_passed, "checks"),
    ("weak", failed_checks_removed, "checks"),
    ("attacked", threshold_of_the_test_images, "threshold"),
    ("attacked", clean_raised, "clean"),
    ("certified", radii_raised, "bounds"),
    ("certified", more_draws, "bounds"),
    ("certified", smaller_alpha, "bounds"),
    ("certified", one_score_is_far, "bounds"),
    ("attacked", other_versions, "versions"),
    ("attacked", weights_of_another_fit, "threshold"),
    ("attacked", weights_under_a_wrong_name, "weights"),
    ("attacked", no_longer_random, "detector"),
    ("attacked", cheaper, "cost"),
    ("attacked", rounding_improved, "parts"),
    ("radii", further_away, "parts"),
]
