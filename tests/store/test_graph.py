"""Keys of nodes and the order in which a graph runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from valuesoup.store import Node, Stage, Work, fingerprint, stage, topological

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Settings(BaseModel):
    rank: int = 4
    rate: float = 0.1


@stage("make", ignore=("device",))
def make(work: Work, **_: object) -> None:
    (work.out / "x").write_text("x")


def renamed(of: Stage, name: str = "make", version: int = 1) -> Stage:
    return Stage(name, version, of.function, of.ignore)


def test_a_key_is_16_hex_digits_and_names_the_folder() -> None:
    node = make("label", size=1)
    assert len(node.key) == 16
    assert set(node.key) <= set("0123456789abcdef")
    assert node.folder == f"make-{node.key}"


def test_labels_and_ignored_inputs_do_not_enter_the_key() -> None:
    assert make("one", size=1, device="cpu").key == make("two", size=1, device="cuda").key == make("three", size=1).key


@given(plain, plain)
def test_equal_inputs_have_equal_keys_and_different_inputs_different_keys(one: object, other: object) -> None:
    same = fingerprint(one) == fingerprint(other)
    assert make("a", x=one).key == make("b", x=one).key
    assert (make("a", x=one).key == make("a", x=other).key) == same


def test_the_order_of_named_inputs_does_not_matter_and_that_of_lists_does() -> None:
    assert make("a", x=1, y={"p": 1, "q": 2}).key == make("a", y={"q": 2, "p": 1}, x=1).key
    assert make("a", x=[1, 2]).key != make("a", x=[2, 1]).key
    assert make("a", x=(1, 2)).key == make("a", x=[1, 2]).key


def test_name_version_and_models_enter_the_key() -> None:
    keys = {
        make("a", x=Settings()).key,
        make("a", x=Settings(rank=8)).key,
        renamed(make, version=2)("a", x=Settings()).key,
        renamed(make, name="other")("a", x=Settings()).key,
    }
    assert len(keys) == 4
    assert make("a", x=Settings()).key == make("a", x=Settings(rank=4, rate=0.1)).key


def test_a_parents_key_enters_the_key_however_deep_it_stands() -> None:
    def child(size: int) -> Node:
        return make("child", of={"deep": [make("parent", size=size)]})

    assert child(1).key == child(1).key
    assert child(1).key != child(2).key
    assert make("grandchild", of=child(1)).key != make("grandchild", of=child(2)).key


def test_parents_are_listed_once_each() -> None:
    one, two = make("one", size=1), make("two", size=2)
    node = make("child", a=one, b={"x": two, "y": [make("one again", size=1)]})
    assert [parent.key for parent in node.parents] == [one.key, two.key]


def test_what_no_key_can_be_made_of_is_refused() -> None:
    with pytest.raises(TypeError, match="not set"):
        _ = make("a", x={1, 2}).key
    with pytest.raises(ValueError, match="not JSON compliant"):
        _ = make("a", x=float("nan")).key


def test_a_graph_lists_parents_before_children_and_each_node_once() -> None:
    root = make("root", size=0)
    left, right = make("left", of=root, side=0), make("right", of=root, side=1)
    join = make("join", of=[left, right])
    order = [node.key for node in topological([join, left, root, make("root again", size=0)])]
    assert sorted(order) == sorted({root.key, left.key, right.key, join.key})
    for node in (left, right, join):
        assert all(order.index(parent.key) < order.index(node.key) for parent in node.parents)
