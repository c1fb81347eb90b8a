"""`results.csv`: one row per target, in columns that other energy and deployment benchmarks use too."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.core.files import write_text
from modelwright.harness.formatting import BYTES_PER_MB, format_number
from modelwright.harness.results.record import Comparison, Row, read_comparison
from modelwright.harness.results.values import mapping_of, number, sequence_of

COLUMNS = (
    "run_id",
    "model_variant",
    "timestamp",
    "num_parameters",
    "model_size_mb",
    "num_inferences",
    "total_energy_kwh",
    "energy_per_inference_wh",
    "carbon_total_kg",
    "carbon_per_inference_g",
    "inference_time_ms",
    "inferences_per_second",
    "energy_reduction_pct",
    "carbon_reduction_pct",
    "speedup",
    "device",
    "energy_source",
)

_JOULES_PER_WH = 3600.0
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_csv(document: Mapping[str, Any], path: Path) -> None:
    """Writes the results as CSV, one row per target, in the document's order; skipped and failed ones too.

    What was not measured is an empty cell. `inference_time_ms` is the median. The file appears under its name only
    when it is whole.

    Raises:
        BadInputError: The folder is not writable.
        BuildFailedError: The disk is full.
    """
    write_text(path, render_csv(document))


def render_csv(document: Mapping[str, Any]) -> str:
    """Returns the text of `results.csv`."""
    comparison = read_comparison(document)
    baseline = comparison.find(comparison.baseline)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in comparison.rows:
        cells = _cells(row, baseline, comparison)
        writer.writerow([cells[column] for column in COLUMNS])
    return text.getvalue()


def _cells(row: Row, baseline: Row | None, comparison: Comparison) -> dict[str, str]:
    document = comparison.raw
    parameters = number(mapping_of(document.get("source")).get("num_parameters"))
    energy_wh = None if row.energy_j is None else row.energy_j / _JOULES_PER_WH
    return {
        "run_id": _safe(document.get("run_id")),
        "model_variant": _safe(row.target),
        "timestamp": _safe(document.get("timestamp")),
        "num_parameters": format_number(parameters),
        "model_size_mb": format_number(None if row.size_bytes is None else row.size_bytes / BYTES_PER_MB),
        "num_inferences": format_number(row.num_inferences),
        "total_energy_kwh": format_number(_total(energy_wh, row.num_inferences)),
        "energy_per_inference_wh": format_number(energy_wh),
        "carbon_total_kg": format_number(_total(row.carbon_g, row.num_inferences)),
        "carbon_per_inference_g": format_number(row.carbon_g),
        "inference_time_ms": format_number(row.p50_ms),
        "inferences_per_second": format_number(row.throughput_per_s),
        "energy_reduction_pct": format_number(_reduction(row, baseline, "energy_j")),
        "carbon_reduction_pct": format_number(_reduction(row, baseline, "carbon_g")),
        "speedup": format_number(row.speedup),
        "device": _safe(_device_name(row, mapping_of(document.get("environment")))),
        "energy_source": _safe(row.energy_source),
    }


def _device_name(row: Row, environment: Mapping[str, Any]) -> object:
    """Returns the GPU of a row that ran on one, else the machine."""
    if row.on_gpu:
        for accelerator in sequence_of(environment.get("accelerators")):
            return mapping_of(accelerator).get("name") or environment.get("device")
    return environment.get("device")


def _total(per_inference: float | None, inferences: int | None) -> float | None:
    """Returns the total of all inferences in thousands of the unit: Wh becomes kWh, g becomes kg."""
    return None if per_inference is None or inferences is None else per_inference * inferences / 1000


def _reduction(row: Row, baseline: Row | None, field: str) -> float | None:
    """Returns how much less than the baseline it takes, in percent; negative when it takes more."""
    if baseline is None or row.energy_source != baseline.energy_source or row.energy_scope != baseline.energy_scope:
        # An estimate against a measurement, or a GPU board against a CPU, would be a difference of methods.
        return None
    value, base = getattr(row, field), getattr(baseline, field)
    if value is None or not base:
        return None
    return float((1 - value / base) * 100)


def _safe(value: object) -> str:
    """Returns a text cell that a spreadsheet will not run as a formula (OWASP's advice: a leading quote)."""
    text = "" if value is None else str(value).replace("\x00", "")
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
