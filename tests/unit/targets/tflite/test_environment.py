"""The converter's environment, made with a scripted Python: no network, no packages."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelwright.core.errors import ToolchainMissingError
from modelwright.targets.tflite import environment
from modelwright.targets.tflite.environment import (
    ensure_environment,
    find_environment,
    get_environment_folder,
)

FAKE_PYTHON = r"""#!/bin/sh
# Stands in for the base Python, its pip, and the Python of the environment that it makes.
here=$(dirname "$FAKE_PYTHON")
install() {  # into the environment of the Python $1
    folder=$(dirname "$(dirname "$1")")
    echo half > "$folder/package"
    if [ -e "$here/fail-pip" ]; then echo "ERROR: No matching distribution found" >&2; exit 3; fi
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
  "-I -m pip --python "*" install "*)
    install "$5" ;;
  "-I -m pip install "*)
    install "$0" ;;
  "-I -c import "*)
    if [ -e "$here/fail-import" ]; then echo "ImportError: libfoo.so" >&2; exit 1; fi ;;
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

    def switch(self, name: str, *, on: bool = True) -> None:
        path = self.folder / name
        path.touch() if on else path.unlink()

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
    assert environment._try(Path(sys.executable), ("-m", "pip", "--version"), "pip").code == 0
    environment._run(Path(sys.executable), ("-m", "venv", "--without-pip", str(tmp_path / "made")), "venv")
    assert environment._get_python(tmp_path / "made").exists()
    environment._run(Path(sys.executable), ("-c", "import ensurepip"), "the import check")


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
    ("switch", "said", "detail"),
    [
        ("fail-pip", "pip failed with exit code 3", "No matching distribution"),
        ("fail-import", "import check failed", "libfoo.so"),
    ],
)
def test_a_failure_is_told_and_leaves_nothing(place: Place, switch: str, said: str, detail: str) -> None:
    place.switch(switch)
    with pytest.raises(ToolchainMissingError, match=said) as caught:
        place.ensure()
    assert detail in str(caught.value.detail)
    assert "index" in str(caught.value.hint)
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
