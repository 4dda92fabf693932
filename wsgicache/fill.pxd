cimport cython

from .collapse cimport Flight
from .engine cimport Engine
from .entry cimport Entry
from .found cimport Found
from .head cimport Head
from .hints cimport Hints
from .outcome cimport Outcome
from .policy cimport Admission
from .settle cimport Settlement, age_on_arrival


@cython.final
@cython.freelist(8)
cdef class Fill:
    cdef public Admission admission
    cdef public Engine engine
    cdef public Entry entry
    cdef public Flight flight
    cdef public Found found
    cdef public Head head
    cdef public Hints hints
    cdef public Outcome outcome
    cdef public Settlement settlement
    cdef public object _environ, _head_at, _said, asked, passed_on, token
    cdef public bint _ended, background, conditional, stripped

    cpdef decide(self, status, headers, environ)
    cpdef complete(self, body)
    cdef _make(self, body)
    cdef _stored(self, Entry entry, reason)
    cpdef end(self)
