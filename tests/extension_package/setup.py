"""How a package that stands on the declarations is built: the headers are found through get_include()."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import linux_event

setup(
    name="round-trip",
    version="1",
    ext_modules=cythonize(
        [
            Extension(name, [f"{name}.pyx"], include_dirs=[linux_event.get_include()])
            for name in ("round_trip", "scrambler", "scripted_ring")
        ],
        language_level=3,
    ),
)
