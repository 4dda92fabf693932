"""Rules per path: patterns, first match wins, switches at run time, fingerprints. Pure.

A pattern is anchored at both ends and aware of segments: `*` stays inside a segment, `**` does not, and
a final `/*` means everything below, at any depth. `regex:` in front makes it a regular expression. Rules
that restrict (`bypass`) match generously: the bare path, other spellings, any case. Rules that permit
match strictly: a page is never stored because its URL looks like another.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from .key import MEMO_LIMIT, wsgi_path
from .options import RULE_OPTIONS, OptionError, read_option
from .profile import Profile


class Rule:
    """What holds for the paths that a pattern covers. Options: see `wsgicache.options.RULE_OPTIONS`.

    Args:
        pattern: `/about`, `/post/*`, `/static/**/*.css`, `regex:/[a-z]{2}/.*`.
        options: name, bypass, ttl, statuses, override, query, ignore_query, cookies, vary, groups,
            stale_while_revalidate, stale_if_error, early_refresh, jitter, max_body_bytes, encode, methods,
            host, strip_set_cookie, store_tokens, enabled.

    Raises:
        OptionError: a bad pattern or option, or options that contradict each other.
    """

    def __init__(self, pattern: str, **options: Any) -> None:
        where = f"Rule({pattern!r})"
        read = {name: option.default for name, option in RULE_OPTIONS.items()}
        read |= {name: read_option(RULE_OPTIONS, name, value, where) for name, value in options.items()}
        self.pattern = pattern
        self.options: Final[Mapping[str, Any]] = read
        self.name: str | None = read["name"]
        self._enabled: bool = read["enabled"]
        self._watchers: list[Callable[[], None]] = []
        _refuse_contradictions(read, options, where)
        self._strict = _compile(pattern, where, generous=False)
        self._generous = _compile(pattern, where, generous=True)

    @classmethod
    def parse(cls, name: str, text: str) -> Rule:
        """Read a rule from one ini line, such as `/static/* ttl=86400 override`.

        Raises:
            OptionError: the text is not a pattern followed by options.
        """
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise OptionError(f"rule.{name} = {text!r} cannot be read: {error}") from None
        if not words:
            raise OptionError(f"rule.{name} is empty; write a pattern, then options: /admin/* bypass")
        options: dict[str, Any] = {"name": name}
        for word in words[1:]:
            option, equals, value = word.partition("=")
            if option in options:
                raise OptionError(f"rule.{name} = {text!r}: {option} is given twice; keep one")
            options[option] = value if equals else True
        try:
            return cls(words[0], **options)
        except OptionError as error:
            raise OptionError(f"rule.{name} = {text!r}: {error}") from None

    @property
    def enabled(self) -> bool:
        """Whether the rule is in force; assign to switch it, from the next request."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        self._enabled = bool(enabled)
        for notify in self._watchers:
            notify()

    def watch(self, notify: Callable[[], None]) -> None:
        """Have `notify` called after each switch."""
        self._watchers.append(notify)

    @property
    def restricts(self) -> bool:
        """Whether the rule only takes away, so that it may match generously."""
        return bool(self.options["bypass"])

    @property
    def label(self) -> str:
        """The name, or else the pattern."""
        return self.name or self.pattern

    def covers(self, path: str, host: str, method: str) -> bool:
        """Whether the rule applies to a request."""
        options = self.options
        if options["methods"] is not None and method not in options["methods"]:
            return False
        if options["host"] is not None and not self._covers_host(host, options["host"].lower()):
            return False
        if self.restricts:
            return any(self._generous.match(spelling) for spelling in _spellings(path))
        return self._strict.match(path) is not None

    def _covers_host(self, host: str, glob: str) -> bool:
        """Whether the host matches; for a rule that restricts, on any port and with a final dot too."""
        if fnmatchcase(host, glob):
            return True
        name, colon, port = host.rpartition(":")
        bare = name if colon and port.isdigit() else host
        return self.restricts and fnmatchcase(bare.removesuffix("."), glob)

    def __repr__(self) -> str:
        given = [
            f"{name}={value!r}" for name, value in self.options.items() if value != RULE_OPTIONS[name].default
        ]
        return f"Rule({', '.join([repr(self.pattern), *given])})"


def _refuse_contradictions(read: Mapping[str, Any], given: Mapping[str, Any], where: str) -> None:
    if read["override"] and read["ttl"] is None and not read["statuses"]:
        raise OptionError(f"{where}: override=True needs a ttl to put in place of the response's own")
    if read["ignore_query"] and read["query"] not in ("key", "sort"):
        raise OptionError(f'{where}: ignore_query needs query="key": without it a query bypasses')
    if read["bypass"]:
        useless = sorted(set(given) - {"name", "bypass", "methods", "host", "enabled"})
        if useless:
            raise OptionError(f"{where}: bypass=True leaves nothing for {', '.join(useless)} to do")


