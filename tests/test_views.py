"""The live views of a loop: watchers, io_watchers, signals."""

import gc
import random
import signal
import socket
from collections.abc import ItemsView, KeysView, Mapping, ValuesView

import pytest
from _support import BOUND, made_loop, pipes, run_until, scaled

from linux_event import Loop

VIEWS = ["watchers", "io_watchers", "signals"]


def fill(loop, pipe):
    """Two watchers for each view; returns what each view must show."""
    one, two = loop.io(pipe.r, "r", print), loop.io(pipe.w, "w", print)
    usr1, usr2 = loop.signal("USR1", print), loop.signal("USR2", print)
    return {
        "watchers": {w.id: w for w in (one, two, usr1, usr2)},
        "io_watchers": {pipe.r: (one,), pipe.w: (two,)},
        "signals": {signal.SIGUSR1: (usr1,), signal.SIGUSR2: (usr2,)},
    }


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_a_mapping(loop, pipe, name):
    view = getattr(loop, name)
    assert isinstance(view, Mapping)
    assert len(view) == 0
    assert not view
    assert list(view) == []
    assert view == {}
    expected = fill(loop, pipe)[name]
    assert view
    assert len(view) == len(expected)
    assert sorted(view) == sorted(expected)
    assert view == expected
    assert expected == view
    assert (view != expected) is False
    assert dict(view) == expected
    assert view != {}
    assert view == getattr(loop, name)
    for key, value in expected.items():
        assert key in view
        assert view[key] == value
        assert view.get(key) == value
        assert view.get(key, 5) == value
    assert isinstance(view.keys(), KeysView)
    assert isinstance(view.values(), ValuesView)
    assert isinstance(view.items(), ItemsView)
    assert set(view.keys()) == set(expected)
    assert set(view.items()) == set(expected.items())
    assert set(view.values()) == set(expected.values())
    assert len(view.keys()) == len(view.values()) == len(view.items()) == len(expected)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("key", [-1, 99999, 2**31, 2**63, 2**64, 2**200, -(2**200), "1", None, 1.5, (1,)])
def test_a_key_that_is_not_there(loop, pipe, name, key):
    fill(loop, pipe)
    view = getattr(loop, name)
    assert key not in view
    assert view.get(key) is None
    assert view.get(key, "default") == "default"
    with pytest.raises(KeyError) as caught:
        view[key]
    assert caught.value.args == (key,)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_read_only(loop, pipe, name):
    fill(loop, pipe)
    view = getattr(loop, name)
    key = next(iter(view))
    with pytest.raises(TypeError):
        view[key] = ()
    with pytest.raises(TypeError):
        del view[key]
    for method in ("clear", "pop", "popitem", "setdefault", "update"):
        assert not hasattr(view, method)
    with pytest.raises(AttributeError):
        setattr(loop, name, {})
    with pytest.raises(AttributeError):
        view.nonsense = 1


@pytest.mark.parametrize("name", VIEWS)
def test_repr(loop, pipe, name):
    fill(loop, pipe)
    text = repr(getattr(loop, name))
    assert all(repr(key) in text for key in getattr(loop, name))


def test_watchers_is_live_and_holds_what_is_not_destroyed(loop, pipe):
    view = loop.watchers
    watcher = loop.io(pipe.r, "r", print)
    assert view == {watcher.id: watcher}
    timer = loop.timer(BOUND, print, start=False)
    assert view == {watcher.id: watcher, timer.id: timer}
    watcher.stop()
    assert watcher.id in view
    timer.start()
    timer.destroy()
    assert view == {watcher.id: watcher}
    watcher.destroy()
    assert view == {}


def test_io_watchers_by_fd_in_the_order_of_their_making(loop, pair):
    view = loop.io_watchers
    one = loop.io(pair[0], "r", print)
    two = loop.io(pair[0].fileno(), "w", print)
    three = loop.io(pair[1], "r", print, edge=True)
    loop.timer(BOUND, print)
    assert view == {pair[0].fileno(): (one, two), pair[1].fileno(): (three,)}
    assert type(view[pair[1].fileno()]) is tuple
    four = loop.io(pair[0], "rw", print)
    assert view[pair[0].fileno()] == (one, two, four)
    two.destroy()
    assert view[pair[0].fileno()] == (one, four)
    one.destroy()
    four.destroy()
    assert list(view) == [pair[1].fileno()]
    three.destroy()
    assert len(view) == 0


