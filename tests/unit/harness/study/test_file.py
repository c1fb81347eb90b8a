"""The file of a study: what is read, and what is refused with its table and key."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from modelwright.core.errors import BadInputError
from modelwright.harness.results.metrics import LIMITS
from modelwright.harness.study.file import LimitsTable, StudyFile, read_study, read_template
from modelwright.profiles.grid import GridRegion
from modelwright.targets.building.evidence import EVALUATION_LIMIT

LEAST = """
[samples]
calibrate = "train.npz"
[variants.teacher]
source = "net.py:create"
"""


def read(folder: Path, text: str, head: str = "schema = 1\n") -> StudyFile:
    path = folder / "s.toml"
    path.write_text(head + text)
    return read_study(path)


def test_little_is_enough_and_the_rest_has_defaults(tmp_path: Path) -> None:
    study = read(tmp_path, LEAST)
    assert (study.baseline, study.targets, study.fleet, study.region) == ("ort-fp32", None, None, None)
    assert study.samples.judge_limit == EVALUATION_LIMIT
    assert study.report.target_reduction == 67
    assert study.variants["teacher"].methods == ()


def test_the_template_is_a_study_and_names_every_table(tmp_path: Path) -> None:
    study = read(tmp_path, read_template(), head="")
    assert list(study.variants) == ["teacher", "half"]
    assert study.variants["half"].training.epochs == 5
    tables = {field.name for field in msgspec.structs.fields(StudyFile)} - {"schema", "targets", "baseline"}
    assert [table for table in tables if f"[{table}" not in read_template()] == []


def test_limits_are_those_of_the_table_of_metrics() -> None:
    assert {field.name for field in msgspec.structs.fields(LimitsTable)} == {*LIMITS, "metric"}


def test_a_grid_is_a_region_or_a_figure_with_its_source(tmp_path: Path) -> None:
    assert read(tmp_path, LEAST + '[grid]\nregion = "fr"').region == "fr"
    own = read(tmp_path, LEAST + '[grid]\ng_per_kwh = 12.5\nyear = 2026\nsource = "our roof"').region
    assert isinstance(own, GridRegion)
    assert (own.g_per_kwh, own.year, own.source) == (12.5, 2026, "our roof")


FLEET = "[fleet]\ndevices = [10]\n"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (LEAST.replace("source", "sorce"), "variants.teacher.sorce: unknown key", "did you mean source"),
        (LEAST + "[limits]\nmax-drop = 1", "limits.max-drop: unknown key", "did you mean max_drop"),
        (LEAST + "[fleets]", "fleets: unknown key", "did you mean fleet"),
        (LEAST + '[variants."a b"]\nsource = "x"', "variants: expected a short name", "rows and folders"),
        (LEAST + '[variants.a]\nsource = "x"\ntargets = []', "variants.a.targets: expected a list of one", None),
        (LEAST + '[variants.TEACHER]\nsource = "x"', "variants.TEACHER: another variant has this name", "rename"),
        (LEAST + '[variants.a]\nsource = "a"', "variants.a.source: it is made of itself", "below"),
        (
            LEAST + '[variants.a]\nsource = "b"\n[variants.b]\nsource = "x"',
            "variants.a.source: it is made of b, which stands further down",
            "below",
        ),
        (LEAST + '[variants.a]\nsource = "teacher"\nmethods = ["qat"]', "variants.a.methods: qat train", "[training]"),
        (
            LEAST + '[variants.a]\nsource = "x"\ntraining = { epochs = 3 }',
            "variants.a.training: nothing is trained",
            "methods",
        ),
        (LEAST + "[training]\nepochs = -1", "training.epochs: expected a whole number of 0 or more", None),
        (LEAST + '[measure]\neffort = "fast"', "measure.effort: expected one of quick, standard, strict", None),
        (LEAST + '[limits]\nmetric = "m.py:f1"', "limits.metric: it says of what", "max_drop"),
        (LEAST + FLEET, "fleet: expected inferences_per_day or inferences_per_week, found neither", "one of the two"),
        (
            LEAST + FLEET + "inferences_per_day = 1\ninferences_per_week = 7",
            "fleet: expected inferences_per_day or inferences_per_week, found both",
            "one of the two",
        ),
        (LEAST + "[fleet]\ndevices = [0]\ninferences_per_day = 1", "fleet.devices: expected a list of whole", None),
        (
            LEAST + FLEET + "inferences_per_day = 1\nprice_per_kwh = 0.3\ncurrency = 'EUR'",
            "fleet.price_source: missing",
            "add price_source",
        ),
        (LEAST + "[grid]\ng_per_kwh = 3", "grid.year: missing", "add year"),
        (LEAST + '[grid]\nregion = "DE"\nyear = 2020', "grid: a region has a figure", "give region, or"),
        (LEAST + '[grid]\nregion = "XX"', "grid.region: grid region 'XX' is not known", "known:"),
        (LEAST + "[report]\ntarget_reduction = 100", "report.target_reduction: expected a number greater", None),
        ("[variants.teacher]\nsource = 'x'", "samples: missing", "[samples]"),
        ("[samples]\ncalibrate = 'x'", "variants: missing", "[variants.NAME]"),
        ("variants = {}\n[samples]\ncalibrate = 'x'", "variants: there is none", "[variants.NAME]"),
    ],
)
def test_what_is_wrong_is_told_with_table_and_key(tmp_path: Path, text: str, message: str, hint: str | None) -> None:
    with pytest.raises(BadInputError) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(f"study {tmp_path / 's.toml'}: {message}")
    assert hint is None or hint in (caught.value.hint or "")


def test_another_schema_and_what_is_no_toml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="schema: expected one of 1"):
        read(tmp_path, LEAST, head="schema = 2\n")
    with pytest.raises(BadInputError, match="not valid TOML"):
        read(tmp_path, "targets = [")
