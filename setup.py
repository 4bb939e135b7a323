"""Build of the extensions: one for every .pyx file of the package.

Environment variables choose a variant of the build; each is "1" or absent:

LE_VERIFY     check every invariant of the loop after every callback
LE_TRACE      Cython line tracing, for coverage of the .pyx files
LE_SANITIZE   AddressSanitizer and UndefinedBehaviorSanitizer
LE_WERROR     warnings of Cython (-Wextra) and of the C compiler are errors
"""

import hashlib
import os
import subprocess
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import SetupError

PACKAGE = "linux_event"
INCLUDE = f"{PACKAGE}/include"
HEADERS = sorted(glob(f"{INCLUDE}/*.h"))
DECLARATIONS = sorted(glob(f"{PACKAGE}/**/*.pxd", recursive=True))

VERIFY, TRACE, SANITIZE, WERROR = (
    os.environ.get(name) == "1" for name in ("LE_VERIFY", "LE_TRACE", "LE_SANITIZE", "LE_WERROR")
)

DIRECTIVES = {
    "language_level": 3,
    # Methods are plain C methods, whose calls CPython specialises. Their
    # signature goes into the docstring in the form that CPython's own C modules
    # use: inspect.signature reads it there and __doc__ hides it. Cython does not
    # do this for constructors: there the first line of the docstring of the
    # class, "Name(...)\n--\n", is written by hand.
    "binding": False,
    "embedsignature": True,
    "embedsignature.format": "clinic",
    "autotestdict": False,
    "auto_pickle": False,
    "freethreading_compatible": False,
    "linetrace": TRACE,
}

# Cython's way to call tp_new by vectorcall crashes where memory runs out in its
# middle, and copies all arguments for a __cinit__ that takes none.
MACROS = [("CYTHON_VECTORCALL_TPNEW", "0")]
CFLAGS = ["-O2", "-g", "-Wall", "-Wextra"]
LDFLAGS = []

# What Cython's generated code cannot do without: slots of the C API have
# parameters that a method does not need, and type tables name few fields.
CFLAGS += ["-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]

if VERIFY:
    MACROS.append(("LE_VERIFY", "1"))
if TRACE:
    MACROS += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")]
if SANITIZE:
    # The interpreter's own flags may hold -fwrapv, which silences the checks
    # of signed overflow.
    CFLAGS += ["-O1", "-fno-omit-frame-pointer", "-fno-wrapv"]
    CFLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    LDFLAGS += ["-fsanitize=address,undefined"]
if WERROR:
    CFLAGS.append("-Werror")


def extension(source):
    """The extension made of one .pyx file; only the ring links liburing."""
    name = source.removesuffix(".pyx").replace(os.sep, ".")
    return Extension(
        name,
        [source],
        include_dirs=[INCLUDE],
        depends=HEADERS + DECLARATIONS,
        define_macros=MACROS,
        extra_compile_args=CFLAGS,
        extra_link_args=LDFLAGS,
        libraries=["uring"] if name == f"{PACKAGE}.ring" else [],
    )


class BuildExt(build_ext):
    """build_ext that looks for liburing first and notices changed flags."""

    def finalize_options(self):
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()

    def build_extensions(self):
        self.require_headers()
        stamp, fingerprint = self.fingerprint()
        if not stamp.exists() or stamp.read_text() != fingerprint:
            # Time stamps do not show that a flag changed: build all afresh.
            self.force = True
        self.cythonize()
        super().build_extensions()
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(fingerprint)

    def cythonize(self):
        from Cython.Build import cythonize
        from Cython.Compiler import Options
        from Cython.Compiler.Errors import CompileError

        Options.warning_errors = WERROR
        directives = DIRECTIVES | (Options.extra_warnings if WERROR else {})
        try:
            generated = cythonize(self.extensions, compiler_directives=directives, force=self.force)
        except CompileError as error:  # Cython has printed where and why.
            raise SetupError(f"Cython refuses {error}") from None
        for extension, result in zip(self.extensions, generated, strict=True):
            extension.sources = result.sources

    def fingerprint(self):
        """Where the flags of the last build stand, and those of this one."""
        import Cython

        parts = [Cython.__version__, DIRECTIVES, MACROS, CFLAGS, LDFLAGS, self.compiler.compiler_so]
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()
        return Path(self.build_temp, "fingerprint"), digest

    def require_headers(self):
        """Stop with one line that names the package of a missing header."""
        for header, debian, fedora in (
            ("Python.h", "python3-dev", "python3-devel"),
            ("liburing.h", "liburing-dev", "liburing-devel"),
        ):
            try:
                found = self.has_header(header)
            except OSError as error:
                raise SetupError(f"{PACKAGE} needs a C compiler: {error} (Debian, Ubuntu: apt install gcc)") from None
            if not found:
                raise SetupError(
                    f"{PACKAGE} needs {header}, which the C compiler does not find: "
                    f"apt install {debian} (Debian, Ubuntu) or dnf install {fedora} (Fedora)"
                )

    def has_header(self, header):
        command = [*self.compiler.compiler_so, *(f"-I{folder}" for folder in self.include_dirs)]
        return (
            subprocess.run(
                [*command, "-E", "-x", "c", "-", "-o", os.devnull],
                input=f"#include <{header}>\n",
                text=True,
                stderr=subprocess.DEVNULL,
            ).returncode
            == 0
        )


setup(
    ext_modules=[extension(source) for source in sorted(glob(f"{PACKAGE}/**/*.pyx", recursive=True))],
    cmdclass={"build_ext": BuildExt},
)
