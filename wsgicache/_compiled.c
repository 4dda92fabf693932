/* The hit path in C, and the search for tokens in pages that hold none: the same steps in the same order as
 * `PureHitPath.__call__` in hitpath.py and `holds_token` in tokens.py, which say why each is there and stay
 * the reference. Optional: see docs/performance.md, "The compiled build".
 *
 * The rules this file obeys:
 *
 * - It decides nothing of its own. What is not the plainest of hits goes to the same methods as there
 *   (`_special`, `_agrees`, `_renew`, `_serve`), which are Python; so does a page that may hold a token.
 * - Whatever is not as expected (a value that is no string, a missing key, an error of ours) is the long
 *   way, `_serve`, never an error of the response: as the `except Exception` there.
 * - What is borrowed, from the environ or from the object itself, is held before anything is called that may
 *   run Python: there another thread has its turn, and what is called may change both. To look a key up in the
 *   environ may run Python, too, where one of its keys is no plain string.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>
#include <structmember.h>
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

#define NAMES(X)                                                                                             \
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
    X(cookie, "HTTP_COOKIE")                                                                                 \
    X(GET, "GET")                                                                                            \
    X(empty, "")                                                                                             \
    X(agrees, "_agrees")                                                                                     \
    X(chunks, "chunks")                                                                                      \
    X(cookies, "cookies")                                                                                    \
    X(count, "count")                                                                                        \
    X(field, "field")                                                                                        \
    X(get, "get")                                                                                            \
    X(headers, "headers")                                                                                    \
    X(hot, "hot")                                                                                            \
    X(keys, "keys")                                                                                          \
    X(ready, "ready")                                                                                        \
    X(rearm, "rearm")                                                                                        \
    X(renew, "_renew")                                                                                       \
    X(select, "select")                                                                                      \
    X(serve, "_serve")                                                                                       \
    X(special, "_special")                                                                                   \
    X(stamp, "stamp")                                                                                        \
    X(status, "status")                                                                                      \
    X(visited, "visited")

#define DECLARE(name, text) static PyObject *str_##name;
NAMES(DECLARE)

static PyObject *monotonic; /* time.monotonic */

/* --- the object ------------------------------------------------------------------------------------ */

#define FILTER_BITS 2048

typedef struct {
    PyObject_HEAD
    PyObject *engine, *peek, *confirm, *steady, *clock;
    PyObject *unusual;
    unsigned char filter[FILTER_BITS / 8]; /* of the hashes in `unusual`: most keys end here */
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
    return 0;
}

static void
dealloc(HitPath *self)
{
    PyObject_GC_UnTrack(self);
    clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
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
set_unusual(HitPath *self, PyObject *names, void *closure)
{
    unsigned char filter[FILTER_BITS / 8] = {0};
    PyObject *iterator, *name;

    if (names == NULL || !PyFrozenSet_CheckExact(names)) {
        PyErr_SetString(PyExc_TypeError, "_unusual is a frozenset of environ keys");
        return -1;
    }
    iterator = PyObject_GetIter(names);
    if (iterator == NULL)
        return -1;
    while ((name = PyIter_Next(iterator)) != NULL) {
        Py_hash_t hash = PyUnicode_CheckExact(name) ? PyObject_Hash(name) : -1;
        Py_DECREF(name);
        if (hash == -1) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_TypeError, "_unusual holds something that is no string");
            break;
        }
        filter[(size_t)hash % FILTER_BITS / 8] |= (unsigned char)(1 << ((size_t)hash % 8));
    }
    Py_DECREF(iterator);
    if (PyErr_Occurred())
        return -1;
    memcpy(self->filter, filter, sizeof filter);
    Py_XSETREF(self->unusual, Py_NewRef(names));
    return 0;
}

/* --- small questions -------------------------------------------------------------------------------- */

