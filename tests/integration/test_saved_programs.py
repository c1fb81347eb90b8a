"""Saved programs of strangers: nothing in them runs unless their user says that it may."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.saved_program import find_code

torch = pytest.importorskip("torch")

PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
EXAMPLES = "data/sample_inputs/model.pt"
Members = dict[str, bytes]


class Net(torch.nn.Module):
    """Convolution, dynamic sizes, a constant, an equation: what programs of users hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.linear = torch.nn.Linear(4, 5)
        self.scale = torch.arange(5.0)

    def forward(self, x: Any) -> dict[str, Any]:
        y = self.conv(x).flatten(2).transpose(1, 2)
        y = self.linear(y) * self.scale
        return {"y": y, "outer": torch.einsum("bti,btj->bij", y, y)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "plain.pt2"
    dims = {0: torch.export.Dim("batch", max=64), 2: torch.export.Dim.AUTO}
    program = torch.export.export(Net().eval(), (torch.randn(2, 3, 8, 6),), dynamic_shapes=(dims,))
    torch.export.save(program, str(path))
    return path


class Command:
    """What unpickling it runs."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.mark), "w"))


def words(mark: Path) -> str:
    return f"open({str(mark)!r}, 'w')"


def save(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def edit(members: Members, name: str, change: Callable[[Any], object]) -> None:
    data = json.loads(members[name])
    change(data)
    members[name] = json.dumps(data).encode()


def pickle_a_weight(members: Members, mark: Path) -> None:
    def change(data: Any) -> None:
        weight = next(iter(data["config"].values()))
        weight["use_pickle"] = True
        members[f"data/weights/{weight['path_name']}"] = save(Command(mark))

    edit(members, WEIGHTS, change)


def hide_a_pickled_constant(members: Members, mark: Path) -> None:
    def change(data: Any) -> None:
        data["config"]["more"] = next(iter(data["config"].values())) | {"path_name": "opaque_obj_0", "use_pickle": True}

    edit(members, CONSTANTS, change)
    members["data/constants/opaque_obj_0"] = pickle.dumps(Command(mark))


def pickle_example_inputs(members: Members, mark: Path) -> None:
    members[EXAMPLES] = save(Command(mark))


def pickle_plainly(members: Members, mark: Path) -> None:
    members[EXAMPLES] = pickle.dumps(Command(mark))


def hide_the_name_in_a_pickle(members: Members, mark: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Command(mark), buffer, pickle_protocol=4)
    members[EXAMPLES] = buffer.getvalue()


def pack_an_old_file_of_weights(members: Members, mark: Path) -> None:
    members["data/weights/model.pt"] = save(Command(mark))


def compile_a_library(members: Members, mark: Path) -> None:
    members["data/aotinductor/model/model.so"] = b"\x7fELF"


def write_a_guard(members: Members, mark: Path) -> None:
    edit(members, PROGRAM, lambda data: data["guards_code"].append(f"{words(mark)} != 0"))


def break_out_of_a_guard(members: Members, mark: Path) -> None:
    key = f'x"); {words(mark)}; ("'
    edit(members, PROGRAM, lambda data: data["guards_code"].append(f"L[{key!r}] == 0"))


def write_a_size(members: Members, mark: Path) -> None:
    text = members[PROGRAM].decode()
    start = text.index('"expr_str": "') + len('"expr_str": "')
    members[PROGRAM] = (text[:start] + words(mark) + text[text.index('"', start) :]).encode()


def nest_a_text_in_a_size(members: Members, mark: Path) -> None:
    text = members[PROGRAM].decode()
    start = text.index('"expr_str": "') + len('"expr_str": "')
    nested = json.dumps(f"Max({words(mark)!r}, 1)")[1:-1]
    members[PROGRAM] = (text[:start] + nested + text[text.index('"', start) :]).encode()


def join_lines(members: Members, mark: Path) -> None:
    text = members[PROGRAM].decode()
    start = text.index('"expr_str": "') + len('"expr_str": "')
    members[PROGRAM] = (text[:start] + r"(Symbol('s1') or\nMax(1, 2))" + text[text.index('"', start) :]).encode()


def name_an_input(members: Members, mark: Path) -> None:
    members[PROGRAM] = members[PROGRAM].replace(b'"x"', json.dumps(f"x, y={words(mark)}").encode())


def call(target: str) -> Callable[[Members, Path], None]:
    def change(members: Members, mark: Path) -> None:
        edit(members, PROGRAM, lambda data: data["graph_module"]["graph"]["nodes"][0].update(target=target))

    return change


HOSTILE: dict[str, tuple[Callable[[Members, Path], None], str]] = {
    "weight": (pickle_a_weight, "the pickled tensor or object conv.weight"),
    "constant": (hide_a_pickled_constant, "the file data/constants/opaque_obj_0"),
    "examples": (pickle_example_inputs, "pickled with io open"),
    "plain-pickle": (pickle_plainly, "does not end as torch's archives do"),
    "hidden-name": (hide_the_name_in_a_pickle, "pickled with STACK_GLOBAL"),
    "old-weights": (pack_an_old_file_of_weights, "the file data/weights/model.pt"),
    "library": (compile_a_library, "the file data/aotinductor"),
    "guard": (write_a_guard, "guards_code open("),
    "quoted-guard": (break_out_of_a_guard, "guards_code L["),
    "size": (write_a_size, "expr_str open("),
    "nested-size": (nest_a_text_in_a_size, "expr_str Max("),
    "name": (name_an_input, "name x, y=open("),
    "lines": (join_lines, "or\\nMax(1, 2)"),
    "system": (call("torch.os.system"), "target torch.os.system"),
    "load": (call("torch.ops.load_library"), "target torch.ops.load_library"),
    "file": (call("torch.ops.aten.from_file.default"), "target torch.ops.aten.from_file"),
    "inner": (call("torch.ops.aten.__class__.__init__"), "target torch.ops.aten.__class__"),
    "caller": (call("_operator.methodcaller"), "target _operator.methodcaller"),
}


def make(plain: Path, folder: Path, kind: str) -> tuple[Path, Path]:
    """Returns a hostile program, and what would lie there if anything in it had run."""
    mark = folder / "ran"
    with zipfile.ZipFile(plain) as archive:
        members = {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}
    HOSTILE[kind][0](members, mark)
    path = folder / "hostile.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"program/{name}", content)
    return path, mark


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelwright.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def test_a_program_of_plain_tensors_is_plain(plain: Path) -> None:
    assert find_code(plain) == []


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_may_run_code_is_named_and_does_not_run(plain: Path, tmp_path: Path, kind: str) -> None:
    path, mark = make(plain, tmp_path, kind)
    try:
        found = find_code(path)
    except BadInputError as error:
        found = [error.message]
    assert any(HOSTILE[kind][1] in text for text in found), found
    assert not mark.exists()


def test_readers_that_differ_are_not_played_against_each_other(plain: Path, tmp_path: Path) -> None:
    whole = plain.read_bytes()
    path = tmp_path / "p.pt2"
    for content in (whole + b"\0", whole[:-2] + b"\x04\0" + b"more", whole[: len(whole) // 2], b"", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(BadInputError, match="of plain data"):
            find_code(path)
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(path, "w") as copy:
        for info in archive.infolist():
            copy.writestr(info.filename, archive.read(info))
        copy.writestr(archive.infolist()[0].filename.upper(), b"")
    with pytest.raises(BadInputError, match="is there twice"):
        find_code(path)


def test_two_listings_in_one_file_are_refused(plain: Path, tmp_path: Path) -> None:
    """Python reads the listing before the end, torch the one whose place the end record gives."""
    hostile = make(plain, tmp_path, "guard")[0].read_bytes()
    end = struct.unpack("<4s4H2LH", hostile[-22:])
    listing = hostile[end[6] : end[6] + end[5]]
    with zipfile.ZipFile(tmp_path / "hostile.pt2") as archive, zipfile.ZipFile(plain) as good:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as copy:
            for info in archive.infolist():
                name = info.filename.partition("/")[2]
                # As long as the other, so that all lies at the same distance from the listing.
                copy.writestr(info.filename, good.read(f"{plain.stem}/{name}").ljust(info.file_size))
    whole = content.getvalue()
    assert struct.unpack("<4s4H2LH", whole[-22:])[5] == len(listing), "the two listings are of one length"
    path = tmp_path / "two.pt2"
    path.write_bytes(hostile[: end[6] + end[5]] + whole[:-22] + hostile[-22:])
    with zipfile.ZipFile(path) as seen:
        assert b"open(" not in seen.read(f"program/{PROGRAM}"), "what Python sees is plain"
    with pytest.raises(BadInputError, match="does not end as torch's archives do"):
        find_code(path)


@pytest.mark.parametrize("kind", ["examples", "guard"])
def test_nothing_runs_without_trust(plain: Path, tmp_path: Path, kind: str) -> None:
    path, mark = make(plain, tmp_path, kind)
    done = run("export", path, "--out", tmp_path / "m.onnx")
    assert done.returncode == 3, done.stderr
    assert "holds what may run code when torch reads it" in done.stderr
    assert "add --trust" in done.stderr
    assert not mark.exists()
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.slow
def test_who_trusts_has_torch_read_it(plain: Path, tmp_path: Path) -> None:
    path, mark = make(plain, tmp_path, "guard")
    done = run("export", path, "--out", tmp_path / "m.onnx", "--trust")
    assert done.returncode == 0, done.stderr
    assert mark.exists()


@pytest.mark.slow
def test_the_hint_for_a_file_that_cannot_be_read_helps(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "plain.pt2"
    torch.export.save(torch.export.load(str(plain)), str(path))
    done = run("export", path, "--out", tmp_path / "m.onnx")
    assert done.returncode == 0, done.stderr
