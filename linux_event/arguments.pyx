"""Conversion of arguments: what is wrong is told at the call, with the argument's name and value."""

from cpython.bool cimport PyBool_Check
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.object cimport PyCallable_Check
from libc.math cimport isfinite
from libc.stdint cimport INT32_MAX, int64_t
from linux_event.core cimport LE_NS_MAX, LE_NS_PER_S

import operator

cdef extern from "<math.h>" nogil:
    long long llrint(double value)


cdef object as_int(object value, str name, str expected):
    if PyBool_Check(value):
        raise TypeError(f"{name} must be {expected}, not {value!r}")
    if PyLong_Check(value):
        return value
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be {expected}, not {type(value).__name__} ({value!r})") from None


cdef int64_t seconds_to_ns(object value, str name) except -1:
    """Seconds as nanoseconds, 0 .. LE_NS_MAX: longer delays are cut to it, which is 146 years."""
    cdef double seconds
    cdef long long whole
    cdef int overflow = 0
    if PyFloat_Check(value):
        seconds = PyFloat_AS_DOUBLE(value)
        if not isfinite(seconds) or seconds < 0:
            raise ValueError(f"{name} must be a finite number of seconds, 0 or more, not {value!r}")
        if seconds >= <double>LE_NS_MAX / 1e9:
            return LE_NS_MAX
        return llrint(seconds * 1e9)
    value = as_int(value, name, "a number of seconds (int or float)")
    whole = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow < 0 or (overflow == 0 and whole < 0):
        raise ValueError(f"{name} must be a finite number of seconds, 0 or more, not {short(value)}")
    if overflow > 0 or whole >= LE_NS_MAX // LE_NS_PER_S:
        return LE_NS_MAX
    return whole * LE_NS_PER_S


cdef str short(object value):
    """An int for a message: one of thousands of digits is only described."""
    return str(value) if value.bit_length() <= 256 else f"an int of {value.bit_length()} bits"


cdef int64_t integer_within(object value, str name, int64_t low, int64_t high) except? -1:
    cdef int overflow = 0
    if type(value) is not int:
        value = as_int(value, name, "an int")
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow or not low <= number <= high:
        raise ValueError(f"{name} must be within {low} .. {high}, not {short(value)}")
    return number


cdef int callable_argument(object value, str name) except -1:
    if not PyCallable_Check(value):
        raise TypeError(f"{name} must be callable, not {type(value).__name__} ({value!r})")
    return 0


cdef bint flag_argument(object value, str name) except -1:
    if value is True:
        return True
    if value is False:
        return False
    raise TypeError(f"{name} must be True or False, not {type(value).__name__} ({value!r})")


cdef int fd_argument(object value) except -1:
    """The fd of an int or of an object with fileno(); whether it is open is not asked."""
    cdef object number = value
    cdef int overflow = 0
    cdef long long direct
    if type(value) is int:
        direct = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow == 0 and 0 <= direct <= INT32_MAX:
            return direct
    if not PyLong_Check(value):
        fileno = getattr(value, "fileno", None)
        if callable(fileno):
            number = fileno()
            if not PyLong_Check(number):
                raise TypeError(f"fd: fileno() of {value!r} must return an int, not {type(number).__name__}")
    elif PyBool_Check(value):
        raise TypeError(f"fd must be an int or an object with fileno(), not {value!r}")
    number = as_int(number, "fd", "an int or an object with fileno()")
    if number < 0:
        raise ValueError(f"fd must not be negative, not {short(number)} (of {value!r})")
    if number > INT32_MAX:
        raise ValueError(f"fd must be at most {INT32_MAX}, not {short(number)}")
    return number
