"""What programs that a target writes have in common: names as literals, and shapes to try them with.

Names come from models and manifests, and so from anywhere: as literals of plain ASCII they are values in every
language, and say nothing to a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelwright.core.records.signature import TensorSpec

CPP_TYPES = {
    "bool": "bool",
    "float32": "float",
    "float64": "double",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""numpy's dtype -> the type in C++; a 16-bit float is the vendor's own."""


def quote_python(text: str) -> str:
    """Returns a text as a literal of Python."""
    return ascii(text) if '"' in text or "'" in text or "\\" in ascii(text) else f'"{text}"'


def quote_cpp(text: str) -> str:
    """Returns a text as a literal of C++, in UTF-8."""
    plain = {0x22: '\\"', 0x5C: "\\\\", 0x3F: "\\?"}  # a question mark may begin a trigraph
    return (
        '"'
        + "".join(
            plain.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03o}")
            for byte in text.encode("utf-8", "surrogatepass")
        )
        + '"'
    )


def choose_shape(spec: TensorSpec) -> tuple[int, ...]:
    """Returns a shape that an input may have: dynamic dimensions are 1."""
    return tuple(size if isinstance(size, int) else 1 for size in spec.shape or ())


def is_dynamic(spec: TensorSpec) -> bool:
    """Whether a dimension has no size."""
    return any(isinstance(size, str) for size in spec.shape or ())


def list_cpp(values: Iterable[object]) -> str:
    """Returns values as they stand in braces."""
    return ", ".join(map(str, values))


def join_lines(*parts: str | Sequence[str]) -> str:
    """Returns lines, and groups of them, as the text of a file."""
    lines = [line for part in parts for line in ([part] if isinstance(part, str) else part)]
    return "\n".join(lines) + "\n"
