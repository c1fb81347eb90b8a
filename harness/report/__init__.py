"""Shows a comparison: on the terminal, as one HTML file, as CSV."""

from modelwright.harness.report.page import render_html
from modelwright.harness.report.table import render_csv
from modelwright.harness.report.terminal import render_comparison

__all__ = ["render_comparison", "render_csv", "render_html"]
