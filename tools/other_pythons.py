"""Print the other CPythons of this machine that the package supports.

One line each, "python3.12 /path/to/its/executable": for every minor version
from 3.11 on but that of the interpreter that runs this, the newest one found
on PATH or among pyenv's. An interpreter without the GIL does not count.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)
ASK = """
import sys, sysconfig
if sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED"):
    print(*sys.version_info[:3], sys.executable)
"""


def candidates():
    for folder in os.get_exec_path():
        yield from sorted(Path(folder).glob("python3.*"))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob("versions/*/bin/python3.*"))


def main():
    newest = {}
    for path in candidates():
        if not re.fullmatch(r"python3\.\d+", path.name):
            continue
        # pyenv's shims exist for versions that are not chosen, and then fail.
        answer = subprocess.run([path, "-c", ASK], capture_output=True, text=True).stdout.split(maxsplit=3)
        if len(answer) < 4:
            continue
        version = tuple(map(int, answer[:3]))
        minor = version[:2]
        if minor >= OLDEST and minor != sys.version_info[:2] and version > newest.get(minor, ((0,), ""))[0]:
            newest[minor] = version, answer[3].strip()
    for minor, (_, executable) in sorted(newest.items()):
        print(f"python{minor[0]}.{minor[1]} {executable}")


if __name__ == "__main__":
    main()
