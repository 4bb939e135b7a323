"""Watcher: making one of each kind, and what all kinds refuse."""

import contextlib
import copy
import inspect
import pickle

import pytest
from _support import BOUND, KINDS, finish, kind_arguments

from linux_event import DestroyedError, Loop, Watcher

EMPTY = inspect.Parameter.empty


# --- making one ---------------------------------------------------------------------------------------------------


def test_factory_and_class_are_the_same(loop, pipe, kind):
    cls = KINDS[kind]
    by_factory = getattr(loop, kind)(*kind_arguments(kind, pipe), print, data=1, priority=-2, ref=False)
    by_class = cls(loop, *kind_arguments(kind, pipe), print, data=1, priority=-2, ref=False)
    for watcher in (by_factory, by_class):
        assert type(watcher) is cls
        assert isinstance(watcher, Watcher)
        assert watcher.loop is loop
        assert watcher.callback is print
        assert (watcher.data, watcher.priority, watcher.ref) == (1, -2, False)
        assert watcher.is_active()
        assert loop.watchers[watcher.id] is watcher


def test_signatures_are_those_of_the_contract(kind):
    own = {
        "io": {"fd": EMPTY, "poll": EMPTY, "callback": EMPTY, "edge": False},
        "timer": {"after": EMPTY, "callback": EMPTY},
        "periodic": {"interval": EMPTY, "callback": EMPTY, "offset": None},
        "signal": {"signal": EMPTY, "callback": EMPTY},
        "idle": {"callback": EMPTY},
        "wakeup": {"callback": EMPTY},
        "child": {"pid": EMPTY, "callback": EMPTY},
        "fswatch": {"path": EMPTY, "events": EMPTY, "callback": EMPTY, "own": True},
        "watch": {"path": EMPTY, "events": EMPTY, "callback": EMPTY, "recursive": False, "follow_symlinks": False},
    }[kind]
    common = {"data": None, "priority": 0, "ref": True, "start": True}
    cls = {p.name: p.default for p in inspect.signature(KINDS[kind]).parameters.values()}
    assert cls == {"loop": EMPTY} | own | common
    factory = {p.name: p.default for p in inspect.signature(getattr(Loop, kind)).parameters.values()}
    del factory["self"]
    assert factory.pop("callback") is not EMPTY
    del own["callback"]
    assert factory == own | common
    for function in (KINDS[kind], getattr(Loop, kind)):
        parameters = inspect.signature(function).parameters
        for name in (*common, "edge", "offset", "own", "recursive", "follow_symlinks"):
            assert name not in parameters or parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_arguments_by_name(loop, pipe, kind):
    names = {"io": ("fd", "poll"), "timer": ("after",), "periodic": ("interval",), "signal": ("signal",), "idle": ()}
    names |= {"child": ("pid",), "wakeup": (), "watch": ("path", "events"), "fswatch": ("path", "events")}
    named = dict(zip(names[kind], kind_arguments(kind, pipe), strict=True))
    for watcher in (
        getattr(loop, kind)(callback=print, **named),
        KINDS[kind](loop=loop, callback=print, **named),
        getattr(loop, kind)(**named)(print),
    ):
        assert watcher.callback is print
        assert watcher.is_active()


def test_defaults(make):
    watcher = make(print)
    assert watcher.data is None
    assert watcher.priority == 0
    assert watcher.ref is True
    assert watcher.is_active() is True
    assert watcher.is_destroyed() is False


def test_callback_as_a_keyword(make):
    assert make(callback=print).callback is print


def test_start_false(make, loop):
    watcher = make(print, start=False)
    assert watcher.is_active() is False
    assert watcher.id in loop.watchers
    finish(loop)
    assert watcher.start() is watcher
    assert watcher.is_active() is True


def test_without_a_callback_the_factory_is_a_decorator(loop, make, kind):
    @make(data="data", priority=1, ref=False, start=False)
    def watcher(*args):
        """Never called."""

    assert type(watcher) is KINDS[kind]
    assert watcher.callback.__doc__ == "Never called."
    assert (watcher.data, watcher.priority, watcher.ref) == ("data", 1, False)
    assert not watcher.is_active()

    @make()
    def started(*args):
        pass

    assert started.is_active()
    assert set(loop.watchers) == {watcher.id, started.id}


def test_a_decorator_that_is_not_used_makes_no_watcher(loop, make):
    make()
    assert len(loop.watchers) == 0
    assert loop.statistics().watchers == 0


