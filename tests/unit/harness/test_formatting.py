"""Known answers of the formatting."""

import pytest

from modelwright.harness import formatting


@pytest.mark.parametrize(
    ("value", "shown"),
    [(7.7, "7.70"), (0.012345, "0.0123"), (9.996, "10.0"), (123.4, "123"), (1234.5, "1234"), (0, "0"), (None, "-")],
)
def test_significant(value: float | None, shown: str) -> None:
    assert formatting.format_significant(value) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (999_600, "1.00 MB"), (23_400_000, "23.4 MB"), (5.2e12, "5200 GB")],
)
def test_bytes(size: float, shown: str) -> None:
    assert formatting.format_bytes(size) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (1, "100 %"),
        (0.9888, "98.9 %"),
        (0.9999, "99.99 %"),
        (0.99999, "99.999 %"),
        (0.9999999, ">99.999 %"),
        (0, "0.0 %"),
    ],
)
def test_percent_is_100_only_for_all(share: float, shown: str) -> None:
    assert formatting.format_percent(share) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(1.0, "1"), (0.99996, "0.99996"), (0.9972, "0.9972"), (0.99999999, ">0.999999")]
)
def test_cosine_is_1_only_for_all(value: float, shown: str) -> None:
    assert formatting.format_cosine(value) == shown


def test_a_column_of_energies_has_one_unit() -> None:
    assert formatting.energy_unit([0.0456, 7e-5, None]) == ("mJ", 1e3)
    assert formatting.energy_unit([]) == ("J", 1.0)
    assert [formatting.energy_unit([value])[0] for value in (2.5, 0.0456, 7.89e-4, 3e-9)] == ["J", "mJ", "µJ", "nJ"]


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.0204, 0.0281, "0.0204-0.0281"),
        (4.53, 4.68, "4.53-4.68"),
        (0.981, 1.023, "0.98-1.02"),
        (4.61, 4.63, "4.61-4.63"),
        (1, 1, "1.00-1.00"),
    ],
)
def test_interval(low: float, high: float, shown: str) -> None:
    assert formatting.format_interval(low, high) == shown


def test_milliseconds_and_ratios() -> None:
    assert formatting.format_ms(7.7) == "7.70 ms"
    assert [formatting.format_ratio(value) for value in (4.612, 0.0456, 12.34, None)] == [
        "4.61x",
        "0.0456x",
        "12.3x",
        "-",
    ]


def test_clean_text_disarms_controls() -> None:
    assert formatting.clean_text("a\x1b[31m\nb\u202ec\x00") == "a?[31m b?c?"


def test_shorten_and_join() -> None:
    assert formatting.shorten("abcdefghij", 7) == "abcd…ij"
    assert formatting.shorten("abc", 3) == "abc"
    assert [formatting.join_words(list(words)) for words in ("", "a", "ab", "abc")] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
