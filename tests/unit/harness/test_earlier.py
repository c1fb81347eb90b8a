"""Which earlier measurements still hold, and what is renewed of their rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from documents import make_document, make_row
from msgspec.structs import replace

from modelwright.core.files import write_json
from modelwright.harness.earlier import MARK, RESULTS, EarlierRun, hash_measured
from modelwright.harness.request import Request, make_request
from modelwright.harness.results.file import decode_results, encode_results
from modelwright.harness.results.kept import renew_row
from modelwright.harness.variants import Subject
from modelwright.profiles.grid import GridRegion

KEY, OTHER = "a" * 64, "b" * 64


def write_results(folder: Path) -> None:
    write_json(folder / RESULTS, make_document([make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=1.0)]))


def test_what_was_kept_is_found_until_its_key_is_another(tmp_path: Path) -> None:
    write_results(tmp_path)
    EarlierRun(tmp_path, again=False).keep(KEY)
    found = EarlierRun(tmp_path, again=False).find(KEY)
    assert found is not None
    assert [row.target for row in found.measurements] == ["ort-fp32"]
    assert EarlierRun(tmp_path, again=False).find(OTHER) is None
    assert EarlierRun(tmp_path, again=True).find(KEY) is None


@pytest.mark.parametrize("damage", ["edited", "gone", "mark", "unreadable"])
def test_what_was_changed_since_is_measured_again(tmp_path: Path, damage: str) -> None:
    write_results(tmp_path)
    EarlierRun(tmp_path, again=False).keep(KEY)
    if damage == "edited":
        text = (tmp_path / RESULTS).read_text()
        (tmp_path / RESULTS).write_text(text.replace("1200", "1201"))
    elif damage == "gone":
        (tmp_path / RESULTS).unlink()
    elif damage == "mark":
        (tmp_path / MARK).write_text('{"schema": 1}')
    else:
        (tmp_path / RESULTS).write_text("{")
        EarlierRun(tmp_path, again=False).keep(KEY)
    assert EarlierRun(tmp_path, again=False).find(KEY) is None


def ask(**more: Any) -> Request:
    return make_request([Subject(source="net.onnx")], samples="s.npz", targets=["ort-fp32"], **more)


def make_artifact(**more: Any) -> Any:
    manifest = {
        "target": "ort-fp32",
        "files": {"model.onnx": "c" * 64, "reference.npz": "d" * 64},
        "recipe": {"graph": "all"},
        "tuned": None,
        "proof": None,
    }
    return SimpleNamespace(manifest=SimpleNamespace(**manifest | more))


def test_files_settings_and_machine_decide_what_is_measured() -> None:
    request, artifacts = ask(), {"a/ort-fp32": make_artifact()}
    key = hash_measured(request, artifacts)
    assert hash_measured(ask(), {"a/ort-fp32": make_artifact()}) == key
    others = [
        hash_measured(request, {"a/ort-fp32": make_artifact(files={"model.onnx": "e" * 64})}),
        hash_measured(request, {"b/ort-fp32": make_artifact()}),
        hash_measured(request, artifacts | {"b/ort-fp32": make_artifact()}),
        hash_measured(request, {"a/ort-fp32": make_artifact(recipe={"graph": "basic"})}),
        hash_measured(ask(effort="quick"), artifacts),
        hash_measured(ask(seed=1), artifacts),
        hash_measured(ask(batch=2), artifacts),
        hash_measured(ask(settings=["spinning=false"]), artifacts),
        hash_measured(dataclasses.replace(request, host=replace_cores(request)), artifacts),
    ]
    assert len({key, *others}) == 1 + len(others)


def replace_cores(request: Request) -> Any:
    return replace(request.host, cores=request.host.cores + 1)


def test_how_it_is_judged_and_the_grid_do_not_decide_what_is_measured() -> None:
    key = hash_measured(ask(), {"a/ort-fp32": make_artifact()})
    packed = make_artifact(files={"model.onnx": "c" * 64, "reference.npz": "f" * 64})
    assert hash_measured(ask(region="FR", evaluation_limit=7), {"a/ort-fp32": packed}) == key


def test_a_row_that_is_kept_has_todays_grid_and_title() -> None:
    document = make_document([make_row("student/ort-fp32", "ONNX Runtime FP32 of student on CPU", latency_ms=1.0)])
    row = decode_results(document, where="test").measurements[0]
    region = GridRegion(name="OWN", title="own", g_per_kwh=840, year=2026, source="s")
    found = renew_row(row, make_artifact(), region, reused=True)
    assert found.title == "ONNX Runtime FP32"
    assert found.reused
    assert found.carbon is not None
    assert row.carbon is not None
    assert found.carbon.per_inference_g == pytest.approx(2 * (row.carbon.per_inference_g or 0))
    assert found.latency_ms == row.latency_ms
    assert encode_results(decode_results(document, where="test"))["measurements"][0]["title"] != found.title
