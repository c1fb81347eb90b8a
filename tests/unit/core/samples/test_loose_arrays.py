"""Arrays without the model's names: one `.npy`, or a folder of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from refusing import refused

from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.archives import read_arrays
from modelwright.core.samples.materialize import materialize_samples

SIGNATURE = Signature(inputs=(TensorSpec(name="a/b", dtype="float32", shape=("batch", 2)),), outputs=())
ROWS = np.arange(8, dtype=np.float32).reshape(4, 2)


def take(path: Path, out: Path, signature: Signature | None = SIGNATURE) -> dict[str, np.ndarray]:
    return read_arrays(materialize_samples(str(path), signature, out))


def test_one_array_is_the_models_one_input(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    assert np.array_equal(take(tmp_path / "x.npy", tmp_path / "out")["a/b"], ROWS)


@pytest.mark.parametrize("batch", [False, True])
def test_a_folder_holds_one_sample_a_file(tmp_path: Path, batch: bool) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    for number, row in enumerate(ROWS):
        np.save(folder / f"{number:03}.npy", row[None] if batch else row)
    np.save(folder / "labels.npy", np.array([1, 0, 1, 0]))
    arrays = take(folder, tmp_path / "out")
    assert np.array_equal(arrays["a/b"], ROWS)
    assert arrays["labels"].tolist() == [1, 0, 1, 0]


def test_a_folder_by_the_inputs_names_stays_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "a%2Fb.npy", ROWS)
    assert materialize_samples(str(tmp_path), SIGNATURE, tmp_path / "out") == tmp_path
    assert materialize_samples(str(tmp_path), None, tmp_path / "out") == tmp_path


def test_before_the_model_is_known_it_is_saved_with_its_name(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    hint = refused(
        lambda: take(tmp_path / "x.npy", tmp_path / "no", None), "does not say what the model's input is called"
    )
    assert "numpy.savez('samples.npz', input_name=array)" in hint
    np.savez(tmp_path / "samples.npz", **{"a/b": np.load(tmp_path / "x.npy")})
    assert len(take(tmp_path / "samples.npz", tmp_path / "yes", None)["a/b"]) == 4


def test_several_inputs_are_saved_in_one_file(tmp_path: Path) -> None:
    two = Signature(inputs=(*SIGNATURE.inputs, TensorSpec(name="c", dtype="float32", shape=("batch", 1))), outputs=())
    np.save(tmp_path / "x.npy", ROWS)
    hint = refused(lambda: take(tmp_path / "x.npy", tmp_path / "no", two), "is one array, and the model takes a/b, c")
    assert "by their names" in hint
    np.savez(tmp_path / "samples.npz", **{"a/b": ROWS, "c": ROWS[:, :1]})
    assert set(take(tmp_path / "samples.npz", tmp_path / "yes", two)) == {"a/b", "c"}


def test_files_that_differ_or_are_damaged_are_saved_again(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    np.save(folder / "0.npy", ROWS[0])
    for wrong, words, told in (
        (ROWS[0].astype(np.float64), r"1.npy holds float64 \[2\], 0.npy float32 \[2\]", "one shape and dtype"),
        (np.ones((1, 1, 2), np.float32), r"has the shape \[1, 1, 2\], the model expects a/b", "as the model takes it"),
        (np.array([None, 1]), "cannot be read as an array", "save it again with numpy.save"),
    ):
        np.save(folder / "1.npy", wrong)
        assert told in refused(lambda: take(folder, tmp_path / "no"), words)
        assert not (tmp_path / "no").exists()
    np.save(folder / "1.npy", ROWS[1])
    assert len(take(folder, tmp_path / "yes")["a/b"]) == 2
