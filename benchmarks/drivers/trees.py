"""Libraries that watch trees of directories, in threads of their own."""

from collections.abc import Iterator
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from .base import PATIENCE
from .files import Library


class Watchfiles(Library):
    """`watchfiles.watch`, which hands over what has happened within some milliseconds as a set, without a filter."""

    def __init__(self) -> None:
        import watchfiles

        self._watch, self._added = watchfiles.watch, watchfiles.Change.added
        self._changes: Iterator[Any] = iter(())

    def watch_tree(self, root: str) -> None:
        self._changes = self._watch(
            root, watch_filter=None, debounce=50, step=1, rust_timeout=1, yield_on_timeout=True, raise_interrupt=True
        )
        next(self._changes)  # it begins here, and ends after a millisecond without a change

    def new_files(self, count: int) -> list[str]:
        told: list[str] = []
        deadline = monotonic() + PATIENCE
        for changes in self._changes:
            told += [path for change, path in changes if change is self._added]
            if len(told) >= count or monotonic() > deadline:
                break
        return told


class Watchdog(Library):
    """`watchdog`'s observer with inotify, which is asked for new files only."""

    def __init__(self) -> None:
        from watchdog import events, observers

        told: SimpleQueue[Any] = SimpleQueue()

        class Handler(events.FileSystemEventHandler):
            def on_created(self, event: Any) -> None:
                told.put(event.src_path)

        self._told = told
        self._handler, self._filter = Handler(), [events.FileCreatedEvent]
        self._observer = observers.Observer()

    def watch_tree(self, root: str) -> None:
        self._observer.schedule(self._handler, root, recursive=True, event_filter=self._filter)
        self._observer.start()

    def new_files(self, count: int) -> list[str]:
        told: list[str] = []
        try:
            while len(told) < count:
                told.append(self._told.get(timeout=PATIENCE))
        except Empty:
            pass
        return told

    def close(self) -> None:
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()
