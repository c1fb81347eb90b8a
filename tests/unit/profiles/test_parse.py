"""Profiles from TOML: what is refused, and how the message leads to the place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelwright.core.errors import BadInputError
from modelwright.profiles.load import load_profile
from modelwright.profiles.parse import read_profile

GOOD = """
schema = 1
name = "my-box"
title = "My box"
grid_region = "FR"

[cpu]
architecture = "x86_64"
model = "Some CPU"
instruction_sets = ["avx2"]
without_instruction_sets = ["avx512_vnni"]
cores = 4
threads = 8
source = "the invoice"

[memory]
bytes = 8_589_934_592
source = "the invoice"

[[accelerators]]
kind = "cuda"
name = "Some GPU"
compute_capability = "8.9"
memory_bytes = 8_000_000_000
source = "the data sheet"

[power]
scope = "CPU package"
tdp_w = 65
tdp_source = "the data sheet"
inference_share = 0.4
inference_share_source = "measured"
idle_w = 5
idle_source = "measured too"

[match]
cpu_model = 'Some CPU$'
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_good_file_becomes_the_record_it_describes(tmp_path: Path) -> None:
    profile = read_profile(write(tmp_path, GOOD))

    assert profile.name == "my-box"
    assert profile.instruction_sets == {"avx2"}
    assert profile.without_instruction_sets == {"avx512_vnni"}
    assert (profile.cores, profile.threads, profile.memory_bytes) == (4, 8, 8 * 2**30)
    assert profile.grid_region == "FR"
    assert profile.accelerators[0].compute_capability == "8.9"
    assert profile.power is not None
    assert profile.power.inference_power_w == pytest.approx(26.0)
    assert profile.power.idle_w == 5
    assert "the data sheet" in profile.power.source
    assert "measured too" in profile.power.source
    assert profile.sources["power.tdp_w"] == "the data sheet"
    assert profile.match is not None
    assert profile.match.cpu_model == re.compile("Some CPU$")
    assert profile.names_machine
    assert not profile.detected
    gpu = profile.machine().gpu
    assert gpu is not None
    assert gpu.compute_capability == "8.9"


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ("schema = 1", "schema = 2", "schema", "one of 1"),
        ("schema = 1\n", "", "schema", "missing"),
        ('name = "my-box"', 'name = "My Box"', "name", "such as raspberry-pi-5"),
        ('name = "my-box"', 'name = "host"', "name", "not host"),
        ('title = "My box"', 'titel = "My box"', "titel", "unknown key"),
        ('title = "My box"', 'title = ""', "title", "expected a text"),
        ('title = "My box"', "title = 3", "title", "found 3"),
        ('"FR"', '"Mars"', "grid_region", "one of DE, FR"),
        ('"x86_64"', '"amd64"', "cpu.architecture", "one of x86_64, aarch64"),
        ('["avx2"]', '["AVX2"]', "cpu.instruction_sets", '["avx2", "fma"]'),
        ('["avx2"]', "[2]", "cpu.instruction_sets", "found [2]"),
        ('["avx512_vnni"]', '["avx2"]', "cpu.without_instruction_sets", "avx2 is in cpu.instruction_sets"),
        ("cores = 4", "cores = 0", "cpu.cores", "at least 1"),
        ("cores = 4", "cores = true", "cpu.cores", "a whole number"),
        ("cores = 4", "cores = 4.0", "cpu.cores", "a whole number"),
        ("cores = 4", "core = 4", "cpu.core", "unknown key"),
        ("cores = 4\n", "", "cpu.cores", "missing"),
        ("threads = 8", "threads = 2", "cpu.threads", "at least cpu.cores (4)"),
        ("[cpu]\n", "[processor]\n", "processor", "unknown key"),
        ("bytes = 8_589_934_592", "bytes = 8192", "memory.bytes", "at least"),
        ('[memory]\nbytes = 8_589_934_592\nsource = "the invoice"', "", "memory", "missing; expected a table"),
        ("[[accelerators]]", "[accelerators]", "accelerators", "an array of tables"),
        ('kind = "cuda"', 'kind = "rocm"', "accelerators[0].kind", "one of cuda"),
        ('"8.9"', '"sm_89"', "accelerators[0].compute_capability", 'such as "8.9"'),
        ('"8.9"', "8.9", "accelerators[0].compute_capability", "a text"),
        ("tdp_w = 65", "tdp_w = 0", "power.tdp_w", "greater than 0"),
        ("tdp_w = 65", "tdp_w = nan", "power.tdp_w", "a number"),
        ("tdp_w = 65", 'tdp_w = "65 W"', "power.tdp_w", "found '65 W'"),
        ("inference_share = 0.4", "inference_share = 40", "power.inference_share", "at most 1"),
        ("inference_share = 0.4", "inference_share = 0.05", "power.inference_share", "found 3.25 W"),
        ("idle_w = 5", "idle_w = -1", "power.idle_w", "at least 0"),
        ('idle_source = "measured too"\n', "", "power.idle_source", "power.idle_w needs it"),
        ('tdp_source = "the data sheet"\n', "", "power.tdp_source", "missing"),
        ("CPU package", "everything", "power.scope", "GPU board"),
        ("'Some CPU$'", "'Some (CPU'", "match.cpu_model", "a regular expression"),
        ("cpu_model =", "cpu =", "match.cpu", "unknown key"),
    ],
)
def test_an_error_names_the_file_and_the_key(tmp_path: Path, old: str, new: str, key: str, said: str) -> None:
    assert GOOD.count(old) == 1
    path = write(tmp_path, GOOD.replace(old, new))

    with pytest.raises(BadInputError) as caught:
        read_profile(path)

    assert caught.value.message.startswith(f"profile {path}: {key}: ")
    assert said in caught.value.message
    assert caught.value.exit_code == 3


