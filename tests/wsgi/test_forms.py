"""Forms of pages: when they are made, what is answered with them, and when they are gone."""

import gc
import hashlib
import threading
import zlib
from functools import partial
from wsgiref.validate import validator

import brotli
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st
from wsgi_helpers import PATIENCE, Call, new_cache, results

from wsgicache import Rule, encode
from wsgicache.encode import is_form, with_tag
from wsgicache.entry import Entry, Variants
from wsgicache.found import place
from wsgicache.testing import FailingStore, Response, ScriptedApp, ask

HTML = ("Content-Type", "text/html")
BODY = b"<p>a page that is long enough</p>" * 60
DECODE = {
    None: bytes,
    "gzip": lambda body: zlib.decompress(body, 31),
    "br": brotli.decompress,
    "zstd": zstd.decompress,
}
GZIP = {"Accept-Encoding": "gzip"}
NOISE = hashlib.shake_128(b"noise").digest(3000)


def page(*headers, body=BODY, status="200 OK"):
    return Response(
        status, [*([] if any(n == "Content-Type" for n, _ in headers) else [HTML]), *headers], body
    )


class Site:
    """An app behind a cache that makes forms; each request is validated on both sides (PEP 3333)."""

    def __init__(self, answer=None, **options):
        options.setdefault("encode", ("br", "gzip", "zstd"))
        self.app = ScriptedApp(answer or page())
        self.cache = new_cache(validator(self.app), **options)
        self.outside = validator(self.cache)

    def ask(self, url="/", method="GET", headers=GZIP, **extra):
        reply = ask(self.outside, url, method, headers, **extra)
        gc.collect(1)
        self.done()
        return reply

    def done(self):
        """Return when nothing is made any more."""
        assert self.cache.engine.refresher.drain(PATIENCE)

    def made(self, url="/", headers=GZIP):
        """The page in a form, which is there now, and on the hit path."""
        for _ in range(4):
            reply = self.ask(url, headers=headers)
        assert reply.is_hit
        return reply

    def stored(self, kind=Entry):
        return [one for one in self.cache.store.scan() if isinstance(one, kind)]

    def forms(self):
        return [one for one in self.stored() if is_form(one)]

    def tick(self, seconds):
        self.cache.fake_clock.tick(seconds)


def coding(reply):
    """The coding of an answer, after a look at whether it is what it says."""
    told = reply.field("content-encoding")
    if reply.code == 200 and reply.body:
        assert DECODE[told](reply.body) == BODY
        assert reply.field("content-length") in (str(len(reply.body)), None)
    return told


@pytest.fixture
def compressed(monkeypatch):
    """The codings that were made, in order."""
    made = []
    encoder = encode.encoder

    def counting(name):
        known = encoder(name)
        return known._replace(compress=lambda body: made.append(name) or known.compress(body))

    monkeypatch.setattr(encode, "encoder", counting)
    return made


# --- when -------------------------------------------------------------------------------------------


def test_a_form_is_made_behind_the_first_hit_that_can_use_it(compressed):
    site = Site(page(("ETag", '"v1"')))
    first, second, third, fourth = (site.ask() for _ in range(4))
    assert (first.cache["fwd"], first.stored, coding(first)) == ("uri-miss", True, None)
    assert [(reply.is_hit, coding(reply)) for reply in (second, third, fourth)] == [
        (True, None), (True, "gzip"), (True, "gzip"),
    ]  # fmt: skip
    assert {reply.field("vary") for reply in (first, second, third, fourth)} == {"Accept-Encoding"}
    assert first.field("etag") == second.field("etag") == '"v1"'
    assert third.field("etag").startswith('"v1-gzip-')
    assert compressed == ["gzip"]
    assert site.app.calls == 1


def test_a_server_without_threads_has_it_made_after_the_response(compressed):
    site = Site()
    site.ask()
    exchange = site.cache
    reply = ask(exchange, headers=GZIP, **{"wsgi.multithread": False})
    assert (reply.is_hit, coding(reply)) == (True, None)
    assert compressed == ["gzip"]  # in close()
    assert coding(ask(exchange, headers=GZIP, **{"wsgi.multithread": False})) == "gzip"


def test_each_client_gets_its_own_and_the_app_is_asked_once(compressed):
    site = Site()
    wanted = {
        "gzip, deflate, br, zstd": "br", "gzip": "gzip", "x-gzip": "gzip", "zstd;q=1, br;q=0.5": "zstd",
        "deflate": None, "": None, None: None, "identity": None, "br;q=0, gzip;q=0": None,
    }  # fmt: skip
    for _ in range(4):
        for field, told in wanted.items():
            reply = site.ask(headers={} if field is None else {"Accept-Encoding": field})
            assert coding(reply) in (told, None)
    for field, told in wanted.items():
        reply = site.ask(headers={} if field is None else {"Accept-Encoding": field})
        assert (reply.is_hit, coding(reply)) == (True, told)
    assert site.app.calls == 1
    assert sorted(compressed) == ["br", "gzip", "zstd"]
    tags = {
        reply.field("etag")
        for reply in (site.ask(headers={"Accept-Encoding": c}) for c in ("br", "gzip", ""))
    }
    assert len(tags) == 3


