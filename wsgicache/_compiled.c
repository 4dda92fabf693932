/* The hit path in C, and the search for tokens in pages that hold none: the same steps as
 * `PureHitPath.__call__` in hitpath.py and `holds_token` in tokens.py, which say why each is there and stay
 * the reference; only the environ is read at once and first. Optional: see docs/performance.md, "The compiled
 * build".
 *
 * The rules this file obeys:
 *
 * - It decides nothing of its own. What is not the plainest of hits goes to the same methods as there
 *   (`_special`, `_agrees`, `_renew`, `_serve`), which are Python; so does a page that may hold a token.
 * - Whatever is not as expected (a value that is no string, a missing key, an error of ours) is the long
 *   way, `_serve`, never an error of the response: as the `except Exception` there.
 * - What is borrowed, from the environ or from the object itself, is held before anything is called that may
 *   run Python: there another thread has its turn, and what is called may change both. To compare a key that
 *   is no plain string may run Python, too, so an environ with such a key goes the long way.
 * - What it knows of the inside of Python's objects is how dictionaries and the slots of classes look. It
 *   makes sure that they do, and otherwise asks as anybody does.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>
#include <structmember.h>
#if defined(__x86_64__) && defined(__GNUC__)
#define WIDE /* what not every processor has is asked for when this is imported */
#include <immintrin.h>
#endif
#include <time.h>

#ifdef Py_GIL_DISABLED
#error "not for free-threaded builds: wsgicache runs there without this module"
#endif
#ifdef PYPY_VERSION
#error "not for PyPy, which compiles hitpath.py itself"
#endif
#ifndef SOURCE
#error "setup.py says by SOURCE of which text this is made: see compiled.py"
#endif

/* --- names ----------------------------------------------------------------------------------------- */

/* The keys of an environ that every hit reads. */
#define WANTED(X)                                                                                            \
    X(scheme, "wsgi.url_scheme")                                                                             \
    X(script, "SCRIPT_NAME")                                                                                 \
    X(path, "PATH_INFO")                                                                                     \
    X(query, "QUERY_STRING")                                                                                 \
    X(host, "HTTP_HOST")                                                                                     \
    X(method, "REQUEST_METHOD")                                                                              \
    X(raw, "RAW_URI")                                                                                        \
    X(request_uri, "REQUEST_URI")                                                                            \
    X(proto, "HTTP_X_FORWARDED_PROTO")                                                                       \
    X(length, "CONTENT_LENGTH")                                                                              \
    X(cookie, "HTTP_COOKIE")

/* The fields that every hit reads, of an engine, a slot and what a slot is ready with. */
#define FIELDS(X)                                                                                            \
    X(stamp, "stamp")                                                                                        \
    X(ready, "ready")                                                                                        \
    X(visited, "visited")                                                                                    \
    X(hot, "hot")                                                                                            \
    X(keys, "keys")                                                                                          \
    X(field, "field")                                                                                        \
    X(cookies, "cookies")                                                                                    \
    X(counter, "counter")                                                                                    \
    X(status, "status")

#define OTHERS(X)                                                                                            \
    X(GET, "GET")                                                                                            \
    X(empty, "")                                                                                             \
    X(agrees, "_agrees")                                                                                     \
    X(chunks, "chunks")                                                                                      \
    X(get, "get")                                                                                            \
    X(headers, "headers")                                                                                    \
    X(rearm, "rearm")                                                                                        \
    X(renew, "_renew")                                                                                       \
    X(select, "select")                                                                                      \
    X(serve, "_serve")                                                                                       \
    X(special, "_special")

#define NAMES(X) WANTED(X) FIELDS(X) OTHERS(X)

#define DECLARE(name, text) static PyObject *str_##name;
NAMES(DECLARE)

#define NUMBER(name, text) WANTED_##name,
enum { NOT_WANTED, WANTED(NUMBER) UNUSUAL };
#undef NUMBER
#define NUMBER(name, text) FIELD_##name,
enum { FIELDS(NUMBER) FIELD_COUNT };

#define ADDRESS(name, text) &str_##name,
static PyObject **const wanted_names[] = {NULL, WANTED(ADDRESS)};
static PyObject **const field_names[] = {FIELDS(ADDRESS)};

static PyObject *monotonic;   /* time.monotonic */
static PyCFunction dict_get; /* what a bound dict.get calls */

/* --- the object ------------------------------------------------------------------------------------ */

/* The names that are looked for in an environ, by their hashes. */
#define CELLS 1024
#define MOST_NAMES 128

typedef struct {
    PyObject *name[MOST_NAMES]; /* by number: those that are wanted, then those that are unusual */
    int count;
    unsigned char cell[CELLS]; /* a name's number where its hash points, or in the next free one; 0: free */
} Names;

/* Where the objects of one class keep their fields: 0 for what is no slot of theirs.
 *
 * It holds while the class has the version tag that it had: Python takes that away with whatever is assigned
 * to a class or to one that it is made of, and gives it to no other. */
typedef struct {
    PyTypeObject *type;
    unsigned int version;
    Py_ssize_t offset[FIELD_COUNT];
} Layout;

typedef struct {
    PyObject_HEAD
    PyObject *engine, *peek, *confirm, *steady, *clock;
    PyObject *unusual;
    Names names;
    Layout engines, slots, pages, records; /* `Ready` and `ReadyVariants` are the last two */
} HitPath;

static int
traverse(HitPath *self, visitproc visit, void *arg)
{
    Py_VISIT(self->engine);
    Py_VISIT(self->peek);
    Py_VISIT(self->confirm);
    Py_VISIT(self->steady);
    Py_VISIT(self->clock);
    Py_VISIT(self->unusual);
    Py_VISIT(self->engines.type);
    Py_VISIT(self->slots.type);
    Py_VISIT(self->pages.type);
    Py_VISIT(self->records.type);
    return 0;
}

