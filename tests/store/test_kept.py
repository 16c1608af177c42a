"""What a worker keeps between stages: one thing, for stages of one name; other processes keep nothing."""

import gc
import weakref

from valuesoup.store.kept import Kept


class Model:
    pass


def test_a_process_that_is_no_worker_keeps_nothing() -> None:
    kept = Kept()
    assert kept.get("a", Model) is not kept.get("a", Model)


def test_a_worker_opens_once_for_stages_of_one_name() -> None:
    kept = Kept()
    kept.begin("scores")
    first = kept.get("a", Model)
    kept.begin("scores")
    assert kept.get("a", Model) is first


def test_it_lets_go_before_another_is_opened_and_before_a_stage_of_another_name() -> None:
    kept = Kept()
    kept.begin("scores")
    gone = weakref.ref(kept.get("a", Model))

    def make() -> Model:
        gc.collect()
        assert gone() is None, "both would be in memory"
        return Model()

    after = weakref.ref(kept.get("b", make))
    assert after() is not None
    kept.begin("train")
    gc.collect()
    assert after() is None
