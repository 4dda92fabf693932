from ..entry cimport Entry
from .budgets cimport Budgets
from .sieve cimport Slot


cdef class _Pool:
    cdef object __weakref__
    cdef public Budgets budgets
    cdef public object lock, rooms, spool, tokens


cdef class MemoryStore:
    cdef dict __dict__
    cdef object __weakref__
    cdef public Budgets _budgets
    cdef public _Pool _pool
    cdef public object _counters, _journal, _journal_limit, _leases, _meta, _slots, _watchers, mark, peek
    cdef public object spool

    cdef _drop(self, Slot slot)