static int
clear(HitPath *self)
{
    Py_CLEAR(self->engine);
    Py_CLEAR(self->peek);
    Py_CLEAR(self->confirm);
    Py_CLEAR(self->steady);
    Py_CLEAR(self->clock);
    Py_CLEAR(self->unusual);
    Py_CLEAR(self->engines.type);
    Py_CLEAR(self->slots.type);
    Py_CLEAR(self->pages.type);
    Py_CLEAR(self->records.type);
    return 0;
}

static void
dealloc(HitPath *self)
{
    PyObject_GC_UnTrack(self);
    clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* --- strings ----------------------------------------------------------------------------------------- */

/* Whether two plain strings are equal. */
static inline int
equal(PyObject *one, PyObject *other)
{
    if (PyUnicode_GET_LENGTH(one) != PyUnicode_GET_LENGTH(other) ||
        PyUnicode_KIND(one) != PyUnicode_KIND(other))
        return 0;
    return memcmp(PyUnicode_DATA(one), PyUnicode_DATA(other),
                  (size_t)PyUnicode_GET_LENGTH(one) * (size_t)PyUnicode_KIND(one)) == 0;
}

/* Whether two values are equal strings; what is no string is not. */
static inline int
same(PyObject *one, PyObject *other)
{
    return one == other || (PyUnicode_CheckExact(one) && PyUnicode_CheckExact(other) && equal(one, other));
}

/* The number of a name, 0 where it is none of them. It is a plain string whose hash is known. */
static inline int
number_of(const Names *names, PyObject *name)
{
    size_t at = (size_t)((PyASCIIObject *)name)->hash % CELLS;
    int number;

    while ((number = names->cell[at]) != 0) {
        if (names->name[number] == name || equal(names->name[number], name))
            return number;
        at = (at + 1) % CELLS;
    }
    return 0;
}

/* Add a name, which somebody holds; -1: an error. */
static int
add_name(Names *names, PyObject *name)
{
    Py_hash_t hash = PyUnicode_CheckExact(name) ? PyObject_Hash(name) : -1;
    size_t at;

    if (hash == -1) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "_unusual holds something that is no string");
        return -1;
    }
    if (names->count == MOST_NAMES || number_of(names, name) != 0) {
        PyErr_Format(PyExc_ValueError, "_unusual holds too many names, or %R, which every hit reads", name);
        return -1;
    }
    for (at = (size_t)hash % CELLS; names->cell[at] != 0;)
        at = (at + 1) % CELLS;
    names->cell[at] = (unsigned char)names->count;
    names->name[names->count++] = name;
    return 0;
}

static PyObject *
get_unusual(HitPath *self, void *closure)
{
    if (self->unusual == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_unusual");
        return NULL;
    }
    return Py_NewRef(self->unusual);
}

static int
set_unusual(HitPath *self, PyObject *unusual, void *closure)
{
    Names names = {.count = 1};
    PyObject *iterator, *name;
    int wrong = 0;

    if (unusual == NULL || !PyFrozenSet_CheckExact(unusual)) {
        PyErr_SetString(PyExc_TypeError, "_unusual is a frozenset of environ keys");
        return -1;
    }
    for (int n = 1; n < UNUSUAL && !wrong; n++)
        wrong = add_name(&names, *wanted_names[n]);
    iterator = wrong ? NULL : PyObject_GetIter(unusual);
    if (iterator == NULL)
        return -1;
    while (!wrong && (name = PyIter_Next(iterator)) != NULL) {
        wrong = add_name(&names, name);
        Py_DECREF(name);
    }
    Py_DECREF(iterator);
    if (PyErr_Occurred())
        return -1;
    self->names = names;
    Py_XSETREF(self->unusual, Py_NewRef(unusual));
    return 0;
}

/* --- dictionaries -------------------------------------------------------------------------------------- */

/* A dictionary of plain strings is walked in place: a call of `PyDict_Next` for each key is a third of a hit.
 * How it looks inside is Python's own affair. So this is for the versions that are known to have it so, and
 * only where it is seen to be so when this is imported (`looks_as_known`); elsewhere `PyDict_Next` does. */
typedef struct {
    PyObject *key, *value; /* without a value it was deleted */
} Entry;

typedef struct {
    Py_ssize_t references;
    uint8_t log2_size, log2_index_bytes, kind;
    uint32_t version;
    Py_ssize_t usable, count;
    char indices[]; /* then the entries, in their order */
} Keys;

enum { PLAIN_STRINGS = 1 }; /* the kind */

static int is_known; /* whether it looks like that here */

/* The places of a dictionary of plain strings, and their number; NULL where it is another one. */
static inline const Entry *
entries_of(PyObject *dict, Py_ssize_t *count)
{
    const PyDictObject *object = (const PyDictObject *)dict;
    const Keys *keys = (const Keys *)object->ma_keys;

    if (!is_known || object->ma_values != NULL || keys->kind != PLAIN_STRINGS)
        return NULL;
    *count = keys->count;
    return (const Entry *)(keys->indices + ((size_t)1 << keys->log2_index_bytes));
}

/* Whether a small dictionary looks as it should. -1: an error. */
static int
looks_as_known(void)
{
    PyObject *dict = PyDict_New();
    const Keys *keys;
    const Entry *entry;
    int known = -1;

    if (dict != NULL && PyDict_SetItem(dict, str_path, Py_None) == 0 &&
        PyDict_SetItem(dict, str_host, Py_False) == 0 && PyDict_SetItem(dict, str_query, Py_True) == 0 &&
        PyDict_DelItem(dict, str_host) == 0) {
        keys = (const Keys *)((PyDictObject *)dict)->ma_keys;
        entry = (const Entry *)(keys->indices + 8);
        known = PY_VERSION_HEX < 0x030E0000 && ((PyDictObject *)dict)->ma_values == NULL &&
                keys->log2_size == 3 && keys->log2_index_bytes == 3 && keys->kind == PLAIN_STRINGS &&
                keys->count == 3 && entry[0].key == str_path && entry[0].value == Py_None &&
                entry[1].value == NULL && entry[2].key == str_query && entry[2].value == Py_True;
        if (known) { /* one that holds anything else is of another kind */
            known = PyDict_SetItem(dict, Py_None, Py_None);
            keys = (const Keys *)((PyDictObject *)dict)->ma_keys;
            known = known < 0 ? -1 : keys->kind != PLAIN_STRINGS;
        }
    }
    Py_XDECREF(dict);
    return known;
}

