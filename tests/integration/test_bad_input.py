"""The hostile or unlucky user: one clear error each, nothing half-made, what was finished is kept."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import models
import numpy as np
import pytest
import sealing

from modelwright.core.errors import BadInputError, MeasurementInvalidError, ModelwrightError
from modelwright.core.records.artifact import open_artifact
from modelwright.core.records.artifact_files import MANIFEST, REFERENCE
from modelwright.core.records.codec import encode
from modelwright.core.records.machine import Machine
from modelwright.exporters import export
from modelwright.harness import compare, measure
from modelwright.harness.building import build_targets
from modelwright.harness.run.effort import Effort
from modelwright.harness.run.measure_artifacts import measure_artifacts
from modelwright.harness.run.runner import MeasureSettings
from modelwright.profiles import detect_host, load_profile

for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package)

COMMAND = [sys.executable, "-m", "modelwright.cli"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad_input")
    models.make_cnn(folder / "cnn.onnx")
    models.make_samples(folder / "samples.npz", count=32, x=(3, 12, 12))
    build_targets(
        folder / "cnn.onnx", samples=folder / "samples.npz", out=folder / "built", targets=["ort-fp32", "ort-int8"]
    )
    return folder


def run(*arguments: str | Path, shell: str = "", cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line; `shell` is what follows it in a shell: redirections, a pipe."""
    words = [*COMMAND, *map(str, arguments)]
    command = ["bash", "-c", f'"$@" {shell}', "bash", *words] if shell else words
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=120,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
    )


def list_hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*") if path.name != ".modelwright.json"]


