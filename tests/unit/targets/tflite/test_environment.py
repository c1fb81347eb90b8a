"""The converter's environment, made with a scripted Python: no network, no packages."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelwright.core.errors import ToolchainMissingError
from modelwright.core.locks import Lock, try_lock
from modelwright.targets.tflite import environment, installation
from modelwright.targets.tflite.environment import (
    doubt_environment,
    ensure_environment,
    find_environment,
    get_environment_folder,
    hold_environment,
)

FAKE_PYTHON = r"""#!/bin/sh
# Stands in for the base Python, its pip, and the Python of the environment that it makes.
here=$(dirname "$FAKE_PYTHON")
install() {  # into the environment of the Python $1
    folder=$(dirname "$(dirname "$1")")
    echo half > "$folder/package"
    if [ -e "$here/fail-pip" ]; then cat "$here/fail-pip" >&2; exit 3; fi
    while [ -e "$here/hold" ]; do sleep 0.02; done
    echo whole > "$folder/package"
}
echo "$*" >> "$here/log"
env > "$here/environ"
case "$*" in
  "-I -m venv "*)
    for folder; do :; done
    mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python" ;;
  "-I -m pip --version")
    [ ! -e "$here/no-pip" ] ;;
  *"-m pip"*" config list")
    if [ -e "$here/settings" ]; then cat "$here/settings"; fi ;;
  "-I -m pip --python "*" install "*)
    install "$5" ;;
  "-I -m pip install "*)
    install "$0" ;;
  "-I -B -c import "*)
    if [ -e "$here/fail-import" ]; then cat "$here/fail-import" >&2; exit 1; fi ;;
esac
"""

REAL_PYTHON = sys.executable
CHILD = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests in the background ignores it
sys.executable = sys._base_executable = os.environ["FAKE_PYTHON"]
from modelwright.targets.tflite.environment import ensure_environment
print("ready", ensure_environment(lambda line: print(line, flush=True)), flush=True)
"""


