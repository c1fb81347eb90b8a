from __future__ import annotations

import re
from itertools import pairwise

from modelwright.harness.report.line_charts import Line, draw_lines


def _line(label: str, *heights: float, is_float: bool = True) -> Line:
    points = [(float(number), height) for number, height in enumerate(heights, start=2)]
    return Line(label=label, points=points, color=0, is_float=is_float, is_ship=False)


def _draw(*lines: Line) -> str:
    return str(draw_lines(lines, title="t", x_name="x", y_name="ms"))


def _heights_of_names(drawing: str) -> list[float]:
    return [float(found) for found in re.findall(r'<text class="t" x="[\d.]+" y="([\d.]+)">', drawing)]


def test_a_slower_target_lies_above_a_faster_one() -> None:
    drawing = _draw(_line("slow", *[60.0] * 8), _line("fast", *[12.0] * 8, is_float=False))
    slow, fast = _heights_of_names(drawing)
    assert slow < fast  # pixels count downwards
    assert drawing.count("dashed") == 1


def test_names_of_equal_targets_do_not_lie_on_each_other() -> None:
    heights = sorted(_heights_of_names(_draw(*[_line(f"n{number}", 5.0, 5.0) for number in range(6)])))
    assert min(high - low for low, high in pairwise(heights)) >= 14


def test_times_far_apart_get_a_logarithmic_axis() -> None:
    assert "logarithmic" in _draw(_line("a", 1.0, 1.0), _line("b", 100.0, 90.0))
    assert "logarithmic" not in _draw(_line("a", 1.0, 1.0), _line("b", 5.0, 4.0))


def test_one_point_and_hostile_names_are_drawn() -> None:
    drawing = _draw(_line("<b>&", 3.0))
    assert "&lt;b&gt;" in drawing
    assert "<b>" not in drawing
    assert "nan" not in drawing
