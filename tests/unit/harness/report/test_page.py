"""The page's template: whatever stands in a document is text on the page, and the page runs and loads only its own."""

import html
import re
import xml.etree.ElementTree as ET
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import documents
import pytest
from jinja2 import UndefinedError

from modelwright.harness.formatting import clean_text
from modelwright.harness.report import page, render_html
from modelwright.harness.report.charts import Bar, Point, draw_bars, draw_scatter

ALL = documents.ALL
EVIL = "\"'><b data-evil=1>&amp;]]><!--\x1b[31m\x00\u202e</script><script>"


def spoil(value: Any, key: str = "") -> Any:
    """Returns a document with `EVIL` behind every text, and behind the keys that are names of things."""
    if isinstance(value, dict):
        names = key in ("versions", "unavailable")
        return {name + EVIL if names else name: spoil(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [spoil(item, key) for item in value]
    one_of_few = key == "status" or value in ("compute", "conversion", "other")
    return value + EVIL if isinstance(value, str) and not one_of_few else value


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("name", ["images", "transformer", "single", "gpu"])
def test_every_text_of_a_document_stays_text(name: str) -> None:
    shown = render_html(documents.read(spoil(ALL[name]())))
    assert "&lt;b data-evil=1&gt;&amp;amp;]]&gt;&lt;!--?[31m??&lt;/script&gt;&lt;script&gt;" in shown
    assert "<b" not in re.sub(r"<b(ody|utton|r)\b", "", shown)
    assert all(char.isprintable() or char == "\n" for char in shown)
    parser = _Tags()
    parser.feed(shown)
    assert [tag for tag, _ in parser.found].count("script") == 1
    assert not [tag for tag, attributes in parser.found if "data-evil" in attributes]
    for svg in re.findall(r"<svg.*?</svg>", shown, re.DOTALL):
        ET.fromstring(svg)


def test_every_text_of_a_chart_stays_text() -> None:
    point = Point(
        label="<b>&", x=1.0, y=0.9, whisker=None, color=0, is_float=True, on_front=True, is_ship=True, tooltip=EVIL
    )
    bar = Bar(label=EVIL, value=1.0, text=EVIL, color=0)
    shown = clean_text(EVIL)
    scatter = ET.fromstring(draw_scatter([point], width=600, height=300, quality=EVIL, percent=True, min_span=0.02))
    texts = ["".join(element.itertext()) for element in scatter.iter()]
    assert {shown, "<b>&"} <= set(texts)
    bars = ET.fromstring(draw_bars([bar, Bar(label="b", value=None, text="<b>", color=0)], title=EVIL, hatch_id="h"))
    assert bars.attrib["aria-label"] == shown
    assert [element.text for element in bars.iter() if element.text].count(shown) == 2, "the tooltip and the figure"


def test_the_template_escapes_cleans_and_refuses_what_is_not_defined() -> None:
    environment = page.load_template(Path(page.__file__).parent, "page.html.j2").environment
    assert environment.from_string("{{ x }}|{{ y }}").render(x="<b>'\x1b", y=None) == "&lt;b&gt;&#39;?|-"
    with pytest.raises(UndefinedError):
        environment.from_string("{{ x }}").render()
    source = Path(page.__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe\b|autoescape", source)


@pytest.mark.parametrize("name", list(ALL))
def test_the_browser_is_told_to_run_only_the_pages_own_style_and_script(name: str) -> None:
    shown = render_html(documents.read(ALL[name]()))
    (policy,) = re.findall(r"<meta http-equiv='Content-Security-Policy' content=\"(.*?)\">", shown)
    rules = dict(rule.strip().split(" ", 1) for rule in html.unescape(policy).split(";"))
    assert rules["default-src"] == "'none'"
    for rule, tag in (("style-src", "style"), ("script-src", "script")):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", shown, re.DOTALL)
        assert rules[rule] == f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
    assert " style=" not in shown, "the policy would drop it"


def test_the_page_names_no_address() -> None:
    shown = render_html(documents.read(ALL["images"]()))
    assert set(re.findall(r"[a-z]+://[^\s\"'<>]*", shown)) == {"http://www.w3.org/2000/svg"}, "a namespace, not loaded"
