"""Watcher: what all kinds have in common once they are made: start, stop, destroy, attributes, repr, memory."""

import gc
import weakref

import pytest
from _support import BOUND, KINDS, blocks_grown, finish, kind_arguments, living, made_loop, scaled

from linux_event import DestroyedError, Loop, Watcher

# --- start and stop -----------------------------------------------------------------------------------------------


def test_start_and_stop_are_idempotent_and_return_the_watcher(loop, make):
    watcher = make(print)
    for _ in range(3):
        assert watcher.start() is watcher
        assert watcher.is_active() is True
        assert loop.statistics().active_watchers == 1
    for _ in range(3):
        assert watcher.stop() is watcher
        assert watcher.is_active() is False
        assert loop.statistics().active_watchers == 0
    assert watcher.is_destroyed() is False
    assert loop.watchers == {watcher.id: watcher}
    finish(loop)
    assert watcher.start().is_active()


def test_start_and_stop_many_times(loop, make):
    watcher = make(print)
    for _ in range(scaled(2000, least=200)):
        watcher.stop().start()
    loop.run_once(0)
    assert loop.statistics().active_watchers == 1
    watcher.stop()
    finish(loop)


# --- destroy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize("iterations", [0, 1])
def test_destroy(loop, make, active, iterations):
    watcher = make(print, start=active, ref=False)
    for _ in range(iterations):
        loop.run_once(0)
    assert watcher.destroy() is None
    assert watcher.is_destroyed() is True
    assert watcher.is_active() is False
    assert watcher.callback is None
    assert len(loop.watchers) == len(loop.io_watchers) == len(loop.signals) == 0
    assert loop.statistics().watchers == 0
    assert loop.statistics().active_watchers == 0
    assert loop.statistics().timers == 0
    watcher.destroy()
    watcher.destroy()
    assert "destroyed" in repr(watcher)
    finish(loop)


def test_a_destroyed_watcher_refuses(loop, make):
    watcher = make(print)
    number = watcher.id
    watcher.destroy()
    for call in (watcher.start, watcher.stop):
        with pytest.raises(DestroyedError, match="destroyed"):
            call()
    for name, value in (("callback", repr), ("priority", 1), ("ref", False)):
        with pytest.raises(DestroyedError, match="destroyed"):
            setattr(watcher, name, value)
    with pytest.raises(DestroyedError), watcher:
        pass
    assert watcher.id == number
    assert watcher.loop is loop
    assert watcher.priority == 0
    assert watcher.ref is True
    watcher.data = "still mine"
    assert watcher.data == "still mine"


@pytest.mark.parametrize("effect", ["destroy", "close"])
def test_a_watcher_that_is_destroyed_while_it_is_made_does_not_start(pipe, kind, effect):
    """An argument whose conversion runs code of the user's: it finds the half-made watcher in the tables of the loop."""

    class Number:
        def __index__(self):
            if effect == "close":
                loop.close()
            for watcher in list(loop.watchers.values()):
                watcher.destroy()
            return 0

    with made_loop() as loop:
        with pytest.raises(DestroyedError):
            getattr(loop, kind)(*kind_arguments(kind, pipe), print, priority=Number())
        assert loop.statistics().active_watchers == loop.statistics().watchers == loop.statistics().timers == 0
        if effect == "destroy":
            finish(loop)


def test_a_watcher_that_is_destroyed_while_it_starts_is_not_active(pipe):
    """By a finalizer that the collector runs: looking at the fd, as loops with debug=True do, makes objects."""

    class Garbage:
        def __init__(self):
            self.itself = self

        def __del__(self):
            watcher.destroy()

    with made_loop(debug=True) as loop:
        watcher = loop.io(pipe.r, "r", print, start=False)
        thresholds = gc.get_threshold()
        gc.collect()
        Garbage()
        gc.set_threshold(1)
        try:
            with pytest.raises(DestroyedError):
                watcher.start()
        finally:
            gc.set_threshold(*thresholds)
        assert not watcher.is_active()
        assert loop.statistics().active_watchers == loop.statistics().requests_in_flight == 0
        finish(loop)


