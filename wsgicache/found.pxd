cimport cython

from .entry cimport Entry
from .follow cimport Follower


@cython.final
@cython.freelist(8)
cdef class Found:
    cdef public Entry entry, past
    cdef public Follower follower
    cdef public object form, key, mark, miss, now, reason, variants, verdict
    cdef public bint early
