cimport cython

from .entry cimport Entry
from .head cimport Head
from .hints cimport Hints
from .policy cimport Admission
from .tokens cimport holds_token


@cython.final
@cython.freelist(8)
cdef class Settlement:
    cdef public object directives, dropped, reason, terms


cdef _decisive(Admission admission, Head head)
cdef stored_headers(Head head, dropped, length)
cpdef age_on_arrival(Head head, asked, now)