def test_a_stale_page_is_refreshed_before_pages_are_coded(monkeypatch):
    control = ("Cache-Control", "max-age=10, stale-while-revalidate=100")
    site = Site(page(control), background_threads=1, background_queue=3)
    ask(site.cache, "/hot")
    site.tick(11)
    for number in range(5):
        ask(site.cache, f"/{number}")
    begun, go_on, order = threading.Event(), threading.Event(), []
    encoder = encode.encoder

    def held(name):
        def compress(body):
            begun.set()
            assert go_on.wait(PATIENCE)
            order.append("form")
            return encoder(name).compress(body)

        return encoder(name)._replace(compress=compress)

    monkeypatch.setattr(encode, "encoder", held)
    site.app.answers(lambda environ: order.append(environ["PATH_INFO"]) or page(control))
    for number in range(5):
        assert ask(site.cache, f"/{number}", headers=GZIP).is_hit
        assert begun.wait(PATIENCE)
    assert ask(site.cache, "/hot").cache["ttl"] == "-1"
    go_on.set()
    site.done()
    assert order == ["form", "/hot", "form", "form", "form"]  # one more found no room, and comes another time


def test_a_page_that_nobody_asks_for_again_is_not_coded(compressed):
    site = Site()
    for number in range(5):
        site.ask(f"/{number}")
    assert compressed == []


def test_twenty_clients_at_once_have_it_made_once(compressed):
    site = Site()
    site.ask(headers={})
    together = threading.Barrier(20)

    def client():
        together.wait(PATIENCE)
        return ask(site.cache, headers=GZIP)

    replies = results([Call(client) for _ in range(20)])
    site.done()
    assert all(reply.is_hit for reply in replies)
    assert {coding(reply) for reply in replies} <= {None, "gzip"}
    assert coding(site.ask()) == "gzip"
    assert compressed == ["gzip"]
    assert site.app.calls == 1


def test_followers_share_one_call_whatever_they_accept():
    site = Site()
    gate = site.app.hold("/")
    calls = [
        Call(ask, site.cache, headers={"Accept-Encoding": field})
        for field in ("gzip", "br", "", "identity", "zstd, *;q=0")
    ]
    gate.wait_entered()
    site.app.release("/")
    replies = results(calls)
    assert {DECODE[reply.field("content-encoding")](reply.body) for reply in replies} == {BODY}
    assert site.app.calls == 1


def test_a_stored_page_is_refilled_by_one_call_for_all_codings():
    site = Site(page(("ETag", '"v1"'), ("Cache-Control", "max-age=10")))
    for field in ("gzip", "br"):
        site.made(headers={"Accept-Encoding": field})
    site.tick(11)
    assert site.ask(headers={"Accept-Encoding": "br"}).cache["fwd"] == "stale"
    assert site.ask().is_hit
    assert site.ask(headers={}).is_hit
    assert site.app.calls == 2


# --- which pages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        (page(("Content-Type", "image/png")), {}),
        (page(body=b"small"), {}),
        (page(body=BODY), {"encode_min_bytes": "3kB"}),
        (page(("Content-Encoding", "gzip"), body=zlib.compress(BODY, wbits=31)), {}),
        (page(("Cache-Control", "max-age=60, no-transform")), {}),
        (page(("Content-MD5", "x")), {}),
        (page(("Vary", "Accept-Encoding")), {}),
        (page(status="404 Not Found"), {"rules": [Rule("/*", ttl=60)]}),
        (page(), {"rules": [Rule("/*", encode=())]}),
        (page(), {"rules": [Rule("/*", cookies=("currency",))]}),
        (page(), {"rules": [Rule("/*", vary=("Accept-Encoding",))]}),
        (page(), {"encode": ()}),
    ],
    ids=[
        "type", "small", "smaller than wished", "coded", "no-transform", "digest", "app varies", "status",
        "rule", "named cookies", "rule varies", "off",
    ],
)  # fmt: skip
def test_what_does_not_fit_is_left_alone(answer, options, compressed):
    site = Site(answer, **options)
    first = site.ask()
    assert first.stored
    asked = [site.ask() for _ in range(3)]
    assert all(reply.is_hit and reply.body == answer.body for reply in asked)
    told = {reply.field("content-encoding") for reply in (first, *asked)}
    assert told == {first.field("content-encoding")}
    app_varies = ("Vary", "Accept-Encoding") in answer.headers
    assert {reply.field("vary") for reply in asked} == {"Accept-Encoding" if app_varies else None}
    assert compressed == []
    assert not site.forms()


def test_an_unstored_page_is_left_alone(compressed):
    site = Site(page(("Cache-Control", "private")))
    for _ in range(3):
        reply = site.ask()
        assert (reply.stored, coding(reply), reply.all("vary")) == (False, None, [])
    assert compressed == []


def test_the_length_of_a_streamed_page_is_known_at_its_end():
    for body, told in (([BODY[:900], BODY[900:]], "gzip"), ([b"small", b"er"], None)):
        site = Site(page(body=body))
        site.ask()
        for _ in range(3):
            reply = site.ask()
        assert reply.is_hit
        assert reply.field("content-encoding") == told
        assert reply.all("vary") == (["Accept-Encoding"] if told else [])
        assert len(site.stored(Variants)) == (1 if told else 0)


def test_a_body_that_does_not_become_smaller_is_tried_once(compressed):
    site = Site(page(body=NOISE))
    for _ in range(6):
        reply = site.ask()
        assert (reply.body, reply.field("content-encoding")) == (NOISE, None)
    assert compressed == ["gzip"]
    assert reply.field("etag") == site.ask(headers={}).field("etag")


def test_pages_that_vary_otherwise_have_forms_of_each():
    def answer(environ):
        return page(("Vary", "Accept-Language"), ("Content-Language", environ["HTTP_ACCEPT_LANGUAGE"]))

    site = Site(answer)
    for _ in range(4):
        for language in ("de", "en"):
            for field in ("gzip", "br", ""):
                reply = site.ask(headers={"Accept-Language": language, "Accept-Encoding": field})
                assert reply.field("content-language") == language
                assert reply.field("vary") == "Accept-Language, Accept-Encoding"
    assert (site.app.calls, len(site.forms()), len(site.stored())) == (2, 4, 6)
    assert coding(reply) is None
    assert coding(site.ask(headers={"Accept-Language": "de", "Accept-Encoding": "br"})) == "br"


