"""How a package that defines watchers of its own is built: the headers are found through get_include()."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import linux_event

setup(
    name="round-trip",
    version="1",
    ext_modules=cythonize(
        [Extension("round_trip", ["round_trip.pyx"], include_dirs=[linux_event.get_include()])], language_level=3
    ),
)
