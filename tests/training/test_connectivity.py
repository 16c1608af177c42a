"""The loss between two vectors: exact on quadratic losses, and against dense float64 on a tiny base."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import log_softmax, logsigmoid

import tiny
from valuesoup.soup import Soup
from valuesoup.training.connectivity import LADDER, HeldOutLoss, path_between, predicted_gap
from valuesoup.training.reference import pair_log_probs
from valuesoup.training.rows import TokenPairs, tokenise

BETA = 0.5


class Quadratic:
    """Losses c_k + g_k·w + ½ wᵀH_k w of several pairs."""

    def __init__(self, n: int, pairs: int = 4) -> None:
        rng = np.random.default_rng(n)
        square = rng.normal(size=(pairs, n, n))
        self.H = square + square.transpose(0, 2, 1)  # of no sign: merging may gain or cost
        self.g, self.c = rng.normal(size=(pairs, n)), rng.normal(size=pairs)

    def losses(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self.c + self.g @ w + 0.5 * np.einsum("i,kij,j->k", w, self.H, w))

    def slopes(self, w: NDArray[np.float64], d: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((self.g + self.H @ w) @ d)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_on_a_quadratic_loss_the_gap_is_its_prediction(n: int) -> None:
    loss = Quadratic(n)
    for first in range(n):
        for second in range(first + 1, n):
            path = path_between(first, second, n, loss.losses, loss.slopes)
            d = np.eye(n)[first] - np.eye(n)[second]
            np.testing.assert_allclose(path.curvature, loss.H @ d @ d, atol=1e-10)
            predicted = [[predicted_gap(share, of) for of in path.curvature] for share in LADDER]
            np.testing.assert_allclose(path.gaps, predicted, atol=1e-10)
            np.testing.assert_allclose(path.losses[-1], loss.losses(np.eye(n)[first]))
            np.testing.assert_allclose(path.losses[0], loss.losses(np.eye(n)[second]))


def test_at_both_ends_there_is_no_gap() -> None:
    loss = Quadratic(2)
    path = path_between(0, 1, 2, lambda w: np.sin(3 * w @ loss.g.T), loss.slopes)
    assert (path.gaps[[0, -1]] == 0).all()
    assert np.abs(path.gaps[1:-1]).min() > 0
    assert predicted_gap(0.0, 7.0) == predicted_gap(1.0, 7.0) == 0.0
    assert predicted_gap(0.5, 8.0) == -1.0


def test_a_convex_loss_gains_by_merging_and_a_concave_one_pays() -> None:
    def loss(w: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([w[0] ** 4, -(w[0] ** 4)])

    def slopes(w: NDArray[np.float64], d: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([4 * w[0] ** 3, -4 * w[0] ** 3]) * d[0]

    path = path_between(0, 1, 2, loss, slopes)
    assert (path.gaps[1:-1, 0] < 0).all()
    assert (path.gaps[1:-1, 1] > 0).all()
    # f'' = 12 λ² = 3 at λ = ½, and the difference over 2h adds h² f⁗/6 = 4 h².
    np.testing.assert_allclose(path.curvature, [3.04, -3.04], atol=1e-9)


def three(kind: str = "llama", scale: float = 1.0) -> tuple[Any, Soup, TokenPairs, NDArray[np.float64]]:
    model = tiny.family(kind)
    vectors = {name: tiny.random_vector(model, seed, scale=scale) for seed, name in enumerate("abc")}
    plain = tiny.merged(model, [])
    soup = Soup.from_adapters(model, vectors, tiny.tokenizer())
    pairs = tokenise(tiny.random_pairs(7), tiny.tokenizer(), 64)
    return (plain, vectors), soup, pairs, pair_log_probs(soup, None, pairs)


def dense_losses(
    base: Any, pairs: TokenPairs, reference: NDArray[np.float64], w: NDArray[np.float64]
) -> NDArray[np.float64]:
    model, vectors = base
    merged = tiny.merged(model, list(zip(vectors.values(), w, strict=True)))
    found = np.zeros((len(pairs), 2))
    for place in range(len(pairs)):
        for side, response in enumerate((pairs.chosen[place], pairs.rejected[place])):
            prompt = pairs.prompts[place]
            with torch.no_grad():
                logits = merged(torch.tensor([prompt + response])).logits[0]
            each = log_softmax(logits, -1)[len(prompt) - 1 : -1].gather(1, torch.tensor(response)[:, None])
            found[place, side] = float(each.sum())
    margin = BETA * ((found - reference) @ np.array([1.0, -1.0]))
    return np.asarray(-logsigmoid(torch.tensor(margin)).numpy())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_losses_and_slopes_are_those_of_merged_dense_weights(kind: str) -> None:
    base, soup, pairs, reference = three(kind)
    loss = HeldOutLoss(soup, pairs, reference, BETA, batch_pairs=3)
    w, d, h = np.array([0.6, 0.4, 0.1]), np.array([1.0, -1.0, 0.5]), 1e-4
    np.testing.assert_allclose(loss.losses(w), dense_losses(base, pairs, reference, w), atol=1e-5)
    truth = (dense_losses(base, pairs, reference, w + h * d) - dense_losses(base, pairs, reference, w - h * d)) / (
        2 * h
    )
    np.testing.assert_allclose(loss.slopes(w, d), truth, atol=1e-3 * np.abs(truth).max())


def test_at_no_weight_the_loss_is_ln_2() -> None:
    _, soup, pairs, reference = three()
    loss = HeldOutLoss(soup, pairs, reference, BETA)
    np.testing.assert_allclose(loss.losses(np.zeros(3)), np.log(2), atol=1e-6)


def test_the_path_of_a_real_soup_is_that_of_dense_weights_and_its_curvature_explains_it() -> None:
    base, soup, pairs, reference = three(scale=0.1)
    loss = HeldOutLoss(soup, pairs, reference, BETA)
    path = path_between(0, 2, 3, loss.losses, loss.slopes)

    def truth(share: float) -> NDArray[np.float64]:
        return dense_losses(base, pairs, reference, np.array([share, 0.0, 1.0 - share]))

    chord = [share * truth(1.0) + (1 - share) * truth(0.0) for share in LADDER]
    np.testing.assert_allclose(path.gaps, np.stack([truth(share) for share in LADDER]) - chord, atol=2e-5)
    h = 0.02
    second = (truth(0.5 + h) - 2 * truth(0.5) + truth(0.5 - h)) / h**2
    assert path.curvature.mean() == pytest.approx(second.mean(), rel=0.05)
    assert path.gaps[2].mean() == pytest.approx(predicted_gap(0.5, float(path.curvature.mean())), rel=0.15)


def test_shared_ends_are_measured_once_and_progress_counts_every_pass() -> None:
    _, soup, pairs, reference = three()
    done: list[int] = []
    loss = HeldOutLoss(soup, pairs, reference, BETA, on_done=done.append)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        path_between(first, second, 3, loss.losses, loss.slopes)
    # Three ends, three rungs between each two vectors, and two slopes.
    assert sum(done) == (3 + 3 * 3 + 3 * 2) * len(pairs)