def test_a_decorator_makes_one_watcher_only(loop, make):
    decorate = make(data=7)
    watcher = decorate(print)
    with pytest.raises(RuntimeError, match="already"):
        decorate(repr)
    assert watcher.callback is print
    assert len(loop.watchers) == 1


@pytest.mark.parametrize("callback", [None, 1, "print", ()])
def test_a_decorator_refuses_what_cannot_be_called(loop, make, callback):
    with pytest.raises(TypeError, match="callback") as caught:
        make()(callback)
    assert repr(callback) in str(caught.value)
    assert len(loop.watchers) == 0


def test_the_class_needs_a_callback(loop, pipe, kind):
    with pytest.raises(TypeError):
        KINDS[kind](loop, *kind_arguments(kind, pipe))


@pytest.mark.parametrize("other", [None, 1, "loop", object(), Loop])
def test_the_class_needs_a_loop(pipe, kind, other):
    with pytest.raises(TypeError, match="loop"):
        KINDS[kind](other, *kind_arguments(kind, pipe), print)


@pytest.mark.parametrize("callback", [None, 0, "print", [print]])
def test_a_callback_must_be_callable(loop, make, callback):
    with pytest.raises(TypeError, match="callback") as caught:
        make(callback)
    assert repr(callback) in str(caught.value)
    assert len(loop.watchers) == 0


@pytest.mark.parametrize("priority", [-3, 3, 100, -(2**70), 2**70])
@pytest.mark.parametrize("decorator", [False, True])
def test_priority_out_of_range(loop, make, priority, decorator):
    with pytest.raises(ValueError, match="priority") as caught:
        make(*([] if decorator else [print]), priority=priority)
    assert str(priority) in str(caught.value)
    assert len(loop.watchers) == 0


@pytest.mark.parametrize("priority", ["1", 1.0, None, True, [1]])
@pytest.mark.parametrize("decorator", [False, True])
def test_priority_of_bad_type(loop, make, priority, decorator):
    with pytest.raises(TypeError, match="priority") as caught:
        make(*([] if decorator else [print]), priority=priority)
    assert repr(priority) in str(caught.value)
    assert len(loop.watchers) == 0


@pytest.mark.parametrize("name", ["ref", "start"])
@pytest.mark.parametrize("value", [None, "yes", 2, []])
@pytest.mark.parametrize("decorator", [False, True])
def test_flags_of_bad_type(loop, make, name, value, decorator):
    with pytest.raises(TypeError, match=name) as caught:
        make(*([] if decorator else [print]), **{name: value})
    assert repr(value) in str(caught.value)
    assert len(loop.watchers) == 0


def test_unknown_and_surplus_arguments(loop, make):
    with pytest.raises(TypeError):
        make(print, nonsense=1)
    with pytest.raises(TypeError):
        make(print, None)
    with pytest.raises(TypeError):
        make(print, callback=print)
    assert len(loop.watchers) == 0


def test_the_base_class_makes_nothing(loop):
    with pytest.raises(TypeError):
        Watcher(loop)
    with pytest.raises(TypeError):
        Watcher()


def test_kinds_cannot_be_derived_from(kind):
    with pytest.raises(TypeError):
        type("Mine", (KINDS[kind],), {})


def test_an_object_made_without_arguments_cannot_crash(kind):
    cls = KINDS[kind]
    with pytest.raises(TypeError):
        cls()
    with pytest.raises(TypeError):
        object.__new__(cls)
    empty = cls.__new__(cls)
    assert empty.is_destroyed()
    assert not empty.is_active()
    assert empty.loop is None
    assert empty.callback is None
    assert repr(empty).startswith(f"<{cls.__name__} ")
    for name in {name for name in dir(empty) if not name.startswith("_")} - {"start", "stop"}:
        getattr(empty, name)
    for call in (empty.start, empty.stop, empty.__enter__, lambda: setattr(empty, "callback", print)):
        with pytest.raises(DestroyedError):
            call()
    empty.destroy()


def test_calling_init_again_changes_nothing(loop, make, kind):
    watcher = make(print)
    with contextlib.suppress(TypeError, RuntimeError):
        watcher.__init__(loop, BOUND, repr)
    assert watcher.callback is print
    assert watcher.is_active()
    assert loop.statistics().active_watchers == 1


def test_cannot_be_copied_or_pickled(make):
    watcher = make(print)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            attempt(watcher)
