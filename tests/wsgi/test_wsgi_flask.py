"""Bodies that live in a Flask request context: it is there while they are made, and gone afterwards."""

import pytest
from flask import Flask, Response, g, has_request_context, request, stream_with_context
from wsgi_helpers import Call, Exchange, Waiters, flights, new_cache

from wsgicache.testing import ask


class Site:
    """A Flask site that writes down what happens, in order."""

    def __init__(self, **options):
        self.log = []
        self.app = app = Flask("site")
        app.config["PROPAGATE_EXCEPTIONS"] = True
        app.teardown_request(lambda error: self.log.append("teardown"))
        app.add_url_rule("/stream", view_func=self.stream)
        app.add_url_rule("/plain", view_func=self.plain)
        app.add_url_rule("/broken", view_func=self.broken)
        self.cache = new_cache(app.wsgi_app, **options)
        app.wsgi_app = self.cache

    def stream(self):
        g.name = "stream"

        def body():
            for number in range(3):
                self.log.append(f"made {number}")
                yield f"{g.name} {request.path} {number}\n"
            self.log.append("ended")

        response = Response(stream_with_context(body()), mimetype="text/plain")
        response.call_on_close(lambda: self.log.append("closed"))
        return response

    def plain(self):
        response = Response("plain", mimetype="text/plain")
        response.call_on_close(lambda: self.log.append("closed"))
        return response

    def broken(self):
        def body():
            yield request.path
            raise LookupError(request.path)

        return Response(stream_with_context(body()), mimetype="text/plain")

    def exchange(self, url, **kwargs):
        return Exchange(self.cache, url, **kwargs)

    def ended(self, url, pulls=None, **kwargs):
        """How a request ends without the cache: Flask tears a streamed context down twice."""
        alone = Site()
        exchange = Exchange(alone.cache.app, url, **kwargs).begin()
        for _ in range(pulls or 0):
            exchange.pull()
        exchange.rest().close() if pulls is None else exchange.close()
        return [word for word in alone.log if not word.startswith("made")]

    @property
    def end(self):
        """How the requests of this site ended."""
        return [word for word in self.log if not word.startswith("made")]


STREAM = b"stream /stream 0\nstream /stream 1\nstream /stream 2\n"


def test_a_generator_with_a_context_works_and_is_stored():
    site = Site()
    exchange = site.exchange("/stream").begin()
    for number in range(3):
        exchange.pull()
        assert site.log[-1] == f"made {number}"
    exchange.rest()
    assert "closed" not in site.log
    exchange.close()
    assert exchange.body == STREAM
    assert site.end == site.ended("/stream")
    assert site.end[-1] == "closed"
    assert not has_request_context()
    hit = ask(site.cache, "/stream")
    assert (hit.is_hit, hit.body) == (True, STREAM)
    assert site.log.count("made 0") == 1


@pytest.mark.parametrize("pulls", [0, 1, 2])
def test_a_client_that_leaves_early_leaves_no_context_behind(pulls):
    site = Site()
    exchange = site.exchange("/stream").begin()
    for _ in range(pulls):
        exchange.pull()
    exchange.close()
    assert not has_request_context()
    assert site.end == site.ended("/stream", pulls=max(1, pulls))
    assert "ended" not in site.log
    assert list(site.cache.store.scan()) == []


def test_callbacks_run_after_the_body_was_handed_out():
    site = Site()
    exchange = site.exchange("/plain").begin().rest()
    assert exchange.body == b"plain"
    assert "closed" not in site.log
    exchange.close()
    assert site.log.count("closed") == 1
    for _ in range(3):
        assert site.exchange("/plain").whole().reply.is_hit
    assert site.log.count("closed") == 1


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("url", ["/stream", "/plain", "/stream?bypass", "/plain?bypass"])
@pytest.mark.parametrize("headers", [{}, {"If-None-Match": "*"}, {"Cookie": "session=x"}])
def test_callbacks_run_once_whatever_was_asked(url, method, headers):
    site = Site()
    site.exchange(url, method=method, headers=headers).whole()
    assert site.log.count("closed") == 1
    assert site.end in (site.ended(url), site.ended(url, pulls=0))
    assert not has_request_context()


def test_an_error_in_a_streamed_body():
    site = Site()
    exchange = site.exchange("/broken")
    with pytest.raises(LookupError, match="/broken"):
        exchange.whole()
    assert exchange.body == b"/broken"
    assert site.end[-1] == "teardown"
    assert not has_request_context()
    assert flights(site.cache) == 0


def test_the_rest_is_drained_in_its_context():
    """Somebody waits, so the rest is read at one pull, on the thread that the context is bound to."""
    site = Site(slow_client_grace=10)
    waiters = Waiters(site.cache)
    leader = site.exchange("/stream").begin()
    leader.pull()
    follower = Call(ask, site.cache, "/stream")
    waiters.arrived()
    leader.rest().close()
    assert leader.body == follower.result().body == STREAM
    assert site.end == site.ended("/stream")
    assert not has_request_context()


def test_con_12_a_test_client_inside_a_view():
    site = Site(wait_timeout=1000.0)

    def nested():
        if "HTTP_X_INNER" in request.environ:
            return "inner"
        inner = site.app.test_client().get("/nested", base_url="http://example.com", headers={"X-Inner": "1"})
        return f"outer {inner.get_data(as_text=True)} {inner.headers['Cache-Status']}"

    site.app.add_url_rule("/nested", view_func=nested)
    body = ask(site.cache, "/nested").body
    assert body.startswith(b"outer inner")
    assert b"BYPASS_NESTED" in body
    assert ask(site.cache, "/nested").body == body
    assert flights(site.cache) == 0


def test_a_server_sent_event_stream_is_flasks_own_iterable():
    site = Site()
    given = []

    def events():
        return Response(iter(["data: 1\n\n"]), mimetype="text/event-stream")

    site.app.add_url_rule("/events", view_func=events)
    inner = site.cache.app

    def keeping(environ, start_response):
        given.append(inner(environ, start_response))
        return given[-1]

    site.cache.app = keeping
    exchange = site.exchange("/events").begin()
    assert exchange.iterable is given[0]
    exchange.rest().close()
    assert exchange.reply.detail == "NOT_STORED_STREAM"
