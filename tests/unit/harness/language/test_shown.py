from __future__ import annotations

import csv
import io
import re

import pytest
from language_results import make_comparison, make_model, make_row
from msgspec.structs import replace
from rich.console import Console

from modelwright.core.records.language_artifact import RightAnswers, TaskScores
from modelwright.harness.language import page as page_tables
from modelwright.harness.language.figures import FIGURES
from modelwright.harness.language.page import render_language_page
from modelwright.harness.language.record import FirstToken, LanguageComparison, LanguageRow, Turn
from modelwright.harness.language.terminal import render_language
from modelwright.harness.language.verdict import judge
from modelwright.harness.language.weights import count_parameters
from modelwright.harness.language.writing import render_language_table
from modelwright.harness.meters.energy import Energy
from modelwright.harness.results.statistics import Latency

NAME = "openvino-int8-weights"


@pytest.fixture
def comparison() -> LanguageComparison:
    energy = Energy(per_inference_j=0.1234, source="estimated:tdp_util", scope="CPU package")
    failed = LanguageRow(
        target="torch-int8-dynamic",
        title="PyTorch dynamic INT8",
        runtime="torch",
        precision="int8-dynamic",
        is_float=False,
        status="failed",
        reason="torch-int8-dynamic does not follow FP32: perplexity is 92.7",
        hint="ship a target of more bits",
        exit_code=5,
    )
    return judge(
        make_comparison(
            make_row("torch-fp32", 62.0, 1.0, 0.0, memory=1000),
            replace(
                make_row(NAME, 11.7, 5.3, 0.005, memory=260), energy=energy, unavailable={"cache_bytes": "not told"}
            ),
            failed,
        )
    )


def _print(comparison: LanguageComparison, **how: bool) -> str:
    out = io.StringIO()
    render_language(comparison, Console(file=out, width=80, force_terminal=True, color_system=None), **how)
    return out.getvalue()


def test_everything_fits_80_columns_and_nothing_is_lost(comparison: LanguageComparison) -> None:
    shown = _print(comparison)
    assert max(map(len, shown.splitlines())) <= 80
    for figure in ("62.0", "11.7", "5.30x", "1.00x", "260", "1000", "20.1", "+0.50 %", "90.0", "~0.123"):
        assert figure in shown
    assert "> openvino-int8" in shown
    assert "cache: not told" in shown
    assert "failed torch-int8-dynamic: does not follow FP32: perplexity is 92.7" in shown
    assert "hint: ship a target of more bits" in shown


def test_details_have_intervals_and_the_source_of_an_estimate(comparison: LanguageComparison) -> None:
    shown = _print(comparison, verbose=True)
    assert "perplexity above FP32's: +0.50 % (95 % interval +0.30 % to +0.70 %)" in " ".join(shown.split())
    assert "energy: estimated:tdp_util (CPU package)" in shown


def test_the_page_shows_and_escapes_what_it_is_given(comparison: LanguageComparison) -> None:
    assert comparison.verdict is not None
    rows = tuple(replace(row, title=row.title.replace("title", "<b>title</b>")) for row in comparison.rows)
    page = render_language_page(replace(comparison, rows=rows, warnings=("<script>alert(1)</script>",)))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<b>" not in page
    assert "+0.30 % to +0.70 %" in page
    assert re.search(r"class='ship'>\s*<td>openvino-int8-weights", page)


def test_the_page_draws_times_by_length_and_tells_questions(comparison: LanguageComparison) -> None:
    right = RightAnswers(correct=3, correct_fp32=4, kept=3, ci95=(0.2, 0.9), kept_ci95=(0.3, 0.95))
    task = TaskScores(name="colours", count=6, total=6, whole=right, by_character=right, by_byte=right, by_token=right)
    turns = tuple(
        Turn(round=index, launch=0, prompt_tokens=4, first_ms=9.0, token_ms=(3.0, 2.0, 2.5)) for index in range(12)
    )
    opening = FirstToken(prompt_tokens=32, count=6, latency_ms=Latency(mean=40.0))
    rows = tuple(
        replace(row, turns=turns, openings=(opening,), quality=replace(row.quality, tasks=(task,)))
        if row.quality is not None
        else row
        for row in comparison.rows
    )
    page = render_language_page(replace(comparison, rows=rows))
    for caption in ("Time per token as the answer grows", "First token by length of the prompt", "Speed and quality"):
        assert caption in page
    assert (
        "colours: 3 of 6 right by the whole choice, of FP32's right answers 75.0 % kept (30.0 % to 95.0 %)"
        in page.replace("&#39;", "'")
    )
    assert "% right (acc_norm)" in page
    shown = " ".join(_print(replace(comparison, rows=rows), verbose=True).split())
    assert "colours: 6 questions, of which FP32 answers 4 rightly" in shown
    assert "questions answered rightly, by likelihood a character (acc_norm) (%): 50.0" in shown


def test_two_artifacts_of_one_target_are_told_apart_in_drawings(comparison: LanguageComparison) -> None:
    first, second, *_ = comparison.measured
    page = render_language_page(judge(replace(comparison, rows=(first, second, replace(second, target=f"{NAME} #2")))))
    drawn = re.findall(r"<text class=\"t[^>]*>([^<]*)<", page)
    assert {NAME, f"{NAME} #2", first.title} <= set(drawn)
    assert second.title not in drawn


def test_every_figure_of_the_page_has_a_head() -> None:
    listed = {key for _, _, keys in page_tables._PARTS for key in keys}
    assert listed == set(page_tables._HEADS) == {figure.key for figure in FIGURES}


def test_a_line_a_target_with_the_interval_beside_the_figure(comparison: LanguageComparison) -> None:
    lines = {line["target"]: line for line in csv.DictReader(io.StringIO(render_language_table(comparison)))}
    assert float(lines[NAME]["speedup_low"]) == pytest.approx(5.3 * 0.98)
    assert float(lines[NAME]["energy_per_token_j"]) == 0.1234
    assert lines[NAME]["energy_source"] == "estimated:tdp_util"
    assert lines["torch-fp32"]["energy_per_token_j"] == ""
    assert lines["torch-int8-dynamic"]["status"] == "failed"


def test_a_unit_that_is_not_gated_has_two_matrices() -> None:
    model = make_model()
    plain = replace(model, num_parameters=model.num_parameters - 2 * 8 * 16)
    assert count_parameters(plain)["feed-forward"] == 2 * 256