def test_variants_that_are_too_short_for_forms_do_not_push_the_others_out():
    def answer(environ):
        short = environ["HTTP_ACCEPT_LANGUAGE"] == "en"
        return page(("Vary", "Accept-Language"), body=b"short" if short else BODY)

    site = Site(answer)
    for _ in range(4):
        for language in ("de", "en"):
            reply = site.ask(headers={"Accept-Language": language, **GZIP})
    assert (reply.is_hit, reply.body) == (True, b"short")
    assert coding(site.ask(headers={"Accept-Language": "de", **GZIP})) == "gzip"
    assert site.app.calls <= 3


def test_a_short_page_beside_long_ones_is_never_coded(compressed):
    """It says no Vary: Accept-Encoding, so that a cache behind us would hand its form to everybody."""
    short = BODY[:900]

    def answer(environ):
        body = short if environ["HTTP_ACCEPT_LANGUAGE"] == "en" else BODY
        return page(("Vary", "Accept-Language"), ("Content-Length", str(len(body))), body=body)

    site = Site(answer)
    site.made(headers={"Accept-Language": "de", **GZIP})
    for field in ("gzip", "gzip", "gzip", "gzip, identity;q=0"):
        reply = site.ask(headers={"Accept-Language": "en", "Accept-Encoding": field})
        told = (reply.field("content-encoding"), reply.field("vary"), reply.body)
        assert told == (None, "Accept-Language", short)
    assert reply.is_hit
    assert compressed == ["gzip"]


def test_a_page_that_became_short_is_not_coded_any_more():
    site = Site(page(("Cache-Control", "max-age=10")))
    site.made()
    site.tick(11)
    site.app.answers(page(("Content-Length", "900"), body=BODY[:900]))
    for _ in range(4):
        reply = site.ask()
        assert (reply.field("content-encoding"), reply.field("vary"), reply.body) == (None, None, BODY[:900])
    assert reply.is_hit


def test_a_page_that_the_app_codes_at_last_still_says_so_when_it_was_validated():
    fresh, tag, coded = ("Cache-Control", "max-age=10"), ("ETag", '"z"'), zlib.compress(BODY, wbits=31)
    site = Site(page(fresh))
    site.ask()
    for answer in (
        page(fresh, tag, ("Vary", "Accept-Encoding"), ("Content-Encoding", "gzip"), body=coded),
        Response("304 Not Modified", [fresh, tag]),
    ):
        site.app.answers(answer)
        site.tick(11)
        reply = site.ask()
        told = (reply.body, reply.field("content-encoding"), reply.field("vary"))
        assert told == (coded, "gzip", "Accept-Encoding")
    assert reply.cache["fwd-status"] == "304"
    assert site.ask().field("vary") == "Accept-Encoding"


def test_forms_do_not_count_against_the_variants_of_a_page():
    site = Site(lambda environ: page(("Vary", "X-Part")), max_variants=3)
    for part in "abcd":
        for field in ("gzip", "br", "zstd"):
            site.made(headers={"X-Part": part, "Accept-Encoding": field})
    pages = [one for one in site.stored() if not is_form(one)]
    assert (len(pages), len(site.forms())) == (3, 9)
    calls = site.app.calls
    for part in "bcd":
        assert coding(site.ask(headers={"X-Part": part, "Accept-Encoding": "br"})) == "br"
    assert site.app.calls == calls
    assert not site.ask(headers={"X-Part": "a", **GZIP}).is_hit


def test_a_page_and_its_forms_stay_or_go_together():
    """Its latest form keeps a page among the latest variants, whatever was stored between the two."""
    site = Site(lambda environ: page(("Vary", "X-Part")), max_variants=2)
    site.ask(headers={"X-Part": "a"})
    site.ask(headers={"X-Part": "b"})
    site.made(headers={"X-Part": "a", **GZIP})
    site.ask(headers={"X-Part": "c"})
    calls = site.app.calls
    for headers in ({"X-Part": "a"}, {"X-Part": "a", **GZIP}, {"X-Part": "c"}):
        assert site.ask(headers=headers).is_hit
    assert site.app.calls == calls
    assert not site.ask(headers={"X-Part": "b"}).is_hit


# --- a client that refuses what there is -------------------------------------------------------------


def test_a_client_that_refuses_identity_gets_a_form_at_once(compressed):
    site = Site()
    site.ask(headers={})
    for field in ("gzip, identity;q=0", "gzip, *;q=0"):
        assert coding(site.ask(headers={"Accept-Encoding": field})) == "gzip"
    assert coding(site.ask()) == "gzip"  # who only prefers it has it too
    assert site.app.calls == 1


def test_a_client_that_refuses_identity_gets_a_form_that_is_no_smaller():
    site = Site(page(body=NOISE))
    for field in ("", "gzip", "gzip, identity;q=0", "gzip"):
        reply = site.ask(headers={"Accept-Encoding": field})
    assert (reply.is_hit, reply.body) == (True, NOISE)
    refusing = site.ask(headers={"Accept-Encoding": "gzip, identity;q=0"})
    assert refusing.is_hit
    assert (refusing.field("content-encoding"), zlib.decompress(refusing.body, 31)) == ("gzip", NOISE)


