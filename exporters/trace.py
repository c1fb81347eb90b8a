"""What a process looks at while it exports: files, folders, variables, packages. For child processes only.

Python tells of every file that it opens, folder that it lists and program that it starts (PEP 578). What it does not
tell of is asked through `os.environ`, `os.stat` and `os.getcwd`, and by readers of weights that open files themselves;
these are wrapped while an export is watched. What the exporter's own toolchain asks decides nothing that its version
does not, and is left out; the files that it reads are not.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Literal

import modelwright.core
import modelwright.exporters
from modelwright.core.files import hash_file
from modelwright.exporters.inputs import (
    Inputs,
    Kind,
    find_local,
    hash_names,
    hash_package,
    hash_variable,
    installed_folders,
    is_installed,
    name_place,
)

Asker = Literal["source", "library", "toolchain"]

_TOOLCHAIN = (
    *("torch", "torchgen", "functorch", "sympy", "mpmath", "networkx", "jinja2", "numpy", "ml_dtypes", "safetensors"),
    *("onnx", "onnx_ir", "onnxscript", "onnxruntime", "google", "msgspec"),
)
"""Packages whose questions to the system decide how they work, not what a model is."""
_UNSEEN_READERS = ("cv2", "duckdb", "h5py", "lmdb", "netCDF4", "polars", "pyarrow", "tables", "tensorflow")
"""Packages that read data files without telling Python."""
_ALWAYS = ("CUDA_VISIBLE_DEVICES", "HOME", "PYTHONPATH", "TORCH_HOME", "XDG_CACHE_HOME")
"""Variables that decide where Python, torch and its hub find things, asked by the toolchain or by no Python code."""
_SESSION = ("_", "OLDPWD", "SHLVL", "ORT_DISABLE_TELEMETRY")
"""Variables that differ from shell to shell and decide nothing, and what a child process is given besides."""
_VIRTUAL = ("/proc/", "/sys/", "/dev/")
_CODE = (".py", ".pyi", ".so")
_HARMLESS_PROGRAMS = ("ldconfig", "lscpu", "nvidia-smi", "uname")
_HARMLESS_STARTERS = ("ctypes/util.py", "platform.py", "uuid.py")
"""Of the standard library: they start programs to ask about the system."""


class Trace:
    """Collects what was looked at; `finish` gives it as content.

    Args:
        folder: Of the source.
        ignored: Folders and files that are not looked for: where the result is made, and samples, which count by
            their values.
    """

    def __init__(self, folder: Path, ignored: Sequence[Path] = ()) -> None:
        self.folder = folder.resolve()
        self.opaque: str | None = None
        self._ignored = tuple(str(path.absolute()) for path in ignored)
        self._start = _here()
        self._environment = dict(os.environ)
        self._read: dict[str, tuple[Path, tuple[int, ...]]] = {}
        self._made: set[str] = set()
        self._kinds: dict[str, Kind] = {}
        self._listed: dict[str, Path] = {}
        self._variables: set[str] = set(_ALWAYS)
        self._modules: set[str] = set()
        self._installed: dict[str, set[str]] = {}
        self._asks_for_folder = False

    def note_file(self, name: str) -> None:
        """Notes a file that is about to be read."""
        path = str(Path(_here(), name))
        if self._is_ignored(path) or path in self._made or ".dist-info/" in path:
            return
        if path.endswith(".pyc"):
            name = path = _find_code(path)
        package = _name_package(path)
        if package is not None and path.endswith(_CODE):
            self._installed.setdefault(package, set()).add(path)
        elif not _is_standard(path):
            signature = _sign(path)
            if signature:
                self._read.setdefault(self._name(name), (Path(path), signature))
            elif signature is None and _find_asker() in ("source", "library"):
                self._kinds.setdefault(self._name(name), "absent")

    def list_read(self) -> dict[str, str]:
        """Returns path relative to the source's folder -> SHA-256 of what was read in it so far, modules included."""
        self._note_modules()
        found = {}
        for path, _ in self._read.values():
            resolved = path.resolve()
            if resolved.is_relative_to(self.folder) and resolved.is_file() and "site-packages" not in resolved.parts:
                found[resolved.relative_to(self.folder).as_posix()] = hash_file(resolved)
        return dict(sorted(found.items()))

    def finish(self, *, is_code: bool) -> Inputs | None:
        """Returns what was looked at, or None with `opaque` set where that cannot be known.

        Args:
            is_code: Whether the source is code, which imports its neighbours.
        """
        self._note_modules()
        packages = self._find_packages()
        files = self._hash_read()
        unseen = [name for name in _UNSEEN_READERS if name in sys.modules]
        if unseen:
            self._give_up(f"{unseen[0]} reads files without telling")
        if self.opaque is not None:
            return None
        modules = sorted(self._modules | {name.partition(".")[0] for name in sys.modules}) if is_code else []
        local = find_local(modules, self.folder)
        looked_at = (*files, *self._kinds, *self._listed)
        variables = sorted(self._variables.difference(_SESSION)) if is_code else []
        return Inputs(
            files=files,
            kinds={place: kind for place, kind in self._kinds.items() if place not in files},
            folders={place: names for place, path in self._listed.items() if (names := hash_names(path)) is not None},
            # As they were handed over: a source may set some for itself.
            environment={name: hash_variable(self._environment.get(name)) for name in variables},
            packages={name: found for name in packages if (found := hash_package(name)) is not None},
            modules=modules,
            local=local,
            missing=[
                name for name in modules if name not in sys.modules and name not in local and not is_installed(name)
            ],
            working_directory=self._start if self._asks_for_folder else None,
            folder=str(self.folder) if is_code and any(map(_is_elsewhere, looked_at)) else None,
        )

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Takes what Python says that it is about to do: an audit hook."""
        if event in _HEARD:
            _HEARD[event](self, *arguments)

    def hear_stat(self, name: object, found: Kind) -> None:
        """Takes what lies at a path, which somebody asked for."""
        text = _to_text(name)
        if text is not None and _find_asker() in ("source", "library"):
            path = str(Path(_here(), text))
            if not self._is_ignored(path) and _name_package(path) is None and not _is_standard(path):
                self._kinds.setdefault(self._name(text), found)

    def hear_variable(self, name: str) -> None:
        """Takes the name of a variable that somebody asked for."""
        asker = _find_asker()
        # Libraries that look for their own among all variables, or hand all of them on, do not mean each of them.
        if asker == "source" or (asker == "library" and not _reads_all()):
            self._variables.add(name)

    def hear_getcwd(self) -> None:
        """Takes it that somebody asked for the working directory."""
        self._asks_for_folder = self._asks_for_folder or _find_asker() in ("source", "library")

    def _hear_open(self, name: object, _mode: object, flags: object) -> None:
        text = _to_text(name)
        if text is None:
            return
        path = str(Path(_here(), text))
        if isinstance(flags, int) and (flags & os.O_TRUNC or (flags & os.O_CREAT and _sign(path) is None)):
            self._made.add(path)  # nothing of an older content is left to read
        else:
            self.note_file(text)

    def _hear_library(self, name: object, *_: object) -> None:
        text = _to_text(name)
        if text is not None and os.sep in text:
            self.note_file(text)

    def _hear_import(self, name: str, *_: object) -> None:
        self._modules.add(name.partition(".")[0])
        _wrap_readers(self.note_file)

    def _hear_list(self, folder: object = None, *_: object) -> None:
        text = "." if folder is None else _to_text(folder)
        if text is not None and _find_asker() in ("source", "library"):
            path = Path(_here(), text)
            if not self._is_ignored(str(path)):
                self._listed.setdefault(self._name(text), path)

    def _hear_program(self, program: object = None, *_: object) -> None:
        # Whoever asks: torch compiles a source's own extensions, and its hub loads from the network.
        harmless = isinstance(program, str) and Path(program).name in _HARMLESS_PROGRAMS
        if _find_asker() is not None and not harmless:
            self._give_up("it starts other programs, whose reading is not seen")

    def _hear_network(self, _socket: object, address: object) -> None:
        if isinstance(address, tuple):
            self._give_up(f"it asks the network ({address[0]})")
        else:
            self._give_up("it asks another program through a socket")

    def _find_packages(self) -> list[str]:
        """Returns the distributions of what was imported; code that belongs to none counts as a file."""
        owners = importlib.metadata.packages_distributions()
        packages = {"modelwright"}
        for package, paths in self._installed.items():
            packages.update(owners.get(package, ()))
            if package not in owners:
                signatures = {path: signature for path in paths if (signature := _sign(path))}
                self._read |= {path: (Path(path), signature) for path, signature in signatures.items()}
        return sorted(packages)

    def _hash_read(self) -> dict[str, str]:
        files = {}
        for place, (path, signature) in self._read.items():
            if path.is_file():
                files[place] = hash_file(path)
            if _sign(str(path)) != signature:
                self._give_up(f"{path} was changed while it was read")
        return files

    def _note_modules(self) -> None:
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and Path(file).is_absolute() and Path(file).is_file():
                self.note_file(file)

    def _name(self, name: str) -> str:
        here = _here()
        return name_place(name if here == self._start else str(Path(here, name)), self.folder)

    def _is_ignored(self, path: str) -> bool:
        return path.startswith(_VIRTUAL) or any(
            path == ignored or path.startswith(ignored + os.sep) for ignored in self._ignored
        )

    def _give_up(self, reason: str) -> None:
        self.opaque = self.opaque or reason


_HEARD: Mapping[str, Callable[..., None]] = {
    "open": Trace._hear_open,  # noqa: SLF001
    "sqlite3.connect": Trace._hear_library,  # noqa: SLF001
    "ctypes.dlopen": Trace._hear_library,  # noqa: SLF001
    "import": Trace._hear_import,  # noqa: SLF001
    "os.listdir": Trace._hear_list,  # noqa: SLF001
    "os.scandir": Trace._hear_list,  # noqa: SLF001
    "socket.connect": Trace._hear_network,  # noqa: SLF001
    "socket.sendto": Trace._hear_network,  # noqa: SLF001
    **dict.fromkeys(
        ("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"),
        Trace._hear_program,  # noqa: SLF001
    ),
}


@contextmanager
def watch(trace: Trace) -> Iterator[Trace]:
    """Notes in a trace all that is looked at in the block."""
    active = True

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if active:
            trace.hear(event, arguments)

    if importlib.util.find_spec("safetensors") is not None:
        importlib.import_module("safetensors")  # before the source takes its reader from it; it is small
    _wrap_readers(trace.note_file)
    sys.addaudithook(hear)
    try:
        with _watched_variables(trace), _watched_calls(trace):
            yield trace
    finally:
        active = False  # a hook stays for as long as the process


@contextmanager
def _watched_variables(trace: Trace) -> Iterator[None]:
    kept = type(os.environ)

    class Environment(kept):  # type: ignore[misc, valid-type]  # the class has no public name
        def __getitem__(self, key: Any) -> Any:
            trace.hear_variable(os.fsdecode(key))
            return super().__getitem__(key)

    environments = [getattr(os, name) for name in ("environ", "environb") if hasattr(os, name)]
    for environment in environments:
        environment.__class__ = Environment
    try:
        yield
    finally:
        for environment in environments:
            environment.__class__ = kept


@contextmanager
def _watched_calls(trace: Trace) -> Iterator[None]:
    def watched_stat(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        try:
            found = _stat(path, *args, **kwargs)
        except OSError:
            trace.hear_stat(path, "absent")
            raise
        trace.hear_stat(path, "folder" if stat.S_ISDIR(found.st_mode) else "file")
        return found

    def watched_getcwd() -> str:
        trace.hear_getcwd()
        return _getcwd()

    abilities = (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks)
    kept = [able for able in abilities if _stat in able]
    os.stat, os.getcwd = watched_stat, watched_getcwd
    for able in kept:  # shutil asks what `os.stat` can do
        able.add(watched_stat)
    try:
        yield
    finally:
        os.stat, os.getcwd = _stat, _getcwd
        for able in kept:
            able.discard(watched_stat)


_stat, _getcwd = os.stat, os.getcwd


def _wrap_readers(note: Callable[[str], None]) -> None:
    """Wraps the functions by which weights are read without Python's knowledge, as far as they are imported."""
    for name, attributes in (
        ("safetensors", ("safe_open",)),
        ("safetensors.torch", ("safe_open",)),
        ("torch._C", ("PyTorchFileReader", "import_ir_module")),
    ):
        module = sys.modules.get(name)
        for attribute in attributes:
            _wrap_reader(module, attribute, note)


