cimport cython


@cython.trashcan(True)
cdef class Slot:
    cdef public Slot newer, older
    cdef public object home, hot, key, ready, stamp, stored, token, visited
    cdef public long long weight


cdef class Queue:
    cdef public Slot _newest, oldest
    cdef public long long bytes, count

    cpdef add(self, Slot slot)
    cpdef remove(self, Slot slot)


cdef class Sieve(Queue):
    cdef public Slot _hand

    cpdef Slot evict(self)