class Place:
    """A cache folder and a scripted Python, which files in `folder` steer: `hold`, `fail-pip`, ..."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "python"
        self.folder.mkdir()
        self.python = self.folder / "python"
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)
        self.lines: list[str] = []

    def switch(self, name: str, *, on: bool = True, text: str = "") -> None:
        path = self.folder / name
        path.write_text(text) if on else path.unlink()

    def ensure(self) -> Path:
        return ensure_environment(self.lines.append)

    def installs(self) -> list[str]:
        log = self.folder / "log"
        return [line for line in log.read_text().splitlines() if " install " in line] if log.exists() else []

    def read_package(self) -> str:
        return (get_environment_folder() / "package").read_text().strip()

    @contextmanager
    def start(self) -> Iterator[subprocess.Popen[str]]:
        """Makes the environment in a process of its own; waits for its end, or ends it when the test fails."""
        command = [REAL_PYTHON, "-c", CHILD]
        # Not this process's stderr: what Ctrl-C leaves there is no news.
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(tmp_path)
    monkeypatch.setenv("FAKE_PYTHON", str(made.python))
    monkeypatch.setenv("MODELWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "executable", str(made.python))
    monkeypatch.setattr(sys, "_base_executable", str(made.python))
    yield made
    (made.folder / "hold").unlink(missing_ok=True)  # lets a held pip end


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir() if path.suffix != ".lock")


# Where it lies


def test_other_requirements_or_another_python_mean_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = get_environment_folder()
    assert first == get_environment_folder()
    monkeypatch.setattr(sys, "_base_executable", "/elsewhere/python")
    second = get_environment_folder()
    (tmp_path / "requirements.txt").write_text("numpy==1\n")
    monkeypatch.setattr(environment, "REQUIREMENTS", tmp_path / "requirements.txt")
    assert len({first, second, get_environment_folder()}) == 3


def test_nothing_leads_the_environment_to_other_packages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    leading = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_USER", "PIP_PREFIX")
    for name in (*leading, "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "set")
    place.ensure()
    seen = dict(line.split("=", 1) for line in (place.folder / "environ").read_text().splitlines() if "=" in line)
    assert seen["PIP_INDEX_URL"] == "set"
    assert seen["PATH"] == os.environ["PATH"]
    assert not set(leading) & set(seen)


def test_what_lies_about_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real interpreter, in a folder with modules of the names that it is told to run."""
    for name in ("pip", "venv", "ensurepip"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert installation._run(Path(sys.executable), ("-m", "pip", "--version"), "pip").code == 0
    installation._require(Path(sys.executable), ("-m", "venv", "--without-pip", str(tmp_path / "made")), "venv")
    assert installation.get_python(tmp_path / "made").exists()
    installation._require(Path(sys.executable), ("-c", "import ensurepip"), "the import check")


# Making it


def test_it_is_made_once_and_found_afterwards(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert find_environment() is None
    python = place.ensure()
    assert python == get_environment_folder() / "bin" / "python" == find_environment()
    assert "once" in place.lines[0]
    assert place.read_package() == "whole"
    assert "PYTHONPATH" not in (place.folder / "environ").read_text()
    (install,) = place.installs()
    assert f"--python {python}" in install
    assert "--no-deps" in install
    assert "--require-hashes --only-binary :all:" in install
    assert install.endswith(str(environment.REQUIREMENTS))
    assert place.ensure() == python
    assert len(place.installs()) == len(place.lines) == 1


def test_finding_makes_nothing(place: Place, tmp_path: Path) -> None:
    assert find_environment() is None
    assert not (tmp_path / "cache").exists()


def test_without_pip_here_the_environment_gets_its_own(place: Place) -> None:
    place.switch("no-pip")
    place.ensure()
    log = (place.folder / "log").read_text()
    assert "-I -m ensurepip" in log
    assert place.installs()[0].startswith("-I -m pip install")
    assert place.read_package() == "whole"


@pytest.mark.parametrize("missing", ["complete", "bin/python"])
def test_a_half_made_one_is_made_again_from_nothing(place: Place, missing: str) -> None:
    folder = get_environment_folder()
    place.ensure()
    (folder / missing).unlink()
    (folder / "stale").touch()
    assert find_environment() is None
    place.ensure()
    assert find_environment() is not None
    assert not (folder / "stale").exists()
    assert len(place.installs()) == 2


@pytest.mark.parametrize(
    ("switch", "text", "said", "helps"),
    [
        ("fail-pip", "broken", "pip failed with exit code 3", "PIP_INDEX_URL"),
        ("fail-pip", "ERROR: No matching distribution found", "lacks a package for Python 3", "PIP_EXTRA_INDEX_URL"),
        (
            "fail-pip",
            "Retrying: ReadTimeoutError\nERROR: No matching distribution found",
            "not answer",
            "PIP_INDEX_URL",
        ),
        ("fail-pip", "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "other files than", "as they were published"),
        ("fail-pip", "OSError: [Errno 28] No space left on device", "no space left", "MODELWRIGHT_CACHE"),
        ("fail-import", "libfoo.so", "import check failed", "this machine lacks"),
    ],
)
def test_a_failure_is_told_with_what_helps_and_leaves_nothing(
    place: Place, switch: str, text: str, said: str, helps: str
) -> None:
    place.switch(switch, text=text)
    with pytest.raises(ToolchainMissingError, match=said) as caught:
        place.ensure()
    assert text.splitlines()[-1] in str(caught.value.detail)
    assert helps in str(caught.value.hint)
    assert find_environment() is None
    assert leftovers(get_environment_folder()) == []
    place.switch(switch, on=False)
    assert place.ensure() == find_environment()


def test_a_cache_that_cannot_be_written_is_told(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MODELWRIGHT_CACHE", str(tmp_path / "file"))
    with pytest.raises(ToolchainMissingError, match="cannot be made") as caught:
        place.ensure()
    assert "MODELWRIGHT_CACHE" in str(caught.value.hint)


def test_a_python_that_is_gone_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_base_executable", "/nowhere/python")
    with pytest.raises(ToolchainMissingError, match="cannot be made") as caught:
        place.ensure()
    assert "/nowhere/python" in str(caught.value.detail)
    assert leftovers(get_environment_folder()) == []


# The index, and what the user set for pip


def test_every_pin_has_the_hashes_of_its_wheels() -> None:
    """On one line what is pinned, below it the SHA-256 of each wheel: one, or one for each Python and machine."""
    pins: dict[str, list[str]] = {}
    for line in environment.REQUIREMENTS.read_text().splitlines():
        if not line.startswith(("#", " ")):
            assert re.fullmatch(r"[a-z0-9_.-]+==[0-9.]+ \\", line), line
            pins[line.removesuffix(" \\")] = []
        elif line.startswith(" "):
            found = re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})( \\)?", line)
            assert found, line
            pins[list(pins)[-1]].append(found[1])
    assert len(pins) >= 13
    assert all(pins.values())
    for name in ("numpy", "ml_dtypes", "ai-edge-litert"):  # 3 Pythons on 2 machines, and what else there is
        (hashes,) = (values for pin, values in pins.items() if pin.startswith(f"{name}=="))
        assert len(set(hashes)) == len(hashes) >= 6, name


def test_pip_waits_as_long_as_its_user_wants(place: Place) -> None:
    place.ensure()
    assert "--timeout 15 --retries 1" in place.installs()[0]
    (get_environment_folder() / "complete").unlink()
    place.switch("settings", text="global.timeout='60'\n:env:.index-url='https://me:secret@index.example/simple'\n")
    place.ensure()
    assert "--timeout" not in place.installs()[1]


def test_a_name_and_password_of_the_index_are_not_told() -> None:
    assert (
        installation._describe_index({"index-url": "https://me:secret@index.example:8443/simple"})
        == "the package index at https://index.example:8443/simple"
    )
    assert installation._describe_index({}) == "pip's package index"


@pytest.mark.slow
def test_an_index_that_never_answers_is_told_while_pip_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip, and a server that takes connections and says nothing."""
    for name in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(installation, "SILENCE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        settings = {"CONFIG_FILE": os.devnull, "INDEX_URL": f"http://{address}/simple", "RETRIES": "0"}
        for name, value in {**settings, "DEFAULT_TIMEOUT": "3"}.items():
            monkeypatch.setenv(f"PIP_{name}", value)
        lines: list[str] = []
        with pytest.raises(ToolchainMissingError, match=f"index at http://{address}/simple does not answer") as caught:
            installation.install(tmp_path / "made", environment.REQUIREMENTS, lines.append)
    assert set(lines) == {
        f"the package index at http://{address}/simple has not answered yet (PIP_INDEX_URL names another)"
    }
    assert "PIP_INDEX_URL" in str(caught.value.hint)
    assert "PIP_DEFAULT_TIMEOUT" in str(caught.value.hint)


# One that is no longer what it was


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "complete":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file that is gone": (lambda folder: (folder / "package").unlink(), "lacks 1 of its files, package for one"),
    "all that are gone": (empty, "lacks 2 of its files"),
    "a file that was cut off": (lambda folder: (folder / "package").write_text("wh"), "changed: package"),
    "a file of the same size": (lambda folder: (folder / "package").write_text("WHOLE\n"), "changed: package"),
    "a file of another version": (lambda folder: (folder / "other").touch(), "does not belong there: other"),
    "a link that leads elsewhere": (
        lambda folder: ((folder / "package").unlink(), (folder / "package").symlink_to("/nowhere")),
        "changed: package",
    ),
    "no Python": (lambda folder: (folder / "bin" / "python").unlink(), "bin/python for one"),
    "half a record": (lambda folder: (folder / "complete").write_text('{"package": ['), "is half made"),
    "no record": (lambda folder: (folder / "complete").write_text("[]"), "is half made"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_noticed_and_made_again(place: Place, damage: str) -> None:
    hurt, said = DAMAGES[damage]
    place.ensure()
    hurt(get_environment_folder())
    assert find_environment() is None
    place.lines.clear()
    assert place.ensure() == find_environment()
    assert place.read_package() == "whole"
    assert said in place.lines[0]
    assert "making it again" in place.lines[0]
    assert len(place.installs()) == 2


def test_what_hides_behind_size_and_time_is_found_by_reading(place: Place) -> None:
    place.ensure()
    package = get_environment_folder() / "package"
    times = package.stat()
    package.write_text("WHOLE\n")
    os.utime(package, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert find_environment() is not None
    assert doubt_environment() == "has a file that was changed: package"
    assert find_environment() is None, "the next build makes it again"
    place.ensure()
    assert doubt_environment() is None
    assert find_environment() is not None


def test_a_copy_of_one_is_as_good(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.ensure()
    monkeypatch.setenv("MODELWRIGHT_CACHE", str(tmp_path / "other"))
    shutil.copytree(tmp_path / "cache", tmp_path / "other", copy_function=shutil.copyfile)
    get_environment_folder().joinpath("bin", "python").chmod(0o755)
    assert find_environment() == get_environment_folder() / "bin" / "python"


def test_what_python_writes_beside_its_files_is_no_damage(place: Place) -> None:
    place.ensure()
    (get_environment_folder() / "__pycache__").mkdir()
    (get_environment_folder() / "__pycache__" / "package.pyc").touch()
    assert find_environment() is not None


def test_a_damaged_one_that_cannot_be_removed_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.ensure()
    (get_environment_folder() / "package").unlink()
    monkeypatch.setattr(shutil, "rmtree", lambda *_arguments, **_options: None)
    with pytest.raises(ToolchainMissingError, match="is damaged, and cannot be removed") as caught:
        place.ensure()
    assert "MODELWRIGHT_CACHE" in str(caught.value.hint)


# Old ones


def make_old(name: str, days: float) -> Path:
    folder = get_environment_folder().parent / name
    folder.mkdir(parents=True)
    folder.with_suffix(".lock").touch()
    (folder / "package").touch()
    used_s = time.time() - days * 86400
    for path in (folder.with_suffix(".lock"), folder):
        os.utime(path, (used_s, used_s))
    return folder


def test_one_that_nobody_has_used_for_long_is_removed_when_another_is_made(place: Place) -> None:
    old, young = make_old("tflite-0ld", 31), make_old("tflite-y0ung", 29)
    other = make_old("someone-elses", 400)
    place.ensure()
    assert not old.exists()
    assert not old.with_suffix(".lock").exists()
    assert young.exists()
    assert other.exists()
    (line,) = (line for line in place.lines if "removing" in line)
    assert str(old) in line
    assert "last used on" in line


def test_one_in_use_is_left_alone(place: Place) -> None:
    old = make_old("tflite-0ld", 31)
    with old.with_suffix(".lock").open("rb") as held:
        assert try_lock(held.fileno(), shared=True) is Lock.HELD
        place.ensure()
        assert old.exists()


def test_whoever_uses_one_holds_it_beside_others(place: Place) -> None:
    place.ensure()
    lock = get_environment_folder().with_suffix(".lock")
    os.utime(lock, (0, 0))
    with hold_environment(place.lines.append) as python, hold_environment(place.lines.append) as again:
        assert python == again == find_environment()
        assert time.time() - lock.stat().st_mtime < 60, "it was used now"
        with lock.open("ab") as file:
            assert try_lock(file.fileno()) is Lock.TAKEN
    with lock.open("ab") as file:
        assert try_lock(file.fileno()) is Lock.HELD
    assert len(place.lines) == 1


# Other processes, and ends in the middle


def is_installing(place: Place) -> bool:
    package = get_environment_folder() / "package"
    return package.exists() and package.read_text().strip() == "half"


def is_alive(place: Place) -> bool:
    """Whether a pip is at work: a process whose command line names the scripted Python."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(place.python).encode() in path.read_bytes():
                return True
    return False


def test_two_processes_make_one_environment(place: Place) -> None:
    place.switch("hold")
    with place.start() as first:
        place.wait_for(lambda: is_installing(place))
        assert find_environment() is None
        with place.start() as second:
            assert second.stdout is not None
            assert "waiting for another process" in second.stdout.readline()
            place.switch("hold", on=False)
            assert second.stdout.readline().strip() == f"ready {get_environment_folder()}/bin/python"
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(place.installs()) == 1


def test_ctrl_c_leaves_nothing_and_frees_the_lock(place: Place) -> None:
    place.switch("hold")
    with place.start() as process:
        place.wait_for(lambda: is_installing(place))
        process.send_signal(signal.SIGINT)
    assert process.returncode == -signal.SIGINT
    assert find_environment() is None
    assert leftovers(get_environment_folder()) == []
    place.switch("hold", on=False)
    assert place.ensure() == find_environment()
    assert not any("waiting" in line for line in place.lines)


def test_a_process_that_was_killed_leaves_nothing_that_counts(place: Place) -> None:
    place.switch("hold")
    with place.start() as process:
        place.wait_for(lambda: is_installing(place))
        process.kill()
    assert is_installing(place), "the folder is there, half made"
    assert find_environment() is None
    place.wait_for(lambda: not is_alive(place))  # its pip dies with it
    place.switch("hold", on=False)
    assert is_installing(place)
    assert find_environment() is None
    assert place.ensure() == find_environment()
    assert len(place.installs()) == 2