/* --- fields ------------------------------------------------------------------------------------------ */

/* Whether a layout is that of an object's class, as this is now. */
static inline int
fits(const Layout *layout, PyObject *object)
{
    return Py_TYPE(object) == layout->type && layout->type->tp_version_tag == layout->version;
}

/* Where the structs of a class of the compiled modules keep a field, which Python reads by a getter: there
 * where a new one has what was just given to it. 0: that cannot be told. */
static Py_ssize_t
find_field(PyTypeObject *type, PyObject *name)
{
    PyObject *mark = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type), *nothing = PyTuple_New(0);
    int possible = mark != NULL && nothing != NULL && type->tp_new != NULL;
    PyObject *probe = possible ? type->tp_new(type, nothing, NULL) : NULL;
    Py_ssize_t place = 0;

    if (probe != NULL && Py_TYPE(probe) == type && PyObject_SetAttr(probe, name, mark) == 0) {
        for (place = type->tp_basicsize - (Py_ssize_t)sizeof(PyObject *); place >= (Py_ssize_t)sizeof(PyObject);
             place -= (Py_ssize_t)sizeof(PyObject *))
            if (*(PyObject **)((char *)probe + place) == mark)
                break;
        if (place < (Py_ssize_t)sizeof(PyObject))
            place = 0;
    }
    PyErr_Clear();
    Py_XDECREF(probe);
    Py_XDECREF(nothing);
    Py_XDECREF(mark);
    return place;
}

/* Find out where the objects of a class keep their fields; those of a class that has its own way with
 * attributes are asked each time. */
static void
learn(Layout *layout, PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object), *known;
    Layout found = {.type = type};
    int usual = type->tp_getattro == PyObject_GenericGetAttr && type->tp_setattro == PyObject_GenericSetAttr;

    for (int n = 0; n < FIELD_COUNT && usual; n++) {
        PyObject *descriptor = _PyType_Lookup(type, *field_names[n]);
        if (descriptor != NULL && Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) {
            PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
            if (member->type == T_OBJECT_EX && member->flags == 0 &&
                PyType_IsSubtype(type, PyDescr_TYPE(descriptor)))
                found.offset[n] = member->offset;
        }
        else if (descriptor != NULL && Py_IS_TYPE(descriptor, &PyGetSetDescr_Type) &&
                 !PyType_HasFeature(PyDescr_TYPE(descriptor), Py_TPFLAGS_HEAPTYPE))
            found.offset[n] = find_field(type, *field_names[n]);
    }
    found.version = type->tp_version_tag;
    if (found.version == 0) /* there are no more of them, or it was changed meanwhile */
        memset(found.offset, 0, sizeof found.offset);
    Py_INCREF(type); /* so that no other comes to its place */
    known = layout->type; /* only now: while a new object was made, another thread may have learnt it as well */
    *layout = found;
    Py_XDECREF(known);
}

/* Where an object keeps a field; NULL where that is not known, or there is none. */
static inline PyObject **
place_of(const Layout *layout, PyObject *object, int field)
{
    PyObject **place = (PyObject **)((char *)object + layout->offset[field]);

    return fits(layout, object) && layout->offset[field] != 0 && *place != NULL ? place : NULL;
}

/* A field: a new reference. */
static inline PyObject *
get_field(const Layout *layout, PyObject *object, int field)
{
    PyObject **place = place_of(layout, object, field);

    return place != NULL ? Py_NewRef(*place) : PyObject_GetAttr(object, *field_names[field]);
}

/* `slot.visited = True`; -1: an error. */
static inline int
visit_slot(HitPath *self, PyObject *slot)
{
    PyObject **place = place_of(&self->slots, slot, FIELD_visited);

    if (place == NULL)
        return PyObject_SetAttr(slot, str_visited, Py_True);
    if (*place != Py_True)
        Py_SETREF(*place, Py_NewRef(Py_True));
    return 0;
}

/* --- the request --------------------------------------------------------------------------------------- */

/* What an environ says: the value of each key that is wanted, by its number, or NULL, and the keys that are
 * unusual. All are borrowed. */
typedef struct {
    PyObject *values[UNUSUAL], *unusual[MOST_NAMES];
    int unusual_count;
} Said;

static inline void
note(const Names *names, PyObject *key, PyObject *value, Said *said)
{
    int number = number_of(names, key);

    if (number >= UNUSUAL)
        said->unusual[said->unusual_count++] = key;
    else if (number != NOT_WANTED)
        said->values[number] = value;
}

/* Read an environ, once and whole. 0 where a key is no plain string: to compare that may run Python. */
static inline int
read_environ(const Names *names, PyObject *environ, Said *said)
{
    Py_ssize_t at = 0, count;
    PyObject *key, *value;
    const Entry *entry = entries_of(environ, &count);

    for (Py_ssize_t n = 0; entry != NULL && n < count; n++)
        if (entry[n].value != NULL)
            note(names, entry[n].key, entry[n].value, said);
    while (entry == NULL && PyDict_Next(environ, &at, &key, &value)) {
        if (!PyUnicode_CheckExact(key))
            return 0;
        note(names, key, value, said);
    }
    return 1;
}

/* The unchecked key: strings of one byte a character, a NUL between two. NULL without an error where one is
 * something else, which PEP 3333 forbids, or missing. */