/* Whether two strings are equal; what is no string is not. */
static inline int
same(PyObject *one, PyObject *other)
{
    if (one == other)
        return 1;
    if (!PyUnicode_CheckExact(one) || !PyUnicode_CheckExact(other))
        return 0;
    if (PyUnicode_GET_LENGTH(one) != PyUnicode_GET_LENGTH(other) ||
        PyUnicode_KIND(one) != PyUnicode_KIND(other))
        return 0;
    return memcmp(PyUnicode_DATA(one), PyUnicode_DATA(other),
                  (size_t)PyUnicode_GET_LENGTH(one) * (size_t)PyUnicode_KIND(one)) == 0;
}

/* Whether a string is a path, a question mark and a query. */
static inline int
joined(PyObject *raw, PyObject *path, PyObject *query)
{
    Py_ssize_t head = PyUnicode_GET_LENGTH(path), tail = PyUnicode_GET_LENGTH(query);
    const Py_UCS1 *text;

    if (!PyUnicode_CheckExact(raw) || PyUnicode_GET_LENGTH(raw) != head + 1 + tail)
        return 0;
    if (PyUnicode_KIND(raw) != PyUnicode_1BYTE_KIND || PyUnicode_KIND(path) != PyUnicode_1BYTE_KIND ||
        PyUnicode_KIND(query) != PyUnicode_1BYTE_KIND)
        return 0;
    text = PyUnicode_1BYTE_DATA(raw);
    return text[head] == '?' && memcmp(text, PyUnicode_1BYTE_DATA(path), (size_t)head) == 0 &&
           memcmp(text + head + 1, PyUnicode_1BYTE_DATA(query), (size_t)tail) == 0;
}

/* The parts of an unchecked key, in its order. */
enum { PATH, QUERY, HOST, SCHEME, PARTS };

/* The unchecked key: strings of one byte a character, a NUL between two. NULL without an error where one is
 * something else, which PEP 3333 forbids. */
static inline PyObject *
joined_key(PyObject *const parts[PARTS])
{
    Py_ssize_t length = PARTS - 1;
    Py_UCS4 widest = 127;
    PyObject *key;
    Py_UCS1 *at;

    for (int n = 0; n < PARTS; n++) {
        if (!PyUnicode_CheckExact(parts[n]) || PyUnicode_KIND(parts[n]) != PyUnicode_1BYTE_KIND)
            return NULL;
        length += PyUnicode_GET_LENGTH(parts[n]);
        if (!PyUnicode_IS_ASCII(parts[n]))
            widest = 255;
    }
    key = PyUnicode_New(length, widest);
    if (key == NULL)
        return NULL;
    at = PyUnicode_1BYTE_DATA(key);
    for (int n = 0; n < PARTS; n++) {
        Py_ssize_t size = PyUnicode_GET_LENGTH(parts[n]);
        memcpy(at, PyUnicode_1BYTE_DATA(parts[n]), (size_t)size);
        at += size;
        if (n < PARTS - 1)
            *at++ = '\0';
    }
    return key;
}

/* Whether an environ has none of the unusual keys: 1, 0, or -1 with an error. */
static inline int
is_usual(HitPath *self, PyObject *environ)
{
    Py_ssize_t at = 0;
    PyObject *key, *value;

    while (PyDict_Next(environ, &at, &key, &value)) {
        size_t hash;
        if (!PyUnicode_CheckExact(key))
            return 0; /* to be hashed it may need Python: `_agrees` looks again */
        hash = (size_t)((PyASCIIObject *)key)->hash; /* known, for it is a key */
        if (self->filter[hash % FILTER_BITS / 8] & (1 << (hash % 8))) {
            int found = PySet_Contains(self->unusual, key);
            if (found != 0)
                return found < 0 ? -1 : 0;
        }
    }
    return 1;
}

/* A value of the environ, borrowed; NULL where there is none, or with an error. */
static inline PyObject *
value_of(PyObject *environ, PyObject *name)
{
    return PyDict_GetItemWithError(environ, name);
}

