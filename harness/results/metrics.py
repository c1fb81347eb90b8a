"""The table of metrics: one row says all that is known of a figure.

The terminal, the page, results.csv, the limits with their options, and the published JSON Schema read this table: a new
figure is a row here and the code that takes it. What the places are that a row fills is in `places.py`. Only what draws
or says several at once names them itself: the charts of latencies and of the front, and the sentences of the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelwright.harness.formatting import (
    MISSING,
    count_unit,
    energy_unit,
    format_bytes,
    format_cosine,
    format_interval,
    format_megabytes,
    format_ms,
    format_percent,
    format_percent_number,
    format_ratio,
    format_significant,
)
from modelwright.harness.results.places import Chart, Column, Csv, Detail, Limit, Metric, Tile

if TYPE_CHECKING:
    from modelwright.harness.results.record import Comparison, Measurement

_J_PER_WH = 3600.0
_BYTES_PER_MB = 1e6


def _nowhere(_comparison: Comparison) -> bool:
    return False


def _has_variants(comparison: Comparison) -> bool:
    return bool(comparison.variants)


def _on_gpu(comparison: Comparison) -> bool:
    return comparison.on_gpu


def _has_cosine(comparison: Comparison) -> bool:
    return any(row.cosine is not None for row in comparison.measured)


def _is_kept_alone(comparison: Comparison) -> bool:
    """Whether the task has a measure of its own: detections, an overlap, R squared; classes have their agreement."""
    measured = comparison.measured
    return any(row.kept is not None for row in measured) and all(row.agreement is None for row in measured)


def _has_cosine_alone(comparison: Comparison) -> bool:
    """The terminal has one column for both: all rows have one of them or none, never one under the other's name."""
    return (
        _has_cosine(comparison)
        and all(row.agreement is None for row in comparison.measured)
        and not _is_kept_alone(comparison)
    )


def _has_labels(comparison: Comparison) -> bool:
    return any(row.labels is not None for row in comparison.measured)


def _answers_once(comparison: Comparison) -> bool:
    return not _has_labels(comparison)


def _has_f1(comparison: Comparison) -> bool:
    return any(row.labels is not None and row.labels.f1 is not None for row in comparison.measured)


def _limits_drop(comparison: Comparison) -> bool:
    return any(row.drop is not None and row.drop.max_points is not None for row in comparison.measured)


def _count_total(metric: Metric, row: Measurement, _comparison: Comparison) -> float | None:
    """Returns the total of all inferences in thousands of the unit."""
    value = metric.read(row)
    return None if value is None or row.num_inferences is None else value * row.num_inferences / 1000


def _count_reduction(metric: Metric, row: Measurement, comparison: Comparison) -> float | None:
    """Returns how much less than the baseline it takes, in percent; negative when it takes more."""
    baseline = comparison.find(comparison.baseline)
    if baseline is None or not row.energy_compares_with(baseline):
        return None
    value, base = metric.read(row), metric.read(baseline)
    return None if value is None or not base else (1 - value / base) * 100


def _show_interval(ends: tuple[float, float] | None) -> str:
    return MISSING if ends is None else format_interval(*ends)


def _show_shares(ends: tuple[float, float]) -> str:
    low, high = map(format_percent_number, ends)
    return f"{low} to {high} %"


_TOO_FEW = "where too few independent inferences support it"
_NO_DEVICE = "on a CPU, and where the runtime gives no computation to time alone"