static PyObject *
joined_key(PyObject *const values[UNUSUAL])
{
    PyObject *script = values[WANTED_script], *query = values[WANTED_query];
    PyObject *parts[] = {script == NULL ? str_empty : script, values[WANTED_path],
                         query == NULL ? str_empty : query, values[WANTED_host], values[WANTED_scheme]};
    const int count = sizeof parts / sizeof *parts;
    Py_ssize_t length = count - 2;
    Py_UCS4 widest = 127;
    PyObject *key;
    Py_UCS1 *at;

    for (int n = 0; n < count; n++) {
        if (parts[n] == NULL || !PyUnicode_CheckExact(parts[n]) ||
            PyUnicode_KIND(parts[n]) != PyUnicode_1BYTE_KIND)
            return NULL;
        length += PyUnicode_GET_LENGTH(parts[n]);
        if (!PyUnicode_IS_ASCII(parts[n]))
            widest = 255;
    }
    key = PyUnicode_New(length, widest);
    if (key == NULL)
        return NULL;
    at = PyUnicode_1BYTE_DATA(key);
    for (int n = 0; n < count; n++) {
        Py_ssize_t size = PyUnicode_GET_LENGTH(parts[n]);
        memcpy(at, PyUnicode_1BYTE_DATA(parts[n]), (size_t)size);
        at += size;
        if (n > 0 && n < count - 1) /* SCRIPT_NAME and PATH_INFO are one path */
            *at++ = '\0';
    }
    return key;
}

/* Whether the raw target, where the server tells one, is the path, or the path and the query as they are; the
 * key begins with both. */
static int
is_target(PyObject *const values[UNUSUAL], PyObject *key)
{
    PyObject *raw = values[WANTED_raw], *script = values[WANTED_script], *query = values[WANTED_query];
    Py_ssize_t head = PyUnicode_GET_LENGTH(values[WANTED_path]);
    Py_ssize_t tail = query == NULL ? 0 : PyUnicode_GET_LENGTH(query);
    const Py_UCS1 *text, *whole = PyUnicode_1BYTE_DATA(key);

    if (raw == NULL || raw == Py_None || same(raw, str_empty))
        raw = values[WANTED_request_uri];
    if (raw == NULL || raw == Py_None || same(raw, str_empty))
        return 1;
    if (!PyUnicode_CheckExact(raw) || PyUnicode_KIND(raw) != PyUnicode_1BYTE_KIND)
        return 0;
    head += script == NULL ? 0 : PyUnicode_GET_LENGTH(script);
    text = PyUnicode_1BYTE_DATA(raw);
    if (PyUnicode_GET_LENGTH(raw) == head)
        return memcmp(text, whole, (size_t)head) == 0;
    return tail > 0 && PyUnicode_GET_LENGTH(raw) == head + 1 + tail && text[head] == '?' &&
           memcmp(text, whole, (size_t)head) == 0 &&
           memcmp(text + head + 1, whole + head + 1, (size_t)tail) == 0;
}

/* Whether a request is of the plainest kind, as far as its environ tells without a look at its cookies and at
 * what is unusual. */
static inline int
is_plain(PyObject *const values[UNUSUAL], PyObject *key)
{
    PyObject *method = values[WANTED_method], *proto = values[WANTED_proto], *length = values[WANTED_length];

    return method != NULL && same(method, str_GET) && is_target(values, key) &&
           (proto == NULL || same(proto, values[WANTED_scheme])) &&
           (length == NULL || same(length, str_empty));
}

/* What was read of a request: new references. `cookie` is its Cookie field, `unusual` a tuple of its unusual
 * keys; both are NULL where there is none. */
typedef struct {
    PyObject *key, *cookie, *unusual;
    int plain;
} Request;

/* A tuple of its own of what is others'. */
static PyObject *
tuple_of(PyObject *const items[], Py_ssize_t count)
{
    PyObject *tuple;

    for (Py_ssize_t n = 0; n < count; n++)
        Py_INCREF(items[n]); /* a new tuple may be the collector's turn, and that may run Python */
    tuple = PyTuple_New(count);
    for (Py_ssize_t n = 0; n < count; n++)
        if (tuple == NULL)
            Py_DECREF(items[n]);
        else
            PyTuple_SET_ITEM(tuple, n, items[n]);
    return tuple;
}

/* Read a request: 1. 0: the long way, or -1 with an error; then nothing is held. */
static int
read_request(HitPath *self, PyObject *environ, Request *request)
{
    Said said;
    PyObject *cookie;

    memset(said.values, 0, sizeof said.values);
    said.unusual_count = 0;
    request->key = read_environ(&self->names, environ, &said) ? joined_key(said.values) : NULL;
    if (request->key == NULL)
        return PyErr_Occurred() ? -1 : 0;
    request->plain = is_plain(said.values, request->key);
    cookie = said.values[WANTED_cookie];
    request->cookie = cookie == Py_None ? NULL : Py_XNewRef(cookie);
    request->unusual = NULL;
    if (said.unusual_count != 0 && (request->unusual = tuple_of(said.unusual, said.unusual_count)) == NULL) {
        Py_DECREF(request->key);
        Py_XDECREF(request->cookie);
        return -1;
    }
    return 1;
}

/* Whether what `ready` is of may be answered to these cookies: 1, 0, or -1 with an error. */
static int
passes(HitPath *self, PyObject *ready, PyObject *cookie)
{
    PyObject *cookies = get_field(&self->pages, ready, FIELD_cookies), *answer;
    int known;

    answer = cookies == NULL ? NULL : PyObject_GetItem(cookies, cookie);
    Py_XDECREF(cookies);
    known = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    return known;
}

/* What `_agrees` says of an environ: 1, 0, or -1 with an error. */
static int
agrees(HitPath *self, PyObject *environ, PyObject *unusual)
{
    PyObject *answer = PyObject_CallMethodObjArgs((PyObject *)self, str_agrees, environ, unusual, NULL);
    int known = answer == NULL ? -1 : PyObject_IsTrue(answer);

    Py_XDECREF(answer);
    return known;
}