@pytest.mark.parametrize("name", ["gzip", "br", "zstd"])
def test_what_does_not_become_smaller_is_not_tried_for_each_client_that_refuses_identity(compressed, name):
    site = Site(page(("ETag", '"v1"'), body=NOISE))
    site.ask(headers={})
    refusing = {"Accept-Encoding": f"{name}, identity;q=0"}
    replies = [site.ask(headers=refusing) for _ in range(4)]
    assert compressed == [name]  # the others are packed as they are
    for reply in replies:
        assert (reply.is_hit, reply.field("content-encoding")) == (True, name)
        assert DECODE[name](reply.body) == NOISE
        assert reply.field("content-length") == str(len(reply.body))
    (tag,) = {reply.field("etag") for reply in replies}
    assert tag.startswith(f'"v1-{name}-')
    assert len({reply.body for reply in replies}) == 1  # a strong tag names bytes
    assert site.ask(headers={**refusing, "If-None-Match": tag}).code == 304
    assert site.ask(headers={"Accept-Encoding": name}).field("etag") == '"v1"'
    part = site.ask(headers={**refusing, "Range": "bytes=10-19", "If-Range": tag})
    assert (part.code, part.body) == (206, replies[0].body[10:20])


def test_a_client_that_refuses_identity_gets_a_form_that_cannot_be_stored():
    store = FailingStore()
    site = Site(store=store)
    site.ask(headers={})
    store.failing.add("set")
    for _ in range(2):
        assert coding(site.ask(headers={"Accept-Encoding": "gzip, identity;q=0"})) == "gzip"


@pytest.mark.parametrize("field", ["identity;q=0", "*;q=0", "deflate, identity;q=0"])
def test_where_nothing_is_acceptable_the_app_decides(field):
    site = Site()
    site.made()
    calls = site.app.calls
    for turn in (1, 2):
        reply = site.ask(headers={"Accept-Encoding": field})
        assert reply.cache["fwd"] == "vary-miss"
        assert site.app.calls == calls + turn
        assert (reply.stored, reply.cache["detail"]) == (False, "NOT_STORED_REQUEST")
    assert site.app.seen[-1]["HTTP_ACCEPT_ENCODING"] == field
    assert coding(site.ask()) == "gzip"  # nobody can have a page made anew, and its forms, that others use
    assert site.ask(headers={}).is_hit


def test_a_request_that_wants_no_change_gets_the_page():
    """RFC 9111 §5.2.1.6; the safe profile heeds no directives of requests."""
    for profile, told in (("rfc", None), ("safe", "gzip")):
        site = Site(page(("Cache-Control", "max-age=60")), profile=profile)
        site.made()
        reply = site.ask(headers={**GZIP, "Cache-Control": "no-transform"})
        assert (reply.is_hit, coding(reply)) == (True, told)


# --- conditional requests, ranges, HEAD --------------------------------------------------------------


def test_a_304_for_each_form_and_for_no_other():
    site = Site(page(("ETag", '"v1"'), ("Cache-Control", "max-age=60")))
    tags = {
        field: site.made(headers={"Accept-Encoding": field}).field("etag") for field in ("gzip", "br", "")
    }
    for field, tag in tags.items():
        for asked, other in tags.items():
            reply = site.ask(headers={"Accept-Encoding": asked, "If-None-Match": other})
            assert reply.is_hit
            assert reply.code == (304 if tags[asked] == other else 200)
        kept = site.ask(headers={"Accept-Encoding": field, "If-None-Match": tag})
        assert (kept.code, kept.body, kept.field("etag")) == (304, b"", tag)
        assert kept.field("vary") == "Accept-Encoding"


def test_a_weak_tag_is_that_of_every_form():
    site = Site(page(("ETag", 'W/"v1"')))
    assert site.made().field("etag") == 'W/"v1"'
    assert site.ask(headers={**GZIP, "If-None-Match": 'W/"v1"'}).code == 304


@pytest.mark.parametrize("tag", ['"v1"', None], ids=["the app's tag", "ours"])
@pytest.mark.parametrize("how", ["purged", "stale", "replaced", "cleared"])
def test_a_client_that_has_a_form_is_told_so_while_the_page_is_fetched_again(how, tag):
    length = ("Content-Length", str(len(BODY)))  # our tag is known as soon as the whole body is
    lines = [("Cache-Control", "max-age=10"), ("ETag", tag) if tag else length]
    site = Site(page(*lines))
    known = site.made().field("etag")
    if how == "stale":
        site.tick(11)
    elif how == "purged":
        site.cache.purge("/")
    elif how == "cleared":
        site.cache.clear()
    else:
        site.tick(11)
        site.ask(headers={})
    reply = site.ask(headers={**GZIP, "If-None-Match": known})
    assert (reply.code, reply.field("etag"), reply.body) == (304, known, b"")
    assert reply.is_hit is (how == "replaced")
    if how != "replaced":
        assert reply.stored
    site.app.answers(page(("ETag", '"v2"'), body=BODY + b"new"))
    site.cache.purge("/")
    assert site.ask(headers={**GZIP, "If-None-Match": known}).code == 200


def test_the_app_is_asked_about_its_own_tag():
    site = Site(page(("ETag", '"v1"'), ("Cache-Control", "max-age=10")))
    site.made()
    site.tick(11)
    site.app.answers(Response("304 Not Modified", [("ETag", '"v1"'), ("Cache-Control", "max-age=10")], b""))
    reply = site.ask()
    assert site.app.seen[-1]["HTTP_IF_NONE_MATCH"] == '"v1"'
    assert (reply.code, reply.cache["fwd-status"], coding(reply)) == (200, "304", None)
    assert reply.all("vary") == ["Accept-Encoding"]
    again = site.ask()
    assert (coding(again), again.all("vary")) == ("gzip", ["Accept-Encoding"])
    assert site.app.calls == 2


# --- what stays of the forms of a page that was fetched again ----------------------------------------


SHORT = ("Cache-Control", "max-age=10")


def unchanged(*headers):
    return Response("304 Not Modified", [*headers], b"")


