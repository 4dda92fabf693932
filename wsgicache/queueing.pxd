from .collapse cimport Flight
from .engine cimport Engine
from .entry cimport Entry
from .found cimport Found
from .policy cimport Admission


cdef class Queue:
    cdef public Engine engine

    cdef _board(self, Admission admission, Found found)
