"""Takes from every Python that finds this folder what Linux has and other systems lack.

It stands in for Windows, as far as one can on Linux: what is gone here is gone there. What Windows has in its place
(`Popen.kill` needs no SIGKILL there) is put in.
"""

import ctypes
import os
import select
import selectors  # noqa: F401 - the standard library's own use of what goes, decided at import
import signal
import subprocess
import sys
from importlib.abc import MetaPathFinder

MODULES = frozenset({"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix_ipc", "crypt"})
FUNCTIONS = (
    "sched_getaffinity", "sched_setaffinity", "fork", "forkpty", "register_at_fork", "killpg", "setsid",
    "getpgid", "getuid", "geteuid", "getgid", "getloadavg", "sysconf", "nice", "wait3", "wait4", "waitid",
    "pidfd_open", "mkfifo", "chown", "setpriority", "getpriority", "pread", "statvfs",
)  # fmt: skip
SIGNALS = ("SIGHUP", "SIGKILL", "SIGPIPE", "SIGALRM", "SIGCHLD", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGSTOP", "SIGCONT")


class Hidden(MetaPathFinder):
    """Says of a module that is hidden that it is not there."""

    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] in MODULES:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


class NamedLibrary(ctypes.CDLL):
    """A library that has a name: none gives the process's own symbols on Linux only."""

    def __init__(self, name, *args, **kwargs):
        if name is None:
            raise TypeError("a name is needed")
        super().__init__(name, *args, **kwargs)


sys.meta_path.insert(0, Hidden())
for name in MODULES:
    sys.modules.pop(name, None)
for name in FUNCTIONS:
    if hasattr(os, name):
        delattr(os, name)
for name in SIGNALS:
    delattr(signal, name)
del select.poll
subprocess.Popen.kill = subprocess.Popen.terminate = lambda self: self.send_signal(9)
ctypes.CDLL = NamedLibrary
