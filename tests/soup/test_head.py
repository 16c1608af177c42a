"""Log-probabilities in pieces: equal to those from all logits at once, and no more logits than a piece at a time."""

import warnings
from typing import Any

import pytest
import torch

import tiny
from valuesoup.soup import Soup, head, target_layers
from valuesoup.soup.head import in_pieces, token_scores
from valuesoup.soup.sequences import SequenceBatch, response_logits, token_log_probs

VOCABULARY = tiny.WORDS + 5
FAMILIES = ["llama", "gpt2", "gpt_neox", "gemma2", "gemma3_text", "granite", "cohere", "mistral", "phi"]


def batch() -> SequenceBatch:
    return SequenceBatch.build([[7, 8, 9], [10], [11, 12, 13, 14]], [[20, 1], [21, 22, 23, 1], [5, 6, 1]])


def soup_of(kind: str) -> Soup:
    model = tiny.family(kind)
    if kind == "granite":
        model.config.logits_scaling = 4.0
    return Soup.from_adapters(model, {name: tiny.random_vector(model, place) for place, name in enumerate("ab")})


def from_whole_logits(soup: Soup, weights: Any) -> torch.Tensor:
    found = response_logits(soup, weights, batch()).log_softmax(-1)
    return found.gather(-1, batch().responses[..., None])[..., 0].masked_fill(~batch().response_mask, 0.0)


def with_gradients(soup: Soup, scores: torch.Tensor) -> list[torch.Tensor]:
    factors: list[Any] = soup.parameters_of(soup.names)
    weighted = (scores * torch.linspace(-1, 1, scores.numel()).view(scores.shape)).sum()
    return [scores.detach(), *torch.autograd.grad(weighted, factors)]


@pytest.mark.parametrize("positions", [1, 4, 100])
@pytest.mark.parametrize("kind", FAMILIES)
def test_pieces_give_the_values_and_gradients_of_all_logits_at_once(
    kind: str, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "PIECE", positions * VOCABULARY)
    soup, weights = soup_of(kind), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.3]])
    for factor in soup.parameters_of(soup.names):
        factor.requires_grad_(True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = with_gradients(soup, token_log_probs(soup, weights, batch()))
    for one, other in zip(found, with_gradients(soup, from_whole_logits(soup, weights)), strict=True):
        assert one.any()
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(token_log_probs(soup, weights, batch()), found[0])


def test_no_more_logits_are_made_at_a_time_than_a_piece_has(monkeypatch: pytest.MonkeyPatch) -> None:
    soup = soup_of("llama")
    for factor in soup.parameters_of(soup.names):
        factor.requires_grad_(True)
    token_log_probs(soup, None, batch())  # the check of the head is done
    monkeypatch.setattr(head, "PIECE", 2 * VOCABULARY + 1)
    made: list[int] = []
    output: Any = soup.model.get_output_embeddings()
    output.register_forward_hook(lambda _module, _inputs, logits: made.append(logits.numel()))
    token_log_probs(soup, torch.ones(1, 2), batch()).sum().backward()
    assert sum(made) == 9 * VOCABULARY  # every response token once, padding never, nothing again in the backward pass
    assert max(made) == 2 * VOCABULARY


def test_pieces_follow_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "PIECE", 2 * VOCABULARY)
    soup, weights = soup_of("llama"), torch.ones(1, 2)
    for factor in soup.parameters_of(soup.names):
        factor.requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        found = with_gradients(soup, token_log_probs(soup, weights, batch()))
        wanted = with_gradients(soup, from_whole_logits(soup, weights))
    assert found[0].dtype == torch.float32
    assert (found[0] - from_whole_logits(soup, weights)).abs().max() > 1e-3  # in bfloat16 indeed
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05 * float(other.abs().max()))


@pytest.mark.parametrize("plain_first", [False, True])
def test_an_adapted_output_layer_keeps_its_weights_per_row_and_says_that_logits_are_whole(plain_first: bool) -> None:
    model = tiny.llama()
    if plain_first:  # what a soup on the same base did before is no matter
        token_log_probs(Soup(model, layers=[]), None, batch())
    soup = Soup(model, layers=target_layers(model, ["q_proj", "lm_head"]))
    for place, name in enumerate("ab"):
        soup.add_fresh(name, rank=2, alpha=4, seed=place)
    with torch.no_grad():
        for factor in soup.parameters_of("ab")[1::2]:
            factor.normal_(generator=torch.Generator().manual_seed(3))
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.3]])
    with torch.no_grad(), pytest.warns(UserWarning, match="logits are computed whole.*its output layer is adapted"):
        found = token_log_probs(soup, weights, batch())
    assert not in_pieces(soup)
    torch.testing.assert_close(found, from_whole_logits(soup, weights).detach(), rtol=1e-5, atol=1e-5)


def test_a_model_that_does_more_than_its_head_after_its_layers_is_found_out() -> None:
    model = tiny.llama()

    class Doubled(type(model)):  # type: ignore[misc]
        def forward(self, input_ids: Any = None, **rest: Any) -> Any:
            output = super().forward(input_ids=input_ids, **rest)
            output.logits = output.logits * (1 if input_ids is None else 2)
            return output

    model.__class__ = Doubled
    soup = Soup(model, layers=[])
    with torch.no_grad(), pytest.warns(UserWarning, match="logits are computed whole.*its head gives other logits"):
        found = token_scores(
            soup, None, torch.tensor([[3, 4]]), torch.ones(1, 2, dtype=torch.bool), input_ids=torch.tensor([[5, 6, 7]])
        )
    logits = model(input_ids=torch.tensor([[5, 6, 7]])).logits.log_softmax(-1)
    torch.testing.assert_close(found[0], torch.stack([logits[0, 1, 3], logits[0, 2, 4]]).detach())


@pytest.mark.parametrize("where", ["cpu", "gpu"])
def test_short_memory_is_not_taken_for_a_head_that_does_not_run_by_itself(where: str) -> None:
    soup = soup_of("llama")

    def fail(*_: Any) -> None:
        if where == "gpu":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        torch.empty(1 << 50)

    hook = soup.model.get_output_embeddings().register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="memory"):
        token_log_probs(soup, None, batch())
    hook.remove()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert in_pieces(soup)