/* What the key is made of, each held: 1. 0 where one is missing, or -1 with an error; some may be held then. */
static int
read_parts(PyObject *environ, PyObject *parts[PARTS])
{
    PyObject *script, *whole;

    parts[SCHEME] = Py_XNewRef(value_of(environ, str_scheme));
    parts[PATH] = parts[SCHEME] == NULL ? NULL : Py_XNewRef(value_of(environ, str_path));
    parts[HOST] = parts[PATH] == NULL ? NULL : Py_XNewRef(value_of(environ, str_host));
    if (parts[HOST] == NULL)
        return PyErr_Occurred() ? -1 : 0;
    parts[QUERY] = Py_XNewRef(value_of(environ, str_query));
    if (parts[QUERY] == NULL) {
        if (PyErr_Occurred())
            return -1;
        parts[QUERY] = Py_NewRef(str_empty);
    }
    script = value_of(environ, str_script);
    if (script == NULL)
        return PyErr_Occurred() ? -1 : 1;
    if (same(script, str_empty))
        return 1;
    if (!PyUnicode_CheckExact(script) || !PyUnicode_CheckExact(parts[PATH]))
        return 0;
    whole = PyUnicode_Concat(script, parts[PATH]);
    Py_SETREF(parts[PATH], whole);
    return whole == NULL ? -1 : 1;
}

/* The raw target as the server tells it, or the path where it tells none; borrowed. NULL: an error. */
static inline PyObject *
raw_target(PyObject *environ, PyObject *path)
{
    PyObject *names[2] = {str_raw, str_request_uri};

    for (int n = 0; n < 2; n++) {
        PyObject *raw = value_of(environ, names[n]);
        if (raw == NULL && PyErr_Occurred())
            return NULL;
        if (raw != NULL && raw != Py_None && !same(raw, str_empty))
            return raw;
    }
    return path;
}

