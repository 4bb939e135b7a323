"""What measurements of servers need beside Python: the programs in C, a certificate, a folder for sockets."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..kernel import NoCompiler, compiled

NATIVE = Path(__file__).resolve().parent.parent / "native"
PROGRAMS = ("server_uring", "server_epoll", "load")


@dataclass(frozen=True)
class Workshop:
    """A folder with all that could be made.

    Attributes:
        folder: for sockets and what else a measurement writes.
        programs: name → path, of those in C that could be built.
        lacks: name of a program, or ``tls`` → why it is not there.
        certificate: key and certificates of the server, None without.
        authority: what they are verified by.
    """

    folder: Path
    programs: dict[str, Path] = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)
    certificate: Path | None = None
    authority: Path | None = None


@contextmanager
def opened() -> Iterator[Workshop]:
    """Build what there is to build; it is valid within the block."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        programs: dict[str, Path] = {}
        lacks: dict[str, str] = {}
        for program in PROGRAMS:
            try:
                programs[program] = compiled(NATIVE / f"{program}.c", folder / program)
            except NoCompiler as reason:
                lacks[program] = str(reason)
        for program in ("wrk", "redis-benchmark", "redis-server"):
            if path := shutil.which(program):
                programs[program] = Path(path)
            else:
                lacks[program] = "not installed"
        certificate, authority = folder / "server.pem", folder / "authority.pem"
        try:
            _certify(certificate, authority)
        except (OSError, subprocess.CalledProcessError) as error:
            lacks["tls"] = f"no certificate: {error}"
            yield Workshop(folder, programs, lacks)
        else:
            yield Workshop(folder, programs, lacks, certificate, authority)


def _certify(certificate: Path, authority: Path) -> None:
    """Write a key with a certificate that it has signed itself, for ``localhost``."""
    key = certificate.with_suffix(".key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(authority)], check=True, capture_output=True)
    certificate.write_text(key.read_text() + authority.read_text())