/* --- slots ------------------------------------------------------------------------------------------ */

/* What one of the object's functions says, of an argument or of none. Both are held until it returns, for by
 * then the object may have another one. */
static inline PyObject *
ask(PyObject *function, PyObject *argument)
{
    PyObject *answer;

    if (function == NULL) {
        PyErr_SetString(PyExc_AttributeError, "the middleware has lost what it calls");
        return NULL;
    }
    Py_INCREF(function);
    answer = argument == NULL ? PyObject_CallNoArgs(function) : PyObject_CallOneArg(function, argument);
    Py_DECREF(function);
    return answer;
}

/* What `_peek` gives for a key; where it is the `get` of a dictionary, as it is over most stores, without the
 * call. */
static inline PyObject *
peek(PyObject *function, PyObject *key)
{
    PyObject *found;

    if (function == NULL || !PyCFunction_CheckExact(function) ||
        PyCFunction_GET_FUNCTION(function) != dict_get)
        return ask(function, key);
    Py_INCREF(function);
    found = PyDict_GetItemWithError(PyCFunction_GET_SELF(function), key);
    if (found != NULL || !PyErr_Occurred())
        found = Py_NewRef(found == NULL ? Py_None : found);
    Py_DECREF(function);
    return found;
}

/* The slot of a key where it is armed under the stamp in force: 1, 0, or -1 with an error. */
static int
armed_slot(HitPath *self, PyObject *key, PyObject *stamp, PyObject **found)
{
    PyObject *slot, *answer;
    int armed;

    *found = NULL;
    slot = peek(self->peek, key);
    if (slot == NULL)
        return -1;
    if (slot == Py_None) {
        Py_DECREF(slot);
        return 0;
    }
    if (!fits(&self->slots, slot))
        learn(&self->slots, slot);
    answer = get_field(&self->slots, slot, FIELD_stamp);
    armed = answer == NULL ? -1 : answer == stamp;
    Py_XDECREF(answer);
    if (armed == 0) {
        PyObject *engine = Py_XNewRef(self->engine);
        answer = PyObject_CallMethodObjArgs(engine, str_rearm, slot, stamp, NULL);
        Py_XDECREF(engine);
        armed = answer == NULL ? -1 : PyObject_IsTrue(answer);
        Py_XDECREF(answer);
    }
    if (armed == 1)
        *found = slot;
    else
        Py_DECREF(slot);
    return armed;
}

/* The key of the variant that a request asks for; NULL: an error. */
static PyObject *
second_key(HitPath *self, PyObject *environ, PyObject *ready, PyObject *keys, PyObject *key)
{
    PyObject *field, *value, *get, *chosen = NULL;

    field = get_field(&self->records, ready, FIELD_field);
    if (field == NULL)
        return NULL;
    if (field != Py_None) {
        value = PyDict_GetItemWithError(environ, field);
        if (value == NULL && PyErr_Occurred()) {
            Py_DECREF(field);
            return NULL;
        }
        value = Py_NewRef(value == NULL ? Py_None : value);
        chosen = PyObject_GetItem(keys, value);
        Py_DECREF(value);
    }
    else {
        get = PyObject_GetAttr(environ, str_get);
        if (get != NULL) {
            chosen = PyObject_CallMethodObjArgs(ready, str_select, key, get, NULL);
            Py_DECREF(get);
        }
    }
    Py_DECREF(field);
    return chosen;
}

/* The `keys` of what a slot is ready with: None where it is a page. NULL: an error. */
static inline PyObject *
keys_of(HitPath *self, PyObject *ready)
{
    const Layout *layout = Py_TYPE(ready) == self->records.type ? &self->records : &self->pages;
    PyObject *keys = get_field(layout, ready, FIELD_keys);

    if (keys != NULL && !fits(layout, ready))
        learn(keys == Py_None ? &self->pages : &self->records, ready);
    return keys;
}

/* What an armed slot of its own knows, through the record of varying fields where there is one.
 *
 * 1: `*slot` and `*ready` are it. 0: the long way, or -1 with an error; then `*slot` and `*ready` are NULL.
 */
static int
look(HitPath *self, PyObject *environ, PyObject *key, PyObject *stamp, PyObject **slot, PyObject **ready)
{
    PyObject *keys, *second;
    int armed = armed_slot(self, key, stamp, slot);

    *ready = NULL;
    if (armed != 1)
        return armed;
    *ready = get_field(&self->slots, *slot, FIELD_ready);
    keys = *ready == NULL ? NULL : keys_of(self, *ready);
    if (keys == NULL)
        goto wrong;
    if (keys == Py_None) {
        Py_DECREF(keys);
        return 1;
    }
    second = visit_slot(self, *slot) < 0 ? NULL : second_key(self, environ, *ready, keys, key);
    Py_DECREF(keys);
    if (second == NULL)
        goto wrong;
    Py_CLEAR(*slot);
    Py_CLEAR(*ready);
    armed = armed_slot(self, second, stamp, slot);
    Py_DECREF(second);
    if (armed != 1)
        return armed;
    *ready = get_field(&self->slots, *slot, FIELD_ready);
    if (*ready != NULL)
        return 1;
wrong:
    Py_CLEAR(*slot);
    Py_CLEAR(*ready);
    return -1;
}

/* The engine's clock; `now` is what it gave, or NULL where it needed no call. -1: an error. */
static inline int
read_clock(HitPath *self, PyObject **now, double *instant)
{
#ifdef __linux__
    if (self->steady == monotonic) { /* the same clock, without the call and the float */
        struct timespec at;
        if (clock_gettime(CLOCK_MONOTONIC, &at) == 0) {
            *instant = (double)((long long)at.tv_sec * 1000000000LL + at.tv_nsec) / 1e9;
            return 0;
        }
    }
#endif
    *now = ask(self->steady, NULL);
    if (*now == NULL)
        return -1;
    *instant = PyFloat_AsDouble(*now);
    if (*instant == -1.0 && PyErr_Occurred()) {
        Py_CLEAR(*now);
        return -1;
    }
    return 0;
}