def test_signals_by_number(loop):
    view = loop.signals
    one = loop.signal("USR1", print)
    two = loop.signal(signal.SIGUSR1, print)
    three = loop.signal("SIGUSR2", print)
    assert view == {signal.SIGUSR1: (one, two), signal.SIGUSR2: (three,)}
    assert all(type(key) is int for key in view)
    assert signal.SIGUSR1 in view
    assert type(view[signal.SIGUSR1]) is tuple
    one.destroy()
    two.destroy()
    assert view == {signal.SIGUSR2: (three,)}


@pytest.mark.parametrize("name", VIEWS)
def test_stopped_watchers_stay_until_they_are_destroyed(loop, pipe, name):
    expected = fill(loop, pipe)
    for watcher in expected["watchers"].values():
        watcher.stop()
    loop.run_once(0)
    assert getattr(loop, name) == expected[name]
    for watcher in expected["watchers"].values():
        watcher.start()
    assert getattr(loop, name) == expected[name]
    for watcher in expected["watchers"].values():
        watcher.destroy()
    assert getattr(loop, name) == {}


def test_a_tuple_taken_before_does_not_change(loop, pipe):
    one, two = (loop.io(pipe.r, "r", print) for _ in range(2))
    before = loop.io_watchers[pipe.r]
    one.destroy()
    assert before == (one, two)
    assert loop.io_watchers[pipe.r] == (two,)


@pytest.mark.parametrize("name", VIEWS)
def test_destroying_while_walking(loop, pipe, name):
    expected = fill(loop, pipe)
    view = getattr(loop, name)
    seen = []
    for key in view:
        seen.append(key)
        for watcher in expected["watchers"].values():
            watcher.destroy()
    assert seen
    assert len(view) == 0


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("walk", ["items", "values"])
def test_making_while_walking_ends(loop, pipe, name, walk):
    fill(loop, pipe)
    count = 0
    for _ in getattr(getattr(loop, name), walk)():
        count += 1
        fill(loop, pipe)
        assert count < 100
    assert count >= 2


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_outlives_its_loop(pipe, name):
    loop = Loop()
    fill(loop, pipe)
    view = getattr(loop, name)
    assert len(view) > 0
    loop.close()
    del loop
    gc.collect()
    assert len(view) == 0
    assert view == {}
    assert list(view.items()) == []


def test_destroying_all_through_the_view_in_a_callback(loop, pipe):
    fill(loop, pipe)
    loop.timer(0, lambda w: [other.destroy() for other in loop.watchers.values()])
    run_until(loop, lambda: not loop.watchers)


def test_many_watchers(loop):
    with pipes(50) as many:
        count = scaled(2000, least=200)
        made = [loop.io(many[n % 50].r, "r", print, start=n % 3 == 0) for n in range(count)]
        assert len(loop.watchers) == count
        assert len(loop.io_watchers) == 50
        assert sum(len(watchers) for watchers in loop.io_watchers.values()) == count
        assert set(loop.watchers.values()) == set(made)
        for watcher in made[::2]:
            watcher.destroy()
        assert set(loop.watchers.values()) == set(made[1::2])


def test_an_fd_number_used_again(loop):
    one = socket.socket(socket.AF_UNIX)
    fd = one.fileno()
    old = loop.io(one, "r", print)
    old.destroy()
    one.close()
    with socket.socket(socket.AF_UNIX) as two:
        assert two.fileno() == fd
        new = loop.io(two, "r", print)
        assert loop.io_watchers == {fd: (new,)}
        new.destroy()


def test_views_of_two_loops_are_separate(loop, pipe):
    with made_loop() as other:
        watcher = other.io(pipe.r, "r", print)
        assert loop.watchers == {}
        assert loop.io_watchers == {}
        assert other.io_watchers == {pipe.r: (watcher,)}


def test_ids_lead_to_their_watchers_however_they_come_and_go(loop):
    """Some live long, most do not; the table grows, shrinks, and passes over ids whose place is taken."""
    seed = random.randrange(2**32)
    print("seed", seed)
    choice = random.Random(seed)
    known, last = {}, 0
    for phase in range(12):
        lifetime = choice.choice((1, 3, 100, 1000))
        for _ in range(scaled(2000, least=200)):
            watcher = loop.timer(3600, print, start=False)
            assert watcher.id > last
            last = watcher.id
            known[last] = watcher
            assert loop.watchers[last] is watcher
            if len(known) > lifetime:
                gone = choice.choice((last, min(known), choice.choice(list(known)[:50])))
                known.pop(gone).destroy()
                assert gone not in loop.watchers
        if phase % 4 == 3:
            for gone in choice.sample(sorted(known), len(known) * choice.choice((9, 10)) // 10):
                known.pop(gone).destroy()
        assert list(loop.watchers.items()) == sorted(known.items())
        assert loop.watchers.get(last + 1) is None