def find_processes(mark: str) -> list[str]:
    """Returns the command lines of living processes whose environment holds a mark."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def wait_until(condition, *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_an_interrupted_comparison_leaves_nothing_half_made_and_goes_on(
    place: Path, tmp_path: Path, number: signal.Signals
) -> None:
    mark = f"modelwright-test-{os.getpid()}-{number}"
    words = ["compare", "cnn.onnx", "-s", "samples.npz", "-o", str(tmp_path / "out"), "-t", "ort-int8", "-e", "quick"]
    process = subprocess.Popen(
        [*COMMAND, *words],
        cwd=place,
        env={**os.environ, "MARK": mark},
        stderr=subprocess.PIPE,
        text=True,
        # Under `nohup` or a shell's `&`, Ctrl-C is ignored by all that is started.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_until(lambda: (tmp_path / "out/artifacts/ort-fp32").exists() or process.poll() is not None)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), errors
    assert "Traceback" not in errors
    wait_until(lambda: not find_processes(mark), seconds=10)
    if number != signal.SIGKILL:
        assert list_hidden(tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "out/artifacts").glob("[!.]*")) == ["ort-fp32"]
    kept = open_artifact(tmp_path / "out/artifacts/ort-fp32").manifest.created

    comparison = compare(
        place / "cnn.onnx", samples=place / "samples.npz", out=tmp_path / "out", targets=["ort-fp32"], effort="quick"
    )
    assert comparison.measurements[0].measured
    assert open_artifact(tmp_path / "out/artifacts/ort-fp32").manifest.created == kept
    assert list_hidden(tmp_path) == []


def test_a_source_that_is_not_there_claims_no_folder(place: Path, tmp_path: Path) -> None:
    for source in ("absent.onnx", "samples.npz"):
        with pytest.raises(BadInputError):
            compare(place / source, samples=place / "samples.npz", out=tmp_path / "out")
    (tmp_path / "cut.onnx").write_bytes((place / "cnn.onnx").read_bytes()[:400])
    for act in (compare, build_targets):
        with pytest.raises(BadInputError, match="cut off"):
            act(tmp_path / "cut.onnx", samples=place / "samples.npz", out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.onnx"]


def test_a_file_size_limit_is_one_error_and_leaves_nothing(place: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 2; "$@"', "bash", *COMMAND, "export", "cnn.onnx", "-o", str(tmp_path / "x/m.onnx")],
        capture_output=True, text=True, check=False, cwd=place, timeout=60,
        # Under this limit Python would cut off its own .pyc files, and keep them for the next tests.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_value_even_when_a_limit_is_missed(place: Path) -> None:
    done = run("measure", "built/ort-fp32", "-e", "quick", "--max-p50-ms", "1e-6", "--json", cwd=place)
    assert done.returncode == 7
    assert json.loads(done.stdout)["measurements"][0]["limits_missed"]
    assert "no target meets the limits" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "shell", "code"),
    [
        (("targets",), "<&- >&- 2>&-", 0),
        (("export", "cnn.onnx", "-o", "closed.onnx", "--overwrite"), "<&- >&- 2>&-", 0),
        (("targets",), ">/dev/full", 5),
        (("targets", "--profile", "host"), "| true; exit ${PIPESTATUS[0]}", 141),
    ],
)
def test_streams_that_cannot_be_used(place: Path, arguments: tuple[str, ...], shell: str, code: int) -> None:
    done = run(*arguments, shell=shell, cwd=place)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_results_are_kept_when_nobody_reads_the_table(place: Path, tmp_path: Path) -> None:
    for name, shell, code in (("left", "| true; exit ${PIPESTATUS[0]}", 141), ("full", ">/dev/full", 5)):
        out = tmp_path / f"{name}.json"
        done = run("measure", "built/ort-fp32", "-e", "quick", "-o", out, "--details", shell=shell, cwd=place)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert json.loads(out.read_text())["measurements"][0]["status"] == "measured"


def test_any_locale_prints_everything(place: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("measure", "built/ort-fp32", "-e", "quick", cwd=place, **ascii_only)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout + done.stderr
    refused = run("export", "nä.onnx", "-o", "o.onnx", cwd=place, **ascii_only)
    assert refused.returncode == 2
    assert "UTF-8 locale" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--baseline", "ort-int8"), 2, "not among the artifacts"),
        (("--threads", "100000"), 2, "this machine has"),
        (("--seed", "-1"), 2, "-1"),
        (("--max-p50-ms", "nan"), 2, "not a finite number"),
        (("--region", "XX"), 3, "'XX'"),
        (("--profile", "raspberry-pi-5"), 6, "does not fit the profile"),
        (("--out", "built"), 3, "is a folder"),
        (("--batch", "1000000000"), 6, "--batch 1000000000: the inputs of one inference"),
        (("--out", "/proc/x.json"), 3, "cannot write"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_it_is(
    place: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = run("measure", "built/ort-fp32", "-e", "strict", *arguments, cwd=place)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "round" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("compare", "--baseline", "torch-fp32", "-e", "quick"), 3, "the source is ONNX"),
        (("compare", "--device", "cuda"), 4, "--device cuda: there is no GPU to use here"),
        (("compare", "--cuda-graph", "--streams", "4"), 4, "--cuda-graph, --streams 4: there is no GPU"),
        (("compare", "--shapes", "image=1x3x12x12"), 2, "the model has no input 'image'"),
        (("compare", "--shapes", "x=1x3x12x12:1x3x12x12:9999999999x3x12x12"), 2, "at most"),
        (("build", "-t", "tensorrt-rtx-fp16", "-p", "raspberry-pi-5"), 4, "cannot be built here"),
        (("build", "-t", "torch-fp32"), 3, "the source is ONNX"),
        (("compare", "-t", "ort-int8", "--batch", "1000000000"), 6, "--batch 1000000000: the inputs of one inference"),
        (("build", "-t", "ort-fp32", "-s", "random:1000000000"), 2, "at most 65,536 random samples"),
        (("build", "-t", "ort-fp32", "--option", "tf32=true"), 2, "none of the targets has an option 'tf32'"),
    ],
)
def test_what_cannot_be_had_is_refused_before_it_is_built(
    place: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    command, *options = arguments
    done = run(
        command, "cnn.onnx", "-s", "samples.npz", "-o", tmp_path / "out", *options, cwd=place, CUDA_VISIBLE_DEVICES=""
    )
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "building" not in done.stderr


def test_the_record_of_an_earlier_version_is_replaced(place: Path, tmp_path: Path) -> None:
    for _ in range(2):
        built = build_targets(
            place / "cnn.onnx", samples=place / "samples.npz", out=tmp_path / "out", targets=["ort-fp32"]
        )
        record = tmp_path / "out" / "model" / "model.export.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"schema": 1}))
    assert built.reused == {"ort-fp32": True}


def test_needs_that_no_build_writes_are_one_error(place: Path, tmp_path: Path) -> None:
    folder = copy_artifact(place / "built/ort-fp32", tmp_path / "a", requires={"gpu": "RTX", "packages": 7})
    for command in ("verify", "measure", "inspect"):
        done = run(command, folder, cwd=place)
        assert done.returncode == 3, done.stderr
        assert "requires.packages: expected a table, found 7" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_artifact_for_another_machine_runs_and_says_so(place: Path, tmp_path: Path) -> None:
    machine = encode(Machine(name="pi", architecture="riscv", instruction_sets=frozenset(), cores=4))
    folder = copy_artifact(place / "built/ort-fp32", tmp_path / "pi", machine=machine)
    done = run("verify", folder, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "built for pi (riscv)" in done.stdout
    comparison = measure([folder], effort="quick")
    assert any("built for pi (riscv)" in warning for warning in comparison.warnings)


def copy_artifact(source: Path, folder: Path, **changes: object) -> Path:
    """Copies an artifact with other entries in its manifest and all hashes anew, as a forger would."""
    if not folder.exists():
        shutil.copytree(source, folder)
    files = json.loads((folder / MANIFEST).read_text())["files"]
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    sealing.change_record(folder / MANIFEST, files=files, **changes)
    return folder


def test_an_artifact_whose_numbers_are_wrong_here_gets_no_speed(place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(place / "built/ort-fp32", tmp_path / "wrong")
    with np.load(folder / REFERENCE) as packed:
        arrays = dict(packed)
    np.savez(folder / REFERENCE, **(arrays | {"proved:y": arrays["proved:y"][::-1]}))
    copy_artifact(folder, folder)
    with pytest.raises(MeasurementInvalidError, match="does not answer here as it did when it was proved"):
        measure([folder], effort="quick")
    # One that was never proved is held against FP32 itself.
    never = {name: values for name, values in arrays.items() if not name.startswith("proved:")}
    np.savez(folder / REFERENCE, **(never | {"output:y": arrays["output:y"][::-1]}))
    copy_artifact(folder, folder)
    with pytest.raises(MeasurementInvalidError, match="do not follow FP32"):
        measure([folder], effort="quick")


@pytest.mark.parametrize("damage", ["model.onnx", REFERENCE])
def test_a_damaged_file_with_a_new_hash_is_one_failed_row(place: Path, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(place / "built/ort-int8", tmp_path / "damaged")
    (folder / damage).write_bytes((folder / damage).read_bytes()[:700])
    copy_artifact(folder, folder)
    comparison = measure([place / "built/ort-fp32", folder], effort="quick")
    rows = {row.target: row for row in comparison.measurements}
    assert rows["ort-fp32"].status == "measured"
    assert rows["ort-int8"].status == "failed"
    assert damage in (rows["ort-int8"].reason or "")


def children_of_this_process() -> Iterator[int]:
    for task in Path("/proc/self/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


def test_a_killed_child_is_a_failed_row_and_the_others_go_on(place: Path) -> None:
    artifacts = {name: open_artifact(place / "built" / name) for name in ("ort-fp32", "ort-int8")}
    before = set(children_of_this_process())
    victims: list[int] = []

    def kill_one(done: int, total: int) -> None:
        if not victims:
            victims.append(min(set(children_of_this_process()) - before))
            os.kill(victims[0], signal.SIGKILL)

    host = detect_host()
    settings = MeasureSettings(effort=Effort(name="test", rounds=6, window_s=0.01))
    taken = measure_artifacts(artifacts, settings, host, host, samples=None, on_round=kill_one).by_name.values()
    failed = [result for result in taken if result.failure is not None]
    assert len(failed) == 1
    assert "SIGKILL" in str(failed[0].failure)
    assert [len(result.windows) for result in taken if result.failure is None] == [6]


def test_mutants_are_refused_in_one_sentence(place: Path, tmp_path: Path) -> None:
    whole = (place / "cnn.onnx").read_bytes()
    rng = random.Random(5)
    source, out = tmp_path / "m.onnx", tmp_path / "out" / "o.onnx"
    for index in range(16):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 4])):
            data[rng.choice([rng.randrange(300), rng.randrange(len(data) - 600, len(data))])] ^= 1 << rng.randrange(8)
        source.write_bytes(data if index % 4 else data[: rng.randrange(len(data))])
        error = None
        try:
            export(source, out, overwrite=True, timeout_s=60)
        except ModelwrightError as caught:
            error = caught
        assert type(error) is not ModelwrightError
        assert error is None or "Traceback" not in (error.detail or ""), error
        assert not list_hidden(tmp_path)


def test_names_that_are_not_text_are_refused(tmp_path: Path) -> None:
    data = models.make_foreign_operator(tmp_path / "m.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(data.replace(b"com.example", b"com.ex\xffmple"))
    with pytest.raises(BadInputError, match="damaged"):
        export(tmp_path / "m.onnx", tmp_path / "o.onnx")


def test_what_is_no_regular_file_does_not_hang(place: Path, tmp_path: Path) -> None:
    pipes = {name: tmp_path / f"pipe.{name}" for name in ("onnx", "npz", "toml", "pt2", "py")}
    for pipe in pipes.values():
        os.mkfifo(pipe)
    with pytest.raises(BadInputError, match="not a regular file"):
        export(pipes["onnx"], tmp_path / "o.onnx")
    with pytest.raises(BadInputError, match="not a regular file"):
        export(pipes["pt2"], tmp_path / "o.onnx")
    with pytest.raises(BadInputError, match="no such file"):
        export(f"{pipes['py']}:create", tmp_path / "o.onnx")
    with pytest.raises(BadInputError, match="no sample file"):
        build_targets(place / "cnn.onnx", samples=pipes["npz"], out=tmp_path / "out")
    (tmp_path / "arrays").mkdir()
    os.mkfifo(tmp_path / "arrays" / "x.npy")
    with pytest.raises(BadInputError, match=r"x\.npy is not a regular file"):
        build_targets(place / "cnn.onnx", samples=tmp_path / "arrays", out=tmp_path / "out")
    (tmp_path / "out" / "model").mkdir(parents=True)
    os.mkfifo(tmp_path / "out" / "model" / "model.export.json")
    with pytest.raises(BadInputError, match=r"model\.export\.json is a pipe"):
        build_targets(place / "cnn.onnx", samples=place / "samples.npz", out=tmp_path / "out", targets=["ort-fp32"])
    with pytest.raises(BadInputError, match="not a file"):
        load_profile(pipes["toml"])


def test_a_model_of_the_users_own_is_not_overwritten(tmp_path: Path) -> None:
    own = tmp_path / "out" / "model" / "model.onnx"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    source = models.make_cnn(tmp_path / "cnn.onnx")
    samples = models.make_samples(tmp_path / "s.npz", count=8, x=(3, 12, 12))
    with pytest.raises(BadInputError, match=r"model\.onnx"):
        build_targets(source, samples=samples, out=tmp_path / "out", targets=["ort-fp32"])
    assert own.read_bytes() == b"mine"
    own.unlink()
    for _ in range(2):  # its own model of an earlier build may be replaced
        built = build_targets(source, samples=samples, out=tmp_path / "out", targets=["ort-fp32"])
    assert built.reused == {"ort-fp32": True}


def test_another_model_is_not_put_under_the_artifacts_of_an_earlier_one(place: Path, tmp_path: Path) -> None:
    out = shutil.copytree(place / "built", tmp_path / "out")
    other = models.make_cnn(tmp_path / "other.onnx", opset=18)
    before = (out / "model" / "model.onnx").read_bytes()
    asked = ("-s", "samples.npz", "-o", out, "-t", "ort-fp32")
    refused = run("build", other, *asked, cwd=place)
    assert refused.returncode == 3
    assert "holds artifacts of another model than" in refused.stderr
    assert "ort-fp32, ort-int8" in refused.stderr
    assert (out / "model" / "model.onnx").read_bytes() == before
    done = run("build", other, *asked, "--overwrite", cwd=place)  # the cure that the hint names
    assert done.returncode == 0, done.stderr
    assert f"ort-int8 in {out} is of another model" in done.stderr
    hashes = {name: open_artifact(out / name).manifest.source.onnx_sha256 for name in ("ort-fp32", "ort-int8")}
    assert hashes["ort-fp32"] != hashes["ort-int8"]
    assert list_hidden(out) == []


def test_a_file_of_the_users_in_an_artifacts_folder_is_not_deleted(place: Path, tmp_path: Path) -> None:
    for folder in ("ort-fp32", "mine"):
        (tmp_path / folder).mkdir()
    (tmp_path / "ort-fp32" / "notes.txt").write_text("mine")
    source, samples = place / "cnn.onnx", place / "samples.npz"
    with pytest.raises(BadInputError, match=r"no build made notes\.txt in it"):
        build_targets(source, samples=samples, out=tmp_path, targets=["ort-fp32"], overwrite=True)
    assert (tmp_path / "ort-fp32" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("place_name", ["pipe", "link", "/dev/null"])
def test_results_go_to_no_device_pipe_or_link(place: Path, tmp_path: Path, place_name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    out = tmp_path / place_name
    before = out.lstat()
    done = run("measure", "built/ort-fp32", "-e", "strict", "--overwrite", "-o", out, cwd=place)
    assert done.returncode == 3
    assert "not a file" in done.stderr
    assert "round" not in done.stderr
    assert out.lstat().st_ino == before.st_ino
    assert not (tmp_path / "victim").exists()


def test_a_working_directory_that_is_no_text_or_gone_is_one_error(place: Path, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9"))
    folder.mkdir()
    shutil.copy(place / "cnn.onnx", folder)
    refused = run("export", "cnn.onnx", "-o", "o.onnx", cwd=folder)
    assert refused.returncode == 2
    assert "working directory" in refused.stderr
    assert "LC_ALL=C.UTF-8" in refused.stderr
    assert run("profiles", cwd=folder).returncode == 0
    gone = subprocess.run(
        ["bash", "-c", 'mkdir a; cd a; rmdir ../a; "$@"', "bash", *COMMAND, "export", "x.onnx", "-o", "o.onnx"],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert gone.returncode == 2, gone.stderr
    assert "the working directory is not there any more" in gone.stderr


def test_little_address_space_is_one_error(place: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", 'ulimit -v 200000; "$@"', "bash", *COMMAND, "measure", "built/ort-fp32", "-e", "quick"],
        capture_output=True, text=True, check=False, cwd=place, timeout=120,
    )  # fmt: skip
    assert done.returncode in (4, 5, 6), done.stderr
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_lies_beside_an_artifact_is_not_run(place: Path, tmp_path: Path) -> None:
    """Neither by the command nor by any process that it starts, and those start: measuring, and profiling in there."""
    shutil.copytree(place / "built" / "ort-fp32", tmp_path / "ort-fp32")
    for module in ("numpy", "onnxruntime", "pip", "json", "queue", "modelwright", "sitecustomize"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit(7)")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "modelwright.cli", "measure", "ort-fp32", "-e", "quick", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["measurements"]
    assert row["precision_executed"]["precision"] == "fp32"
