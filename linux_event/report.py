"""What this machine allows, as ``python -m linux_event`` prints it."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
import textwrap
from typing import TextIO

from . import Loop, __version__, ring
from .diagnosis import Host, read_text

_SECCOMP = {0: "0 (no filter)", 1: "1 (strict)", 2: "2 (a filter is active)"}
_DISABLED = {
    0: "0 (allowed to all)",
    1: "1 (only with CAP_SYS_ADMIN or in kernel.io_uring_group)",
    2: "2 (forbidden to all)",
}
_WIDTH = 100
_LABEL = 26


def report(output: TextIO | None = None) -> bool:
    """Print what decides whether and how well this package works here.

    ``output`` is a text file (None: standard output). Returns whether a loop can be made; if not, the cause and the
    remedy are the last thing printed. Makes a ring and a loop to find out, and closes them: see io_uring_setup(2).
    """
    output = output or sys.stdout
    host = Host()
    _print(output, "linux_event", __version__)
    _print(output, "Python", f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})")
    _print(output, "kernel", f"{host.release} ({platform.machine()})")
    _print(output, "liburing", liburing_version())
    _print(output, "kernel.io_uring_disabled", _named(host.disabled, _DISABLED, "no such sysctl (allowed to all)"))
    _print(output, "kernel.io_uring_group", "none" if host.group in (None, -1) else str(host.group))
    _print(output, "seccomp", _named(host.seccomp, _SECCOMP, "unknown"))
    memlock = _limit(resource.RLIMIT_MEMLOCK, 1024, " KiB")
    exempt = " (does not bind this process)" if host.memlock is None else ""
    _print(output, "limit of locked memory", memlock + exempt)
    _print(output, "limit of open files", _limit(resource.RLIMIT_NOFILE))
    _print(output, "limit of processes", _limit(resource.RLIMIT_NPROC))
    try:
        probed = ring.probe()
        Loop().close()
    except OSError as error:
        _print(output, "io_uring may be used", f"no: errno {error.errno}, {os.strerror(error.errno or 0)}")
        print(file=output)
        print(textwrap.fill(f"{error.strerror}.", _WIDTH), file=output, flush=True)
        return False
    _print(output, "features", ", ".join(probed["features"]))
    _print(output, f"operations ({len(probed['operations'])})", ", ".join(probed["operations"]))
    _print(output, "io_uring may be used", "yes")
    output.flush()
    return True


def liburing_version() -> str:
    """Return the version of the liburing that this process has loaded, and of its headers where those tell it.

    The library does not say it itself, but the name of its file does, which is among those mapped: see proc(5).
    """
    loaded = re.search(r"/liburing[^/]*\.so\.(\d[\d.]*\d)", read_text("/proc/self/maps") or "")
    headers = ring.liburing_version()
    found = [loaded[1]] if loaded else []
    return ", ".join([*found, *([f"built with {headers}"] if headers else [])]) or "unknown"


def _print(output: TextIO, label: str, value: str) -> None:
    """Print a value, wrapped, beside its label."""
    indent = " " * _LABEL
    text = textwrap.fill(
        value, _WIDTH, initial_indent=f"{label:<{_LABEL}}", subsequent_indent=indent, break_on_hyphens=False
    )
    print(text, file=output)


def _named(value: int | None, names: dict[int, str], missing: str) -> str:
    return missing if value is None else names.get(value, str(value))


def _limit(which: int, unit: int = 1, suffix: str = "") -> str:
    """Return the soft and the hard limit of a resource in words."""
    soft, hard = (
        "unlimited" if value == resource.RLIM_INFINITY else f"{value // unit}{suffix}"
        for value in resource.getrlimit(which)
    )
    return f"{soft} (hard limit {hard})"
