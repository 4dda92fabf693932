cimport cython

from .fill cimport Fill
from .passing cimport for_client


@cython.final
@cython.freelist(8)
cdef class Capture:
    cdef public Fill _fill
    cdef public object _app, _chunks, _deferred, _environ, _file, _head, _iterable, _iterator, _kept
    cdef public object _pending, _start_response, _to_close, _unconditional, _write
    cdef public bint _closed, _drained, _early, _handed_over, _muted, _sent, _show_key

    cpdef run(self, app, environ)
    cdef _opened(self)
    cdef _keep_list(self)
    cdef _send_whole(self, body)
    cdef _decide(self)
    cdef _send(self, status, headers, names=*)
    cdef bint _has_room(self) except -1
    cdef _complete(self, body)
    cdef _end(self)
