from __future__ import annotations

import itertools
import zipfile
from pathlib import Path

import numpy as np
import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.archives import read_arrays
from modelwright.core.samples.materialize import materialize_samples
from modelwright.core.samples.sample_set import SampleRef, open_samples, select_part, write_random


def signature(*specs: tuple[str, str, tuple[int | str, ...]]) -> Signature:
    return Signature(inputs=tuple(TensorSpec(name=n, dtype=d, shape=s) for n, d, s in specs), outputs=())


IMAGE = signature(("x", "float32", ("batch", 3, 4)))


def save(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "samples.npz"
    np.savez(path, **arrays)
    return path


def open_all(path: Path, expected: Signature = IMAGE):
    return open_samples(SampleRef(path=path), expected)


@pytest.mark.parametrize("writer", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_values_survive_mapping(tmp_path: Path, writer, order) -> None:
    x = np.asarray(np.arange(60, dtype=np.float32).reshape(5, 3, 4), order=order)
    path = tmp_path / "s.npz"
    writer(path, x=x, labels=np.arange(5))
    samples = open_all(path)
    got = np.concatenate([feeds["x"] for feeds in samples.feeds()])
    np.testing.assert_array_equal(got, x)
    np.testing.assert_array_equal(samples.labels, np.arange(5))


def test_uncompressed_arrays_are_mapped_not_read(tmp_path: Path) -> None:
    arrays = read_arrays(save(tmp_path, x=np.zeros((5, 3, 4), np.float32)))
    assert isinstance(arrays["x"], np.memmap)


def test_batch_dimension_is_kept(tmp_path: Path) -> None:
    samples = open_all(save(tmp_path, x=np.zeros((5, 3, 4), np.float32)))
    assert [feeds["x"].shape for feeds in samples.feeds()] == [(1, 3, 4)] * 5
    assert samples.batch([0, 1, 2])["x"].shape == (3, 3, 4)


def test_whole_inputs_may_be_stacked_along_a_new_axis(tmp_path: Path) -> None:
    x = np.arange(2 * 7 * 1 * 3, dtype=np.float32).reshape(2, 7, 1, 3)
    samples = open_all(save(tmp_path, x=x), signature(("x", "float32", (7, 1, 3))))
    assert samples.count == 2
    np.testing.assert_array_equal(list(samples.feeds())[1]["x"], x[1])


def test_fixed_batch_takes_rows_together(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.float32).reshape(8, 3)
    samples = open_all(save(tmp_path, x=x), signature(("x", "float32", (4, 3))))
    assert samples.count == 2
    np.testing.assert_array_equal(list(samples.feeds())[1]["x"], x[4:])


def test_parts_never_overlap_and_cover_all() -> None:
    for count in (1, 2, 3, 10, 100, 301):
        parts = {part: set(select_part(count, part).tolist()) for part in ("calibration", "tuning", "evaluation")}
        for one, other in itertools.combinations(parts.values(), 2):
            assert not one & other
        assert parts["evaluation"], "there must always be something that judges"
        assert set().union(*parts.values()) == set(range(count))


def test_what_calibration_does_not_need_is_for_choosing() -> None:
    for count, tuned in ((256, 64), (320, 64), (400, 144), (512, 256), (900, 256)):
        tuning = select_part(count, "tuning", holds_evaluation=False)
        calibration = select_part(count, "calibration", holds_evaluation=False)
        assert (len(tuning), len(calibration)) == (tuned, min(count - 64, 256))
        assert not set(tuning.tolist()) & set(calibration.tolist())


def test_split_is_the_same_every_time_and_shuffled() -> None:
    first = select_part(100, "evaluation")
    np.testing.assert_array_equal(first, select_part(100, "evaluation"))
    assert set(first.tolist()) != set(range(50))


def test_with_samples_to_judge_given_apart_nothing_is_held_back() -> None:
    calibration = select_part(100, "calibration", holds_evaluation=False)
    tuning = select_part(100, "tuning", holds_evaluation=False)
    assert len(calibration) + len(tuning) == 100
    assert len(select_part(100, "evaluation", holds_evaluation=False)) == 100


def test_limit_takes_from_everywhere() -> None:
    chosen = select_part(1000, "evaluation", limit=20)
    assert len(chosen) == 20
    assert chosen.max() > 500


def test_hash_depends_on_content_only(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = open_all(save(tmp_path / "a", x=x)).sha256
    np.savez_compressed(tmp_path / "b" / "other.npz", x=x)
    assert open_all(tmp_path / "b" / "other.npz").sha256 == first
    x[0, 0, 0] += 1
    assert open_all(save(tmp_path / "b", x=x)).sha256 != first


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros((5, 3, 4), np.float32)}, "missing x; unknown y"),
        ({"x": np.zeros((5, 3, 5), np.float32)}, "shape"),
        ({"x": np.zeros((5,), np.float32)}, "shape"),
        ({"x": np.zeros((5, 3, 4), np.int64)}, "int64, the model expects float32"),
        ({"x": np.full((5, 3, 4), np.nan, np.float32)}, "NaN or infinity, first in row 0"),
        ({"x": np.zeros((0, 3, 4), np.float32)}, "0 samples"),
        ({"x": np.zeros((5, 3, 4), np.float32), "labels": np.zeros(4, np.int64)}, "different numbers of samples"),
        ({"x": np.zeros((5, 3, 4), np.float32), "labels": np.zeros(5, np.float32)}, "labels must be integer"),
        ({"x": np.array([object()])}, "cannot be read as samples"),
        ({}, "holds no arrays"),
    ],
)
def test_samples_that_do_not_fit_are_refused(tmp_path: Path, arrays, message) -> None:
    with pytest.raises(BadInputError, match=message):
        open_all(save(tmp_path, **arrays))


