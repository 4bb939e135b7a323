"""The record of where figures were taken."""

import os
import platform
import re
from pathlib import Path


def describe() -> dict[str, str | int]:
    """Return processor, load, kernel, compiler and Python of this machine."""
    return {
        "processor": _first_match("/proc/cpuinfo", r"^model name\s*:\s*(.+)$") or platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory": _first_match("/proc/meminfo", r"^MemTotal:\s*(.+)$") or "unknown",
        "load": f"{os.getloadavg()[0]:.2f}",
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": platform.python_compiler(),
    }


def _first_match(path: str, pattern: str) -> str | None:
    try:
        found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return None
    return found[1] if found else None