@pytest.mark.parametrize("tag", ['"v1"', 'W/"v1"'])
def test_a_freshened_page_keeps_its_forms(compressed, tag):
    site = Site(page(("ETag", tag), SHORT))
    before = site.made()
    site.made(headers={"Accept-Encoding": "br"})
    site.tick(11)
    site.app.answers(unchanged(("ETag", tag), ("Cache-Control", "max-age=20"), ("X-Turn", "2")))
    assert site.ask(headers={}).cache["fwd-status"] == "304"
    for field in ("gzip", "br"):
        reply = site.ask(headers={"Accept-Encoding": field})
        assert (reply.is_hit, coding(reply), reply.cache["ttl"], reply.field("age")) == (
            True,
            field,
            "20",
            "0",
        )
        assert reply.field("x-turn") == "2"
    assert site.ask().field("etag") == before.field("etag")
    assert sorted(compressed) == ["br", "gzip"]
    assert site.app.calls == 2


@pytest.mark.parametrize("lines", [(), (("ETag", '"v1"'),)], ids=["our tag", "the app's"])
def test_a_page_that_is_fetched_again_and_says_the_same_keeps_its_forms(compressed, lines):
    site = Site(page(SHORT, *lines))
    before = site.made()
    for turn in (2, 3):
        site.tick(11)
        site.app.answers(page(SHORT, *lines, ("X-Turn", str(turn))))
        assert site.ask(headers={}).stored
        reply = site.ask()
        assert (reply.is_hit, coding(reply), reply.field("x-turn")) == (True, "gzip", str(turn))
        assert reply.field("etag") == before.field("etag")
    assert compressed == ["gzip"]
    site.cache.purge("/", soft=True)
    assert site.ask().stored
    assert (coding(site.ask()), compressed) == ("gzip", ["gzip"])


def test_the_forms_of_a_page_have_its_new_tag(compressed):
    site = Site(page(("ETag", '"v1"'), SHORT))
    site.made()
    site.tick(11)
    site.app.answers(page(("ETag", '"v2"'), SHORT))
    assert site.ask().stored
    assert site.ask().field("etag").startswith('"v2-gzip-')
    assert compressed == ["gzip"]


def test_a_body_that_does_not_become_smaller_is_not_tried_again_when_it_is_fetched_again(compressed):
    site = Site(page(SHORT, body=NOISE))
    for _ in range(3):
        for _ in range(3):
            assert site.ask().body == NOISE
        site.tick(11)
    assert compressed == ["gzip"]
    assert site.app.calls == 3


@pytest.mark.parametrize("how", ["body", "purged", "cleared", "another library", "a weak tag before"])
def test_forms_that_may_not_stay_go(compressed, how, monkeypatch):
    tag = 'W/"v1"' if how == "a weak tag before" else '"v1"'
    site = Site(page(("ETag", tag), SHORT))
    site.made()
    site.tick(11)
    if how == "purged":  # whoever purges wants all of it made anew
        site.cache.purge("/")
    elif how == "cleared":
        site.cache.clear()
    elif how != "body":  # a strong tag names bytes, which another library may not have made
        counting = encode.encoder
        monkeypatch.setattr(encode, "encoder", lambda name: counting(name)._replace(name=f"{name}-0000"))
    body = BODY + BODY if how == "body" else BODY
    site.app.answers(page(("ETag", '"v1"'), SHORT, body=body))
    assert site.ask().stored
    assert not [one for one in site.forms() if one.born == site.cache.store.get(["/"])[1]]
    for _ in range(3):
        reply = site.ask()
    assert (reply.field("content-encoding"), zlib.decompress(reply.body, 31)) == ("gzip", body)
    assert compressed == ["gzip", "gzip"]


@pytest.mark.parametrize(
    "line", [("Content-Type", "image/png"), ("Cache-Control", "max-age=10, no-transform")]
)
def test_a_page_that_may_have_no_forms_any_more_has_none(line):
    site = Site(page(("ETag", '"v1"'), SHORT))
    site.made()
    site.tick(11)
    site.app.answers(page(*([] if line[0] == "Cache-Control" else [SHORT]), line))
    assert site.ask(headers={}).stored
    assert not site.forms()
    assert site.ask().field("content-encoding") is None


@pytest.mark.parametrize("how", ["replaced", "purged", "revoked"])
def test_a_form_that_is_kept_while_its_page_goes_goes_too(monkeypatch, how):
    """Between the page's being stored and the form's: another page, a purge, or a body that was not whole."""
    fresh = ("Cache-Control", "max-age=60")
    site = Site(page(("ETag", '"v1"'), fresh), profile="rfc")
    site.made()
    again = {"Cache-Control": "no-cache"}
    store = site.cache.store
    store_set = store.set
    turns = []

    def meanwhile(key, stored, *more):
        if isinstance(stored, Entry) and is_form(stored) and not turns:
            turns.append(key)
            (plain,) = [one for one in site.stored() if not is_form(one)]
            if how == "replaced":  # as another process does it
                other = Entry(
                    plain.key, plain.terms, with_tag(plain.headers, '"v2"'), BODY * 2, plain.since,
                    plain.fresh_until, plain.born, plain.values,
                )  # fmt: skip
                assert store_set(place(plain), other, other.keep_until)
                site.cache.engine.forms.drop(place(plain), [key], store)
            elif how == "purged":
                site.cache.purge("/")
            else:
                site.cache.engine.revoke(plain)
        return store_set(key, stored, *more)

    monkeypatch.setattr(store, "set", meanwhile)
    ask(site.cache, headers=again)
    assert turns
    if how == "purged":
        assert not site.ask().is_hit
    else:
        assert not site.forms()
    if how == "replaced":
        assert site.ask().field("etag") == '"v2"'


