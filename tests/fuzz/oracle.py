"""The strict judge of a fuzzed reader, and the mutations that all readers are fuzzed with."""

import copy
import math
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from types import FrameType
from typing import Any, TypeVar

from valuesoup.errors import LONGEST_LINE, RunError, UserError

T = TypeVar("T")

SECONDS = 10.0
"""A case that takes longer hangs."""
MOST_LINES = 25
"""Of a message; only a configuration has more than one, a line for each mistake."""

JUNK: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**64),
    10**40,
    0.5,
    -0.0,
    1e308,
    -1e-320,
    "",
    " ",
    "0",
    "1e3",
    "nan",
    "NaN",
    "null",
    "a" * 5000,
    "é",
    "日本語",
    "\u202e\u200b",
    "\x00",
    "\x1b[31m",
    "a\nb",
    "../../x",
    "/etc/passwd",
    "C:\\x",
    "{prompt.__class__}",
    "{{ ''.__class__ }}",
    "<script>alert(1)</script>",
    "module:function",
    [],
    [None],
    [[]],
    [1, "a", {}],
    {},
    {"": ""},
    {"a": {"b": {"c": [1]}}},
    {"mean": 1.0},
    {"kind": "no"},
)
WILD: tuple[Any, ...] = (*JUNK, math.nan, math.inf, -math.inf, "\ud800", "a\udfff")
"""With what JSON's grammar does not have, but Python's reader takes."""


class HangError(AssertionError):
    """A case took too long."""


@contextmanager
def deadline(seconds: float = SECONDS) -> Iterator[None]:
    """Break off what takes too long, wherever it is."""

    def ring(_: int, __: FrameType | None) -> None:
        raise HangError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def answer(call: Callable[[], T], lines: int = 1) -> T | None:
    """Return what a reader gives, or None where it refuses in words; all else fails the test."""
    with deadline(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call()
        except (UserError, RunError) as error:
            check_message(str(error), lines)
    return None


def check_message(text: str, lines: int = 1) -> None:
    """Hold that a message is one that a person can read (a line for each mistake, where there may be several)."""
    assert text.strip(), "an empty message"
    found = text.split("\n")
    assert len(found) <= lines, f"{len(found)} lines: {text[:500]!r}"
    for line in found:
        assert len(line) >= 10, f"too short: {text!r}"
        assert len(line) <= LONGEST_LINE, f"{len(line)} characters: {line[:200]!r}"
        assert line.replace("\t", "").isprintable(), f"control characters: {line!r}"
        assert "Traceback" not in line
    text.encode()  # half a surrogate pair could not be printed


def junk(random: Random, wild: bool = True) -> Any:
    """Return any value, sometimes deep."""
    if random.random() < 0.03:
        value: Any = 1
        for _ in range(random.choice((50, 300))):
            value = [value] if random.random() < 0.5 else {"a": value}
        return value
    return copy.deepcopy(random.choice(WILD if wild else JUNK))


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a JSON value, itself first."""
    yield here
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*here, key))


def mutated(value: Any, random: Random, wild: bool = True) -> Any:
    """Return a copy of a JSON value with one to three things changed, removed, renamed, added or swapped."""
    made = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        path = random.choice(list(places(made)))
        if not path:
            if random.random() < 0.1:
                return junk(random, wild)
            continue
        parent = made
        for part in path[:-1]:
            parent = parent[part]
        key = path[-1]
        how = random.randrange(6)
        if how == 0:
            del parent[key]
        elif how == 1 and isinstance(parent, dict):
            parent[str(junk(random, wild))[:50] or "x"] = parent.pop(key)
        elif how == 2 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif how == 3 and isinstance(parent[key], bool | int | float):
            parent[key] = random.choice((str(parent[key]), [parent[key]], bool(parent[key]), -parent[key] - 1))
        elif how == 4 and isinstance(parent, dict):
            parent[random.choice(("x", "values", "mean", "", "kind", "__class__"))] = junk(random, wild)
        else:
            parent[key] = junk(random, wild)
    return made


def damaged(data: bytes, random: Random) -> bytes:
    """Return bytes that are cut, or of which some are changed, doubled, put in or left out."""
    made = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        place = random.randrange(len(made) + 1)
        end = min(len(made), place + random.choice((1, 2, 8, 100)))
        how = random.randrange(6)
        if how == 0:
            del made[place:]
        elif how == 1:
            del made[place:end]
        elif how == 2:
            made[place:place] = random.choice(
                (b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"{", b"}", b"[", b'"', b"\x80")
            )
        elif how == 3 and place < len(made):
            made[place] ^= 1 << random.randrange(8)
        elif how == 4:
            made[place:place] = made[place:end]
        else:
            made[place:end] = random.randbytes(end - place)
    return bytes(made)
