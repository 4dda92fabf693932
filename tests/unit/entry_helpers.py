"""Entries and variants records to test with: any that could be stored, and a few by name."""

from hypothesis import strategies as st

from wsgicache.entry import Entry, Terms, Variants
from wsgicache.journal import Mark

MARK = Mark("e" * 16, 7, "n" * 16)

ANY = st.text(st.characters(), max_size=20)  # surrogates and control characters too
TOKENS = st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,12}", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20)
SECONDS = st.integers(0, 2**32 - 1)
INSTANTS = st.floats(-1e12, 1e12)
MARKS = st.builds(Mark, ANY, st.integers(0, 2**64 - 1), ANY)


@st.composite
def entries(draw):
    varying = draw(st.lists(ANY, max_size=3).map(tuple))
    terms = Terms(
        status=f"{draw(st.integers(100, 999))} {draw(VALUES)}",
        fingerprint=draw(ANY),
        lifetime=draw(SECONDS),
        source=draw(ANY),
        stale_while_revalidate=draw(SECONDS),
        stale_if_error=draw(SECONDS),
        keep=draw(SECONDS),
        cost=draw(SECONDS),
        groups=draw(st.lists(ANY, max_size=3).map(tuple)),
        varying=varying,
        for_cookies=draw(st.booleans()),
        for_credentials=draw(st.booleans()),
        always_validate=draw(st.booleans()),
        never_stale=draw(st.booleans()),
        made_etag=draw(st.booleans()),
        negative=draw(st.booleans()),
    )
    return Entry(
        key=draw(ANY),
        terms=terms,
        headers=draw(st.lists(st.tuples(TOKENS, VALUES), max_size=5).map(tuple)),
        body=draw(st.binary(max_size=50)),
        since=draw(INSTANTS),
        fresh_until=draw(INSTANTS),
        born=draw(MARKS),
        values=draw(st.tuples(*[st.one_of(st.none(), ANY)] * len(varying))),
    )


RECORDS = st.builds(
    Variants, ANY, st.lists(ANY, max_size=3).map(tuple), st.lists(ANY, max_size=5).map(tuple), INSTANTS
)


def page(**changed):
    given = {
        "key": "/a\0\0example.com\0http",
        "terms": Terms("200 OK", "f" * 16, 300, "ttl"),
        "headers": (("Content-Type", "text/html"), ("Set-X", ""), ("Set-X", "b"), ("Content-Length", "4")),
        "body": b"body",
        "since": 1000.0,
        "fresh_until": 1300.0,
        "born": MARK,
        "values": (),
    }
    return Entry(**{**given, **changed})


VARIED = page(
    terms=Terms(
        "404 Not Found",
        "0" * 16,
        60,
        "max-age",
        10,
        20,
        3600,
        ("a", "b"),
        ("accept", "cookie:x"),
        negative=True,
    ),
    values=(None, "\u00e9"),
)
RECORD = Variants("/a", ("accept",), ("/a\1accept-", "/a\1accept=x"), 1e9)