def test_destroy_forgets_the_callback(loop, make):
    class Callback:
        def __call__(self, *args):
            pass

    callback = Callback()
    ref = weakref.ref(callback)
    watcher = make(callback)
    del callback
    assert ref() is not None
    watcher.destroy()
    gc.collect()
    assert ref() is None


def test_with_destroys(make):
    with make(print) as watcher:
        assert isinstance(watcher, Watcher)
        assert watcher.is_active()
    assert watcher.is_destroyed()
    made = make(print)
    with pytest.raises(LookupError), made as watcher:
        assert watcher is made
        raise LookupError
    assert made.is_destroyed()
    with make(print) as watcher:
        watcher.destroy()
    with make(print, start=False) as watcher:
        assert not watcher.is_active()


def test_close_of_the_loop_destroys(pipe, kind):
    loop = Loop()
    watcher = getattr(loop, kind)(*kind_arguments(kind, pipe), print)
    idle = getattr(loop, kind)(*kind_arguments(kind, pipe), print, start=False)
    loop.close()
    for destroyed in (watcher, idle):
        assert destroyed.is_destroyed()
        assert not destroyed.is_active()
        with pytest.raises(DestroyedError):
            destroyed.start()
        destroyed.destroy()
        assert "destroyed" in repr(destroyed)


# --- attributes ---------------------------------------------------------------------------------------------------


def test_attributes_are_writable_at_any_time(loop, make):
    for active in (True, False):
        watcher = make(print, start=active)
        data = object()
        watcher.callback, watcher.data, watcher.priority, watcher.ref = repr, data, 2, False
        assert watcher.callback is repr
        assert watcher.data is data
        assert watcher.priority == 2
        assert watcher.ref is False
        assert watcher.is_active() is active
        for priority in range(-2, 3):
            watcher.priority = priority
            assert watcher.priority == priority


def test_id_and_loop_are_read_only(loop, make):
    watcher = make(print)
    for name in ("id", "loop"):
        with pytest.raises(AttributeError):
            setattr(watcher, name, 1)
        with pytest.raises(AttributeError):
            delattr(watcher, name)
    with pytest.raises(AttributeError):
        watcher.nonsense = 1


@pytest.mark.parametrize("name", ["callback", "priority", "ref"])
def test_attributes_cannot_be_deleted(make, name):
    watcher = make(print)
    with pytest.raises((AttributeError, TypeError, NotImplementedError)):
        delattr(watcher, name)
    assert watcher.callback is print


def test_ids_are_unique_ints(loop, pipe):
    made = []
    for _ in range(20):
        for kind in KINDS:
            made.append(getattr(loop, kind)(*kind_arguments(kind, pipe), print))
    ids = [watcher.id for watcher in made]
    assert all(type(number) is int for number in ids)
    assert len(set(ids)) == len(ids)
    gone = set(ids)
    for watcher in made:
        watcher.destroy()
    assert loop.timer(BOUND, print).id not in gone


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("callback", None, TypeError),
        ("callback", 5, TypeError),
        ("priority", 3, ValueError),
        ("priority", -3, ValueError),
        ("priority", 2**70, ValueError),
        ("priority", "1", TypeError),
        ("priority", None, TypeError),
        ("priority", 1.5, TypeError),
        ("priority", False, TypeError),
        ("ref", "no", TypeError),
        ("ref", None, TypeError),
    ],
)
def test_bad_values_are_refused_and_change_nothing(make, name, value, error):
    watcher = make(print)
    before = getattr(watcher, name)
    with pytest.raises(error, match=name) as caught:
        setattr(watcher, name, value)
    assert repr(value) in str(caught.value)
    assert getattr(watcher, name) is before
    assert watcher.is_active()


def test_callback_assigned_between_events_is_the_one_called(loop):
    called = []
    timer = loop.timer(0, lambda w: called.append("old"))
    timer.callback = lambda w: called.append("new")
    loop.run_once(0)
    assert called == ["new"]


def test_callback_assigned_in_itself_counts_from_the_next_event(loop):
    called = []

    def first(watcher):
        called.append("first")
        watcher.callback = second
        watcher.start()

    def second(watcher):
        called.append("second")

    loop.timer(0, first)
    finish(loop)
    assert called == ["first", "second"]