def test_a_state_whose_first_axis_is_its_layers_is_asked_for_whole(tmp_path: Path) -> None:
    inputs = signature(("x", "float32", ("batch", 3)), ("state", "float32", (2, "batch", 4)))
    x, layers = np.zeros((6, 3), np.float32), np.zeros((6, 2, 4), np.float32)
    with pytest.raises(BadInputError, match=r"x: 6, state: 3") as caught:
        open_all(save(tmp_path, x=x, state=layers), inputs)
    assert caught.value.hint == "stack whole inputs along a new first axis: state as [samples, 2, batch, 4]"
    assert open_all(save(tmp_path, x=x, state=layers[:, :, None]), inputs).count == 6


def test_a_late_nan_is_found(tmp_path: Path) -> None:
    x = np.zeros((5, 3, 4), np.float32)
    x[3, 2, 1] = np.inf
    with pytest.raises(BadInputError, match="first in row 3"):
        open_all(save(tmp_path, x=x))


@pytest.mark.parametrize(("dtype", "value"), [("float32", 1e300), ("float32", -1e39), ("float16", 70000.0)])
def test_what_becomes_infinite_in_the_models_type_is_refused(tmp_path: Path, dtype: str, value: float) -> None:
    x = np.zeros((9, 4))
    x[6, 2] = value
    words = rf"x holds {value:g} in row 6, which is infinite in the model's {dtype}".replace("+", r"\+")
    with pytest.raises(BadInputError, match=words):
        open_all(save(tmp_path, x=x), signature(("x", dtype, ("batch", 4))))
    x[6, 2] = 1e4
    assert open_all(save(tmp_path, x=x), signature(("x", dtype, ("batch", 4)))).count == 9


def test_a_sample_is_the_one_that_feeds_give(tmp_path: Path) -> None:
    expected = signature(("x", "float32", ("batch", 3, 4)), ("rate", "int64", ()))
    path = save(tmp_path, x=np.arange(60, dtype=np.float32).reshape(5, 3, 4), rate=np.arange(5))
    samples = open_samples(SampleRef(path=path, part="evaluation"), expected)
    for position, feeds in enumerate(samples.feeds()):
        assert samples.sample(position)["rate"].shape == ()
        for name, value in samples.sample(position).items():
            np.testing.assert_array_equal(value, feeds[name])