/* The `Hot` of a slot, in force now: a new reference to (until, sent, chunks); NULL: an error. */
static PyObject *
hot_now(HitPath *self, PyObject *slot, PyObject *ready, PyObject *stamp)
{
    PyObject *now = NULL, *hot, *renewed;
    double instant, until;

    if (read_clock(self, &now, &instant) < 0) /* before `hot` is read: another thread may replace it */
        return NULL;
    hot = get_field(&self->slots, slot, FIELD_hot);
    if (hot == NULL || !PyTuple_CheckExact(hot) || PyTuple_GET_SIZE(hot) != 3)
        goto wrong;
    until = PyFloat_AsDouble(PyTuple_GET_ITEM(hot, 0));
    if (until == -1.0 && PyErr_Occurred())
        goto wrong;
    if (instant >= until) {
        if (now == NULL && (now = PyFloat_FromDouble(instant)) == NULL)
            goto wrong;
        PyObject *asked[] = {(PyObject *)self, slot, ready, now, stamp};
        renewed = PyObject_VectorcallMethod(str_renew, asked, 5 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        Py_SETREF(hot, renewed);
        if (hot != NULL && (!PyTuple_CheckExact(hot) || PyTuple_GET_SIZE(hot) != 3))
            goto wrong;
    }
    Py_XDECREF(now);
    return hot;
wrong:
    Py_XDECREF(now);
    Py_XDECREF(hot);
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_TypeError, "a slot's hot is not (until, sent, chunks)");
    return NULL;
}

/* --- a hit ------------------------------------------------------------------------------------------ */

/* What is sent, and by whom it is counted; all new references. */
typedef struct {
    PyObject *ready, *sent, *chunks;
} Found;

/* What an armed slot answers to a plain request: 1, 0, or -1 with an error. */
static int
find_hot(HitPath *self, PyObject *slot, PyObject *ready, PyObject *stamp, Found *found)
{
    PyObject *hot = visit_slot(self, slot) < 0 ? NULL : hot_now(self, slot, ready, stamp), *answer;
    int known;

    if (hot == NULL)
        return -1;
    found->sent = Py_NewRef(PyTuple_GET_ITEM(hot, 1));
    found->chunks = Py_NewRef(PyTuple_GET_ITEM(hot, 2));
    found->ready = Py_NewRef(ready);
    Py_DECREF(hot);
    known = found->sent != Py_None;
    if (known && self->confirm != Py_None) {
        answer = ask(self->confirm, slot);
        known = answer == NULL ? -1 : PyObject_IsTrue(answer);
        Py_XDECREF(answer);
    }
    return known;
}

/* What an armed slot answers to another request: 1, 0, or -1 with an error. */
static int
find_special(HitPath *self, PyObject *environ, PyObject *slot, PyObject *ready, Found *found)
{
    PyObject *answer =
        PyObject_CallMethodObjArgs((PyObject *)self, str_special, environ, slot, ready, NULL);

    if (answer == NULL || answer == Py_None) {
        Py_XDECREF(answer);
        return answer == NULL ? -1 : 0;
    }
    found->ready = answer;
    found->sent = PyObject_GetAttr(answer, str_headers);
    found->chunks = found->sent == NULL ? NULL : PyObject_GetAttr(answer, str_chunks);
    return found->chunks == NULL ? -1 : 1;
}

/* What an armed slot answers to a request: 1, 0, or -1 with an error. */
static int
find_in(HitPath *self, PyObject *environ, const Request *request, PyObject *slot, PyObject *ready,
        PyObject *stamp, Found *found)
{
    int plain = request->plain;

    if (plain && request->cookie != NULL)
        plain = passes(self, ready, request->cookie);
    if (plain == 1 && request->unusual != NULL)
        plain = agrees(self, environ, request->unusual);
    if (plain < 0)
        return -1;
    return plain ? find_hot(self, slot, ready, stamp, found)
                 : find_special(self, environ, slot, ready, found);
}

/* 1: there is an answer. 0: the long way. -1: the long way too, after an error of ours. */
static int
find(HitPath *self, PyObject *environ, Found *found)
{
    PyObject *engine = Py_NewRef(self->engine), *stamp, *slot, *ready;
    Request request;
    int known;

    if (!fits(&self->engines, engine))
        learn(&self->engines, engine);
    stamp = get_field(&self->engines, engine, FIELD_stamp); /* before anything is looked up */
    Py_DECREF(engine);
    if (stamp == NULL)
        return -1;
    known = read_request(self, environ, &request);
    if (known == 1) {
        known = look(self, environ, request.key, stamp, &slot, &ready);
        if (known == 1)
            known = find_in(self, environ, &request, slot, ready, stamp, found);
        Py_DECREF(request.key);
        Py_XDECREF(request.cookie);
        Py_XDECREF(request.unusual);
        Py_XDECREF(slot);
        Py_XDECREF(ready);
    }
    Py_DECREF(stamp);
    return known;
}

/* A list of its own for the server, which may change it. */
static inline PyObject *
list_of(PyObject *items)
{
    PyObject *list;

    if (PyList_CheckExact(items))
        return PyList_GetSlice(items, 0, PyList_GET_SIZE(items));
    if (!PyTuple_CheckExact(items) || PyTuple_GET_SIZE(items) != 1)
        return PySequence_List(items);
    list = PyList_New(1);
    if (list != NULL)
        PyList_SET_ITEM(list, 0, Py_NewRef(PyTuple_GET_ITEM(items, 0)));
    return list;
}