# --- a client that changes what it read --------------------------------------------------------------


def test_the_app_is_asked_for_its_own_tag_by_who_changes_what_he_read():
    """If-Match (RFC 9110 §13.1.1): with the tag of a form, an app that compares tags would say 412."""
    site = Site(page(("ETag", '"v1"')))
    known = site.made().field("etag")
    for method in ("PUT", "GET"):
        site.ask("/", method, {"If-Match": f'{known}, "other"', **GZIP})
        assert site.app.seen[-1]["HTTP_IF_MATCH"] == '"v1", "other"'
    assert site.app.calls == 3


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST"])
def test_who_changes_nothing_that_he_has_read_is_heard_too(method):
    """If-None-Match (RFC 9110 §13.1.2): 412 where the app still has what the client names."""

    def answer(environ):
        asked = environ.get("HTTP_IF_NONE_MATCH", "")
        is_current = environ["REQUEST_METHOD"] != "GET" and (asked == "*" or '"v1"' in asked)
        return page(("ETag", '"v1"'), status="412 Precondition Failed" if is_current else "200 OK")

    site = Site(answer)
    known = site.made().field("etag")
    for asked, seen in (
        (f'"other", {known}', '"other", "v1"'),
        (f"W/{known}", 'W/"v1"'),
        ('"v1"', '"v1"'),
        ("*", "*"),
        ('"x-gzip-12"', '"x-gzip-12"'),
    ):
        reply = site.ask("/", method, {"If-None-Match": asked})
        assert site.app.seen[-1]["HTTP_IF_NONE_MATCH"] == seen
        assert reply.code == (200 if "x-gzip" in asked else 412)


def test_a_reader_whom_the_cache_does_not_answer_is_told_of_no_other_form():
    """A 304 to the app's tag would name bytes that the client does not have."""
    site = Site(page(("ETag", '"v1"')))
    known = site.made().field("etag")
    for method in ("GET", "HEAD"):
        reply = site.ask("/", method, {**GZIP, "If-None-Match": known, "Authorization": "Basic x"})
        assert (reply.cache["fwd"], reply.code) == ("bypass", 200)
        assert site.app.seen[-1]["HTTP_IF_NONE_MATCH"] == known


def test_ranges_are_of_the_form_that_is_sent():
    site = Site(page(("ETag", '"v1"')))
    whole = site.made()
    part = site.ask(headers={**GZIP, "Range": "bytes=2-9"})
    assert (part.code, part.body) == (206, whole.body[2:10])
    assert part.field("content-range") == f"bytes 2-9/{len(whole.body)}"
    assert (part.field("content-encoding"), part.field("etag")) == ("gzip", whole.field("etag"))
    plain = site.ask(headers={"Range": "bytes=2-9"})
    assert (plain.code, plain.body, plain.field("content-encoding")) == (206, BODY[2:10], None)
    beyond = site.ask(headers={**GZIP, "Range": f"bytes={len(whole.body)}-"})
    assert (beyond.code, beyond.field("content-range")) == (416, f"bytes */{len(whole.body)}")
    for tag, code in ((whole.field("etag"), 206), ('"v1"', 200)):
        assert site.ask(headers={**GZIP, "Range": "bytes=0-1", "If-Range": tag}).code == code


def test_head_tells_of_the_form():
    site = Site()
    whole = site.made()
    head = site.ask("/", "HEAD")
    assert (head.is_hit, head.body) == (True, b"")
    assert sorted(head.headers) == sorted(whole.headers)


# --- when they are gone -------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_reaches_the_forms(soft):
    site = Site()
    for field in ("gzip", "br"):
        site.made(headers={"Accept-Encoding": field})
    site.app.answers(page(("ETag", '"new"')))
    site.cache.purge("/", soft=soft)
    for field in ("gzip", "br", ""):
        assert site.ask(headers={"Accept-Encoding": field}).field("etag").startswith('"new')
    assert coding(site.made()) == "gzip"
    assert site.ask().field("etag").startswith('"new-gzip-')


def test_a_form_of_a_page_that_is_purged_while_it_is_made_never_answers(monkeypatch):
    site = Site(page(("ETag", '"v1"')))
    begun, go_on = threading.Event(), threading.Event()
    encoder = encode.encoder

    def held(name):
        def compress(body):
            begun.set()
            assert go_on.wait(PATIENCE)
            return encoder(name).compress(body)

        return encoder(name)._replace(compress=compress)

    ask(site.cache, headers=GZIP)
    monkeypatch.setattr(encode, "encoder", held)
    assert ask(site.cache, headers=GZIP).is_hit
    assert begun.wait(PATIENCE)
    site.app.answers(page(("ETag", '"v2"')))
    site.cache.purge("/")
    assert ask(site.cache, headers=GZIP).field("etag") == '"v2"'
    go_on.set()
    site.done()
    monkeypatch.setattr(encode, "encoder", encoder)
    assert not [one for one in site.forms() if "v1" in one.etag]
    for _ in range(4):
        assert "v2" in site.ask().field("etag")


@pytest.mark.parametrize("how", ["reload", "revoked"])
def test_a_form_of_a_page_that_is_replaced_while_it_is_made_is_not_kept(how, monkeypatch):
    site = Site(page(("ETag", '"v1"'), ("Cache-Control", "max-age=60")), profile="rfc")
    ask(site.cache, headers=GZIP)
    encoder = encode.encoder

    def meanwhile(name):
        def compress(body):
            monkeypatch.setattr(encode, "encoder", encoder)
            if how == "reload":
                site.app.answers(page(("ETag", '"v2"'), ("Cache-Control", "max-age=60")))
                ask(site.cache, headers={"Cache-Control": "no-cache"})
            else:
                (stored,) = [one for one in site.stored() if not is_form(one)]
                site.cache.engine.revoke(stored)
            return encoder(name).compress(body)

        return encoder(name)._replace(compress=compress)

    monkeypatch.setattr(encode, "encoder", meanwhile)
    ask(site.cache, headers=GZIP)
    site.done()
    assert not site.forms()
    if how == "reload":
        assert site.made().field("etag").startswith('"v2-gzip-')


