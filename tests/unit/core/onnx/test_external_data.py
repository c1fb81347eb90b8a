"""Which files a model may keep its weights in: everything else that a file can name is refused, whoever made it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.errors import BadInputError
from modelwright.core.onnx.external_data import copy_external_files, find_external_files

WEIGHTS = np.arange(6, dtype=np.float32)


def make_external(name: str, **entries: Any) -> Any:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[6], data_location=TensorProto.EXTERNAL)
    for key, entry in entries.items():
        tensor.external_data.add(key=key, value=str(entry))
    return tensor


def make_model(*tensors: Any) -> Any:
    nodes = [helper.make_node("Add", ["x", tensors[0].name], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [6]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with its weights, and a secret beside the folder."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "sub" / "more.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "secret").write_bytes(WEIGHTS.tobytes())
    (folder / "m.onnx").write_bytes(b"the model")
    return folder


def find(folder: Path, *tensors: Any) -> list[str]:
    return find_external_files(folder / "m.onnx", make_model(*tensors))


def test_files_are_found_once_in_order_and_copied(folder: Path, tmp_path: Path) -> None:
    tensors = [
        make_external("a", location="sub/more.bin", offset=0, length=24),
        make_external("b", location="weights.bin", offset=8, length=16),
        make_external("c", location="./weights.bin"),
    ]
    names = find(folder, *tensors)
    assert names == ["sub/more.bin", "weights.bin"]
    (tmp_path / "out").mkdir()
    copy_external_files(folder / "m.onnx", names, tmp_path / "out")
    assert (tmp_path / "out" / "sub" / "more.bin").read_bytes() == WEIGHTS.tobytes()
    assert (tmp_path / "out" / "weights.bin").read_bytes() == WEIGHTS.tobytes()
    with pytest.raises(FileExistsError):
        copy_external_files(folder / "m.onnx", names, tmp_path / "out")


def test_a_copied_model_is_one_that_onnx_loads(folder: Path, tmp_path: Path) -> None:
    path = folder / "m.onnx"
    path.write_bytes(make_model(make_external("a", location="link.bin")).SerializeToString())
    (folder / "link.bin").symlink_to("sub/more.bin")
    names = find_external_files(path, onnx.load(path, load_external_data=False))
    (tmp_path / "out").mkdir()
    copy_external_files(path, names, tmp_path / "out")
    (tmp_path / "out" / "m.onnx").write_bytes(path.read_bytes())
    loaded = onnx.load(tmp_path / "out" / "m.onnx").graph.initializer[0]
    np.testing.assert_array_equal(numpy_helper.to_array(loaded), WEIGHTS)


OUTSIDE = [
    "", ".", "/", "//secret", "../secret", "sub/../../secret", "sub/..", "..", "./../secret", "sub/../weights.bin",
    "..\\secret", "sub\\..\\..\\secret", "\\secret", "C:\\secret", "C:secret", "c:/secret", "\\\\host\\share\\secret",
    "weights.bin\0", "weights.bin\n", "\x1b[2Jweights.bin", "weights\u202e.bin", "\ufeffweights.bin",
    "weights\u200b.bin", "weights.bin/", "weights.bin/.", "sub/", "*/_ORT_MEM_ADDR_/*", "weights.bi*",
    "/proc/self/environ", "/dev/zero",
]  # fmt: skip


@pytest.mark.parametrize("location", OUTSIDE)
def test_a_location_outside_is_refused(folder: Path, location: str) -> None:
    for name in ("*/_ORT_MEM_ADDR_", "C:\\"):  # an attacker may well ship what the location names
        (folder / name).mkdir(parents=True)
    (folder / "*/_ORT_MEM_ADDR_" / "*").write_bytes(WEIGHTS.tobytes())
    for name in ("..\\secret", "weights.bi*", "weights\u202e.bin", "C:secret"):
        (folder / name).write_bytes(WEIGHTS.tobytes())
    with pytest.raises(BadInputError, match="outside the model's folder") as caught:
        find(folder, make_external("w", location=location))
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("location", [".bashrc", ".ssh/authorized_keys", "sub/.git/config", "...", ".../w"])
def test_a_hidden_file_is_refused(folder: Path, location: str) -> None:
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).write_bytes(WEIGHTS.tobytes())
    with pytest.raises(BadInputError, match="a hidden file"):
        find(folder, make_external("w", location=location))


@pytest.mark.parametrize(
    "location",
    ["absent.bin", "WEIGHTS.BIN ", "\uff0e\uff0e/secret", "\u2025/secret", "%2e%2e/secret", "~/secret", "$HOME/secret"],
)
def test_what_only_looks_like_another_place_is_a_name(folder: Path, location: str) -> None:
    with pytest.raises(BadInputError, match="which is missing"):
        find(folder, make_external("w", location=location))
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).write_bytes(WEIGHTS.tobytes())
    assert find(folder, make_external("w", location=location)) == [location]


@pytest.mark.parametrize("location", ["w" * 300, "sub/" * 2000 + "w", "weights.bin/w"])
def test_a_name_that_no_file_can_have_is_refused(folder: Path, location: str) -> None:
    with pytest.raises(BadInputError, match=r"cannot be read|is missing") as caught:
        find(folder, make_external("t" * 10**5, location=location))
    assert len(caught.value.message) < 1000


def lead_out(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").symlink_to("../secret")


def lead_out_by_folder(folder: Path) -> None:
    (folder / "sub" / "more.bin").unlink()
    (folder / "sub").rmdir()
    (folder / "sub").symlink_to("..")
    (folder.parent / "more.bin").write_bytes(WEIGHTS.tobytes())


def lead_to_kernel(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").symlink_to("/proc/self/environ")


def lead_in_circles(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").symlink_to("weights.bin")


def share(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    os.link(folder.parent / "secret", folder / "weights.bin")


def make_pipe(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    os.mkfifo(folder / "weights.bin")


def make_folder(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").mkdir()


def link_model(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").symlink_to("m.onnx")


@pytest.mark.parametrize(
    ("change", "location", "message"),
    [
        (lead_out, "weights.bin", "a link that leaves"),
        (lead_out_by_folder, "sub/more.bin", "a link that leaves"),
        (lead_to_kernel, "weights.bin", "a link that leaves"),
        (lead_in_circles, "weights.bin", "cannot be read"),
        (share, "weights.bin", "2 names"),
        (make_pipe, "weights.bin", "not a regular file"),
        (make_folder, "weights.bin", "not a regular file"),
        (link_model, "weights.bin", "the model itself"),
        (lambda folder: None, "m.onnx", "the model itself"),
        (lambda folder: None, "./sub", "not a regular file"),
    ],
)
@pytest.mark.timeout(20)
def test_what_is_not_the_models_own_file_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], location: str, message: str
) -> None:
    change(folder)
    with pytest.raises(BadInputError, match=message):
        find(folder, make_external("w", location=location, length=4))
    with pytest.raises(BadInputError, match=message):  # changed after it was found
        copy_external_files(folder / "m.onnx", [location], tmp_path / "out")


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": -8, "length": 16},
        {"offset": 0, "length": -1},
        {"offset": "8 ", "length": 4},
        {"offset": "+8", "length": 4},
        {"offset": "1_0", "length": 4},
        {"offset": "\u0663", "length": 4},
        {"offset": "0x8", "length": 4},
        {"offset": "", "length": 4},
        {"offset": 2**64, "length": 4},
    ],
)
def test_a_range_that_is_no_number_is_refused(folder: Path, entries: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match="unreadable offset or length"):
        find(folder, make_external("w", location="weights.bin", **entries))


@pytest.mark.parametrize(
    "entries", [{"length": 25}, {"offset": 8, "length": 17}, {"offset": 25}, {"offset": 2**59, "length": 2**59}]
)
def test_a_range_beyond_the_file_is_refused(folder: Path, entries: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match=r"cut off: w ends at byte \d+, the file has 24"):
        find(folder, make_external("w", location="weights.bin", **entries))


def test_each_tensor_of_one_file_is_checked(folder: Path) -> None:
    good, short = make_external("a", location="weights.bin"), make_external("b", location="weights.bin", length=99)
    with pytest.raises(BadInputError, match="b ends at byte 99"):
        find(folder, good, short)


def test_two_answers_and_no_text_are_refused(folder: Path) -> None:
    twice = make_external("w", location="weights.bin")
    twice.external_data.add(key="location", value="../secret")
    with pytest.raises(BadInputError, match="described twice"):
        find(folder, twice)
    data = make_external("w", location="weights.bin").SerializeToString()
    with pytest.raises(BadInputError, match="in no text"):
        find(folder, TensorProto.FromString(data.replace(b"weights.bin", b"weigh\xffs.bin")))


def test_tensors_are_found_wherever_a_model_keeps_them(folder: Path) -> None:
    outside = make_external("w", location="../secret")
    sparse = helper.make_sparse_tensor(
        make_external("w", location="../secret"), numpy_helper.from_array(np.arange(6), "i"), [9]
    )
    branch = helper.make_graph([], "b", [], [helper.make_tensor_value_info("w", 1, [6])], [outside])
    function = helper.make_function(
        "my", "F", [], ["y"], [helper.make_node("Constant", [], ["y"], value=outside)], [helper.make_opsetid("", 17)]
    )
    for node in (
        helper.make_node("Constant", [], ["c"], value=outside),
        helper.make_node("Constant", [], ["c"], sparse_value=sparse),
        helper.make_node("If", ["x"], ["c"], then_branch=branch, else_branch=branch),
    ):
        model = make_model(numpy_helper.from_array(WEIGHTS, "w"))
        model.graph.node.append(node)
        with pytest.raises(BadInputError, match=r"\.\./secret"):
            find_external_files(folder / "m.onnx", model)
    for part in ("functions", "sparse"):
        model = make_model(numpy_helper.from_array(WEIGHTS, "v"))
        if part == "functions":
            model.functions.append(function)
        else:
            model.graph.sparse_initializer.append(sparse)
        with pytest.raises(BadInputError, match=r"\.\./secret"):
            find_external_files(folder / "m.onnx", model)


def test_a_path_that_changes_on_the_way_does_not_lead_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = Path.resolve

    def swap_after(path: Path, strict: bool = False) -> Path:
        found = resolve(path, strict)
        if path.name == "more.bin":  # the moment between the check and the opening
            (folder / "sub" / "more.bin").unlink()
            (folder / "sub").rmdir()
            (folder / "sub").symlink_to("..")
            (folder.parent / "more.bin").write_bytes(WEIGHTS.tobytes())
        return found

    monkeypatch.setattr(Path, "resolve", swap_after)
    with pytest.raises(BadInputError, match="cannot be read"):
        find(folder, make_external("w", location="sub/more.bin"))