def test_broken_files_are_refused(tmp_path: Path) -> None:
    whole = save(tmp_path, x=np.zeros((50, 3, 4), np.float32)).read_bytes()
    for name, content in {"cut.npz": whole[:700], "empty.npz": b"", "text.npz": b"hello"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInputError, match=name):
            read_arrays(tmp_path / name)
    with pytest.raises(BadInputError, match="no such sample file"):
        read_arrays(tmp_path / "absent.npz")
    (tmp_path / "samples.txt").write_text("1")
    with pytest.raises(BadInputError, match=r"ends in \.npz"):
        read_arrays(tmp_path / "samples.txt")


def test_wider_floats_and_fitting_integers_are_cast(tmp_path: Path) -> None:
    expected = signature(("x", "float32", ("batch", 2)), ("ids", "int64", ("batch", 2)))
    path = save(tmp_path, x=np.ones((3, 2)), ids=np.ones((3, 2), np.int32))
    feeds = next(open_all(path, expected).feeds())
    assert feeds["x"].dtype == np.float32
    assert feeds["ids"].dtype == np.int64


def test_random_samples_fit_their_signature(tmp_path: Path) -> None:
    expected = signature(("a/b:0", "float32", ("batch", 3, "width")), ("ids", "int64", (1, 8)))
    path = write_random(tmp_path / "noise", expected, count=4)
    samples = open_all(path, expected)
    assert samples.count == 4
    assert next(samples.feeds())["ids"].shape == (1, 8)


def test_compressed_files_are_unpacked_once(tmp_path: Path) -> None:
    x = np.arange(60, dtype=np.float32).reshape(5, 3, 4)
    np.savez_compressed(tmp_path / "s.npz", x=x, labels=np.arange(5))
    folder = materialize_samples(str(tmp_path / "s.npz"), None, tmp_path / "unpacked")
    assert isinstance(read_arrays(folder)["x"], np.memmap)
    np.testing.assert_array_equal(read_arrays(folder)["x"], x)
    plain = save(tmp_path, x=x)
    assert materialize_samples(str(plain), None, tmp_path / "untouched") == plain
    assert not (tmp_path / "untouched").exists()


def test_checked_samples_are_not_read_again(tmp_path: Path) -> None:
    path = save(tmp_path, x=np.full((5, 3, 4), np.nan, np.float32))
    assert open_samples(SampleRef(path=path), IMAGE, checked=True).count == 5


def test_a_damaged_array_is_refused_although_its_values_are_finite(tmp_path: Path) -> None:
    path = save(tmp_path, x=np.ones((500, 3, 4), np.float32))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInputError, match="damaged: its checksum is wrong"):
        open_all(path)


@pytest.mark.parametrize("shape", ["(-4, 3, 4)", "(4611686018427387904, 8)", "(" * 2000])
def test_hostile_headers_are_refused(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    path = tmp_path / "s.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(500))
    with pytest.raises(BadInputError, match="cannot be read as samples"):
        open_all(path)


@pytest.mark.parametrize(("labels", "fits"), [([0, 4], True), ([0, 5], False), ([-1, 4], False)])
def test_labels_must_be_classes_of_the_model(tmp_path: Path, labels: list[int], fits: bool) -> None:
    scores = TensorSpec(name="y", dtype="float32", shape=("batch", 5))
    path = save(tmp_path, x=np.ones((2, 3, 4), np.float32), labels=np.array(labels))
    expected = Signature(inputs=IMAGE.inputs, outputs=(scores,))
    if fits:
        assert open_all(path, expected).labels is not None
        return
    with pytest.raises(BadInputError, match="the model has the classes 0 to 4"):
        open_all(path, expected)