def test_a_form_of_a_page_that_varies_otherwise_by_now_takes_nothing_back(monkeypatch):
    fresh = ("Cache-Control", "max-age=60")
    site = Site(page(fresh), profile="rfc")
    ask(site.cache, headers=GZIP)
    note = site.cache.engine.forms._note

    def late(*given):
        site.app.answers(page(fresh, ("Vary", "Accept-Language")))
        ask(site.cache, headers={"Cache-Control": "no-cache"})
        return note(*given)

    monkeypatch.setattr(site.cache.engine.forms, "_note", late)
    ask(site.cache, headers=GZIP)
    site.done()
    (record,) = site.stored(Variants)
    assert record.fields == ("accept-language", "content coding")
    assert site.ask(headers={}).field("vary") == "Accept-Language, Accept-Encoding"


def test_a_reload_leaves_no_old_form():
    site = Site(page(("ETag", '"v1"'), ("Cache-Control", "max-age=60")), profile="rfc")
    site.made()
    site.app.answers(page(("ETag", '"v2"'), ("Cache-Control", "max-age=60"), body=BODY + BODY))
    assert site.ask(headers={**GZIP, "Cache-Control": "no-cache"}).stored
    assert not site.forms()
    assert site.ask().field("etag") == '"v2"'
    assert site.made().field("etag").startswith('"v2-gzip-')


def test_what_the_app_takes_back_goes_with_its_forms():
    site = Site(page(("Cache-Control", "max-age=10, stale-if-error=100")))
    site.made()
    site.tick(50)
    site.app.answers(page(("Cache-Control", "no-store")))
    reply = site.ask()
    assert (reply.cache["fwd"], reply.detail) == ("stale", "NOT_STORED_NO_STORE")
    assert not site.stored()


def test_a_form_answers_alone_where_its_page_was_evicted():
    site = Site(page(("ETag", '"v1"'), ("Cache-Control", "max-age=10, stale-if-error=60")))
    site.made()
    (plain,) = [one for one in site.stored() if not is_form(one)]
    assert site.cache.store.delete(f"{plain.key}\1content coding=identity")
    assert (coding(site.ask()), site.ask().is_hit) == ("gzip", True)
    site.cache.purge("/elsewhere")
    assert (coding(site.ask()), site.ask().is_hit) == ("gzip", True)
    site.tick(11)
    site.app.answers(page(status="503 Down"))
    failed = site.ask()
    assert (failed.detail, coding(failed)) == ("HIT_STALE_IF_ERROR", "gzip")
    assert "HTTP_IF_NONE_MATCH" not in site.app.seen[-1]  # the app knows no forms, and its page is gone
    site.app.answers(page(("ETag", '"v2"')))
    assert site.ask().stored
    assert site.made().field("etag").startswith('"v2-gzip-')


def test_a_head_of_the_app_says_nothing_of_a_form_whose_page_is_gone():
    site = Site(page(("ETag", '"v1"'), ("Cache-Control", "max-age=10")), profile="rfc")
    site.made()
    (plain,) = [one for one in site.stored() if not is_form(one)]
    site.cache.store.delete(f"{plain.key}\1content coding=identity")
    site.tick(11)
    assert site.ask("/", "HEAD").cache["fwd"] == "stale"
    assert len(site.forms()) == 1


def test_memory_stays_within_its_bound():
    site = Site(store="memory://?max_bytes=200kB")
    for number in range(100):
        for _ in range(2):
            ask(site.cache, f"/{number}", headers=GZIP, **{"wsgi.multithread": False})
    stats = site.cache.store.stats()
    assert stats["bytes"] <= stats["max_bytes"]
    assert site.forms()


def test_what_clients_say_that_they_accept_takes_little_memory():
    """The table beside each page that leads to its forms is in no budget: nobody is to fill memory with what
    he makes up, and what browsers say is kept once for all pages."""
    site = Site(encode="gzip")
    tables = []
    for url in ("/1", "/2"):
        site.made(url)
        for number in range(20):
            for length in (1, 100, 200):
                value = f"x{number}, gzip;q=0.{number}, {'y' * length}"
                assert ask(site.cache, url, headers={"Accept-Encoding": value}).is_hit
        (record,) = [one for one in site.stored(Variants) if one.key.startswith(f"{url}\0")]
        tables.append(site.cache.engine.peek(record.key).ready.keys)
    for table in tables:
        assert len(table) == 16
        assert max(map(len, filter(None, table))) <= 128
        assert len({id(key) for key in table.values()}) <= 2
    for value, other in zip(*tables, strict=True):
        assert value is other


def test_a_refresh_behind_the_visitor_is_the_apps_page_and_drops_the_forms():
    control = ("Cache-Control", "max-age=10, stale-while-revalidate=100")
    site = Site(page(("ETag", '"v1"'), control))
    site.made()
    site.app.answers(page(("ETag", '"v2"'), control, body=BODY + BODY))
    site.tick(11)
    stale = site.ask()
    assert (stale.cache["ttl"], coding(stale)) == ("-1", "gzip")
    assert not site.app.seen[-1].get("HTTP_ACCEPT_ENCODING")
    assert (site.ask().field("etag"), site.app.calls) == ('"v2"', 2)
    assert site.made().field("etag").startswith('"v2-gzip-')