def _wrap_reader(module: ModuleType | None, attribute: str, note: Callable[[str], None]) -> None:
    read = getattr(module, attribute, None)
    if read is None or hasattr(read, "__wrapped__"):
        return

    @functools.wraps(read, assigned=())
    def reader(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            text = _to_text(value)
            if text is not None and Path(text).is_file():
                note(text)
        return read(*args, **kwargs)

    setattr(module, attribute, reader)


def _find_asker() -> Asker | None:
    """Returns whose code asks the system; None where importing does, for what is imported is noted anyway."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - it has no public name
    while frame is not None:
        asker = _name_asker(frame.f_code.co_filename)
        if asker != "passed on":
            return asker
        frame = frame.f_back
    return None


def _reads_all() -> bool:
    """Whether a variable is asked for by `items()` or `copy()` of the environment."""
    caller = sys._getframe(3)  # noqa: SLF001 - behind `hear_variable` and `__getitem__`
    return caller.f_code.co_name in ("__iter__", "copy") and _is_standard(caller.f_code.co_filename)


@functools.cache
def _name_asker(file: str) -> Asker | Literal["passed on"] | None:
    if (
        file.startswith("<frozen importlib")
        or f"{os.sep}importlib{os.sep}" in file
        or file.endswith(_HARMLESS_STARTERS)
    ):
        return None
    if file == __file__ or file.startswith("<") or _is_standard(file):
        return "passed on"
    package = _name_package(file)
    if package is not None:
        return "toolchain" if package in _TOOLCHAIN else "library"
    return "toolchain" if file.startswith(_OWN) else "source"


@functools.cache
def _name_package(path: str) -> str | None:
    """Returns the top-level name of an installed file, None for others."""
    for folder in _INSTALLED:
        if path.startswith(folder):
            return path[len(folder) :].partition(os.sep)[0].partition(".")[0]
    return None


def _is_elsewhere(place: str) -> bool:
    """Whether a place is an absolute path that a source may have made from its own, as `folder / ".." / "data"`."""
    return place.startswith(os.sep) and _name_package(place) is None and not place.startswith(("/etc/", *_OWN))


def _is_standard(path: str) -> bool:
    """Whether a file belongs to Python itself, frozen into the interpreter or not."""
    return path.startswith(("<frozen", *_STANDARD)) and _name_package(path) is None


_INSTALLED = tuple(folder.rstrip(os.sep) + os.sep for folder in installed_folders())
_STANDARD = tuple(sysconfig.get_paths()[name] + os.sep for name in ("stdlib", "platstdlib"))
_OWN = tuple(f"{folder}{os.sep}" for folder in (*modelwright.core.__path__, *modelwright.exporters.__path__))


def _to_text(name: object) -> str | None:
    """Returns a path as text; None for a number of an open file and the like."""
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else None


def _here() -> str:
    try:
        return _getcwd()
    except OSError:  # it was deleted
        return ""


def _find_code(path: str) -> str:
    """Returns the source of a compiled file, itself where it has none."""
    try:
        code = importlib.util.source_from_cache(path)
    except ValueError:
        return path
    return code if _sign(code) is not None else path


def _sign(path: str) -> tuple[int, ...] | None:
    """Returns what shows that a file was changed in the meantime; nothing for a folder, None where there is none."""
    try:
        found = _stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns)
