"""Writes what the documentation has from the code: metrics of results.md, schema.md, run.schema.json; and from the
published leaderboard: the tables of README.md and results/README.md.

python docs/generate.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from published import ROOT, with_tables

from bench.cells.metrics import Metric, by_column
from bench.cells.schema import FinishedRecord

DOCS = Path(__file__).resolve().parent
WITH_TABLES = ROOT / "README.md", ROOT / "results/README.md"
BEGIN, END = "<!-- begin: docs/generate.py writes this table -->\n", "<!-- end -->\n"
Schema = Mapping[str, Any]
HEAD = """\
# run.json, field by field

<!-- docs/generate.py writes this page -->

`run.json` lies beside the rows of a cell and says what they were computed from. It is written and read as the types of
`bench/cells/schema.py`, and [run.schema.json](run.schema.json) is the same as a JSON schema. A file that does not fit
is refused in one line that names the field. A cell that is still running has `"status": "running"` and lacks the last
fields. Fields that are optional came later, or are known of some cells only.
"""


def main() -> None:
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")
        print(path)


def documents() -> dict[Path, str]:
    """File -> what it should hold."""
    results, schema = DOCS / "results.md", FinishedRecord.model_json_schema()
    return {
        results: with_metrics(results.read_text(encoding="utf-8")),
        DOCS / "schema.md": page(schema),
        DOCS / "run.schema.json": json.dumps(schema, indent=1) + "\n",
        **{
            page: with_tables(page.read_text(encoding="utf-8"))
            for page in (ROOT / "README.md", ROOT / "results/README.md")
        },
    }


def with_metrics(text: str) -> str:
    """The page with the table of METRICS, those of certificates last."""
    metrics = sorted(by_column(), key=lambda metric: metric.kind == "certificate")
    rows = ["| column | unit or range | meaning |", "| --- | --- | --- |", *map(_metric, metrics)]
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return before + BEGIN + "\n".join(rows) + "\n" + END + after


def _metric(metric: Metric) -> str:
    less = ", less is better" if metric.measure.better < 0 else ""
    return f"| `{metric.name}` | {metric.measure.unit}{less} | {metric.meaning} |"


def page(schema: Schema) -> str:
    """A table of the record, and one of each part of it."""
    parts = {name: part for name, part in schema["$defs"].items() if "properties" in part}
    text = HEAD + _table("The record", schema)
    return text + "".join(_table(name, part) for name, part in parts.items())


def _table(title: str, part: Schema) -> str:
    required = set(part.get("required", ()))
    about = re.sub(r"\s+", " ", part["description"].partition("\n\n")[0])
    lines = [f"\n## {title}\n", f"{about}\n", "| field | type | |", "| --- | --- | --- |"]
    for name, field in part["properties"].items():
        optional = "" if name in required else ", optional"
        lines.append(f"| `{name}` | {_type(field)}{optional} | {field.get('description', '')} |".replace("\n", " "))
    return "\n".join(lines) + "\n"


def _type(field: Schema) -> str:
    """In words."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return "JSON" if name == "JsonValue" else f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(map(_type, field["anyOf"]))
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        return f"list of {_type(field['items'])}"
    if field["type"] == "object":
        return f"mapping to {_type(field['additionalProperties'])}"
    words = {"string": "text", "integer": "whole number", "boolean": "true, false"}
    return words.get(field["type"], str(field["type"]))


if __name__ == "__main__":
    main()
