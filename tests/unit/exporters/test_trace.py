"""Everything that a source looks at decides whether its export is made again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.core.records.codec import decode, encode
from modelwright.exporters.inputs import Inputs, find_change, hash_package
from modelwright.exporters.trace import Trace, watch

RUN = """
import json, sys
from pathlib import Path
from modelwright.core.records.codec import encode
from modelwright.core.samples.python_source import load_function
from modelwright.exporters.trace import Trace, watch

path = Path(sys.argv[1])
trace = Trace(path.resolve().parent)
with watch(trace):
    load_function(path, "create")()
inputs = trace.finish(is_code=True)
print(json.dumps([trace.opaque, None if inputs is None else encode(inputs)]))
"""


def run(folder: Path, code: str, **environment: str) -> tuple[str | None, Inputs | None]:
    """Runs a source in a process of its own, in the folder `here`, and returns what was seen."""
    for name in ("source", "here"):
        (folder / name).mkdir(exist_ok=True)
    path = folder / "source" / "net.py"
    path.write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN, str(path)],
        cwd=folder / "here",
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    opaque, inputs = json.loads(done.stdout)
    return opaque, None if inputs is None else decode(Inputs, inputs, where="test")


def watch_source(folder: Path, code: str, **environment: str) -> Inputs:
    opaque, inputs = run(folder, code, **environment)
    assert opaque is None
    assert inputs is not None
    return inputs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


SOURCES: dict[str, tuple[str, str]] = {
    # name: (the source, which file decides)
    "open": ("def create(): return open(HERE / 'data.bin', 'rb').read()", "source/data.bin"),
    "elsewhere": ("def create(): return open(HERE.parent / 'other' / 'data.bin').read()", "other/data.bin"),
    "numpy": ("import numpy\ndef create(): return numpy.fromfile(HERE / 'data.bin', 'u1')", "source/data.bin"),
    "appended to": (
        "def create():\n  open(HERE / 'data.bin', 'a').close()\n  return open(HERE / 'data.bin').read()",
        "source/data.bin",
    ),
    "numpy map": ("import numpy\ndef create(): return numpy.memmap(HERE / 'data.bin')", "source/data.bin"),
    "native": (
        "from safetensors import safe_open\ndef create():\n"
        "  with safe_open(str(HERE / 'w.safetensors'), framework='np') as file: return file.keys()",
        "source/w.safetensors",
    ),
    "os.open": ("import os\ndef create(): return os.open(HERE / 'data.bin', os.O_RDONLY)", "source/data.bin"),
    "descriptor": (
        "import os\ndef create():\n  os.fchdir(os.open(HERE, os.O_RDONLY))\n  return open('data.bin').read()",
        "source/data.bin",
    ),
    "module": ("import helper\ndef create(): return helper.WIDTH", "source/helper.py"),
    "package": ("def create():\n  from pack.deep import WIDTH\n  return WIDTH", "source/pack/deep.py"),
    "module elsewhere": (
        "import sys\nsys.path.append(str(HERE.parent / 'other'))\nimport far\ndef create(): return far.WIDTH",
        "other/far.py",
    ),
    "executed": ("def create(): exec((HERE / 'helper.py').read_text())", "source/helper.py"),
    "sqlite": ("import sqlite3\ndef create(): return sqlite3.connect(HERE / 'data.bin')", "source/data.bin"),
    "archive": (
        "import sys\nsys.path.insert(0, str(HERE / 'lib.zip'))\nimport zipped\ndef create(): return zipped.WIDTH",
        "source/lib.zip",
    ),
    "changed folder": (
        "import os\ndef create():\n  os.chdir(HERE)\n  return open('data.bin').read()",
        "source/data.bin",
    ),
    "working folder": ("def create(): return open('local.bin').read()", "here/local.bin"),
    "thread": (
        "import threading\ndef create():\n  t = threading.Thread(target=(HERE / 'data.bin').read_bytes)\n"
        "  t.start()\n  t.join()",
        "source/data.bin",
    ),
    "link": ("def create(): return open(HERE / 'link.bin').read()", "other/data.bin"),
    "bytes": ("import os\ndef create(): return open(os.fsencode(HERE / 'data.bin')).read()", "source/data.bin"),
}
PREAMBLE = "from pathlib import Path\nHERE = Path(__file__).parent\n"


def fill(folder: Path) -> None:
    import zipfile

    import numpy as np
    from safetensors.numpy import save_file

    for name in ("source/pack", "other"):
        (folder / name).mkdir(parents=True)
    for name in ("source/data.bin", "other/data.bin", "here/local.bin"):
        (folder / name).write_text("first")
    for name in ("source/helper.py", "source/pack/__init__.py", "source/pack/deep.py", "other/far.py"):
        (folder / name).write_text("WIDTH = 1\n")
    (folder / "source" / "link.bin").symlink_to(folder / "other" / "data.bin")
    save_file({"w": np.ones(3, np.float32)}, folder / "source" / "w.safetensors")
    with zipfile.ZipFile(folder / "source" / "lib.zip", "w") as archive:
        archive.writestr("zipped.py", "WIDTH = 1\n")


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_that_decides_is_seen(name: str, folder: Path) -> None:
    code, decides = SOURCES[name]
    fill(folder)
    inputs = watch_source(folder, PREAMBLE + code)
    source = folder / "source"
    assert find_change(inputs, source) is None
    content = (folder / decides).read_bytes()
    os.utime(folder / decides, (1, 1))
    assert find_change(inputs, source) is None, "the time of a file is not its content"
    (folder / decides).write_bytes(content + b"\n# more")
    assert find_change(inputs, source) is not None
    (folder / decides).write_bytes(content)
    assert find_change(inputs, source) is None
    (folder / decides).unlink()
    assert find_change(inputs, source) is not None


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a file that is looked for comes": (
        "def create(): return (HERE / 'best.pt').exists()",
        lambda folder: (folder / "source" / "best.pt").write_text("x"),
    ),
    "a file that could not be opened comes": (
        "def create():\n  try: return open(HERE / 'best.pt').read()\n  except OSError: return None",
        lambda folder: (folder / "source" / "best.pt").write_text("x"),
    ),
    "a file that is looked for goes": (
        "import os\ndef create(): return os.path.isfile(HERE / 'data.bin')",
        lambda folder: (folder / "source" / "data.bin").unlink(),
    ),
    "a file comes into a folder that is listed": (
        "import os\ndef create(): return os.listdir(HERE / 'pack')",
        lambda folder: (folder / "source" / "pack" / "new.bin").write_text("x"),
    ),
    "a file comes that a pattern finds": (
        "def create(): return sorted(HERE.glob('pack/*.bin'))",
        lambda folder: (folder / "source" / "pack" / "new.bin").write_text("x"),
    ),
    "a module comes that is imported instead": (
        "import colorsys\ndef create(): return None",
        lambda folder: (folder / "source" / "colorsys.py").write_text("x = 1"),
    ),
    "a package comes that is imported instead": (
        "def create():\n  try: import no_such_module_yet\n  except ImportError: return None",
        lambda folder: (folder / "source" / "no_such_module_yet").mkdir(),
    ),
    "a link leads elsewhere": (
        "def create(): return open(HERE / 'link.bin').read()",
        lambda folder: (
            (folder / "source" / "link.bin").unlink(),
            (folder / "source" / "link.bin").symlink_to(folder / "source" / "helper.py"),
        ),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_asked_for_without_reading_decides(name: str, folder: Path) -> None:
    code, change = CHANGES[name]
    fill(folder)
    inputs = watch_source(folder, PREAMBLE + code)
    assert find_change(inputs, folder / "source") is None
    change(folder)
    assert find_change(inputs, folder / "source") is not None


@pytest.mark.parametrize(
    "asks",
    [
        "os.environ['NET']",
        "os.getenv('NET')",
        "os.environb[b'NET']",
        "'NET' in os.environ",
        "dict(os.environ)",
        "[*os.environ.items()]",
    ],
)
def test_variables_decide_and_their_values_are_not_written_down(
    asks: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NET", "a secret")
    inputs = watch_source(folder, f"import os\ndef create(): return {asks}")
    assert find_change(inputs, folder / "source") is None
    assert "a secret" not in json.dumps(encode(inputs))
    monkeypatch.setenv("NET", "another")
    assert find_change(inputs, folder / "source") == "the environment variable NET has changed"
    monkeypatch.delenv("NET")
    assert find_change(inputs, folder / "source") == "the environment variable NET has changed"


def test_a_variable_that_the_source_sets_for_itself_is_no_change(folder: Path) -> None:
    code = (
        "import os\nos.environ['NET'] = 'mine'\nos.environ['HOME'] = '/nowhere'\ndef create(): return os.environ['NET']"
    )
    inputs = watch_source(folder, code)
    assert find_change(inputs, folder / "source") is None


def test_neither_the_checkout_nor_the_working_folder_decide_by_themselves(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder)
    code = "import helper\ndef create(): return open(HERE / 'data.bin').read(), (HERE / 'absent').exists()"
    inputs = watch_source(folder, PREAMBLE + code)
    shutil.copytree(folder / "source", folder / "moved")
    shutil.rmtree(folder / "source")
    monkeypatch.chdir(folder)
    assert find_change(inputs, folder / "moved") is None


def test_a_copy_of_a_source_that_looks_outside_its_folder_is_another(folder: Path) -> None:
    fill(folder)
    code = "def create(): return open(HERE.parent / 'other' / 'data.bin').read()"
    inputs = watch_source(folder, PREAMBLE + code)
    copy = folder / "project" / "source"
    shutil.copytree(folder / "source", copy)
    (folder / "project" / "other").mkdir()
    (folder / "project" / "other" / "data.bin").write_text("another model's")
    assert find_change(inputs, folder / "source") is None
    assert "looks at files outside" in str(find_change(inputs, copy))


def test_watching_leaves_the_system_as_it_was(folder: Path) -> None:
    fill(folder)
    code = (
        "import os, shutil\nfrom pathlib import Path\ndef create():\n"
        "  shutil.copytree(HERE, Path('copy'), symlinks=True)\n  shutil.rmtree('copy')\n"
        "  assert os.environ.get('NO_SUCH') is None and 'PATH' in os.environ.copy()"
    )
    assert run(folder, PREAMBLE + code)[0] is None
    before = (os.stat, os.getcwd, type(os.environ), len(os.supports_follow_symlinks))
    with watch(Trace(folder)):
        assert os.stat is not before[0]
    assert (os.stat, os.getcwd, type(os.environ), len(os.supports_follow_symlinks)) == before


def test_the_working_folder_decides_where_a_source_asks_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder)
    asks = watch_source(folder, "from pathlib import Path\ndef create(): return Path('x').absolute()")
    assert find_change(asks, folder / "source") is None
    monkeypatch.chdir(folder / "other")
    assert "working directory" in str(find_change(asks, folder / "source"))
    monkeypatch.chdir(folder / "here")
    reads = watch_source(folder, "def create(): return open('local.bin').read()")
    assert find_change(reads, folder / "source") is None
    monkeypatch.chdir(folder / "other")
    assert find_change(reads, folder / "source") == "local.bin has changed"
    (folder / "other" / "local.bin").write_text("first")
    assert find_change(reads, folder / "source") is None, "the same content in the same place, seen from here"


def test_packages_decide_by_version_and_by_their_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = folder / "site"
    info = site / "net_layers-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "net_layers.py").write_text("WIDTH = 1\n")
    metadata = "Metadata-Version: 2.1\nName: net-layers\nVersion: {}\n"
    (info / "METADATA").write_text(metadata.format("1.0"))
    (info / "RECORD").write_text("net_layers.py,sha256=aaa,10\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.syspath_prepend(str(site))
    # Found on PYTHONPATH, so it is not where packages are installed: its code counts by its content.
    inputs = watch_source(folder, "import net_layers\ndef create(): return net_layers.WIDTH")
    assert find_change(inputs, folder / "source") is None
    (site / "net_layers.py").write_text("WIDTH = 2\n")
    assert find_change(inputs, folder / "source") is not None

    installed = watch_source(folder, "import msgspec, numpy\ndef create(): return None")
    assert {"modelwright", "msgspec", "numpy"} <= set(installed.packages)
    assert not any("numpy" in place for place in installed.files)
    (folder / "numpy-0.0.dist-info").mkdir()
    (folder / "numpy-0.0.dist-info" / "METADATA").write_text(metadata.format("0.0").replace("net-layers", "numpy"))
    monkeypatch.syspath_prepend(str(folder))
    assert find_change(installed, folder / "source") is None, "what this process finds besides is not installed"

    monkeypatch.setattr("modelwright.exporters.inputs.installed_folders", lambda: [str(site)])
    hashes = []
    for version, record in (("1.0", "sha256=aaa"), ("1.0", "sha256=bbb"), ("1.1", "sha256=aaa")):
        (info / "METADATA").write_text(metadata.format(version))
        (info / "RECORD").write_text(f"net_layers.py,{record},10\n")
        hashes.append(hash_package("net-layers"))
    assert len({*hashes, None}) == 4
    bare = Inputs(**{**encode(installed), "packages": {"net-layers": hashes[0]}})
    assert find_change(bare, folder / "source") == "the package net-layers is another"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import subprocess\ndef create(): return subprocess.check_output(['cat', __file__])", "other programs"),
        ("import os\ndef create(): return os.system('true')", "other programs"),
        (
            "import multiprocessing as mp\ndef create():\n"
            "  p = mp.get_context('fork').Process(target=print)\n  p.start()\n  p.join()",
            "other programs",
        ),
        (
            "import socket\ndef create():\n"
            "  try: socket.create_connection(('127.0.0.1', 9), 1)\n  except OSError: pass",
            r"the network \(127\.0\.0\.1\)",
        ),
        (
            "import socket\ndef create(): socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 9))",
            r"the network \(127\.0\.0\.1\)",
        ),
        (
            "import socket\ndef create():\n"
            "  try: socket.socket(socket.AF_UNIX).connect('/no/such')\n  except OSError: pass",
            "through a socket",
        ),
        (
            "from pathlib import Path\nFILE = Path(__file__).with_name('count')\nFILE.write_text('1')\n"
            "import helper\ndef create():\n  text = Path(helper.__file__).read_text()\n"
            "  Path(helper.__file__).write_text(text + '# again\\n')",
            "changed while it was read",
        ),
    ],
)
def test_what_cannot_be_seen_is_said(code: str, reason: str, folder: Path) -> None:
    import re

    (folder / "source").mkdir()
    (folder / "source" / "helper.py").write_text("WIDTH = 1\n")
    opaque, inputs = run(folder, code)
    assert inputs is None
    assert opaque is not None
    assert re.search(reason, opaque)


def test_files_of_its_own_making_do_not_decide(folder: Path) -> None:
    code = (
        "from pathlib import Path\nimport tempfile\ndef create():\n"
        "  with tempfile.TemporaryDirectory() as scratch:\n"
        "    path = Path(scratch) / 'x'\n    path.write_text('made')\n    return path.read_text()"
    )
    inputs = watch_source(folder, code)
    assert not any(place.endswith("/x") for place in inputs.files)
    assert find_change(inputs, folder / "source") is None
