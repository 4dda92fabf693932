cdef class Clock:
    cdef dict __dict__
    cdef object __weakref__
    cdef public object _stepped_back, shift, steady, wall
