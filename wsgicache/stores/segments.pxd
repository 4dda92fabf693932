cimport cython

from .sieve cimport Queue, Sieve, Slot


@cython.final
cdef class Left:
    cdef public object _places
    cdef public bint noted

    cpdef note(self, key, entries)
    cpdef bint recall(self, key) except -1


@cython.final
cdef class Segments:
    cdef public Left _left
    cdef public Queue probation
    cdef public Sieve main
    cdef public long long max_bytes

    cpdef add(self, Slot slot, Slot replaced=*)
    cpdef remove(self, Slot slot)
    @cython.locals(share="long long")
    cdef _make_room(self, long long size, long long newcomer)


cdef _number(key)
