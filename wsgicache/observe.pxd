cimport cython

from .outcome cimport Outcome


@cython.final
cdef class Tally:
    cdef public object add, numbers


cdef class Observer:
    cdef dict __dict__
    cdef public Tally collapsed, refreshes, refreshes_failed, store_failures, unjudged, variants_dropped
    cdef public object _lock, _warned, by_name, hits, log_decisions, reasons, recent
