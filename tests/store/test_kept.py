"""What a worker keeps between stages: one thing, until another is asked for; other processes keep nothing."""

import gc
import weakref

from valuesoup.store.kept import Kept


class Model:
    pass


def test_a_process_that_is_no_worker_keeps_nothing() -> None:
    kept = Kept()
    assert kept.get("a", Model) is not kept.get("a", Model)


def test_a_worker_opens_once_what_stages_ask_for_one_after_the_other() -> None:
    kept = Kept()
    kept.begin()
    first = kept.get("a", Model)
    assert kept.get("a", Model) is first


def test_it_lets_go_before_another_is_opened_and_when_told() -> None:
    kept = Kept()
    kept.begin()
    gone = weakref.ref(kept.get("a", Model))

    def make() -> Model:
        gc.collect()
        assert gone() is None, "both would be in memory"
        return Model()

    after = weakref.ref(kept.get("b", make))
    assert after() is not None
    kept.let_go()
    gc.collect()
    assert after() is None
