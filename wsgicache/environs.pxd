from .policy cimport Admission


cpdef dict changes_for(environ, Admission admission)
cpdef changed(environ, changes)
