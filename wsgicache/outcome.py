"""Why a request was answered as it was: the one vocabulary of decisions.

Every decision of the cache is a `Reason`, and every request ends as one `Outcome`. `Cache-Status`, the
log, the counters, `explain` and the page `docs/reasons.md` are all drawn from here, so that a reason
can be counted, searched for and looked up under one name.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

CACHE_NAME: Final = "wsgicache"
"""How this cache names itself in `Cache-Status` (RFC 9211 §2)."""


class Phase(Enum):
    """The step at which a decision falls."""

    ADMIT = "admit"
    JUDGE = "judge"
    FORWARD = "forward"
    SETTLE = "settle"


class Reason(Enum):
    """One decision: its phase, its RFC 9211 token, one sentence for people, and where it is written.

    The token is `hit` for an answer from the store, a `fwd` value for a request that goes to the app,
    and `stored` or `-` in the settle phase, where the RFC has no word for "not stored". `is_hit` says
    whether the answer came from the store without asking the app.
    """

    def __init__(self, phase: Phase, token: str, sentence: str, section: str) -> None:
        self.phase = phase
        self.token = token
        self.sentence = sentence
        self.section = section
        self.is_hit = token == "hit"

    # Members are singletons: identity is as good a hash as the name's, and this is looked up often.
    __hash__ = object.__hash__

    # --- admit: may this request use the cache at all? -------------------------------------------
    DISABLED = (
        Phase.ADMIT, "bypass", "The cache is switched off (enabled=False).", "house rule 17",
    )  # fmt: skip
    BYPASS_IGNORED = (
        Phase.ADMIT, "bypass",
        'environ["wsgicache.ignore"] or hints.ignore() asked the cache to stand aside.',
        "house rule 4",
    )  # fmt: skip
    BYPASS_RULE = (
        Phase.ADMIT, "bypass", "A rule with bypass=True covers this path.", "house rule 10",
    )  # fmt: skip
    BYPASS_QUERY = (
        Phase.ADMIT, "bypass",
        'The URL has a query string, and no rule says query="key".', "house rule 3",
    )  # fmt: skip
    BYPASS_BODY = (
        Phase.ADMIT, "bypass", "The request has a body or form values.", "house rule 4",
    )  # fmt: skip
    BYPASS_AUTHORIZATION = (
        Phase.ADMIT, "bypass",
        "The request carries credentials (Authorization, REMOTE_USER or a client certificate), and no "
        "stored response says that it may be shared.",
        "RFC 9111 §3.5, house rule 5",
    )  # fmt: skip
    BYPASS_COOKIE = (
        Phase.ADMIT, "bypass",
        "The request carries a cookie that may name a visitor, and no stored response says public or "
        "s-maxage.",
        "house rule 6",
    )  # fmt: skip
    BYPASS_HOST = (
        Phase.ADMIT, "bypass", "The Host field is missing, repeated or not a host.", "house rule 10",
    )  # fmt: skip
    BYPASS_PATH = (
        Phase.ADMIT, "bypass",
        "The path holds control bytes or dot segments, so it may mean another page to the app.",
        "house rules 10 and 11",
    )  # fmt: skip
    BYPASS_REWRITE = (
        Phase.ADMIT, "bypass",
        "X-Original-URL or X-Rewrite-URL may route the request to another page.", "house rule 10",
    )  # fmt: skip
    BYPASS_OVERRIDE = (
        Phase.ADMIT, "bypass",
        "A method override (header or _method=) may turn the request into another method.",
        "house rule 10",
    )  # fmt: skip
    BYPASS_KEY = (
        Phase.ADMIT, "bypass",
        "The URL is longer than max_key_bytes, or a varying field holds control bytes.",
        "house rules 11 and 16",
    )  # fmt: skip
    BYPASS_PRECONDITION = (
        Phase.ADMIT, "bypass",
        "If-Match and If-Unmodified-Since are for the app to judge, not for a cache.",
        "RFC 9111 §4.3.2",
    )  # fmt: skip
    BYPASS_NESTED = (
        Phase.ADMIT, "bypass",
        "The app called itself for the URL that it is filling; waiting would never end.",
        "house rule 13",
    )  # fmt: skip
    METHOD_SAFE = (
        Phase.ADMIT, "method", "Only GET and HEAD are answered from the store.", "RFC 9110 §9.2.3",
    )  # fmt: skip
    METHOD_UNSAFE = (
        Phase.ADMIT, "method",
        "An unsafe or unknown method goes to the app; if it succeeds, the stored page is invalidated.",
        "RFC 9111 §4.4",
    )  # fmt: skip

    # --- judge: does what is stored answer this request? -----------------------------------------
    HIT = (Phase.JUDGE, "hit", "A fresh stored response answers.", "RFC 9111 §4")
    HIT_EARLY_REFRESH = (
        Phase.JUDGE, "hit",
        "A fresh stored response answers, and its refresh begins behind it, before it expires.",
        "RFC 9111 §4",
    )  # fmt: skip
    HIT_STALE_WHILE_REVALIDATE = (
        Phase.JUDGE, "hit",
        "A stale response answers at once inside its stale-while-revalidate window; a refresh runs "
        "behind it.",
        "RFC 5861 §3",
    )  # fmt: skip
    HIT_MAX_STALE = (
        Phase.JUDGE, "hit",
        "A stale response answers because the request allows it with max-stale.",
        "RFC 9111 §5.2.1.2",
    )  # fmt: skip
    URI_MISS = (Phase.JUDGE, "uri-miss", "Nothing is stored for this URL.", "RFC 9211 §2.2")
    VARY_MISS = (
        Phase.JUDGE, "vary-miss",
        "Responses are stored for this URL, none for these values of the varying fields.",
        "RFC 9111 §4.1",
    )  # fmt: skip
    MISS_PURGED = (
        Phase.JUDGE, "uri-miss", "What was stored has been purged or invalidated.",
        "RFC 9111 §4.4",
    )  # fmt: skip
    MISS_RULES = (
        Phase.JUDGE, "uri-miss",
        "What is stored was stored under another rule or profile than the one in force now.",
        "house rule 10",
    )  # fmt: skip
    STALE = (Phase.JUDGE, "stale", "The stored response is stale.", "RFC 9111 §4.2")
    STALE_PURGED = (
        Phase.JUDGE, "stale", "A soft purge marked the stored response as stale.", "RFC 9111 §4.2.4",
    )  # fmt: skip
    STALE_NO_CACHE = (
        Phase.JUDGE, "stale", "The stored response says no-cache: it is validated before each use.",
        "RFC 9111 §5.2.2.4",
    )  # fmt: skip
    REQUEST_DIRECTIVE = (
        Phase.JUDGE, "request",
        "A fresh response is stored, but the request's Cache-Control or Pragma refuses it.",
        "RFC 9111 §5.2.1",
    )  # fmt: skip
    ONLY_IF_CACHED = (
        Phase.JUDGE, "request",
        "The request says only-if-cached and nothing stored may answer it: 504.",
        "RFC 9111 §5.2.1.7",
    )  # fmt: skip

    # --- forward: what happened on the way to the app --------------------------------------------
    HIT_STALE_IF_ERROR = (
        Phase.FORWARD, "stale",
        "The app failed; a stale response inside its stale-if-error window answers instead.",
        "RFC 5861 §4",
    )  # fmt: skip
    COLLAPSE_TIMEOUT = (
        Phase.FORWARD, "uri-miss",
        "Another request was already fetching this page and did not finish within wait_timeout.",
        "house rule 13",
    )  # fmt: skip
    COLLAPSE_OVERFLOW = (
        Phase.FORWARD, "uri-miss",
        "More than max_followers requests already wait for this page.", "house rule 16",
    )  # fmt: skip
    MISS_MARKER = (
        Phase.FORWARD, "uri-miss",
        "The last answer for this URL was not storable, so requests for it do not wait for each "
        "other.",
        "house rule 13",
    )  # fmt: skip
    STORE_DOWN = (
        Phase.FORWARD, "miss", "The store did not answer; the app did.", "house rule 14",
    )  # fmt: skip
    CACHE_FAULT = (
        Phase.FORWARD, "miss", "The cache itself failed; the app answered, untouched.",
        "house rule 18",
    )  # fmt: skip
    APP_ERROR = (
        Phase.FORWARD, "miss", "The app raised an exception, which was passed on.", "house rule 12",
    )  # fmt: skip

    # --- settle: is the app's answer stored? -----------------------------------------------------
    STORED = (Phase.SETTLE, "stored", "The response was stored.", "RFC 9111 §3")
    FRESHENED = (
        Phase.SETTLE, "stored", "The app answered 304: the stored response was freshened.",
        "RFC 9111 §4.3.4",
    )  # fmt: skip
    NOT_STORED_METHOD = (
        Phase.SETTLE, "-", "Only the answer to a GET is stored.", "RFC 9111 §3",
    )  # fmt: skip
    NOT_STORED_RANGE = (
        Phase.SETTLE, "-",
        "The request asked for a range, so the answer may be a part.", "RFC 9111 §3.3",
    )  # fmt: skip
    NOT_STORED_REQUEST = (
        Phase.SETTLE, "-",
        "The request says no-store, or accepts no coding of the page that is stored.",
        "RFC 9111 §5.2.1.5",
    )  # fmt: skip
    NOT_STORED_IGNORED = (
        Phase.SETTLE, "-",
        'The app set environ["wsgicache.ignore"] or called hints.ignore() during the call.',
        "house rule 4",
    )  # fmt: skip
    NOT_STORED_HINT = (
        Phase.SETTLE, "-", "The app called hints.private(), or a session was accessed.",
        "house rule 6",
    )  # fmt: skip
    NOT_STORED_STATUS = (
        Phase.SETTLE, "-", "Responses with this status are not stored.",
        "RFC 9111 §3, house rule 2",
    )  # fmt: skip
    NOT_STORED_NO_STORE = (
        Phase.SETTLE, "-", "The response says no-store.", "RFC 9111 §5.2.2.5",
    )  # fmt: skip
    NOT_STORED_PRIVATE = (
        Phase.SETTLE, "-", "The response says private.", "RFC 9111 §5.2.2.7",
    )  # fmt: skip
    NOT_STORED_NO_CACHE = (
        Phase.SETTLE, "-", "The response says no-cache.", "RFC 9111 §5.2.2.4, house rule 9",
    )  # fmt: skip
    NOT_STORED_SET_COOKIE = (
        Phase.SETTLE, "-", "The response sets a cookie.", "house rule 7",
    )  # fmt: skip
    NOT_STORED_AUTHORIZATION = (
        Phase.SETTLE, "-",
        "The request carried credentials, and the response does not say that it may be shared.",
        "RFC 9111 §3.5",
    )  # fmt: skip
    NOT_STORED_COOKIE = (
        Phase.SETTLE, "-",
        "The request carried a cookie that the app saw, and the response says neither public nor "
        "s-maxage.",
        "house rule 6",
    )  # fmt: skip
    NOT_STORED_VARY = (
        Phase.SETTLE, "-", "Vary holds *, cannot be parsed, or names Authorization.",
        "RFC 9111 §4.1, house rule 8",
    )  # fmt: skip
    NOT_STORED_VARY_COOKIE = (
        Phase.SETTLE, "-",
        "The response varies on Cookie and the request carried one; name the cookies that matter in a "
        "rule.",
        "house rule 8",
    )  # fmt: skip
    NOT_STORED_NO_LIFETIME = (
        Phase.SETTLE, "-",
        "The response has no lifetime: none is stated and no ttl applies to it.",
        "RFC 9111 §4.2.1, house rule 2",
    )  # fmt: skip
    NOT_STORED_STALE = (
        Phase.SETTLE, "-", "The response is stale on arrival and has no use afterwards.",
        "RFC 9111 §4.2",
    )  # fmt: skip
    NOT_STORED_STREAM = (
        Phase.SETTLE, "-", "The response is an endless stream (text/event-stream and the like).",
        "house rule 16",
    )  # fmt: skip
    NOT_STORED_TOO_LARGE = (
        Phase.SETTLE, "-", "The body is larger than max_body_bytes.", "house rule 16",
    )  # fmt: skip
    NOT_STORED_FILE = (
        Phase.SETTLE, "-",
        "The body is too large for memory and could not be kept in a file: the disk is full or not to be "
        "written to, or spool_max_bytes leaves no room.",
        "house rule 16",
    )  # fmt: skip
    NOT_STORED_TOKEN = (
        Phase.SETTLE, "-",
        "The page holds somebody's token: a CSP nonce, or a CSRF field or meta tag.",
        "house rule 19",
    )  # fmt: skip
    NOT_STORED_FIELDS = (
        Phase.SETTLE, "-",
        "A response field cannot be stored as it is: control bytes, or contradictory lengths.",
        "RFC 9110 §5.5, house rule 12",
    )  # fmt: skip
    NOT_STORED_EMPTY = (
        Phase.SETTLE, "-",
        "An empty answer does not replace a stored page that has a body.", "house rule 2",
    )  # fmt: skip
    NOT_STORED_GROUPS = (
        Phase.SETTLE, "-",
        "The response names more groups than max_groups; a purge of one could miss it.",
        "house rule 16",
    )  # fmt: skip
    NOT_STORED_INCOMPLETE = (
        Phase.SETTLE, "-", "The body does not have the length that Content-Length announced.",
        "RFC 9111 §3.3, house rule 12",
    )  # fmt: skip
    NOT_STORED_BROKEN_OFF = (
        Phase.SETTLE, "-", "The server closed the response before its end, or the body raised.",
        "house rule 12",
    )  # fmt: skip
    NOT_STORED_RACED = (
        Phase.SETTLE, "-",
        "A purge or a newer response came while the app was working on this one.",
        "RFC 9111 §4.4",
    )  # fmt: skip
    NOT_STORED_STORE = (
        Phase.SETTLE, "-", "The store refused the entry (too large for it) or failed.",
        "house rule 14",
    )  # fmt: skip


class Outcome:
    """What finally happened to one request.

    `ttl` is the remaining lifetime in seconds (negative when stale, RFC 9211 §2.4), `forward_status`
    the app's status, `settled` what became of its answer, `collapsed` whether another request's
    answer served this one, `detail` an extra reason that says more than the decision's token. `path` is
    told where there is no key, and `query`. `seconds` is how long the app took to its head, `size` the bytes
    of a body that was stored, `method` the client's.
    """

    __slots__ = (
        "collapsed",
        "detail",
        "forward_status",
        "key",
        "method",
        "path",
        "query",
        "reason",
        "rule",
        "seconds",
        "settled",
        "size",
        "status",
        "ttl",
    )

    def __init__(
        self,
        reason: Reason,
        ttl: int | None = None,
        forward_status: int | None = None,
        settled: Reason | None = None,
        collapsed: bool = False,
        detail: Reason | None = None,
        key: str | None = None,
        rule: str | None = None,
        status: int | None = None,
        method: str | None = None,
    ) -> None:
        self.reason = reason
        self.ttl = ttl
        self.forward_status = forward_status
        self.settled = settled
        self.collapsed = collapsed
        self.detail = detail
        self.key = key
        self.rule = rule
        self.status = status
        self.method = method
        self.path: str | None = None
        self.query: str | None = None
        self.seconds: float | None = None
        self.size: int | None = None

    def tell_ttl(self, seconds: int) -> None:
        """Note the remaining lifetime of the answer; a stale one's is never above zero (RFC 9211 §2.4), also
        where a soft purge and not its age made it stale."""
        self.ttl = min(0, seconds) if self.reason in _STALE_ANSWERS else seconds

    def cache_status(self, *, show_key: bool = False) -> str:
        """Render as one member of the `Cache-Status` list (RFC 9211 §2); `hit` excludes `fwd`."""
        if show_key:
            return self._render(show_key=True)
        told = (self.reason, self.forward_status, self.settled, self.collapsed, self.ttl, self.detail)
        line = _lines.get(told)
        if line is None:
            if len(_lines) >= 4096:
                _lines.clear()
            _lines[told] = line = self._render(show_key=False)
        return line

    def _render(self, *, show_key: bool) -> str:
        reason = self.reason
        parts = [CACHE_NAME]
        if reason.is_hit:
            parts.append("hit")
        else:
            parts.append(f"fwd={reason.token}")
            if self.forward_status is not None:
                parts.append(f"fwd-status={self.forward_status}")
            if self.settled is not None and self.settled.token == "stored":
                parts.append("stored")
            if self.collapsed:
                parts.append("collapsed")
        if self.ttl is not None:
            parts.append(f"ttl={self.ttl}")
        if show_key and self.key is not None:
            parts.append(f"key={_sf_string(self.key)}")
        detail = self.explaining_detail()
        if detail is not None:
            parts.append(f"detail={detail.name}")
        return "; ".join(parts)

    def explaining_detail(self) -> Reason | None:
        """The reason that tells more than the token does, if there is one."""
        if self.reason.phase is Phase.ADMIT:
            return self.reason
        if self.settled is not None and self.settled.token != "stored" and not self.reason.is_hit:
            return self.settled
        if self.detail is not None:
            return self.detail
        return None if self.reason in _PLAIN else self.reason


_lines: Final[dict[tuple[object, ...], str]] = {}
"""Lines that were rendered already: there are few of them beside the remaining lifetimes."""

_STALE_ANSWERS: Final = frozenset(
    {Reason.HIT_STALE_WHILE_REVALIDATE, Reason.HIT_MAX_STALE, Reason.HIT_STALE_IF_ERROR}
)
_PLAIN: Final = frozenset({Reason.HIT, Reason.URI_MISS, Reason.VARY_MISS, Reason.STALE})


def _sf_string(text: str) -> str:
    """A structured-field String (RFC 9651 §3.3.3); what it cannot hold is percent-encoded."""
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif " " <= char <= "~":
            out.append(char)
        else:
            out.extend(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
    return '"' + "".join(out) + '"'


def hit_line(ttl: int) -> str:
    """`Cache-Status` of a fresh hit, the one that is sent most."""
    return f"{CACHE_NAME}; hit; ttl={ttl}"
