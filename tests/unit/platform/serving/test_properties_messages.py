"""The wire protocol: whatever a client sends is a command or a refusal that says why."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from dytrack_platform.serving.messages import HEADER, Refused, read_command, read_frame

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
fields = st.sampled_from(
    ["targets", "id", "ids", "box", "point", "budget_ms", "mode", "model", "resume"]
)
kinds = st.sampled_from(["start", "add", "move", "remove", "point", "model", "token", "stop", "x"])
names = st.text("abc-é", min_size=1, max_size=8)
numbers = st.floats(-1e5, 1e5)


def answer(text):
    """Return the command, or why there is none."""
    try:
        return read_command(text)
    except Refused as refused:
        return refused


@given(kinds, st.dictionaries(fields, anything, max_size=4))
def test_every_message_is_understood_or_refused(kind, values):
    found = answer(json.dumps({"type": kind, **values}))
    if isinstance(found, Refused):
        assert found.code in ("message", "box")
        assert str(found)
    else:
        assert found.kind == kind
        assert all(math.isfinite(value) for one in found.targets for value in one.box)


@given(st.text(max_size=60))
def test_every_text_is_understood_or_refused(text):
    found = answer(text)
    assert str(found) if isinstance(found, Refused) else found.kind


@given(st.dictionaries(names, st.tuples(numbers, numbers, numbers, numbers), min_size=1))
def test_targets_arrive_as_they_were_sent(targets):
    rows = [{"id": name, "box": list(box)} for name, box in targets.items()]
    found = read_command(json.dumps({"type": "start", "targets": rows}))
    assert {one.id: one.box for one in found.targets} == targets


@given(st.integers(0, 2**64 - 1), st.floats(), st.binary(max_size=20))
def test_a_frame_is_cut_where_its_header_ends(frame, seconds, picture):
    message = HEADER.pack(frame, seconds) + picture
    try:
        header, found = read_frame(message)
    except Refused:
        assert not picture or not math.isfinite(seconds)
    else:
        assert (header.frame, header.seconds, found) == (frame, seconds, picture)
