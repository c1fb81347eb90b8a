"""The file that a study is read from: its tables and keys, and what is refused in them by its name.

Paths in it are relative to the folder that it lies in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from modelwright.core.errors import BadInputError, suggest
from modelwright.core.files import read_toml
from modelwright.core.records.codec import Amount, Count, Line, Record, Share, Text, decode
from modelwright.profiles.grid import GridRegion, find_region
from modelwright.targets.building.evidence import EVALUATION_LIMIT
from modelwright.targets.table import BASELINE

Positive = Annotated[int, Meta(ge=1, le=2**31 - 1)]
_NAME = Annotated[
    str,
    Meta(
        max_length=60,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z",
        description="a short name of letters, digits, '.', '_' and '-'",
        examples=["pruned-30"],
        extra={"hint": "rows and folders are called by it: write for instance [variants.pruned-30]"},
    ),
]
_OWN_REGION = "OWN"


class SamplesTable(Record):
    """`[samples]`: real inputs.

    Attributes:
        calibrate: What calibrates and chooses among ways to quantize; judges too where `judge` is left out.
        judge: What judges, and nothing else.
        judge_limit: Judge on at most so many.
        preprocess: How pictures become inputs, in all data of the study, as `--preprocess` takes it.
        labels: File with the names of the classes of folders of pictures.
        task: What the outputs mean; found in FP32's answers where it is left out.
        states: `OUTPUT=INPUT` pairs.
    """

    calibrate: Text
    judge: Text | None = None
    judge_limit: Positive = EVALUATION_LIMIT
    preprocess: Text | None = None
    labels: Text | None = None
    task: Text | None = None
    states: tuple[str, ...] = ()


class TrainingTable(Record):
    """`[training]`: how methods train; a variant's own table changes what it says.

    Attributes:
        data: What trains.
        judge: What a compression says its quality by; a part of `data` where it is left out.
        loss: And the others: as the options of `modelwright compress`.
        epochs: Passes over the data, for each method.
        lr: Learning rate at the start.
        batch: Samples a step.
        seed: Of all chance.
        budget: What training may take, such as 10m.
        augment: `file.py:function` that changes batches while they train.
        importance: How channels are ranked.
        distil_from_source: Whether every method learns from the answers of the source as it was, too.
        alpha: Of distillation: weight of the task's own loss.
        temperature: Of distillation.
        match: Of distillation: pairs of layers.
        bits: Of qat.
        symmetric: Of qat.
    """

    data: Text | None = None
    judge: Text | None = None
    loss: Text | None = None
    epochs: Count | None = None
    lr: Amount | None = None
    batch: Positive | None = None
    seed: Count | None = None
    budget: Text | None = None
    augment: Text | None = None
    importance: Literal["magnitude", "taylor"] | None = None
    distil_from_source: bool | None = None
    alpha: Share | None = None
    temperature: Annotated[float, Meta(gt=0, le=1000)] | None = None
    match: tuple[str, ...] | None = None
    bits: Text | None = None
    symmetric: bool | None = None


class VariantTable(Record):
    """`[variants.NAME]`: a model, and what is done to it.

    Attributes:
        source: A model, or the name of a variant above.
        methods: Of `modelwright compress`, in their order; none takes the source as it is.
        targets: Of this variant alone; those of the whole study where they are left out.
        training: What is other than in `[training]`.
    """

    source: Text
    methods: tuple[str, ...] = ()
    targets: Annotated[tuple[str, ...], Meta(min_length=1, description="a list of one target or more")] | None = None
    training: TrainingTable = TrainingTable()


class MeasureTable(Record):
    """`[measure]`: how to measure, as the options of `modelwright compare`."""

    effort: Literal["quick", "standard", "strict"] = "standard"
    profile: Text = "host"
    threads: Positive = 1
    batch: Positive = 1
    seed: Count = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    settings: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class LimitsTable(Record):
    """`[limits]`: what a row must meet to be recommended; one that loses more than `max_drop` fails.

    Attributes:
        metric: `file.py:function` of which no more than `max_drop` may be lost.
        max_drop: And the others: as the options of `modelwright compare`.
        max_p50_ms: Milliseconds.
        min_accuracy: A share.
        min_agreement: A share.
        max_size_mb: Megabytes.
    """

    metric: Text | None = None
    max_drop: Amount | None = None
    max_p50_ms: Amount | None = None
    min_accuracy: Share | None = None
    min_agreement: Share | None = None
    max_size_mb: Amount | None = None


class FleetTable(Record):
    """`[fleet]`: how many devices infer how often, and what they pay for energy.

    Attributes:
        devices: Sizes of fleets.
        inferences_per_day: Of each device; or
        inferences_per_week: Likewise.
        price_per_kwh: In `currency`.
        currency: Such as EUR.
        price_source: Where the price comes from.
    """

    devices: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=10**9)], ...],
        Meta(min_length=1, description="a list of whole numbers of 1 or more"),
    ]
    inferences_per_day: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    inferences_per_week: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    price_per_kwh: Amount | None = None
    currency: Annotated[str, Meta(max_length=20, pattern=r"\S", examples=["EUR"])] | None = None
    price_source: Line | None = None


class GridTable(Record):
    """`[grid]`: what a kilowatt-hour stands for: a known region, or a figure of your own with its source."""

    region: Text | None = None
    g_per_kwh: Annotated[float, Meta(ge=0, le=2000)] | None = None
    year: Annotated[int, Meta(ge=1990, le=2100)] | None = None
    source: Text | None = None


class ReportTable(Record):
    """`[report]`: the plot.

    Attributes:
        target_reduction: Per cent of energy and carbon that the line in the last panel is drawn at.
    """

    target_reduction: Annotated[float, Meta(gt=0, lt=100)] = 67.0


class StudyFile(Record):
    """All of the file."""

    schema: Annotated[Literal[1], Meta(extra={"hint": "this version reads schema = 1"})]
    targets: Annotated[tuple[str, ...], Meta(min_length=1, description="a list of one target or more")] | None = None
    baseline: Text = BASELINE
    samples: Annotated[SamplesTable, Meta(extra={"hint": "add a table [samples]"})]
    variants: Annotated[
        Mapping[_NAME, VariantTable],
        Meta(min_length=1, description="a table for each variant", extra={"hint": "write each as [variants.NAME]"}),
    ]
    training: TrainingTable = TrainingTable()
    measure: MeasureTable = MeasureTable()
    limits: LimitsTable = LimitsTable()
    fleet: FleetTable | None = None
    grid: GridTable = GridTable()
    report: ReportTable = ReportTable()

    @property
    def region(self) -> str | GridRegion | None:
        """Of the grid: a code, a figure of the user's own, or None for the profile's."""
        grid = self.grid
        if grid.g_per_kwh is None or grid.year is None or grid.source is None:
            return grid.region
        return GridRegion(
            name=_OWN_REGION,
            title="own figure",
            g_per_kwh=grid.g_per_kwh,
            year=grid.year,
            source=grid.source,
        )


def read_study(path: Path) -> StudyFile:
    """Reads and checks a study; runs nothing.

    Raises:
        BadInputError: The file cannot be read, or a key is unknown, missing or wrong. The message names the file, the
            table and the key.
    """
    where = f"study {path}"
    data = read_toml(path, "study")
    if "variants" in data and data["variants"] == {}:
        raise BadInputError(f"{where}: variants: there is none", hint="write each as [variants.NAME] with a source")
    study = decode(StudyFile, data, where=where)
    _check_variants(study, where)
    _check_fleet(study.fleet, where)
    _check_grid(study.grid, where)
    _check_limits(study.limits, where)
    return study


def read_template() -> str:
    """Returns a study to begin with, every key explained."""
    return Path(__file__).with_name("template.toml").read_text(encoding="utf-8")


def _check_variants(study: StudyFile, where: str) -> None:
    above: list[str] = []
    for name, variant in study.variants.items():
        key = f"{where}: variants.{name}"
        if name.lower() in {other.lower() for other in above}:
            raise BadInputError(f"{key}: another variant has this name but for its case", hint="rename one of the two")
        later = set(study.variants) - set(above)
        if variant.source in later:
            told = "itself" if variant.source == name else f"{variant.source}, which stands further down"
            raise BadInputError(
                f"{key}.source: it is made of {told}", hint="put a variant below the one that it is made of"
            )
        if variant.methods and not (variant.training.data or study.training.data):
            raise BadInputError(
                f"{key}.methods: {', '.join(variant.methods)} train, and nothing says on what",
                hint='add a table [training] with data = "train.npz" or "file.py:function"',
            )
        if not variant.methods and variant.training != TrainingTable():
            raise BadInputError(
                f"{key}.training: nothing is trained without methods",
                hint='add methods = ["prune:structured:0.5"], or take the table out',
            )
        above.append(name)


def _check_fleet(fleet: FleetTable | None, where: str) -> None:
    if fleet is None:
        return
    if (fleet.inferences_per_day is None) == (fleet.inferences_per_week is None):
        found = "neither" if fleet.inferences_per_day is None else "both"
        raise BadInputError(
            f"{where}: fleet: expected inferences_per_day or inferences_per_week, found {found}",
            hint="give one of the two",
        )
    price = {key: getattr(fleet, key) for key in ("price_per_kwh", "currency", "price_source")}
    _require_together(price, f"{where}: fleet", "a price is worth as much as its source")


def _check_grid(grid: GridTable, where: str) -> None:
    own = {key: getattr(grid, key) for key in ("g_per_kwh", "year", "source")}
    if grid.region is not None and any(value is not None for value in own.values()):
        raise BadInputError(
            f"{where}: grid: a region has a figure and a source of its own, found both",
            hint="give region, or g_per_kwh with year and source",
        )
    _require_together(own, f"{where}: grid", "a figure is worth as much as its source")
    if grid.region is not None:
        try:
            find_region(grid.region)
        except BadInputError as error:
            raise BadInputError(f"{where}: grid.region: {error.message}", hint=error.hint) from error


def _check_limits(limits: LimitsTable, where: str) -> None:
    if limits.metric is not None and limits.max_drop is None:
        raise BadInputError(
            f"{where}: limits.metric: it says of what something may be lost, and nothing says how much",
            hint="add max_drop",
        )


def _require_together(keys: Mapping[str, object], where: str, why: str) -> None:
    missing = [key for key, value in keys.items() if value is None]
    if missing and len(missing) < len(keys):
        raise BadInputError(f"{where}.{missing[0]}: missing; {why}", hint=f"add {missing[0]}")


def suggest_variant(name: str, study: StudyFile) -> str:
    """Returns a question that offers the variant that a mistyped name may mean; empty if there is none."""
    return suggest(name, study.variants)