def test_an_early_refresh_that_a_form_begins_is_one_of_its_page():
    site = Site(ttl=100, early_refresh=1)
    site.cache.engine.uniform = lambda: 0.5
    version = 1

    def answer(environ):
        site.tick(1)  # what it costs the app
        return page(("ETag", f'"v{version}"'), body=BODY * version)

    site.app.answers(answer)
    assert coding(site.made()) == "gzip"
    site.tick(97)
    version = 2
    early = site.ask()
    assert (early.detail, coding(early), early.field("etag").startswith('"v1-gzip-')) == (
        "HIT_EARLY_REFRESH", "gzip", True,
    )  # fmt: skip
    assert (site.app.calls, site.ask().field("etag")) == (2, '"v2"')
    assert site.made().field("etag").startswith('"v2-gzip-')
    assert site.app.calls == 2


def test_another_set_of_codings_is_another_rule():
    store = None
    for codings, told in ((("gzip",), "gzip"), ((), None), (("gzip",), "gzip")):
        site = Site(encode=codings, **({"store": store} if store is not None else {}))
        store = site.cache.store
        site.made()
        assert coding(site.ask()) == told


def test_a_switched_rule_takes_its_forms_with_it():
    site = Site(rules=[Rule("/*", encode=(), name="off", enabled=False)])
    assert coding(site.made()) == "gzip"
    site.cache.rules.enable("off")
    assert (coding(site.made()), site.ask().all("vary")) == (None, [])
    site.cache.rules.disable("off")
    assert coding(site.made()) == "gzip"


def test_a_store_that_fails_while_a_form_is_stored_costs_nothing_but_the_form():
    store = FailingStore()
    site = Site(store=store)
    site.ask()
    (plain,) = site.stored()
    store.failing.add("set")
    site.cache.engine.refresher.submit("job", partial(site.cache.engine.forms.make, plain, "gzip"))
    site.done()
    store.failing.clear()
    assert not site.forms()
    assert site.cache.stats()["store_failures"] == 1
    assert coding(site.made()) == "gzip"


@pytest.mark.parametrize("body", [BODY, BODY[::-1]], ids=["says the same", "says something else"])
@pytest.mark.parametrize("failing", ["get", "set", "delete"])
def test_a_store_that_fails_once_a_page_is_stored_does_not_unsay_it(failing, body, monkeypatch):
    store = FailingStore()
    site = Site(page(SHORT), store=store)
    site.made()
    site.tick(11)
    site.app.answers(page(SHORT, body=body))
    follow = site.cache.engine.forms.follow

    def fails(*args):
        store.failing.add(failing)
        follow(*args)
        store.failing.clear()

    monkeypatch.setattr(site.cache.engine.forms, "follow", fails)
    assert site.ask(headers={}).stored
    reasons = site.cache.stats()["reasons"]
    assert (reasons["STORED"], reasons.get("NOT_STORED_STORE", 0)) == (2, 0)
    assert site.ask(headers={}).body == body
    reply = site.ask()
    assert DECODE[reply.field("content-encoding")](reply.body) == body


# --- what people see ----------------------------------------------------------------------------------


def test_explain_tells_which_form_would_be_sent():
    site = Site()
    site.ask()
    asked = {"headers": {"Accept-Encoding": "br, gzip;q=0.5"}}
    assert site.cache.explain("http://example.com/", **asked).form == "identity; br would be made behind it"
    refusing = {"headers": {"Accept-Encoding": "br, identity;q=0"}}
    assert site.cache.explain("http://example.com/", **refusing).form == "br, made at once"
    assert not site.forms()
    site.made(headers=asked["headers"])
    told = site.cache.explain("http://example.com/", **asked)
    assert (told.form, told.variant) == ("br", {"content coding": "br"})
    assert "form        br" in str(told)
    assert site.cache.explain("http://example.com/").form == "identity"
    assert new_cache(ScriptedApp()).explain("/").form is None


FIELDS = st.sampled_from(
    ["", "gzip", "br", "gzip, br", "zstd, *;q=0", "identity, gzip;q=0.5", "*", "identity;q=0, br"]
)
STEPS = st.lists(
    st.tuples(st.just("ask"), FIELDS)
    | st.tuples(st.sampled_from(["purge", "soft", "publish", "tick", "evict", "clear"]), st.just("")),
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.booleans())
def test_whatever_happens_a_client_gets_the_page_in_a_coding_that_it_accepts(steps, validates):
    """Never an older version than the last purged one, and forms of one page only."""
    site = Site()
    version, least = 0, 0

    def answer(environ):
        tag = [("ETag", f'"{version}"')] if validates else []
        if environ.get("HTTP_IF_NONE_MATCH") == f'"{version}"':
            return unchanged(SHORT, *tag)
        return page(SHORT, *tag, body=BODY + b"%d" % version)

    site.app.answers(answer)
    for step, field in steps:
        if step == "publish":
            version += 1
        elif step in ("purge", "soft", "clear"):
            least = version
            site.cache.clear() if step == "clear" else site.cache.purge("/", soft=step == "soft")
        elif step == "tick":
            site.tick(4)
        elif step == "evict":
            for one in site.stored():
                if not is_form(one):
                    site.cache.store.delete(f"{one.key}\1content coding=identity")
        else:
            reply = ask(site.cache, headers={"Accept-Encoding": field}, **{"wsgi.multithread": False})
            told = reply.field("content-encoding")
            assert told is None or told in field or field == "*"
            seen = int(DECODE[told](reply.body)[len(BODY) :])
            assert least <= seen <= version
            if validates:
                assert reply.field("etag").startswith(f'"{seen}-{told}-' if told else f'"{seen}"')