/* Take the next of a counter, which this lets go; -1: an error. */
static inline int
count(PyObject *counter)
{
    PyObject *number = NULL;

    if (counter != NULL && !PyIter_Check(counter))
        PyErr_Format(PyExc_TypeError, "hits are counted by an iterator, not %.100s",
                     Py_TYPE(counter)->tp_name);
    else if (counter != NULL && (number = PyIter_Next(counter)) == NULL && !PyErr_Occurred())
        PyErr_SetNone(PyExc_StopIteration);
    Py_XDECREF(counter);
    Py_XDECREF(number);
    return number == NULL ? -1 : 0;
}

/* Count and send what was found. */
static PyObject *
answer_with(HitPath *self, const Found *found, PyObject *start_response)
{
    PyObject *status, *sent, *done, *chunks = NULL;

    if (count(get_field(&self->pages, found->ready, FIELD_counter)) < 0)
        return NULL;
    status = get_field(&self->pages, found->ready, FIELD_status);
    sent = status == NULL ? NULL : list_of(found->sent);
    if (sent != NULL) {
        PyObject *told[] = {NULL, status, sent};
        done = PyObject_Vectorcall(start_response, told + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        if (done != NULL) {
            Py_DECREF(done);
            chunks = list_of(found->chunks);
        }
    }
    Py_XDECREF(status);
    Py_XDECREF(sent);
    return chunks;
}

static PyObject *
call(HitPath *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"environ", "start_response", NULL};
    PyObject *environ, *start_response, *chunks;
    Found found = {NULL, NULL, NULL};
    int known = 0;

    if (kwargs == NULL && PyTuple_GET_SIZE(args) == 2) {
        environ = PyTuple_GET_ITEM(args, 0);
        start_response = PyTuple_GET_ITEM(args, 1);
    }
    else if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:__call__", names, &environ, &start_response))
        return NULL;
    if (self->engine == NULL || self->peek == NULL || self->confirm == NULL || self->steady == NULL ||
        self->unusual == NULL) {
        PyErr_SetString(PyExc_AttributeError, "the middleware was called before it was furnished");
        return NULL;
    }
    if (PyDict_CheckExact(environ))
        known = find(self, environ, &found);
    if (known == 1)
        chunks = answer_with(self, &found, start_response);
    else if (known == -1 && !PyErr_ExceptionMatches(PyExc_Exception))
        chunks = NULL; /* such as a greenlet that is killed: not ours to hide */
    else {
        PyErr_Clear();
        chunks = PyObject_CallMethodObjArgs((PyObject *)self, str_serve, environ, start_response, NULL);
    }
    Py_XDECREF(found.ready);
    Py_XDECREF(found.sent);
    Py_XDECREF(found.chunks);
    return chunks;
}

/* --- keys of an environ -------------------------------------------------------------------------------- */

/* Whether an environ has one of these keys. It looks each of them up; a set's `isdisjoint` goes the other way
 * round, over all that the environ has. */
static PyObject *
holds_any(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    int known = 0;

    if (count != 2 || !PyTuple_CheckExact(args[1]))
        return PyErr_Format(PyExc_TypeError, "holds_any takes an environ and a tuple of names");
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(args[1]) && known == 0; n++) {
        PyObject *name = PyTuple_GET_ITEM(args[1], n);
        known = PyDict_CheckExact(args[0]) ? PyDict_Contains(args[0], name) : PySequence_Contains(args[0], name);
    }
    return known < 0 ? NULL : PyBool_FromLong(known);
}

/* --- tokens in pages -------------------------------------------------------------------------------- */

