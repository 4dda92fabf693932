"""A site with the dashboard, and a browser that is signed in."""

import re
from urllib.parse import urlencode

from bs4 import BeautifulSoup

from wsgicache import Rule, WSGICache
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask

SECRET = "correct horse battery"
SENT = {"Wsgicache-Secret": SECRET}
BASE = "/.cache/"
PAGES = (
    "", "pages/routes", "pages/entries", "pages/rules", "pages/recent", "pages/explain",
    "pages/explain?url=/post/1",
)  # fmt: skip
HTML = ("Content-Type", "text/html")


class Site:
    """A site with the dashboard.

    Args:
        answer: what the app answers.
        options: the cache's.
    """

    def __init__(self, answer=None, **options):
        self.clock = options.pop("clock", None) or FakeClock(1_800_000_000.0)
        default = Response(headers=[HTML, ("Cache-Tag", "posts")], body=b"0123456789")
        self.app = ScriptedApp(default if answer is None else answer)
        rules = [Rule("/admin/*", bypass=True, name="admin"), Rule("/post/*", ttl=100)]
        given = {
            "admin_path": "/.cache",
            "dashboard": True,
            "secret": SECRET,
            "clock": self.clock,
            "rules": rules,
        }
        self.cache = WSGICache(self.app, **{**given, "clock": self.clock, **options})

    def ask(self, url="/post/1", **more):
        return ask(self.cache, url, **more)

    def warm(self, *urls):
        for url in urls or ("/post/1",):
            self.ask(url)
            assert self.ask(url).is_hit


class Browser:
    """Asks for pages of a dashboard, keeps its cookie and sends what a browser sends.

    Args:
        cache: where the dashboard is.
        origin: of the site.
    """

    def __init__(self, cache, origin="http://example.com"):
        self.cache = cache
        self.origin = origin
        self.cookies = {}

    def _ask(self, url, method="GET", headers=(), body=b"", **more):
        sent = dict(headers)
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        reply = ask(self.cache, f"{self.origin}{url}", method=method, headers=sent, body=body, **more)
        for line in reply.all("set-cookie"):
            name, value = re.match("([^=]+)=([^;]*)", line).groups()
            self.cookies[name] = value.strip('"')
        return reply

    def get(self, name="", **more):
        return self._ask(BASE + name, **more)

    def page(self, name="", code=200):
        """A page, parsed."""
        reply = self.get(name)
        assert reply.code == code, reply.body
        return BeautifulSoup(reply.body, "html.parser")

    def post(self, name, fields, *, headers=None, **more):
        """Send a form, as from a page of the site unless `headers` say something else."""
        sent = {"Sec-Fetch-Site": "same-origin"} if headers is None else headers
        sent = {"Content-Type": "application/x-www-form-urlencoded", **sent}
        return self._ask(BASE + name, "POST", sent, urlencode(fields).encode(), **more)

    def sign_in(self, secret=SECRET, **more):
        return self.post("login", {"secret": secret}, **more)

    @property
    def token(self):
        """The token of this session's forms."""
        return self.page("pages/rules").find("input", attrs={"name": "token"})["value"]

    def purge(self, what, target, **fields):
        return self.post("pages/entries", {"token": self.token, "what": what, "target": target, **fields})


def signed_in(site, **more):
    browser = Browser(site.cache, **more)
    assert browser.sign_in().code == 303
    return browser


def cells(table):
    """The rows of a table as texts."""
    rows = table.tbody.find_all("tr")
    return [[" ".join(cell.get_text().split()) for cell in row.find_all(["th", "td"])] for row in rows]
