"""Samples by name: files, functions in a child process, and noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelwright.core.errors import BadInputError, UsageError
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.materialize import is_random, materialize_samples
from modelwright.core.samples.npy import NpyWriter
from modelwright.core.samples.python_source import load_function, require_function
from modelwright.core.samples.sample_set import SampleRef, open_samples

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x/0", dtype="float32", shape=("batch", 2)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 3)),),
)
CODE = """
import itertools
import numpy as np

def endless():
    for i in itertools.count():
        yield {"x/0": np.full(2, i, np.float32), "labels": i % 3}

def whole_inputs():
    return [{"x/0": np.full((1, 2), i, np.float32)} for i in range(5)]

def ragged():
    for i in range(5):
        yield {"x/0": np.zeros(2 if i < 3 else 4, np.float32)}

def other_names():
    yield {"x/0": np.zeros(2)}
    yield {"x": np.zeros(2)}

def breaks():
    yield {"x/0": np.zeros(2)}
    raise KeyError("image 1 is missing")

def not_dicts():
    yield np.zeros(2)

def objects():
    yield {"x/0": np.array(["a", "b"])}

def nothing():
    return []

def one_dict():
    return {"x/0": np.zeros((5, 2))}
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "samples.py"
    path.write_text(CODE)
    return path


def test_endless_function_is_stored_up_to_the_limit(code: Path, tmp_path: Path) -> None:
    folder = materialize_samples(f"{code}:endless", None, tmp_path / "out", limit=10)
    samples = open_samples(SampleRef(path=folder), SIGNATURE)
    assert samples.count == 10
    feeds = list(samples.feeds())
    assert feeds[7]["x/0"].tolist() == [[7.0, 7.0]]
    assert samples.labels is not None
    assert samples.labels.tolist() == [i % 3 for i in range(10)]
    assert sorted(file.name for file in folder.iterdir()) == ["labels.npy", "x%2F0.npy"]


def test_whole_inputs_are_one_sample_each(code: Path, tmp_path: Path) -> None:
    folder = materialize_samples(f"{code}:whole_inputs", None, tmp_path / "out")
    samples = open_samples(SampleRef(path=folder), SIGNATURE)
    assert [feeds["x/0"].tolist() for feeds in samples.feeds()] == [[[i, i]] for i in range(5)]


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("ragged", r"x/0 of sample 3 is float32 \[4\], of sample 0 float32 \[2\]"),
        ("other_names", "sample 1 has x; sample 0 has x/0"),
        ("breaks", "failed at sample 1: KeyError"),
        ("not_dicts", "sample 0 is a ndarray"),
        ("objects", "x/0 of sample 0 is <U1"),
        ("nothing", "yields no samples"),
        ("one_dict", "returns one dict"),
        ("absent", "defines no function absent"),
    ],
)
def test_faults_name_the_sample_and_leave_nothing(code: Path, tmp_path: Path, function: str, text: str) -> None:
    with pytest.raises(BadInputError, match=text):
        materialize_samples(f"{code}:{function}", None, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples.py"]


def test_a_value_is_no_function_and_the_hint_lists_what_is(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("import math\nWIDTH = 3\ndef create():\n    pass\n")
    with pytest.raises(BadInputError, match=r"^WIDTH in .*net\.py is int, not a function$") as caught:
        load_function(path, "WIDTH")
    assert caught.value.hint == f"functions in it: {path}:create"


def test_noise_is_asked_for_by_name(tmp_path: Path) -> None:
    assert is_random("random")
    assert is_random("random:8")
    assert not is_random("randomised.npz")
    path = materialize_samples("random:8", SIGNATURE, tmp_path / "noise")
    assert open_samples(SampleRef(path=path), SIGNATURE).count == 8
    for spec in ("random:", "random:0", "random:many"):
        with pytest.raises(UsageError):
            materialize_samples(spec, SIGNATURE, tmp_path / "n")
    with pytest.raises(UsageError, match="signature"):
        materialize_samples("random", None, tmp_path / "n")


def test_files_are_used_where_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=np.zeros((3, 2)))
    assert materialize_samples(str(tmp_path / "s.npz"), None, tmp_path / "out") == tmp_path / "s.npz"
    (tmp_path / "s.csv").write_text("1,2")
    for name in ("s.csv", "absent.npz"):
        with pytest.raises(BadInputError):
            materialize_samples(str(tmp_path / name), None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3), (1,) * 30])
def test_writer_writes_what_numpy_reads(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rows = np.arange(7 * int(np.prod(shape)), dtype=np.int16).reshape(7, *shape)
    with NpyWriter(tmp_path / "a.npy", rows.dtype, shape) as writer:
        for row in rows:
            writer.append(np.asarray(row))
        with pytest.raises(ValueError, match="expected int16"):
            writer.append(np.zeros((9, 9)))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), rows)


def test_of_many_functions_a_hint_names_those_that_read_alike_and_no_page_of_them(tmp_path: Path) -> None:
    path = tmp_path / "many.py"
    path.write_text("".join(f"def other_{number}(): ...\n" for number in range(30)) + "def load_train(): ...\n")
    with pytest.raises(BadInputError, match="defines no function load_trian") as caught:
        require_function(f"{path}:load_trian", "yields samples")
    hint = str(caught.value.hint)
    assert hint.startswith(f"functions in it: {path}:load_train, {path}:other_0, ")
    assert hint.endswith(f"{path}:other_10 and 19 more")
