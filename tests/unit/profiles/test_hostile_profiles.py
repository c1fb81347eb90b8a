"""Every value of a real profile, replaced by what does not belong there: refused in one sentence, or harmless."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import modelwright.profiles.builtin
from modelwright.core.errors import BadInputError
from modelwright.profiles.parse import read_profile

FOLDER = Path(modelwright.profiles.builtin.__file__).parent
VALUES = (
    "nan", "-inf", "1e400", "-1", "0", "2.5", "9223372036854775807", "9223372036854775808", "0x" + "f" * 5000,
    "1" * 5000, "true", '""', '" "', r'"\u001b[2J"', r'"\u202e"', '"' + "x" * 100_000 + '"', '"(?P<"',
    '"a{99999999999}"', '"' + "(" * 5000 + '"', "[]", '[""]', "[1]", "{}", '{ "" = {} }', "2026-11-26", "07:30:00",
    "2026-11-26T07:30:00Z", "[" * 10_000 + "]" * 10_000, "{ " + ".".join("a" * 2_000) + " = 1 }", "",
)  # fmt: skip
LONGEST_MESSAGE = 400


def require_one_sentence(error: BadInputError, path: Path) -> None:
    assert error.message.startswith(f"profile {path}: ")
    assert len(error.message) < LONGEST_MESSAGE + len(str(path))
    assert error.message.isprintable()


@pytest.mark.parametrize("name", ["rtx-4090", "raspberry-pi-5"])
def test_wrong_values_are_refused_or_harmless(tmp_path: Path, name: str) -> None:
    lines = (FOLDER / f"{name}.toml").read_text().splitlines()
    path = tmp_path / "mine.toml"
    refused = opened = 0
    for index, line in enumerate(lines):
        key, separator, _ = line.partition(" = ")
        if not separator or line.startswith("#"):
            continue
        for value in VALUES:
            path.write_text("\n".join([*lines[:index], f"{key} = {value}", *lines[index + 1 :]]))
            try:
                profile = read_profile(path)
            except BadInputError as error:
                require_one_sentence(error, path)
                refused += 1
                continue
            opened += 1
            json.dumps(profile.to_dict(), allow_nan=False)
    assert refused > 5 * opened > 0


@pytest.mark.parametrize(
    "addition",
    [
        "surprise = 1",
        '"\\u001b[2J" = 1',
        f'"{"x" * 100_000}" = 1',
        ".".join("a" * 2_000) + " = 1",
        "cpu = 3",
        "[cpu.more]",
        "[[cpu]]",
        "name = 'twice'",
        "\x00",
        "\ufeff",
        "[" * 10_000,
    ],
)
def test_what_does_not_belong_in_a_profile_is_refused(tmp_path: Path, addition: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"{addition}\n" + (FOLDER / "rtx-4090.toml").read_text())
    with pytest.raises(BadInputError) as caught:
        read_profile(path)
    require_one_sentence(caught.value, path)