METRICS: tuple[Metric, ...] = (
    Metric(
        key="size_bytes",
        title="size of the artifact's files",
        unit="bytes",
        better="lower",
        column=Column(head="size MB", name="size", unit="MB", show=format_megabytes, under="throughput_per_s"),
        tile=Tile(place=5, label="size", show=format_bytes),
        chart=Chart(title="Size", note="of the artifact's files", show=format_bytes),
        csv=(Csv(name="model_size_mb", place=5, per=_BYTES_PER_MB),),
        limit=Limit(
            place=4,
            name="max_size_mb",
            metavar="MB",
            help="Ship nothing larger (10^6 bytes).",
            what="size",
            unit="MB",
            per=_BYTES_PER_MB,
        ),
    ),
    *(
        Metric(
            key=key,
            title=title,
            better="lower",
            null="where one model is compared",
            column=Column(
                head=head,
                name=name,
                unit="{unit}",
                show=format_significant,
                scale=count_unit,
                under=under,
                on_terminal=_has_variants,
                on_page=_has_variants,
            ),
            csv=csv,
        )
        for key, title, head, name, under, csv in (
            ("num_parameters", "elements of its model's weights", "{unit} par", "weights", None, ()),
            (
                "macs",
                "multiplications of an inference of its model",
                "{unit} MAC",
                "MACs",
                "num_parameters",
                (Csv(name="macs"),),
            ),
        )
    ),
    Metric(
        key="latency_ms.mean",
        title="mean latency",
        unit="ms",
        better="lower",
        null="where no inference was measured",
        detail=Detail(line="times", name="mean", show=format_ms),
    ),
    *(
        Metric(
            key=f"latency_ms.{name}",
            title=title,
            unit="ms",
            better="lower",
            null="where no inference was measured",
            detail=Detail(line="times", name=name, show=format_ms),
            csv=(Csv(name=f"latency_{name}_ms"),),
        )
        for name, title in (
            ("std", "standard deviation of the latency"),
            ("min", "lowest latency"),
            ("max", "highest latency"),
        )
    ),
    Metric(
        key="latency_ms.p50",
        title="median latency",
        unit="ms",
        better="lower",
        null=_TOO_FEW,
        column=Column(head="p50 ms", name="p50", unit="ms", show=format_significant),
        tile=Tile(place=2, label="median latency", show=format_ms),
        csv=(Csv(name="inference_time_ms", place=11),),
        limit=Limit(place=1, name="max_p50_ms", metavar="MS", help="Ship nothing slower.", what="p50", unit="ms"),
    ),
    Metric(
        key="latency_ms.p90",
        title="90th percentile of the latency",
        unit="ms",
        better="lower",
        null=_TOO_FEW,
        detail=Detail(line="times", name="p90", show=format_ms),
    ),
    Metric(
        key="latency_ms.p95",
        title="95th percentile of the latency",
        unit="ms",
        better="lower",
        null=_TOO_FEW,
        detail=Detail(line="times", name="p95", show=format_ms),
    ),
    Metric(
        key="latency_ms.p99",
        title="99th percentile of the latency",
        unit="ms",
        better="lower",
        null=_TOO_FEW,
        column=Column(head="p99 ms", name="p99", unit="ms", show=format_significant, under="latency_ms.p50"),
    ),
    Metric(
        key="compute_latency_ms.p50",
        title="median latency of the computation alone",
        unit="ms",
        better="lower",
        null=_NO_DEVICE,
        column=Column(
            head="comp ms", name="compute p50", unit="ms", show=format_significant, on_terminal=_on_gpu, on_page=_on_gpu
        ),
        detail=Detail(line="computation alone", name="p50", show=format_ms, on_device=True),
    ),
    *(
        Metric(
            key=f"compute_latency_ms.{name}",
            title=f"{what} of the computation alone",
            unit="ms",
            better="lower",
            null=_NO_DEVICE,
            detail=Detail(line="computation alone", name=name, show=format_ms, on_device=True),
        )
        for name, what in (
            ("mean", "mean latency"),
            ("p90", "90th percentile"),
            ("p95", "95th percentile"),
            ("p99", "99th percentile"),
        )
    ),
    Metric(
        key="throughput_per_s",
        title="samples a second, one inference after the other",
        unit="per s",
        better="higher",
        column=Column(head="per s", name="throughput", unit="per s", show=format_significant),
        csv=(Csv(name="inferences_per_second", place=12),),
    ),
    Metric(
        key="compute_throughput_per_s",
        title="samples a second of the computation alone",
        unit="per s",
        better="higher",
        null=_NO_DEVICE,
        detail=Detail(
            line="computation alone", show=lambda value: f"{format_significant(value)} per s", on_device=True
        ),
    ),
    Metric(
        key="load_ms",
        title="time to load the artifact",
        unit="ms",
        better="lower",
        detail=Detail(line="times", name="load", show=format_ms),
    ),
    Metric(
        key="first_inference_ms",
        title="time of the first inference",
        unit="ms",
        better="lower",
        detail=Detail(line="times", name="first inference", show=format_ms),
    ),
    Metric(
        key="num_inferences",
        title="measured inferences",
        detail=Detail(line="inferences", show=str),
        csv=(Csv(name="num_inferences", place=6),),
    ),
    Metric(
        key="build_s",
        title="time of the build",
        unit="s",
        better="lower",
        detail=Detail(line="build", show=lambda value: f"{format_significant(value)} s"),
    ),
    Metric(
        key="reused",
        title="whether the artifact was there from an earlier run",
        detail=Detail(line="build", show=lambda reused: "reused" if reused else None),
    ),
    Metric(
        key="precision_executed",
        title="what it executed in",
        detail=Detail(line="ran in", show=lambda executed: executed.describe()),
    ),
    Metric(
        key="peak_memory_bytes",
        title="largest resident set of the process that runs it",
        unit="bytes",
        better="lower",
        null="where the system does not tell",
        column=Column(head="mem MB", name="peak memory", unit="MB", show=format_megabytes),
        chart=Chart(title="Peak memory", note="of the process that runs it", show=format_bytes),
    ),
    Metric(
        key="gpu_memory_bytes",
        title="GPU memory of the process that runs it",
        unit="bytes",
        better="lower",
        null="on a CPU, and where the driver does not tell",
        detail=Detail(line="GPU memory of the process", show=format_bytes, on_device=True),
        column=Column(
            head="GPU MB",
            name="GPU memory",
            unit="MB",
            show=format_megabytes,
            under="compute_latency_ms.p50",
            on_terminal=_on_gpu,
            on_page=_on_gpu,
        ),
        chart=Chart(title="GPU memory", note="of the process that runs it", show=format_bytes, on_device=True),
    ),
    *(
        Metric(
            key=f"device_memory.{name}_bytes",
            title=f"memory {title} on the GPU",
            unit="bytes",
            better="lower",
            null="on a CPU, and where the runtime does not tell",
            detail=Detail(line="GPU memory of its allocator", name=name, show=format_bytes, on_device=True),
        )
        for name, title in (
            ("allocated", "that the runtime uses"),
            ("peak", "that the runtime used at most"),
            ("reserved", "that the runtime took from the driver"),
        )
    ),
    Metric(
        key="energy.per_inference_j",
        title="energy of an inference",
        unit="J",
        better="lower",
        null="without a meter or a power model, for the energy's own `reason`",
        column=Column(
            head="{unit}",
            name="energy",
            unit="{unit} each",
            show=format_significant,
            scale=energy_unit,
            under="peak_memory_bytes",
        ),
        csv=(
            Csv(name="total_energy_kwh", place=7, per=_J_PER_WH, value=_count_total),
            Csv(name="energy_per_inference_wh", place=8, per=_J_PER_WH),
            Csv(name="energy_reduction_pct", place=13, value=_count_reduction),
        ),
        estimated=lambda row: row.energy_estimated,
        scope=lambda row: row.energy_scope,
    ),
    *(
        Metric(
            key=key,
            title=f"{title} while inferring",
            unit="W",
            better="lower",
            null="without a meter" if key.startswith("energy.power") else "without a meter or a power model",
            detail=Detail(line="power", name=name, show=lambda value: f"{format_significant(value)} W"),
            csv=(Csv(name=f"power_{name}_w"),),
        )
        for key, name, title in (
            ("energy.mean_power_w", "mean", "mean power"),
            ("energy.power.std_w", "std", "standard deviation of the power"),
            ("energy.power.min_w", "min", "lowest power"),
            ("energy.power.median_w", "median", "median power"),
            ("energy.power.max_w", "max", "highest power"),
        )
    ),
    Metric(
        key="energy.power.count",
        title="samples of the power",
        null="without a meter",
        detail=Detail(line="power", name="samples", show=str),
        csv=(Csv(name="power_samples"),),
    ),
    Metric(
        key="carbon.per_inference_g",
        title="carbon of an inference, in CO2 equivalent",
        unit="g",
        better="lower",
        null="without an energy",
        csv=(
            Csv(name="carbon_total_kg", place=9, value=_count_total),
            Csv(name="carbon_per_inference_g", place=10),
            Csv(name="carbon_reduction_pct", place=14, value=_count_reduction),
        ),
    ),
    Metric(
        key="accuracy",
        title="share of right answers",
        better="higher",
        null="without labels",
        column=Column(
            head="acc %",
            name="accuracy",
            unit="%",
            show=format_percent_number,
            on_terminal=_answers_once,
            on_page=_answers_once,
        ),
        tile=Tile(place=3, label="accuracy", show=format_percent),
        limit=Limit(place=2, name="min_accuracy", metavar="SHARE", help="Ship nothing worse.", what="accuracy"),
    ),
    Metric(
        key="labels.accuracy",
        title="share of words with the right tag, or of texts with the right set of classes",
        better="higher",
        null="where the texts do not say word by word, or class by class, what is right",
        column=Column(
            head="right %",
            name="right",
            unit="%",
            show=format_percent_number,
            on_terminal=_has_labels,
            on_page=_has_labels,
        ),
    ),
    Metric(
        key="labels.f1",
        title="F1 of entities, or of the classes that hold",
        better="higher",
        null="likewise, and where tags name no entities",
        column=Column(
            head="F1 %",
            name="F1",
            unit="%",
            show=format_percent_number,
            under="labels.accuracy",
            on_terminal=_has_f1,
            on_page=_has_f1,
        ),
    ),
    Metric(
        key="agreement",
        title="share of samples with FP32's answer",
        better="higher",
        null="where no output reads as class scores",
        column=Column(
            head="agree %",
            name="agreement",
            unit="%",
            show=format_percent_number,
            under="accuracy",
            on_terminal=lambda comparison: not _is_kept_alone(comparison) and not _has_cosine_alone(comparison),
        ),
        tile=Tile(place=4, label="agreement with FP32", show=format_percent, note="samples"),
        limit=Limit(
            place=3,
            name="min_agreement",
            metavar="SHARE",
            help="Ship nothing that agrees less with FP32.",
            what="agreement",
        ),
    ),
    Metric(
        key="kept",
        title="share of FP32's answers that is kept, by the measure of the task: `fidelity.task.measure`",
        better="higher",
        null="where FP32 gives no answer, and in proofs of earlier versions",
        column=Column(
            head="kept %",
            name="kept of FP32",
            unit="%",
            show=format_percent_number,
            under="accuracy",
            on_terminal=_is_kept_alone,
            on_page=_is_kept_alone,
        ),
    ),
    Metric(
        key="drop.points",
        title="points lost against FP32: of accuracy, of what is kept of its answers, or of the user's own metric",
        unit="points",
        better="lower",
        null="where nothing says what is lost",
        column=Column(
            head="drop",
            name="lost",
            unit="points",
            show=format_significant,
            on_terminal=_nowhere,
            on_page=_limits_drop,
        ),
        limit=Limit(
            place=5,
            name="max_drop",
            metavar="POINTS",
            help="Ship nothing that loses more than so many points against FP32: of accuracy where there are labels, "
            "else of what is kept of its answers, or of --metric.",
            what="loss",
            unit="points",
            may_be_zero=True,
        ),
    ),
    Metric(
        key="drop",
        title="what is lost against FP32",
        null="where nothing says what is lost",
        detail=Detail(line="lost against FP32", show=lambda drop: drop.describe()),
    ),
    Metric(
        key="cosine",
        title="mean cosine of the worst output with FP32's",
        better="higher",
        null="without a float output",
        column=Column(
            head="cosine",
            name="cosine",
            unit="with FP32",
            show=format_cosine,
            under="accuracy",
            on_terminal=_has_cosine_alone,
            on_page=_has_cosine,
        ),
        detail=Detail(line="cosine", show=format_cosine),
    ),
    Metric(
        key="accuracy_ci95",
        title="95 % interval of the accuracy",
        null="without labels",
        detail=Detail(line="accuracy 95 % interval", show=_show_shares),
    ),
    Metric(
        key="memory.model_bytes",
        title="memory that the model adds to its runtime's",
        unit="bytes",
        better="lower",
        null="where the system does not tell",
        detail=Detail(line="memory of the model itself", show=lambda value: f"{format_megabytes(value)} MB"),
    ),
    Metric(
        key="speedup.ratio",
        title="how many times as fast as the baseline",
        better="higher",
        null="where the two share fewer than 5 rounds of a launch",
        column=Column(head="speed-up", name="speed-up", unit="of {baseline}", show=format_ratio, note="speedup.ci95"),
        tile=Tile(place=1, label="speed-up", show=format_ratio, note="interval"),
        csv=(Csv(name="speedup", place=15),),
    ),
    Metric(
        key="speedup.ci95",
        title="95 % interval of the speed-up",
        null="where the two share fewer than 5 rounds of a launch",
        column=Column(
            head="95% int.",
            name="interval",
            unit="",
            show=_show_interval,
            under="speedup.ratio",
            of_baseline="baseline",
            on_page=_nowhere,
        ),
    ),
)

