"""Events: the flags that an I/O watcher asks for and is given."""

import copy
import enum
import itertools
import pickle
import select

import pytest

import linux_event
from linux_event import Events

LETTERS = {"r": Events.READ, "w": Events.WRITE, "p": Events.PRIORITY, "e": Events.ERROR, "h": Events.HANGUP}


def test_an_int_flag_with_the_values_of_poll():
    assert issubclass(Events, enum.IntFlag)
    assert {flag.name: flag.value for flag in Events} == {
        "READ": select.POLLIN,
        "PRIORITY": select.POLLPRI,
        "WRITE": select.POLLOUT,
        "ERROR": select.POLLERR,
        "HANGUP": select.POLLHUP,
    }
    assert linux_event.Events is Events


def test_str_of_every_combination():
    for count in range(6):
        for letters in itertools.combinations("rwpeh", count):
            events = Events(0)
            for letter in letters:
                events |= LETTERS[letter]
            assert str(events) == "".join(letters)
            assert f"{events}" == "".join(letters)
            assert f"{events}" == str(events) == format(events, "")


def test_str_of_the_contract():
    assert str(Events.READ) == "r"
    assert str(Events.READ | Events.WRITE) == "rw"
    assert str(Events.READ | Events.ERROR) == "re"
    assert str(Events.READ | Events.HANGUP) == "rh"


def test_behaves_as_flags():
    both = Events.READ | Events.WRITE
    assert type(both) is Events
    assert Events.READ in both
    assert Events.ERROR not in both
    assert both & Events.READ
    assert not both & Events.HANGUP
    assert both == 5
    assert Events(5) is both
    assert both ^ Events.READ is Events.WRITE
    assert both & ~Events.READ == Events.WRITE
    assert list(both) == [Events.READ, Events.WRITE]
    assert not Events(0)
    assert hash(both) == hash(5)
    assert {both: 1}[Events(5)] == 1


def test_other_bits_are_refused():
    for value in (32, 64, 1 << 40):
        with pytest.raises(ValueError, match=str(value)):
            Events(value)


@pytest.mark.parametrize("value", range(32))
def test_copies_and_pickles(value):
    events = Events(value)
    assert copy.copy(events) is events
    assert copy.deepcopy(events) is events
    assert pickle.loads(pickle.dumps(events)) is events


def test_formats_as_a_number_when_asked():
    assert f"{Events.READ | Events.WRITE:d}" == "5"
    assert f"{Events.HANGUP:#x}" == "0x10"
    assert f"{Events.READ:>3}" == "  r"


def test_repr_names_the_flags():
    assert "READ" in repr(Events.READ)
    assert "WRITE" in repr(Events.READ | Events.WRITE)
