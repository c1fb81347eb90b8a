"""What must hold of the notebook of `examples/lab`, as it lies in the repository and after a run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

_NAMES = re.compile(r"FP32|INT8|int8|fp32|\b(8|32)-bit|95 %|1\.5 times|1 - cosine")
"""Numbers that are no results: names of formats, of an interval, and what a sentence says it compares with."""
_COUNT = re.compile(r"(\d+) of (\d+) \(([\d.]+)% to ([\d.]+)%\)")


def list_texts(notebook: Any) -> Iterator[str]:
    """Yields what the notebook printed as Markdown."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            text = output.get("data", {}).get("text/markdown")
            if text is not None:
                yield text


def read_tables(notebook: Any) -> list[list[dict[str, str]]]:
    """Returns the tables that were printed: each row by the names of its columns."""
    tables = []
    for text in list_texts(notebook):
        if text.startswith("| "):
            header, _, *rows = ([cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines())
            tables.append([dict(zip(header, row, strict=True)) for row in rows])
    return tables


def find_typed_numbers(notebook: Any) -> list[str]:
    """Returns numbers in prose that nobody computed: in Markdown cells, and in the sentences that code prints."""
    found = []
    for cell in notebook.cells:
        texts = [cell.source] if cell.cell_type == "markdown" else _list_typed(cell.source)
        found += [text for text in texts if re.search(r"\d", _NAMES.sub("", text))]
    return found


def _list_typed(code: str) -> list[str]:
    said = (
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say"
    )
    return [
        part.value
        for call in said
        for part in _walk_text(call)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


def _walk_text(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the parts of texts; what is computed inside them, and how it is formatted, is not one."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FormattedValue):
            yield from _walk_text(child)


def check_outputs(notebook: Any) -> None:
    """Fails where an output is missing or an error, or where tables and sentences contradict each other."""
    said = _check_run(notebook)
    before, calibrated, pruned = read_tables(notebook)
    judged = _check_before_and_after(before, said)
    base = before[0]
    refused = [int(size) for size in re.findall(r"With (\d+) samples given nothing is delivered", said)]
    assert sorted([*refused, *(int(row["samples given"]) for row in calibrated)]) == [4, 16, 64, 512]
    for row in calibrated:
        kept, right = (int(row[name].split(" of ")[0]) for name in ("classes as FP32's", "right"))
        assert abs(right - judged[base["artifact"]][0]) <= judged[base["artifact"]][1] - kept
    assert len(pruned) == 6, "three models in FP32 and in INT8"
    for row in pruned:
        _check_count(row["right answers (95 %)"])
        assert int(row["kB compressed"]) <= int(row["kB"])


def check_first_section(notebook: Any) -> None:
    """Does the same for a run that ended after the first section with figures."""
    said = _check_run(notebook)
    (before,) = read_tables(notebook)
    _check_before_and_after(before, said)


def _check_run(notebook: Any) -> str:
    """Returns what the notebook said, if all of its cells ran."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run it from top to bottom"
    assert not [output for cell in code for output in cell.outputs if output.output_type in ("error", "stream")]
    said = "\n".join(text for text in list_texts(notebook) if not text.startswith("| "))
    assert not re.search(r"/(tmp|home|root|work)/", said), "no folder of a machine"
    return said


def _check_before_and_after(before: list[dict[str, str]], said: str) -> dict[str, tuple[int, int]]:
    """Returns right answers, and all of them, by artifact."""
    judged = {row["artifact"]: _check_count(row["right answers (95 %)"]) for row in before}
    base = before[0]
    assert base["artifact"].endswith("-fp32")
    for row in before[1:]:
        right, count = judged[row["artifact"]]
        changed = round((1 - float(row["answers as FP32's"].rstrip("%")) / 100) * count)
        sentence = next(line for line in said.splitlines() if line.startswith(f"**{row['artifact']}**"))
        assert f"another class than FP32 on {changed} of {count} images" in sentence
        lost = judged[base["artifact"]][0] - right
        assert abs(lost) <= changed
        told = f"{lost} fewer right" if lost > 0 else f"{-lost} more right" if lost < 0 else "as many right"
        assert told in sentence
        share = float(row["kB"]) / float(base["kB"])
        assert abs(float(re.search(r"takes (\d+)%", sentence)[1]) / 100 - share) < 0.01  # type: ignore[index]
    return judged


def _check_count(text: str) -> tuple[int, int]:
    """Returns right answers and all of them, of a text with the interval of their share, which must be Wilson's."""
    found = _COUNT.fullmatch(text)
    assert found is not None, text
    right, count = int(found[1]), int(found[2])
    share, z = right / count, 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    for told, end in ((found[3], middle - half), (found[4], middle + half)):
        assert abs(float(told) / 100 - end) < 0.012, f"{text}: {end:.4f}"
    return right, count
