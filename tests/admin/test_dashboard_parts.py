"""What the pages of the dashboard are made of: numbers for people, plots, and what hits saved."""

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wsgicache.admin import figures, plots
from wsgicache.admin.overview import DAY_SPAN, by_route, merged
from wsgicache.admin.plots import Plot, Span, bars, lines
from wsgicache.history import FIELDS, Point
from wsgicache.savings import SAVED_BYTES, SAVED_TIME, named, saved, savings

SVG = ElementTree.fromstring


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (figures.count, 0, "0"),
        (figures.count, 1234567, "1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567"),
        (figures.count, None, figures.NONE),
        (figures.percent, None, figures.NONE),
        (figures.percent, 0, "0%"),
        (figures.percent, 1.0, "100%"),
        (figures.percent, 0.9996, "100.0%"),
        (figures.size, 0, "0 B"),
        (figures.size, 999, "999 B"),
        (figures.size, 1000, "1 kB"),
        (figures.size, 999_999, "1 MB"),
        (figures.size, 1_234_567, "1.23 MB"),
        (figures.size, None, figures.NONE),
        (figures.duration, 0, "0 s"),
        (figures.duration, 0.0421, "42.1 ms"),
        (figures.duration, 59, "59 s"),
        (figures.duration, 90, "1.5 min"),
        (figures.duration, 7200, "2 h"),
        (figures.duration, -90000, "-1.04 d"),
        (figures.duration, None, figures.NONE),
        (figures.instant, 0, "1970-01-01 00:00:00"),
        (figures.clock_time, 3660, "01:01"),
        (figures.readable, "/caf\u00c3\u00a9", "/caf\u00e9"),
        (figures.readable, "/\u00ff\x00", "/\\xff\\x00"),
        (figures.readable, "/\u00e2\u0080\u00ae", "/\\x202e"),
    ],
)
def test_numbers_as_people_read_them(write, value, text):
    assert write(value) == text


@given(st.text(max_size=50))
def test_whatever_is_readable_can_be_seen(text):
    assert figures.readable(text).isprintable()


values = st.one_of(st.none(), st.floats(0, 1e15, allow_nan=False))


@example([(1, None, 5e-324)], bars)
@given(st.lists(st.tuples(st.integers(1, 5000), values, values), max_size=30), st.sampled_from([bars, lines]))
def test_a_plot_is_well_formed_and_stays_inside(spans, draw):
    at, made = 10_000.0, []
    for length, *pair in spans:
        made.append(Span(at, at + length, pair))
        at += length
    plot = Plot("p", '<"&', "a & b", ("one", "two"), made, at - 3600, at, str)
    svg = SVG(str(draw(plot)))
    assert svg.find("title").text == '<"&'
    for bar in svg.findall("rect"):
        x, y, width, height = (float(bar.get(name)) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= plots.WIDTH
        assert x + width <= plots.WIDTH + 1
        assert -0.2 <= y <= y + height <= plots.HEIGHT
    for path in svg.findall("path"):
        assert "nan" not in path.get("d")
    assert "style" not in {name for node in svg.iter() for name in node.attrib}


def test_a_line_is_broken_where_there_is_no_value():
    spans = [Span(0, 60, [0.5]), Span(60, 120, [None]), Span(120, 180, [1.0])]
    svg = SVG(str(lines(Plot("p", "t", "x", ("one",), spans, 0, 180, str, top=1.0))))
    assert svg.find("path").get("d").count("M") == 2


def test_bars_stand_on_each_other():
    svg = SVG(str(bars(Plot("p", "t", "x", ("one", "two"), [Span(0, 60, [1, 3])], 0, 60, str))))
    low, high = svg.findall("rect")
    assert float(high.get("y")) + float(high.get("height")) == float(low.get("y"))
    assert float(high.get("height")) == pytest.approx(3 * float(low.get("height")), abs=0.3)


def point(at, seconds, n):
    return Point(at, seconds, dict.fromkeys(FIELDS, n))


def test_points_of_a_day_are_drawn_together():
    few = merged([point(at, 300, 1) for at in range(300, 7200 + 300, 300)], DAY_SPAN)
    assert [(each.at, each.seconds, each.numbers["hits"]) for each in few] == [
        (at, 1800, 6) for at in (1800, 3600, 5400, 7200)
    ]


# --- what hits saved ---

MADE = {"asked<a>": 4, "milliseconds<a>": 1000, "stored<a>": 2, "bytes<a>": 500}


def refuse():
    raise AssertionError("nobody need be asked")


def test_a_hit_saves_what_its_route_takes_on_the_mean():
    told = savings({"hits<a>": 3, "misses<a>": 1, "reason:HIT": 9}, MADE, refuse)
    assert told == {"saved_milliseconds<a>": 750, "saved_bytes<a>": 750}
    assert saved({**told, "saved_bytes<b>": 1}) == {SAVED_TIME: 750, SAVED_BYTES: 751}


def test_what_another_process_made_counts_as_it_took_there():
    assert savings({"hits<a>": 3}, {"hits<a>": 3}, lambda: MADE)["saved_milliseconds<a>"] == 750


def test_nobody_knows_what_was_never_made():
    assert savings({"hits<a>": 3, "hits<b>": 0}, {}, dict) == {}


def test_names_may_hold_anything():
    assert named({"hits<<script>>": 1, "hits": 2, "misses<<script>>": 3}) == {
        "<script>": {"hits": 1, "misses": 3}
    }
    (row,) = by_route({"hits</<b>/*\tr>": 2, "misses</<b>/*>": 1, "view:hits:x": 5})
    assert (row.name, row.hits, row.misses) == ("/<b>/*", 2, 1)