BY_KEY = {metric.key: metric for metric in METRICS}
LIMITS = {
    limit.name: (metric, limit)
    for metric, limit in sorted(
        ((metric, metric.limit) for metric in METRICS if metric.limit), key=lambda pair: pair[1].place
    )
}


def explain_field(key: str) -> str:
    """Returns how a key of a row reads where it is said why it is null: `p99`, `compute speedup`."""
    return key.removeprefix("latency_ms.").replace("compute_latency_ms", "comp").replace("_", " ")


def list_details(row: Measurement, *, on_device: bool) -> list[tuple[str, str]]:
    """Returns a row's details as label and value, in the order of the table; only what is known."""
    lines: dict[str, list[str]] = {}
    for metric in METRICS:
        detail = metric.detail
        if detail is None or detail.on_device is not on_device:
            continue
        value = metric.read(row)
        shown = None if value is None else detail.show(value)
        if shown:
            lines.setdefault(detail.line, []).append(f"{detail.name} {shown}".lstrip())
    return [(label, ", ".join(parts)) for label, parts in lines.items()]


def list_estimated(rows: Sequence[Measurement]) -> list[Metric]:
    """Returns the metrics of which a row has an estimate."""
    return [metric for metric in METRICS if metric.estimated and any(metric.estimated(row) for row in rows)]
