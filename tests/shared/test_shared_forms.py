"""Forms among workers that share a store: round trips, replaced pages, workers that were asked before."""

import zlib

from shared_helpers import PATIENCE, Site

from wsgicache.testing import Response

BODY = b"<p>a page that is long enough</p>" * 60
GZIP = {"Accept-Encoding": "gzip"}


def page(environ, version):
    return Response(
        "200 OK",
        [("Content-Type", "text/html"), ("ETag", f'"v{version}"'), ("Cache-Control", "max-age=60")],
        BODY,
    )


def site(**options):
    made = Site(encode="gzip,br", **options)
    made.response = page
    return made


def made(worker, headers=GZIP):
    for _ in range(4):
        reply = worker.ask(headers=headers)
        assert worker.cache.engine.refresher.drain(PATIENCE)
    return reply


def test_a_hit_of_a_form_is_one_round_trip_and_so_is_one_of_the_page():
    shared = site()
    one, two = shared.workers(2)
    assert made(one).field("content-encoding") == "gzip"
    for worker in (one, two):
        for headers, told in ((GZIP, "gzip"), ({}, None)):
            worker.ask(headers=headers)
            worker.ask(headers=headers)
            trips, reply = shared.trips(lambda worker=worker, headers=headers: worker.ask(headers=headers))
            assert (trips, reply.is_hit, reply.field("content-encoding")) == (1, True, told)
    assert (one.calls, two.calls) == (1, 0)
    assert zlib.decompress(two.ask(headers=GZIP).body, 31) == BODY


def test_a_page_that_one_worker_replaces_leaves_no_armed_form_in_another():
    shared = site(profile="rfc")
    one, two = shared.workers(2)
    made(one)
    assert made(two).field("etag").startswith('"v1-gzip-')
    shared.version = 2
    assert one.ask(headers={**GZIP, "Cache-Control": "no-cache"}).stored
    for worker in (two, one):
        assert worker.ask(headers=GZIP).field("etag").startswith('"v2')
        assert worker.cache.engine.refresher.drain(PATIENCE)
        assert worker.ask(headers=GZIP).field("etag").startswith('"v2-gzip-')


def test_workers_that_want_a_form_at_once_make_one_page_of_it():
    shared = site()
    workers = shared.workers(3)
    workers[0].ask()
    plain = workers[0].ask()
    (stored,) = [one for one in workers[0].store.scan() if hasattr(one, "body")]
    assert plain.is_hit
    assert all(worker.cache.engine.forms.make(stored, "gzip") for worker in workers)
    assert {worker.ask(headers=GZIP).field("etag") for worker in workers} == {made(workers[0]).field("etag")}


def test_a_purge_in_one_worker_reaches_the_forms_of_all():
    shared = site()
    one, two = shared.workers(2)
    made(one)
    made(two)
    shared.version = 2
    one.cache.purge("/page")
    for worker in (two, one):
        assert worker.ask(headers=GZIP).field("etag").startswith('"v2')


def test_what_one_worker_refreshes_keeps_the_forms_of_all(monkeypatch):
    shared = site()
    one, two = shared.workers(2)
    assert made(one).field("content-encoding") == "gzip"
    made(two)
    made_again = []
    for worker in (one, two):
        monkeypatch.setattr(worker.cache.engine.forms, "make", lambda *what: made_again.append(what))
    one.cache.purge("/page", soft=True)
    assert one.ask(headers=GZIP).stored
    assert (one.calls, two.calls) == (2, 0)
    for worker in (two, one):
        reply = worker.ask(headers=GZIP)
        assert (reply.is_hit, reply.field("content-encoding")) == (True, "gzip")
        assert zlib.decompress(reply.body, 31) == BODY
        trips, reply = shared.trips(lambda worker=worker: worker.ask(headers=GZIP))
        assert (trips, reply.is_hit) == (1, True)
    assert not made_again
    one.cache.purge("/page")  # one that is not soft reaches what was kept
    assert not two.ask(headers=GZIP).is_hit


def test_workers_that_do_not_make_forms_share_a_store_with_those_that_do():
    """They are of another rule: each has entries of its own kind, and no worker gives out another's."""
    shared = site()
    (coding,) = shared.workers(1)
    (plain,) = shared.workers(1, encode=())
    for _ in range(3):
        assert plain.ask(headers=GZIP).field("content-encoding") is None
        assert coding.ask(headers=GZIP).field("content-encoding") in (None, "gzip")
        assert coding.cache.engine.refresher.drain(PATIENCE)
