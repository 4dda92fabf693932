"""What stands in the values of plain stores is read whatever it is: hypothesis looks for what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from wsgicache.codec import DecodeError, encode
from wsgicache.entry import Entry, Terms
from wsgicache.journal import Kind, Mark, Purge
from wsgicache.stores.memcachedjournal import Batch
from wsgicache.stores.values import (
    HELD,
    UNSTORABLE,
    Names,
    lease_value,
    line_for,
    read_lease,
    read_line,
    read_stored,
    read_text,
    refuses,
    write_text,
)

texts = some.text(some.characters(), max_size=40)  # surrogates too
ids = some.text("0123456789abcdef", min_size=1, max_size=16)
purges = some.builds(Purge, some.sampled_from(Kind), texts, some.booleans())
batches = some.builds(
    Batch, ids, some.floats(0, 4e9), some.lists(some.tuples(ids, purges), min_size=1, max_size=5)
)


@given(batches)
def test_a_batch_comes_back_as_it_was(batch):
    assert Batch.decode(batch.encode()) == batch


@given(batches, some.integers(1, 100), some.binary(max_size=5))
def test_a_batch_that_is_cut_or_changed_is_none_or_a_batch(batch, cut, more):
    data = batch.encode()
    for junk in (data[:-cut], data[cut:], data + more, more + data, data[:cut] + more + data[cut + 1 :]):
        try:
            assert isinstance(Batch.decode(junk), Batch)
        except DecodeError:
            pass


@given(some.binary(max_size=200))
def test_anything_can_be_read(junk):
    assert read_stored("/a", junk, ()) is None
    assert read_line(junk) is None or read_line(junk).token >= 0
    assert read_lease(junk)[1] >= 0
    assert read_text(junk) is None or write_text(read_text(junk)) == junk
    with pytest.raises(DecodeError):
        Batch.decode(junk[:10])


@given(texts)
def test_a_text_comes_back_as_it_was(text):
    assert read_text(write_text(text)) == text


@pytest.mark.parametrize("kind", [HELD, UNSTORABLE])
@given(token=some.integers(0, 2**64 - 1), seconds=some.floats(0.001, 1e9))
def test_a_lease_comes_back_as_it_was(kind, token, seconds):
    value, kept = lease_value(kind, token, seconds)
    assert read_lease(value)[:2] == (kind, token)
    assert seconds <= kept <= seconds + 2


@given(texts, texts, some.sampled_from("elx"))
def test_names_are_of_one_length_and_differ(one, other, kind):
    names = Names(one)
    assert len(names.of(kind, other)) == 49
    assert (names.of(kind, one) == names.of(kind, other)) is (one == other)
    assert (names.mark == Names(other).mark) is (one == other)


def entry(seq, epoch="e" * 16):
    return Entry("/a", Terms("200 OK", "f", 300, "ttl"), (), b"x", 0.0, 300.0, Mark(epoch, seq, "0"))


@given(some.integers(0, 5), some.integers(0, 5), some.integers(0, 5), some.integers(0, 5))
def test_what_is_refused(old_seq, new_seq, old_token, new_token):
    old = line_for(entry(old_seq), "", old_token) + encode(entry(old_seq))
    new = line_for(entry(new_seq), "", new_token)
    assert refuses(old, new, "e" * 16) is (old_seq > new_seq or 0 < new_token < old_token)
    assert refuses(old, new, "f" * 16) is True
    assert refuses(None, new, "e" * 16) is False
    assert refuses(line_for(entry(9, "f" * 16), "", 9), new, "e" * 16) is False
    assert read_stored("/a", old, ()).born.seq == old_seq
    assert read_stored("/b", old, ()) is None
