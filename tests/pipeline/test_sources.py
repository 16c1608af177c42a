"""Sources of a training become rows: selections, flips and margins on hand-worked numbers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

import tiny
from valuesoup.config import BaseConfig
from valuesoup.data import Pairs
from valuesoup.pipeline.inputs import BaseRef, base_ref
from valuesoup.pipeline.sources import MarginSource, Source, selected, training_rows
from valuesoup.rewards import RewardTable
from valuesoup.store import Artifact
from valuesoup.training.loss import preference_loss
from valuesoup.training.rows import TrainingRows
from valuesoup.training.settings import TrainingSettings

SETTINGS = TrainingSettings(rank=2, beta=0.5, max_length=64)
REFERENCE = np.array([[-3.0, -5.0], [-2.0, -1.0], [-7.0, -7.5], [-4.0, -6.0]])
Make = Callable[..., Artifact]


@pytest.fixture
def base(tmp_path: Path) -> BaseRef:
    return base_ref(BaseConfig(model=str(tiny.save_base(tmp_path / "base")), device="cpu"))


@pytest.fixture
def artifact(tmp_path: Path) -> Make:
    """Make an artifact of arrays and reward tables; equal names are equal folders."""

    def make(name: str, files: Mapping[str, Any]) -> Artifact:
        folder = tmp_path / name
        for file, content in files.items():
            place = folder / file
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Pairs | RewardTable):
                content.save(place)
            else:
                np.save(place, np.asarray(content))
        return Artifact(folder, name, 0.0)

    return make


def stored(pairs: Pairs, log_probs: Any) -> dict[str, Any]:
    """The files of log-probabilities, which lie there in an order of their own."""
    turned = np.asarray(log_probs, dtype=float)[::-1]
    return {"ids.npy": np.asarray(pairs.ids[::-1]), "log_probs.npy": turned}


@pytest.fixture
def source(artifact: Make) -> Callable[..., Source]:
    """Make a source of four random pairs."""

    def make(name: str = "a", pairs: Pairs | None = None, **changes: Any) -> Source:
        given = pairs if pairs is not None else tiny.random_pairs(4)
        selection = changes.pop("selection", None)
        reference = changes.pop("reference", REFERENCE)
        return Source(
            **{
                "pairs": artifact(f"pairs-{name}", {"a/train.parquet": given}),
                "dataset": "a",
                "selection": None if selection is None else artifact(f"selection-{name}", {"train.npy": selection}),
                "reference": artifact(f"reference-{name}", stored(given, reference)),
                "weight": 1.0,
                "scale": 1.0,
                "margins": [],
                **changes,
            }
        )

    return make


def rows(base: BaseRef, *sources: Source, vectors: int = 1, settings: TrainingSettings = SETTINGS) -> TrainingRows:
    found = training_rows(base, {str(place): sources for place in range(vectors)}, "train", settings)
    assert found is not None
    return found


def same(one: TrainingRows, other: TrainingRows) -> bool:
    left, right = one.collate(range(len(one))), other.collate(range(len(other)))
    return all(torch.equal(left[key], right[key]) for key in left)


def turned(pairs: Pairs, places: Sequence[int]) -> Pairs:
    """Write some pairs the other way round."""
    made = []
    for place, pair in enumerate(pairs):
        chosen, rejected = (pair.rejected, pair.chosen) if place in places else (pair.chosen, pair.rejected)
        made.append({"prompt": list(pair.prompt), "chosen": list(chosen), "rejected": list(rejected)})
    return Pairs.from_rows(made)


def implicit(artifact: Make, name: str, policy: Any, base: Any, share: float) -> MarginSource:
    return {
        "share": share,
        "policy": artifact(f"policy-{name}", stored(tiny.random_pairs(4), policy)),
        "base": artifact(f"base-{name}", stored(tiny.random_pairs(4), base)),
        "scores": None,
        "normalise": False,
    }


def scored(artifact: Make, name: str, scores: Any, share: float, *, normalise: bool = False) -> MarginSource:
    pairs = tiny.random_pairs(4)
    table = RewardTable(pairs.ids, ("chosen", "rejected"), (name,), np.asarray(scores, dtype=float)[:, :, None])
    node = artifact(f"scores-{name}", {"train.parquet": table})
    return {"share": share, "policy": None, "base": None, "scores": node, "normalise": normalise}


def test_a_plain_source_gives_the_rows_of_dpo(base: BaseRef, source: Callable[..., Source]) -> None:
    found = rows(base, source())
    np.testing.assert_array_equal(found.reference, REFERENCE)
    assert (found.weight == 1).all()
    assert (found.scale == 1).all()
    assert (found.margin == 0).all()
    assert selected(source(), "train") == 4


def test_a_selection_leaves_pairs_out_and_weighs_the_rest(base: BaseRef, source: Callable[..., Source]) -> None:
    whole = rows(base, source())
    given = source("chosen", selection=[0, 2.0, 0, 0.5], weight=3.0)
    found = rows(base, given)
    assert found.pairs.ids == [whole.pairs.ids[1], whole.pairs.ids[3]]
    np.testing.assert_array_equal(found.reference, REFERENCE[[1, 3]])
    np.testing.assert_array_equal(found.weight, [6.0, 1.5])
    assert selected(given, "train") == 2


def test_weights_of_one_are_no_selection(base: BaseRef, source: Callable[..., Source]) -> None:
    assert same(rows(base, source()), rows(base, source("ones", selection=np.ones(4))))


def test_nothing_selected_is_no_rows(base: BaseRef, source: Callable[..., Source]) -> None:
    none = source("none", selection=np.zeros(4))
    assert training_rows(base, {"v": [none]}, "train", SETTINGS) is None
    assert training_rows(base, {"v": [source()]}, "validation", SETTINGS) is None


def test_a_flipped_pair_is_the_pair_written_the_other_way_round(
    base: BaseRef, source: Callable[..., Source], artifact: Make
) -> None:
    pairs, flipped = tiny.random_pairs(4), [1, 2]
    scores = np.array([[1.0, 0.0], [2.0, 5.0], [-1.0, 3.0], [0.0, 4.0]])
    there = source("flipped", pairs, selection=[1, -1, -0.5, 0], margins=[scored(artifact, "one", scores, 0.3)])
    turned_scores, reference = scores.copy(), REFERENCE.copy()
    turned_scores[flipped], reference[flipped] = scores[flipped, ::-1], REFERENCE[flipped, ::-1]
    here = source(
        "written",
        turned(pairs, flipped),
        selection=[1, 1, 0.5, 0],
        reference=reference,
        margins=[scored(artifact, "two", turned_scores, 0.3)],
    )
    assert same(rows(base, there), rows(base, here))
    assert not same(rows(base, there), rows(base, source("plain", pairs, selection=[1, 1, 0.5, 0])))


def test_sources_of_several_vectors_train_each_its_own(base: BaseRef, source: Callable[..., Source]) -> None:
    found = training_rows(
        base, {"a": [source()], "b": [source("b", selection=[1, 0, 0, 0]), source("c", weight=0.2)]}, "train", SETTINGS
    )
    assert found is not None
    assert found.vector.tolist() == [0] * 4 + [1] * 5
    assert found.weight.tolist() == [1.0] * 5 + [0.2] * 4


def test_implicit_margins_are_beta_times_the_difference_of_log_ratios(
    base: BaseRef, source: Callable[..., Source], artifact: Make
) -> None:
    # log π/π_0 of chosen: 1, of rejected: -0.5; Δr = 0.5 x 1.5; times the share 0.4
    policy, before = np.full((4, 2), -9.0), np.full((4, 2), -9.0)
    policy[0], before[0] = (-3.0, -5.0), (-4.0, -4.5)
    policy[1], before[1] = (-2.0, -1.0), (-1.0, -3.0)
    found = rows(base, source(scale=0.6, margins=[implicit(artifact, "b", policy, before, 0.4)]))
    np.testing.assert_allclose(found.margin, [0.4 * 0.5 * 1.5, 0.4 * 0.5 * (-1.0 - 2.0), 0.0, 0.0], atol=1e-15)
    assert (found.scale == 0.6).all()
    doubled = rows(
        base,
        source(margins=[implicit(artifact, "b", policy, before, 0.4)]),
        settings=SETTINGS.model_copy(update={"beta": 1.0}),
    )
    np.testing.assert_allclose(doubled.margin, 2 * found.margin)


def test_margins_of_reward_models_are_raw_gaps_or_gaps_over_sigma(
    base: BaseRef, source: Callable[..., Source], artifact: Make
) -> None:
    scores = np.array([[3.0, 1.0], [0.0, 2.0], [1.0, 1.0], [4.0, 4.0]])  # mean 2, squares 1 1 4 0 1 1 4 4 -> σ² = 2
    raw = rows(base, source(margins=[scored(artifact, "b", scores, 0.5)]))
    np.testing.assert_allclose(raw.margin, [1.0, -1.0, 0.0, 0.0])
    scaled = rows(base, source(margins=[scored(artifact, "b", scores, 0.5, normalise=True)]))
    np.testing.assert_allclose(scaled.margin, raw.margin / np.sqrt(2))


def test_an_empty_part_has_no_rows_and_needs_no_scores(
    base: BaseRef, source: Callable[..., Source], artifact: Make
) -> None:
    """Expanded pairs hold nothing out."""
    given = source(margins=[scored(artifact, "b", np.eye(4)[:, :2], 0.5)])
    tiny.random_pairs(4).take([]).save(given["pairs"].path / "a" / "validation.parquet")
    assert training_rows(base, {"v": [given]}, "validation", SETTINGS) is None
    assert selected(given, "validation") == 0


def test_margins_of_several_values_add_up(base: BaseRef, source: Callable[..., Source], artifact: Make) -> None:
    one, other = np.array([[1.0, 0.0]] * 4), np.array([[0.0, 3.0]] * 4)
    other[0] = (5.0, 1.0)
    margins = [scored(artifact, "b", one + np.arange(4)[:, None], 0.3), scored(artifact, "c", other, 0.2)]
    np.testing.assert_allclose(rows(base, source(margins=margins)).margin, [0.3 + 0.8, *[0.3 - 0.6] * 3])


def test_a_pair_too_long_for_the_policy_is_left_out_with_its_undefined_margin(
    base: BaseRef, source: Callable[..., Source], artifact: Make
) -> None:
    lengths = [len(prompt) + max(len(a), len(b)) for prompt, a, b in _tokens(rows(base, source()))]
    longest = int(np.argmax(lengths))
    short = SETTINGS.model_copy(update={"max_length": max(lengths) - 1})
    keep = [place for place in range(4) if lengths[place] < max(lengths)]
    policy = np.zeros((4, 2))
    policy[:, 0] = [1.0, 2.0, 3.0, 4.0]
    policy[longest] = np.nan
    found = rows(base, source(margins=[implicit(artifact, "b", policy, np.zeros((4, 2)), 1.0)]), settings=short)
    assert found.pairs.places.tolist() == keep
    np.testing.assert_array_equal(found.margin, 0.5 * np.array([1.0, 2.0, 3.0, 4.0])[keep])
    np.testing.assert_array_equal(found.reference, REFERENCE[keep])


def _tokens(made: TrainingRows) -> list[tuple[list[int], list[int], list[int]]]:
    parts = (made.pairs.prompts, made.pairs.chosen, made.pairs.rejected)
    return [tuple(part[place] for part in parts) for place in range(len(made))]  # type: ignore[misc]


@pytest.mark.parametrize("weights", [(0.5, 0.3, 0.2), (0.1, 0.0, 0.9), (0.7, 0.3, 0.0), (1.0, 0.0, 0.0)])
def test_the_loss_of_modpo_is_the_published_one_with_chosen_and_rejected_taken_apart(
    weights: tuple[float, ...], base: BaseRef, source: Callable[..., Source], artifact: Make
) -> None:
    """Its released code: r = (1/w_k)·(β·log π/π_ref − Σ_j w_j·r_j) per response, −log σ(r(y_w) − r(y_l))."""
    draw = np.random.default_rng(3)
    rewards = draw.normal(size=(2, 4, 2))
    policy = REFERENCE + draw.normal(size=(4, 2))
    primary, *others = weights
    margins = [scored(artifact, f"v{j}", reward, w) for j, (reward, w) in enumerate(zip(rewards, others, strict=True))]
    made = rows(base, source(scale=primary, margins=margins))
    chosen, rejected = torch.tensor(policy).unbind(1)
    found = preference_loss(
        chosen,
        rejected,
        *torch.tensor(made.reference).unbind(1),
        beta=SETTINGS.beta,
        weight=torch.tensor(made.weight),
        scale=torch.tensor(made.scale),
        margin=torch.tensor(made.margin),
    )
    apart = (SETTINGS.beta * (policy - REFERENCE) - np.tensordot(others, rewards, axes=1)) / primary
    expected = -logsigmoid(torch.tensor(apart[:, 0] - apart[:, 1]))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    if primary == 1.0:
        plain = preference_loss(chosen, rejected, *torch.tensor(REFERENCE).unbind(1), beta=SETTINGS.beta)
        torch.testing.assert_close(found, plain)
