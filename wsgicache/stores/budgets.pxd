cimport cython

from ..entry cimport Entry
from .segments cimport Segments
from .sieve cimport Slot


@cython.final
cdef class Budgets:
    cdef public Segments files, negatives, pages
    cdef public long long evicted, max_bytes

    cpdef largest(self, stored)
    cpdef add(self, Slot slot, Slot replaced=*)
    cpdef remove(self, Slot slot)
    cdef Segments _of(self, stored)