static inline unsigned char
lower(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

/* Whether `at` begins with a word of lower-case letters, in either case. */
static inline int
begins(const unsigned char *at, const unsigned char *end, const char *word)
{
    for (; *word; at++, word++)
        if (at == end || lower(*at) != (unsigned char)*word)
            return 0;
    return 1;
}

/* The end of the name of a tag that may hold a token; NULL where it is another one. `_TAG` of tokens.py. */
static inline const unsigned char *
tag_name(const unsigned char *at, const unsigned char *end)
{
    const char *name;
    const unsigned char *after;
    unsigned char next;

    if (end - at < 4)
        return NULL;
    switch (lower(*at)) {
    case 'i':
        name = "input";
        break;
    case 'm':
        name = "meta";
        break;
    case 'l':
        name = "link";
        break;
    case 's':
        name = lower(at[1]) == 'c' ? "script" : "style";
        break;
    default:
        return NULL;
    }
    if (!begins(at, end, name))
        return NULL;
    after = at + strlen(name);
    next = after == end ? ' ' : lower(*after);
    return (next >= 'a' && next <= 'z') || (next >= '0' && next <= '9') || next == '_' ? NULL : after;
}

/* Where what a tag holds ends: at its `>`, or with the page. `_INSIDE` of tokens.py. */
static const unsigned char *
tag_end(const unsigned char *at, const unsigned char *end)
{
    while (at < end && *at != '>') {
        if (*at++ != '=')
            continue;
        while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\f' || *at == '\r'))
            at++;
        if (at < end && (*at == '"' || *at == '\'')) { /* a quote is one only where a value begins */
            const unsigned char *closing = memchr(at + 1, *at, (size_t)(end - at - 1));
            at = closing == NULL ? at + 1 : closing + 1;
        }
    }
    return at;
}

/* Whether one of the words is there of which one is in everything that tokens.py takes for a token. */
static int
speaks(const unsigned char *at, const unsigned char *end)
{
    for (; at < end; at++) {
        switch (lower(*at)) {
        case 's':
            if (begins(at, end, "srf"))
                return 1;
            break;
        case 't':
            if (begins(at, end, "token"))
                return 1;
            break;
        case 'n':
            if (begins(at, end, "nonce"))
                return 1;
            break;
        case 'a':
            if (begins(at, end, "authenticator"))
                return 1;
            break;
        }
    }
    return 0;
}

#ifdef WIDE
static int has_avx2;

/* The next `<` with such a third letter, or a place near the end before which there is none. */
__attribute__((target("avx2"))) static const unsigned char *
skip_others(const unsigned char *at, const unsigned char *end)
{
    const __m256i open = _mm256_set1_epi8('<'), small = _mm256_set1_epi8(0x20);
    const __m256i before = _mm256_set1_epi8('n' - 1), behind = _mm256_set1_epi8('y' + 1);

    for (; end - at >= 35; at += 32) {
        __m256i first = _mm256_loadu_si256((const __m256i *)at);
        __m256i third = _mm256_or_si256(_mm256_loadu_si256((const __m256i *)(at + 3)), small);
        __m256i fits = _mm256_and_si256(_mm256_cmpgt_epi8(third, before), _mm256_cmpgt_epi8(behind, third));
        int here = _mm256_movemask_epi8(_mm256_and_si256(fits, _mm256_cmpeq_epi8(first, open)));
        if (here != 0)
            return at + __builtin_ctz((unsigned int)here);
    }
    return at;
}
#endif

/* The next `<` that a tag may begin with which `tag_name` knows, and some others; NULL: there is none.
 *
 * Most tags are others, and to stop at each costs more than to look at all of the page. The third letter of
 * each name, and of nearly none of those that pages are full of, is between n and y. */
static const unsigned char *
next_tag(const unsigned char *at, const unsigned char *end)
{
#ifdef WIDE
    if (has_avx2)
        at = skip_others(at, end);
#endif
    return memchr(at, '<', (size_t)(end - at));
}

static PyObject *
may_hold_token(PyObject *module, PyObject *page)
{
    const unsigned char *at, *end, *inside, *after;
    Py_ssize_t left;

    if (!PyBytes_Check(page))
        return PyErr_Format(PyExc_TypeError, "a page is bytes, not %.100s", Py_TYPE(page)->tp_name);
    at = (const unsigned char *)PyBytes_AS_STRING(page);
    end = at + PyBytes_GET_SIZE(page);
    left = 2 * PyBytes_GET_SIZE(page); /* what looks like a tag may seem to hold many real ones */
    while (left >= 0 && (at = next_tag(at, end)) != NULL) {
        inside = tag_name(++at, end);
        if (inside == NULL)
            continue;
        after = tag_end(inside, end);
        if (speaks(inside, after))
            Py_RETURN_TRUE;
        left -= after - inside;
        at = inside;
    }
    return PyBool_FromLong(left < 0);
}

/* --- the module ------------------------------------------------------------------------------------- */

static PyMemberDef members[] = {
    {"engine", T_OBJECT_EX, offsetof(HitPath, engine), 0, NULL},
    {"_peek", T_OBJECT_EX, offsetof(HitPath, peek), 0, NULL},
    {"_confirm", T_OBJECT_EX, offsetof(HitPath, confirm), 0, NULL},
    {"_steady", T_OBJECT_EX, offsetof(HitPath, steady), 0, NULL},
    {"_clock", T_OBJECT_EX, offsetof(HitPath, clock), 0, NULL},
    {NULL},
};

static PyGetSetDef computed[] = {
    {"_unusual", (getter)get_unusual, (setter)set_unusual, NULL, NULL},
    {NULL},
};

static PyTypeObject HitPathType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "wsgicache._compiled.HitPath",
    .tp_doc = "The hit path, compiled: see `wsgicache.hitpath`.",
    .tp_basicsize = sizeof(HitPath),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_call = (ternaryfunc)call,
    .tp_traverse = (traverseproc)traverse,
    .tp_clear = (inquiry)clear,
    .tp_dealloc = (destructor)dealloc,
    .tp_members = members,
    .tp_getset = computed,
};

static PyMethodDef functions[] = {
    {"holds_any", (PyCFunction)(void (*)(void))holds_any, METH_FASTCALL,
     "holds_any(environ: Mapping, names: tuple) -> bool\n\nWhether an environ has one of these keys."},
    {"may_hold_token", may_hold_token, METH_O,
     "may_hold_token(page: bytes) -> bool\n\nFalse: no tag of an HTML page holds a token."},
    {NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "wsgicache._compiled",
    .m_doc = "Compiled twins of what every hit runs.",
    .m_methods = functions,
    .m_size = -1, /* types and names are one process's, not one interpreter's */
};

PyMODINIT_FUNC
PyInit__compiled(void)
{
    PyObject *module, *source;

#define INTERN(name, text)                                                                                   \
    if (str_##name == NULL && (str_##name = PyUnicode_InternFromString(text)) == NULL)                       \
        return NULL;
    NAMES(INTERN)
    if (monotonic == NULL) {
        module = PyImport_ImportModule("time");
        monotonic = module == NULL ? NULL : PyObject_GetAttrString(module, "monotonic");
        Py_XDECREF(module);
        if (monotonic == NULL)
            return NULL;
    }
#ifdef WIDE
    has_avx2 = __builtin_cpu_supports("avx2");
#endif
    is_known = looks_as_known();
    if (is_known < 0)
        return NULL;
    if (dict_get == NULL) {
        PyObject *dict = PyDict_New(), *get = dict == NULL ? NULL : PyObject_GetAttr(dict, str_get);
        if (get != NULL && PyCFunction_CheckExact(get))
            dict_get = PyCFunction_GET_FUNCTION(get);
        Py_XDECREF(get);
        Py_XDECREF(dict);
        if (get == NULL)
            return NULL;
    }
    if (PyType_Ready(&HitPathType) < 0)
        return NULL;
    module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    source = PyLong_FromUnsignedLong(SOURCE);
    if (PyModule_AddObjectRef(module, "HitPath", (PyObject *)&HitPathType) < 0 ||
        PyModule_AddObjectRef(module, "SOURCE", source) < 0)
        Py_CLEAR(module);
    Py_XDECREF(source);
    return module;
}