_GLOB: Final = re.compile(r"/\*\Z|\*\*/?|\*|\?|[^*?/]+|/")


def _compile(pattern: str, where: str, *, generous: bool) -> re.Pattern[str]:
    flags = re.IGNORECASE if generous else 0
    if pattern.startswith("regex:"):
        try:
            return re.compile(f"(?s:{pattern[6:]})\\Z", flags)
        except re.error as error:
            raise OptionError(f"{where}: not a regular expression: {error}") from None
    if not pattern.startswith("/"):
        raise OptionError(f"{where}: a pattern starts with / (or with regex:)")
    text = "".join(_translate(piece, generous) for piece in _GLOB.findall(wsgi_path(pattern)))
    return re.compile(f"(?s:{text}){'/*' if generous else ''}\\Z", flags)


def _translate(piece: str, generous: bool) -> str:
    match piece:
        case "/*":
            return "(?:/.*)?" if generous else "/.*"
        case "**/":
            return "(?:.*/)?"
        case "**":
            return ".*"
        case "*":
            return "[^/]*"
        case "?":
            return "[^/]"
        case _:
            return re.escape(piece)


def _spellings(path: str) -> Iterator[str]:
    """A path as an app might read it: as it is, unescaped once more, without dots and double slashes."""
    yield path
    again = wsgi_path(path) if "%" in path else path
    if again != path:
        yield again
    tidy = posixpath.normpath(again.replace("\\", "/"))
    tidy = "/" + tidy.lstrip("/")
    if tidy != path:
        yield tidy
    plain = tidy.partition(";")[0]
    if plain != tidy:
        yield plain


def fingerprint(profile: Profile, rule: Rule | None, settings: Iterable[object]) -> str:
    """Eight bytes of hex that change when anything changes that an entry was stored under."""
    options = {} if rule is None else dict(rule.options)
    options.pop("name", None)
    for name in ("enabled", "early_refresh", "jitter"):  # when, not what
        options.pop(name, None)
    text = repr((profile, rule.pattern if rule else None, sorted(options.items()), list(settings)))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class RuleState:
    """One rule as people see it: its label, pattern, options that were given, and its switch."""

    label: str
    pattern: str
    enabled: bool


class RuleSet:
    """The rules of one cache, in order, and their switches.

    Args:
        rules: the rules; names must be unique.

    Raises:
        OptionError: something in `rules` is no Rule, or two have one name.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        self._memo: dict[tuple[str, str, str], int] = {}
        self._watchers: list[Callable[[], None]] = []
        names = set()
        for rule in self._rules:
            if not isinstance(rule, Rule):
                raise OptionError(f"rules: {rule!r} is not a Rule; write Rule('/path/*', ttl=60)")
            if rule.name is not None and rule.name in names:
                raise OptionError(f"rules: two rules are named {rule.name!r}; a name is for one")
            names.add(rule.name)
            rule.watch(self._switched)

    def watch(self, notify: Callable[[], None]) -> None:
        """Have `notify` called after each switch, so that a cache forgets what it decided before."""
        self._watchers.append(notify)

    def _switched(self) -> None:
        self._memo = {}
        for notify in self._watchers:
            notify()

    def find(self, path: str, host: str, method: str) -> int:
        """The position of the first enabled rule that covers a request, or -1."""
        if not self._rules:
            return -1
        if len(path) > MEMO_LIMIT:
            return self._search(path, host, method)
        memo = self._memo
        asked = (path, host, method)
        found = memo.get(asked)
        if found is None:
            found = self._search(path, host, method)
            if len(memo) >= 4096:
                memo.clear()
            memo[asked] = found
        return found

    def _search(self, path: str, host: str, method: str) -> int:
        for position, rule in enumerate(self._rules):
            if rule.enabled and rule.covers(path, host, method):
                return position
        return -1

    def enable(self, name: str) -> None:
        """Switch a named rule on, from the next request.

        Raises:
            KeyError: no rule has this name; the message lists those that exist.
        """
        self[name].enabled = True

    def disable(self, name: str) -> None:
        """Switch a named rule off, from the next request; what it stored is no longer served.

        Raises:
            KeyError: no rule has this name; the message lists those that exist.
        """
        self[name].enabled = False

    def __getitem__(self, name: str) -> Rule:
        for rule in self._rules:
            if rule.name == name:
                return rule
        known = ", ".join(rule.name for rule in self._rules if rule.name) or "none has a name"
        raise KeyError(f"no rule is named {name!r}; known: {known}")

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)

    def states(self) -> list[RuleState]:
        """The rules for people."""
        return [RuleState(rule.label, rule.pattern, rule.enabled) for rule in self._rules]