/* Whether a request for an armed slot is of the plainest kind: 1, 0, or -1 with an error. */
static int
is_plain(HitPath *self, PyObject *environ, PyObject *ready, PyObject *const parts[PARTS])
{
    PyObject *path = parts[PATH], *query = parts[QUERY], *value, *cookies, *passes;
    int answer;

    value = value_of(environ, str_method);
    if (value == NULL || !same(value, str_GET))
        return PyErr_Occurred() ? -1 : 0;
    value = raw_target(environ, path);
    if (value == NULL)
        return -1;
    if (!same(value, path) && !(PyUnicode_GET_LENGTH(query) && joined(value, path, query)))
        return 0;
    value = value_of(environ, str_proto);
    if (value == NULL ? PyErr_Occurred() != NULL : !same(value, parts[SCHEME]))
        return value == NULL ? -1 : 0;
    value = value_of(environ, str_length);
    if (value == NULL ? PyErr_Occurred() != NULL : !same(value, str_empty))
        return value == NULL ? -1 : 0;
    value = value_of(environ, str_cookie);
    if (value == NULL && PyErr_Occurred())
        return -1;
    if (value != NULL && value != Py_None) {
        Py_INCREF(value);
        cookies = PyObject_GetAttr(ready, str_cookies);
        passes = cookies == NULL ? NULL : PyObject_GetItem(cookies, value);
        Py_XDECREF(cookies);
        Py_DECREF(value);
        answer = passes == NULL ? -1 : PyObject_IsTrue(passes);
        Py_XDECREF(passes);
        if (answer <= 0)
            return answer;
    }
    answer = is_usual(self, environ);
    if (answer == 0) {
        passes = PyObject_CallMethodOneArg((PyObject *)self, str_agrees, environ);
        answer = passes == NULL ? -1 : PyObject_IsTrue(passes);
        Py_XDECREF(passes);
    }
    return answer;
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

/* The slot of a key where it is armed under the stamp in force: 1, 0, or -1 with an error. */
static int
armed_slot(HitPath *self, PyObject *key, PyObject *stamp, PyObject **found)
{
    PyObject *slot, *answer;
    int armed;

    *found = NULL;
    slot = ask(self->peek, key);
    if (slot == NULL)
        return -1;
    if (slot == Py_None) {
        Py_DECREF(slot);
        return 0;
    }
    answer = PyObject_GetAttr(slot, str_stamp);
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
second_key(PyObject *environ, PyObject *ready, PyObject *keys, PyObject *key)
{
    PyObject *field, *value, *get, *chosen = NULL;

    field = PyObject_GetAttr(ready, str_field);
    if (field == NULL)
        return NULL;
    if (field != Py_None) {
        value = value_of(environ, field);
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
    *ready = PyObject_GetAttr(*slot, str_ready);
    keys = *ready == NULL ? NULL : PyObject_GetAttr(*ready, str_keys);
    if (keys == NULL)
        goto wrong;
    if (keys == Py_None) {
        Py_DECREF(keys);
        return 1;
    }
    second = PyObject_SetAttr(*slot, str_visited, Py_True) < 0 ? NULL : second_key(environ, *ready, keys, key);
    Py_DECREF(keys);
    if (second == NULL)
        goto wrong;
    Py_CLEAR(*slot);
    Py_CLEAR(*ready);
    armed = armed_slot(self, second, stamp, slot);
    Py_DECREF(second);
    if (armed != 1)
        return armed;
    *ready = PyObject_GetAttr(*slot, str_ready);
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
    hot = PyObject_GetAttr(slot, str_hot);
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

/* 1: there is an answer. 0: the long way. -1: the long way too, after an error of ours. */
static int
find(HitPath *self, PyObject *environ, Found *found)
{
    PyObject *parts[PARTS] = {NULL}, *stamp, *key = NULL, *slot = NULL, *ready = NULL;
    PyObject *hot, *answer;
    int known;

    stamp = PyObject_GetAttr(self->engine, str_stamp); /* before anything is looked up */
    if (stamp == NULL)
        return -1;
    known = read_parts(environ, parts);
    if (known != 1)
        goto done;
    key = joined_key(parts);
    if (key == NULL) {
        known = PyErr_Occurred() ? -1 : 0;
        goto done;
    }
    known = look(self, environ, key, stamp, &slot, &ready);
    if (known != 1)
        goto done;
    known = is_plain(self, environ, ready, parts);
    if (known == 0) {
        answer = PyObject_CallMethodObjArgs((PyObject *)self, str_special, environ, slot, ready, NULL);
        known = answer == NULL ? -1 : answer != Py_None;
        if (known == 1) {
            found->sent = PyObject_GetAttr(answer, str_headers);
            found->chunks = found->sent == NULL ? NULL : PyObject_GetAttr(answer, str_chunks);
            found->ready = Py_NewRef(answer);
            known = found->chunks == NULL ? -1 : 1;
        }
        Py_XDECREF(answer);
    }
    else if (known == 1) {
        known = PyObject_SetAttr(slot, str_visited, Py_True);
        hot = known < 0 ? NULL : hot_now(self, slot, ready, stamp);
        if (hot == NULL) {
            known = -1;
            goto done;
        }
        found->sent = Py_NewRef(PyTuple_GET_ITEM(hot, 1));
        found->chunks = Py_NewRef(PyTuple_GET_ITEM(hot, 2));
        found->ready = Py_NewRef(ready);
        Py_DECREF(hot);
        known = found->sent != Py_None;
        if (known == 1 && self->confirm != Py_None) {
            answer = ask(self->confirm, slot);
            known = answer == NULL ? -1 : PyObject_IsTrue(answer);
            Py_XDECREF(answer);
        }
    }
done:
    for (int n = 0; n < PARTS; n++)
        Py_XDECREF(parts[n]);
    Py_DECREF(stamp);
    Py_XDECREF(key);
    Py_XDECREF(slot);
    Py_XDECREF(ready);
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

/* Count and send what was found. */
static PyObject *
answer_with(const Found *found, PyObject *start_response)
{
    PyObject *count, *status, *sent, *done, *chunks = NULL;

    count = PyObject_GetAttr(found->ready, str_count);
    if (count == NULL)
        return NULL;
    done = PyObject_CallNoArgs(count);
    Py_DECREF(count);
    if (done == NULL)
        return NULL;
    Py_DECREF(done);
    status = PyObject_GetAttr(found->ready, str_status);
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
        chunks = answer_with(&found, start_response);
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
    while (left >= 0 && (at = memchr(at, '<', (size_t)(end - at))) != NULL) {
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