def test_an_unknown_key_comes_with_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as caught:
        read_profile(write(tmp_path, GOOD.replace("tdp_w = 65", "tdp = 65")))
    assert caught.value.hint is not None
    assert "tdp_w" in caught.value.hint


def test_a_list_of_targets_is_refused_with_what_takes_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("\n[cpu]", 'targets = ["ort-fp32", "tensorrt-fp16"]\n\n[cpu]'))
    with pytest.raises(BadInputError) as caught:
        read_profile(path)
    assert caught.value.message.startswith(f"profile {path}: targets: ")
    assert "--target" in str(caught.value.hint)


@pytest.mark.parametrize("table", ["cpu", "memory", "accelerators[0]"])
def test_figures_without_a_source_are_refused(tmp_path: Path, table: str) -> None:
    lines = GOOD.splitlines()
    header = f"[[{table[:-3]}]]" if table.endswith("]") else f"[{table}]"
    position = next(i for i in range(lines.index(header), len(lines)) if lines[i].startswith("source"))
    del lines[position]

    with pytest.raises(BadInputError, match="missing") as caught:
        read_profile(write(tmp_path, "\n".join(lines)))

    assert f": {table}.source: " in caught.value.message
    assert "where the figures come from" in (caught.value.hint or "")


def test_a_syntax_error_gives_the_line(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"mine\.toml: not valid TOML: .*line 3"):
        read_profile(write(tmp_path, 'schema = 1\nname = "x"\ntitle = oops\n'))


def test_unreadable_files_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"absent\.toml: cannot be read"):
        load_profile(tmp_path / "absent.toml")
    with pytest.raises(BadInputError, match="cannot be read"):
        load_profile(tmp_path)
    with (tmp_path / "large.toml").open("wb") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(BadInputError, match="too large"):
        load_profile(tmp_path / "large.toml")
    path = tmp_path / "latin.toml"
    path.write_bytes('title = "Gerät"'.encode("latin-1"))
    with pytest.raises(BadInputError, match="UTF-8"):
        load_profile(str(path))


def test_optional_parts_may_be_left_out(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("[[accelerators]]")].replace('grid_region = "FR"\n', "").replace("threads = 8\n", "")
    profile = load_profile(str(write(tmp_path, text)))
    assert profile.power is None
    assert profile.accelerators == ()
    assert profile.threads is None
    assert profile.grid_region == "DE"
    assert profile.machine().gpu is None
    assert profile.is_class


def test_energies_of_operations_are_those_of_45_nm_unless_the_file_has_its_own(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("[[accelerators]]")]
    assert load_profile(str(write(tmp_path, text))).technology.node == "45 nm"
    own = """
    [technology]
    node = "7 nm"
    fp32_multiply_pj = 1.31
    fp32_add_pj = 0.38
    int8_multiply_pj = 0.07
    int8_add_pj = 0.007
    dram_word_pj = 500
    source = "the data sheet"
    """
    technology = load_profile(str(write(tmp_path, text + own))).technology
    assert technology.mac_pj(None) == pytest.approx(1.69)
    assert technology.mac_pj(4) == pytest.approx(0.077 / 4)
    assert technology.memory_pj(8) == 125
    for broken, said in ((own.replace("500", "-1"), "dram_word_pj"), (own[: own.index("source")], "source")):
        with pytest.raises(BadInputError, match=f"technology.{said}"):
            load_profile(str(write(tmp_path, text + broken)))
