"""Cython's plugin for coverage, without Python code in the way of signals and threads.

For every traced line coverage calls into Python: the plugin, to be told the number of
the line, and its own lock. There a signal may be handled, and a KeyboardInterrupt is
then lost in the measuring of coverage; or another thread runs, where the program that
is measured leaves no such gap. Here both are answered by C functions. For the plugin
this is possible because each .c file has the lines of one .pyx file.
"""

from operator import attrgetter

from coverage.collector import Collector
from coverage.plugin import FileTracer
from coverage.sqldata import CoverageData
from Cython.Coverage import Plugin


class Tracer(FileTracer):
    def __init__(self, filename):
        self.filename = filename
        self.line_number_range = attrgetter("f_lineno", "f_lineno")

    def source_filename(self):
        return self.filename


class QuietPlugin(Plugin):
    def file_tracer(self, filename):
        found = super().file_tracer(filename)
        return found and Tracer(found.module_file)


def update(data, other, *args, combine=CoverageData.update, **kwargs):
    """Combine data; a process that was killed while it wrote has not said whose lines they are."""
    unnamed = {name for name in other.measured_files() if name.endswith(".pyx") and not other.file_tracer(name)}
    if not unnamed:
        combine(data, other, *args, **kwargs)


def coverage_init(registry, options):
    plugin = QuietPlugin()
    registry.add_configurer(plugin)
    registry.add_file_tracer(plugin)
    # The methods of the lock itself, in place of methods that call them.
    Collector.lock_data = property(lambda collector: collector.data_lock.acquire)
    Collector.unlock_data = property(lambda collector: collector.data_lock.release)
    CoverageData.update = update
