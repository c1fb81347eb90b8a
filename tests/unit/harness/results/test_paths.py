"""Nothing that a comparison writes says where on the machine its files lie, unless it is asked to."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from documents import make_document, make_row, make_unmeasured
from msgspec.structs import replace

from modelwright.harness.report import render_csv, render_html
from modelwright.harness.results.file import decode_results, encode_results
from modelwright.harness.results.paths import drop_paths, relate_paths
from modelwright.harness.results.record import Comparison

TENSOR = "output /head/Gemm_output_0: channel 3 carries noise"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "homes" / "ann lee"
    (home / "acme" / "out").mkdir(parents=True)
    (home / "acme" / "net.py").touch()
    (home / "acme" / "x.npz").touch()
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.chdir(home / "acme")
    return home


@pytest.fixture
def comparison(home: Path) -> Comparison:
    """As it is measured: paths as the user wrote them, absolute ones in errors, warnings and notes."""
    out = home / "acme" / "out"
    document = make_document(
        [
            make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=2.0, notes=[TENSOR]),
            make_unmeasured(
                "ort-int8",
                "ONNX Runtime INT8",
                "failed",
                f"{out}/artifacts/ort-int8 was changed after it was built",
                f"look at {home}/acme/net.py",
            ),
        ]
    )
    document["source"]["path"] = f"{home}/acme/net.py:create"
    document["samples"]["calibration"]["path"] = str(home / "acme" / "x.npz")
    document["samples"]["evaluation"]["path"] = "x.npz"
    document["samples"]["measured_on"] = str(home / "acme" / "x.npz")
    document["warnings"] = [f"{home}/acme/x.npz repeats samples", f"{home}/elsewhere/deep/y.npz is not read"]
    return decode_results(document, where="here")


def test_results_say_the_way_from_their_own_folder(home: Path, comparison: Comparison) -> None:
    related = relate_paths(comparison, Path("out"))
    assert related.source.path == "../net.py:create"
    assert [related.samples.calibration.path, related.samples.evaluation.path] == ["../x.npz", "../x.npz"]  # type: ignore[union-attr]
    assert related.samples.measured_on == "../x.npz"
    failed = related.find("ort-int8")
    assert failed is not None
    assert failed.reason == "artifacts/ort-int8 was changed after it was built"
    assert failed.hint == "look at ~/acme/net.py"
    assert related.warnings == ("x.npz repeats samples", "~/elsewhere/deep/y.npz is not read")
    text = json.dumps(encode_results(related)) + render_csv(related)
    assert "ann lee" not in text
    assert str(home.parent) not in text
    assert related.measured[0].notes == (TENSOR,), "a tensor's name is no path"


def test_results_of_earlier_versions_are_read_with_their_absolute_paths(comparison: Comparison) -> None:
    again = decode_results(json.loads(json.dumps(encode_results(comparison))), where="here")
    assert again.source.path == comparison.source.path
    assert Path(again.source.path).is_absolute()


def test_the_page_names_files_unless_asked_for_where_they_lie(home: Path, comparison: Comparison) -> None:
    related = relate_paths(comparison, Path("out"))
    page = render_html(related)
    for hidden in ("ann lee", str(home.parent), "acme", "elsewhere/deep", "../x.npz"):
        assert hidden not in page
    for told in ("net.py:create", "x.npz", ".../y.npz is not read", "look at .../net.py", TENSOR):
        assert told in page
    assert "ann lee/acme/net.py:create" in render_html(comparison, show_paths=True)
    assert "ann lee/acme/net.py:create" not in render_html(comparison), "nor those of results of earlier versions"


def test_what_has_no_paths_stays_as_it_is(home: Path) -> None:
    document = make_document([make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=2.0)])
    document["source"]["path"] = "random-net.onnx"
    document["samples"]["calibration"]["path"] = document["samples"]["evaluation"]["path"] = "random:64"
    comparison = decode_results(document, where="here")
    assert relate_paths(comparison, home / "acme") == comparison
    assert drop_paths(comparison) == comparison


def test_a_figure_that_is_none_loses_no_result(home: Path, comparison: Comparison) -> None:
    """Whoever writes the file says what is wrong with it; until then nothing that was measured is lost."""
    first, *others = comparison.measurements
    broken = replace(first, build_s=math.nan, recipe={"note": f"{home}/acme/net.py", "made by": object()})
    related = relate_paths(replace(comparison, measurements=(broken, *others)), Path("out"))
    assert math.isnan(related.measurements[0].build_s or 0.0)
    assert related.measurements[0].recipe["note"] == "~/acme/net.py"
    assert related.measurements[0].latency_ms == first.latency_ms