def test_callback_assigned_by_another_of_the_same_batch(loop):
    called = []
    loop.timer(0, lambda w: setattr(other, "callback", lambda w: called.append("new")))
    other = loop.timer(0, lambda w: called.append("old"))
    assert loop.run_once(0) == 2
    assert called == ["new"]


# --- repr ---------------------------------------------------------------------------------------------------------


def test_repr(loop, make, pipe, kind):
    watcher = make(print)
    what = {"io": f"fd={pipe.r}", "timer": "after=", "periodic": "interval=", "signal": "SIGUSR1", "idle": "Idle"}
    what |= {"child": "pid=", "wakeup": "Wakeup", "watch": "path='/", "fswatch": "path='/proc'"}
    states = []
    for change in (lambda: None, watcher.stop, watcher.start, watcher.destroy):
        change()
        text = repr(watcher)
        assert text.startswith(f"<{KINDS[kind].__name__} ")
        assert text.endswith(">")
        assert f"id={watcher.id}" in text
        assert what[kind] in text
        states.append(text)
    assert "active" in states[0].split()[-1]
    assert states[0] == states[2]
    assert len(set(states)) == 3


def test_repr_in_its_own_callback_and_after_it(loop):
    texts = []
    timer = loop.timer(0, lambda w: texts.append(repr(w)))
    loop.run_once(0)
    texts.append(repr(timer))
    assert all(text.startswith("<Timer ") for text in texts)


# --- life ---------------------------------------------------------------------------------------------------------


def test_an_active_watcher_is_kept_alive_by_its_loop(loop, make):
    ref = weakref.ref(make(print, ref=False))
    gc.collect()
    loop.run_once(0)
    gc.collect()
    assert ref() is not None
    assert ref().is_active()
    assert loop.watchers[ref().id] is ref()
    ref().destroy()
    run_out(loop)
    assert ref() is None


def test_an_inactive_watcher_is_its_owners(loop, make):
    for start in (False, True):
        watcher = make(print, start=start)
        if start:
            loop.run_once(0)
            watcher.stop()
        ref = weakref.ref(watcher)
        del watcher
        run_out(loop)
        assert ref() is None
        assert len(loop.watchers) == len(loop.io_watchers) == len(loop.signals) == 0
        assert loop.statistics().watchers == 0


def run_out(loop):
    """Let the kernel finish what was cancelled, which keeps a watcher in memory, and collect."""
    loop.timer(0, lambda w: None)
    loop.run_once(0)
    loop.run_once(0)
    gc.collect()


def test_a_fired_timer_that_nobody_holds_is_freed(loop):
    refs = [weakref.ref(loop.timer(0, lambda w: None)) for _ in range(10)]
    loop.run_once(0)
    gc.collect()
    assert [ref() for ref in refs] == [None] * 10
    assert len(loop.watchers) == 0


def test_a_watcher_in_a_cycle_with_its_callback_and_data_is_collected(loop, make):
    class Holder:
        def on_event(self, *args):
            pass

    holder = Holder()
    holder.watcher = make(holder.on_event, data=holder)
    holder.watcher.data = (holder, holder.watcher)
    ref = weakref.ref(holder)
    holder.watcher.stop()
    del holder
    run_out(loop)
    assert ref() is None
    assert len(loop.watchers) == 0


def test_a_watcher_keeps_its_loop_alive(pipe, kind):
    with made_loop() as loop:
        watcher = getattr(loop, kind)(*kind_arguments(kind, pipe), print, start=False)
        ref = weakref.ref(loop)
    del loop
    gc.collect()
    assert watcher.loop is ref()
    assert watcher.loop.is_closed()


def test_weak_references_to_loop_and_watchers(loop, make):
    watcher = make(print)
    table = weakref.WeakValueDictionary({1: watcher, 2: loop})
    assert table[1] is watcher
    assert table[2] is loop
    assert hash(watcher) == hash(watcher)
    assert watcher in {watcher}
    assert watcher != make(print)


def test_no_memory_is_left_by_watchers_that_come_and_go(loop, make):
    count = scaled(500, least=50)

    def action():
        for _ in range(count):
            make(print, data=object()).destroy()
            make(print, start=False)
        run_out(loop)

    assert blocks_grown(action) < count / 10
    assert living(Watcher) == []
