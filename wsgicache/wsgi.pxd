from .collapse cimport Flight
from .engine cimport Engine
from .entry cimport Entry
from .environs cimport changed, changes_for
from .facts cimport Facts
from .fill cimport Fill
from .found cimport Found
from .hints cimport Hints
from .outcome cimport Outcome
from .policy cimport Admission
