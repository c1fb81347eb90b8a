"""What is refused as samples; then the hint is followed, and they are taken. See `refusals/`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusing import refused

from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.archives import read_arrays
from modelwright.core.samples.functions import materialize_function
from modelwright.core.samples.materialize import materialize_samples
from modelwright.core.samples.python_source import load_function, require_function
from modelwright.core.samples.sample_set import SampleRef, open_samples

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 2)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 3)),),
)
FIXED = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=(4, 2)),), outputs=())
ROWS = np.ones((4, 2), np.float32)


def take(spec: str | Path, folder: Path, signature: Signature = SIGNATURE) -> int:
    """Returns the number of samples that a text gives."""
    return open_samples(SampleRef(path=materialize_samples(str(spec), signature, folder / "made")), signature).count


def save(folder: Path, **arrays: Any) -> Path:
    path = folder / "samples.npz"
    np.savez(path, **arrays)
    return path


# Files.


def test_a_file_that_is_not_there_is_given_as_one_of_three(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    hint = refused(lambda: take(path, tmp_path), "no such sample file")
    told = "give a .npz keyed by input name, file.py:function that yields dicts, a folder of pictures, or `random` for "
    assert hint == told + "noise"
    assert "a .npz keyed by input name" in refused(
        lambda: open_samples(SampleRef(path=path), SIGNATURE), "no such sample file"
    )
    (tmp_path / "f.py").write_text("import numpy\ndef load():\n    yield {'x': numpy.ones(2, numpy.float32)}\n")
    assert take(f"{tmp_path / 'f.py'}:load", tmp_path) == 1
    assert take("random", tmp_path) > 1
    assert take(save(tmp_path, x=ROWS), tmp_path) == 4


@pytest.mark.parametrize("content", [b"x,y\n1,2\n", b""])
def test_another_kind_of_file_is_saved_with_numpy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "samples.dat"
    path.write_bytes(content)
    for act in (lambda: take(path, tmp_path), lambda: open_samples(SampleRef(path=path), SIGNATURE)):
        assert "numpy.savez('samples.npz', input_name=array)" in refused(act, "is no sample file")
    assert take(save(tmp_path, x=ROWS), tmp_path) == 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b"PK\x03\x04 no more"), "cannot be read as samples"),
        (lambda path: np.savez(path, x=np.array([{}, {}], object)), "cannot be read as samples"),
        (lambda path: np.savez(path), "holds no arrays"),
    ],
)
def test_a_damaged_file_is_saved_again(tmp_path: Path, make: Callable[[Path], Any], words: str) -> None:
    path = tmp_path / "samples.npz"
    make(path)
    hint = refused(lambda: take(path, tmp_path), words)
    (told,) = re.findall(r"numpy\.savez\('samples\.npz', input_name=array\)", hint)
    exec(told.replace("'samples.npz'", "path").replace("input_name", "x"), {"numpy": np, "path": path, "array": ROWS})
    assert take(path, tmp_path) == 4


# Arrays.

NAN, HUGE = ROWS.copy(), ROWS.astype(np.float64)
NAN[1, 1], HUGE[1, 1] = np.nan, 1e300


@pytest.mark.parametrize(
    ("wrong", "words", "told", "mended", "signature"),
    [
        ({"y": ROWS}, "missing x; unknown y", "save y under the name x: the model expects", {"x": ROWS}, SIGNATURE),
        ({"x": ROWS, "y": ROWS}, "inputs: unknown y", "the model expects: x float32", {"x": ROWS}, SIGNATURE),
        ({"x": ROWS[:0]}, "holds 0 samples", "at least 2 are needed", {"x": ROWS[:2]}, SIGNATURE),
        ({"x": ROWS[:3]}, "has 3 rows, the model takes 4", "a multiple of 4 rows", {"x": ROWS}, FIXED),
        ({"x": ROWS[:3]}, "has 3 rows, the model takes 4", "stack whole inputs", {"x": ROWS[None]}, FIXED),
        ({"x": NAN}, "holds NaN or infinity, first in row 1", "clean the samples", {"x": ROWS}, SIGNATURE),
        ({"x": HUGE}, r"1e\+300 in row 1, which is infinite", "take out what", {"x": HUGE[2:]}, SIGNATURE),
        (
            {"x": ROWS, "labels": np.array([1, 2, 3, 1])},
            "labels go from 1 to 3, the model has the classes 0 to 2",
            "count classes from 0",
            {"x": ROWS, "labels": np.array([0, 1, 2, 0])},
            SIGNATURE,
        ),
        (
            {"x": ROWS, "labels": np.eye(4, 3)},
            "labels must be integer class numbers",
            "one number a sample",
            {"x": ROWS, "labels": np.eye(4, 3).argmax(1)},
            SIGNATURE,
        ),
        (
            {"x": ROWS, "labels": np.array([0, 1])},
            "different numbers of samples",
            "sample",
            {"x": ROWS, "labels": np.array([0, 1, 2, 0])},
            SIGNATURE,
        ),
    ],
)
def test_arrays_that_are_mended_as_told_are_taken(
    tmp_path: Path, wrong: dict[str, Any], words: str, told: str, mended: dict[str, Any], signature: Signature
) -> None:
    def read(arrays: dict[str, Any]) -> int:
        return len(list(open_samples(SampleRef(path=save(tmp_path, **arrays)), signature).feeds()))

    assert told in refused(lambda: read(wrong), words)
    assert read(mended) > 0


# Functions and noise.


@pytest.mark.parametrize(
    ("wrong", "words", "told", "mended"),
    [
        ("return iter(())", "yields no samples", "yield one dict a sample", "yield {'x': np.ones(2)}"),
        ("return 7", "returns a int, not samples", "yield one dict a sample", "yield {'x': np.ones(2)}"),
        (
            "yield np.ones(2)",
            "not a dict keyed by input name",
            "'labels': class",
            "yield {'x': np.ones(2), 'labels': 1}",
        ),
        ("yield {'x': np.array(['a', 'b'])}", "not numbers", "numpy arrays of numbers", "yield {'x': np.ones(2)}"),
        (
            "yield {'x': np.ones(2)}; yield {'z': np.ones(2)}",
            "sample 1 has z; sample 0 has x",
            "the same names",
            "yield {'x': np.ones(2)}; yield {'x': np.ones(2)}",
        ),
        (
            "yield {'x': np.ones(2)}; yield {'x': np.ones(3, int)}",
            r"of sample 1 is int64 \[3\], of sample 0",
            "fix the dtype with astype",
            "yield {'x': np.ones(2)}; yield {'x': np.resize(np.ones(3, int), 2).astype(float)}",
        ),
    ],
)
def test_functions_that_are_mended_as_told_are_taken(
    tmp_path: Path, wrong: str, words: str, told: str, mended: str
) -> None:
    path = tmp_path / "f.py"
    path.write_text(f"import numpy as np\ndef load():\n    {wrong}\n")
    assert told in refused(lambda: take(f"{path}:load", tmp_path), words)
    path.write_text(f"import numpy as np\ndef load():\n    {mended}\n")
    assert take(f"{path}:load", tmp_path) >= 1


def test_one_dict_of_whole_arrays_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "f.py"
    path.write_text("import numpy as np\ndef load():\n    return {'x': np.ones((4, 2), np.float32)}\n")
    hint = refused(lambda: take(f"{path}:load", tmp_path), "returns one dict")
    assert hint == "save whole arrays with numpy.savez and give the .npz instead"
    assert take(save(tmp_path, **load_function(path, "load")()), tmp_path) == 4


def test_a_file_of_functions_is_given_with_one(tmp_path: Path) -> None:
    path = tmp_path / "f.py"
    hint = refused(lambda: require_function(f"{path}:load", "yields samples"), "no such file")
    assert hint == "give FILE.py:FUNCTION, relative to the working directory"
    path.write_text("if False:\n    late = None\nimport os\nWIDTH = 5\ndef load(): ...\n")
    hint = refused(lambda: require_function(str(path), "yields samples"), "name the function in it")
    assert hint == f"functions in it: {path}:load"
    assert require_function(hint.rpartition(" ")[2], "yields samples") == (path, "load")
    assert refused(lambda: require_function(f"{path}:lod", "yields samples"), "defines no function lod") == hint
    # A name that is there in the text alone: what the file holds once it has run is told.
    assert refused(lambda: load_function(path, "late"), "defines no function late") == hint
    assert refused(lambda: load_function(path, "WIDTH"), "is int, not a function") == hint
    assert callable(load_function(path, "load"))


def test_a_file_imports_without_arguments(tmp_path: Path) -> None:
    path = tmp_path / "scripted.py"
    path.write_text("import sys\nWIDTH = int(sys.argv[99])\ndef load(): ...\n")
    hint = refused(lambda: load_function(path, "load"), "running scripted.py failed: IndexError")
    assert hint == "it must import without arguments, as `python -c 'import scripted'` does in its folder"
    path.write_text("def load(): ...\n")
    load_function(path, "load")


def test_noise_is_asked_for_as_told(tmp_path: Path) -> None:
    for spec, words in (("random:many", "is not a number of samples"), ("random:99999999", "random samples are made")):
        hint = refused(lambda given=spec: take(given, tmp_path), words)
        told = hint.removeprefix("write for instance ")
        assert take(told, tmp_path) == int(told.partition(":")[2])


def test_batches_get_the_axis_of_their_samples(tmp_path: Path) -> None:
    code = "import numpy\ndef load():\n    x = numpy.ones(2, numpy.float32)\n    yield {'x': x, 'labels': 1}\n"
    (tmp_path / "f.py").write_text(code)
    spec = f"{tmp_path / 'f.py'}:load"
    hint = refused(
        lambda: materialize_function(spec, tmp_path / "made", batched=True),
        r"of batch 0 hold different numbers of samples, or none \(x: 2, labels: 1\)",
    )
    assert "x[None]" in hint
    (tmp_path / "f.py").write_text(code.replace("'x': x", "'x': x[None]"))
    arrays = read_arrays(materialize_function(spec, tmp_path / "made", batched=True))
    assert {name: array.shape for name, array in arrays.items()} == {"labels": (1,), "x": (1, 2)}
