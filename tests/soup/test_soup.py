"""The Soup against dense float64 merges, each candidate alone, and the base."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from valuesoup.errors import UserError
from valuesoup.soup import Factors, Soup, ValueVector, target_layers
from valuesoup.soup.base import features
from valuesoup.soup.sequences import SequenceBatch, token_log_probs

KINDS = ["llama", "gpt2", "qwen2", "qwen3", "gemma2", "mistral"]
RANKS = (4, 2, 3, 1, 5)
SCALES = (2.0, 0.5, 1.0, 3.0, 1.5)
WEIGHTS = (0.7, -0.4, 0.2, 1.1, 0.3)


def ids(rows: int = 2, width: int = 11, seed: int = 0) -> torch.Tensor:
    return torch.randint(5, 65, (rows, width), generator=torch.Generator().manual_seed(seed))


def vectors(model: torch.nn.Module, count: int) -> dict[str, ValueVector]:
    return {f"v{i}": tiny.random_vector(model, seed=i, rank=RANKS[i], scale=SCALES[i], std=0.1) for i in range(count)}


def soup_of(model: torch.nn.Module, adapters: dict[str, ValueVector]) -> Soup:
    return Soup.from_adapters(copy.deepcopy(model), adapters)


@torch.no_grad()
def logits(soup: Soup, weights: list[list[float]] | None, inputs: torch.Tensor) -> torch.Tensor:
    return soup(None if weights is None else torch.tensor(weights), input_ids=inputs).logits


@torch.no_grad()
def dense_logits(model: torch.nn.Module, terms: list[tuple[ValueVector, float]], inputs: torch.Tensor) -> torch.Tensor:
    return tiny.merged(model, terms)(input_ids=inputs).logits


@pytest.mark.parametrize("kind", KINDS)
def test_composed_logits_equal_a_dense_float64_merge_in_every_family(kind: str) -> None:
    model = tiny.family(kind)
    made = vectors(model, 2)
    found = logits(soup_of(model, made), [[0.7, -0.4]], ids())
    dense = dense_logits(model, [(made["v0"], 0.7), (made["v1"], -0.4)], ids())
    assert (dense - dense_logits(model, [], ids())).abs().max() > 0.1  # the vectors do change something
    torch.testing.assert_close(found.double(), dense, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_composed_logits_equal_a_dense_float64_merge_for_any_number_of_vectors(count: int) -> None:
    model = tiny.llama()
    made = vectors(model, count)
    found = logits(soup_of(model, made), [list(WEIGHTS[:count])], ids())
    dense = dense_logits(model, list(zip(made.values(), WEIGHTS, strict=False)), ids())
    torch.testing.assert_close(found.double(), dense, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_batch_of_mixed_rows_equals_each_candidate_alone(kind: str) -> None:
    model = tiny.family(kind)
    soup = soup_of(model, vectors(model, 3))
    table = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.2, 0.3, 0.5], [-1.0, 2.0, 0.1], [0.0, 0.0, 1.0]]
    inputs = ids(rows=len(table))
    together = logits(soup, table, inputs)
    for place, row in enumerate(table):
        alone = logits(soup, [row], inputs[place : place + 1])
        torch.testing.assert_close(together[place : place + 1], alone, rtol=0, atol=1e-4)


def test_a_one_hot_row_is_that_adapter_alone() -> None:
    model = tiny.llama()
    made = vectors(model, 3)
    soup = soup_of(model, made)
    for place, (name, vector) in enumerate(made.items()):
        row = [[float(place == other) for other in range(3)]]
        alone = logits(soup_of(model, {name: vector}), [[1.0]], ids())
        torch.testing.assert_close(logits(soup, row, ids()), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_zero_weights_and_no_weights_are_the_base_bitwise(kind: str) -> None:
    model = tiny.family(kind)
    with torch.no_grad():
        base = model(input_ids=ids()).logits
    soup = soup_of(model, vectors(model, 2))
    assert torch.equal(logits(soup, None, ids()), base)
    assert torch.equal(logits(soup, [[0.0, 0.0]], ids()), base)
    assert torch.equal(logits(soup, [[0.0, 0.0], [1.0, 1.0]], ids())[:1], base[:1])


def test_the_order_of_the_vectors_does_not_matter() -> None:
    model = tiny.llama()
    made = vectors(model, 3)
    turned = dict(reversed(made.items()))
    first = logits(soup_of(model, made), [[0.1, 0.2, 0.7]], ids())
    second = logits(soup_of(model, turned), [[0.7, 0.2, 0.1]], ids())
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


def test_equal_adapters_at_one_and_minus_one_cancel() -> None:
    model = tiny.llama()
    vector = tiny.random_vector(model, 0)
    soup = soup_of(model, {"a": vector, "b": vector})
    torch.testing.assert_close(logits(soup, [[1.0, -1.0]], ids()), logits(soup, None, ids()), rtol=0, atol=1e-5)


def test_a_layer_that_an_adapter_leaves_out_counts_as_zero_there() -> None:
    model = tiny.llama()
    whole = tiny.random_vector(model, 0)
    q = ValueVector({name: f for name, f in whole.layers.items() if name.endswith("q_proj")})
    up = {}
    for name in target_layers(model, ["up_proj"])[1:]:
        inputs, outputs = features(model.get_submodule(name))
        up[name] = Factors(torch.randn(2, inputs) * 0.1, torch.randn(outputs, 2) * 0.1, 1.0)
    made = {"q": q, "up": ValueVector(up)}
    soup = soup_of(model, made)
    assert set(soup.layer_names) == set(q.layers) | set(up)
    for row in ([1.0, 0.0], [0.0, 1.0], [0.6, 0.9]):
        dense = dense_logits(model, list(zip(made.values(), row, strict=True)), ids())
        torch.testing.assert_close(logits(soup, [row], ids()).double(), dense, rtol=0, atol=1e-5)


LLAMA = tiny.llama()
THREE = vectors(LLAMA, 3)
SOUP = soup_of(LLAMA, THREE)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=3).filter(any))
def test_at_any_weights_the_soup_its_adapter_and_a_dense_merge_agree(row: list[float]) -> None:
    weights = dict(zip(THREE, row, strict=True))
    here = logits(SOUP, [row], ids())
    adapter = logits(soup_of(LLAMA, {"mix": SOUP.adapter(weights)}), [[1.0]], ids())
    dense = dense_logits(LLAMA, list(zip(THREE.values(), row, strict=True)), ids())
    torch.testing.assert_close(adapter, here, rtol=0, atol=2e-4)
    torch.testing.assert_close(here.double(), dense, rtol=0, atol=2e-4)


def test_vectors_on_a_bfloat16_base_stay_in_float32() -> None:
    model = tiny.llama().bfloat16()
    soup = soup_of(model, vectors(model, 2))
    assert all(parameter.dtype == torch.float32 for parameter in soup.parameters_of(["v0", "v1"]))
    assert logits(soup, [[0.5, 0.5]], ids()).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_neighbours_change_no_log_probability(kind: str) -> None:
    model = tiny.family(kind)
    soup = soup_of(model, vectors(model, 2))
    draw = torch.Generator().manual_seed(1)
    sizes = [(1, 1), (20, 3), (4, 12), (9, 2)]
    prompts = [torch.randint(5, 65, (p,), generator=draw).tolist() for p, _ in sizes]
    answers = [torch.randint(5, 65, (a,), generator=draw).tolist() for _, a in sizes]
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.0, 0.0]])
    with torch.no_grad():
        together = token_log_probs(soup, weights, SequenceBatch.build(prompts, answers))
        for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            alone = token_log_probs(soup, weights[place : place + 1], SequenceBatch.build([prompt], [answer]))
            torch.testing.assert_close(together[place, : len(answer)], alone[0], rtol=0, atol=1e-4)
            assert not together[place, len(answer) :].any()


def test_the_soup_keeps_a_copy_so_that_training_never_changes_what_was_given() -> None:
    model = tiny.llama()
    vector = tiny.random_vector(model, 0)
    before = {name: factors.A.clone() for name, factors in vector.layers.items()}
    soup = soup_of(model, {"a": vector, "b": vector})
    with torch.no_grad():
        for parameter in soup.parameters_of(["a"]):
            parameter.add_(1.0)
    assert all(torch.equal(vector.layers[name].A, A) for name, A in before.items())
    assert all(torch.equal(soup.vector("b").layers[name].A, A) for name, A in before.items())


def test_candidates_see_factors_that_a_fused_optimiser_has_changed() -> None:
    model = tiny.llama()
    soup = soup_of(model, vectors(model, 2))
    before = logits(soup, [[1.0, 1.0]], ids())
    trained = soup.parameters_of(["v0"])
    for parameter in trained:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(trained, lr=0.1, fused=True)
    soup(torch.ones(1, 2), input_ids=ids()).logits.sum().backward()
    optimiser.step()
    during = logits(soup, [[1.0, 1.0]], ids())
    soup.requires_grad_(False)
    after = logits(soup, [[1.0, 1.0]], ids())
    fresh = soup_of(model, {name: soup.vector(name) for name in soup.names})
    assert not torch.allclose(before, after)
    torch.testing.assert_close(during, logits(fresh, [[1.0, 1.0]], ids()))
    torch.testing.assert_close(after, during)


def test_a_soup_that_is_moved_takes_its_stacked_factors_along() -> None:
    model = tiny.llama()
    soup = soup_of(model, vectors(model, 2))
    single = logits(soup, [[0.5, 0.5]], ids())
    double = logits(soup.double(), [[0.5, 0.5]], ids())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


def test_gradients_flow_after_a_pass_in_inference_mode() -> None:
    model = tiny.llama()
    soup = soup_of(model, vectors(model, 2))
    with torch.inference_mode():
        soup(torch.ones(1, 2), input_ids=ids())
    embedded = model.get_input_embeddings()(ids()).detach().requires_grad_(True)
    soup(torch.ones(1, 2), inputs_embeds=embedded).logits.sum().backward()
    assert embedded.grad is not None


def test_a_new_soup_is_in_evaluation_mode_and_training_switches_only_its_own_dropout() -> None:
    model = tiny.family("gpt2")
    soup = Soup(model, layers=target_layers(model), dropout=0.5)
    soup.add("a", tiny.random_vector(tiny.family("gpt2"), 0))
    assert torch.equal(logits(soup, [[1.0]], ids()), logits(soup, [[1.0]], ids()))
    soup.train()
    assert not torch.equal(logits(soup, [[1.0]], ids()), logits(soup, [[1.0]], ids()))
    assert torch.equal(logits(soup, [[0.0]], ids()), logits(soup, None, ids()))  # GPT-2's own dropout stays off
    soup.eval()
    assert torch.equal(logits(soup, [[1.0]], ids()), logits(soup, [[1.0]], ids()))


def test_weights_of_another_shape_are_refused() -> None:
    for wrong in (torch.ones(3, 3), torch.ones(1, 2), torch.ones(3)):
        with pytest.raises(ValueError, match="weights must be"):
            SOUP(wrong, input_ids=ids(rows=2))


def test_an_adapter_of_a_base_with_other_shapes_is_refused_and_leaves_the_soup_whole() -> None:
    soup = soup_of(LLAMA, THREE)
    wide = tiny.random_vector(tiny.llama(hidden=64), 0)
    first, *others = soup.layer_names
    wrong = ValueVector({first: THREE["v0"].layers[first], others[-1]: wide.layers[others[-1]]})
    with pytest.raises(UserError, match=rf"'wide' does not fit layer {others[-1]}.*another base"):
        soup.add("wide", wrong)
    assert soup.names == list(THREE)
    assert torch.equal(logits(soup, [[0.5, 0.5, 0.5]], ids()), logits(SOUP, [[0.5, 0.5, 0.5]], ids()))


def test_an_adapter_on_layers_that_the_base_or_the_soup_lacks_is_refused() -> None:
    deep = tiny.random_vector(tiny.llama(layers=3), 0)
    with pytest.raises(UserError, match=r"adapter 'deep' adapts layer model\.layers\.2\..*the base does not have"):
        soup_of(LLAMA, {"deep": deep})
    with pytest.raises(UserError, match=r"adapter 'deep' adapts layer model\.layers\.2\..*which this soup does not"):
        soup_of(LLAMA, THREE).add("deep", deep)


def test_an_adapter_of_a_base_with_the_same_shapes_but_other_weights_is_refused() -> None:
    mine, other = tiny.llama(seed=0), tiny.llama(seed=1)
    layers = [name for name in target_layers(other) if name.endswith("q_proj")]
    trained = Soup(other, layers=layers)
    trained.add_fresh("a", rank=2, alpha=4, seed=0)
    with pytest.raises(UserError, match="adapter 'a' was trained on another base"):
        soup_of(mine, {"a": trained.vector("a"), "b": tiny.random_vector(mine, 0)})


def test_an_adapter_of_this_base_is_taken_whatever_layers_the_others_have() -> None:
    model = tiny.llama()
    small = Soup(copy.deepcopy(model), layers=target_layers(model, ["q_proj"]))
    small.add_fresh("a", rank=2, alpha=4, seed=0)
    large = Soup(copy.deepcopy(model), layers=target_layers(model, ["q_proj", "up_proj"]))
    large.add_fresh("b", rank=2, alpha=4, seed=0)
    soup = soup_of(model, {"a": small.vector("a"), "b": large.vector("b")})
    both = soup.adapter({"a": 0.5, "b": 0.5})
    assert soup_of(model, {"both": both}).names == ["both"]
    assert small.base_fingerprint == Soup(model.bfloat16().float(), layers=[]).base_fingerprint  # stored in 16 bits


@pytest.mark.parametrize(
    ("base", "here", "same"),
    [
        ("org/llama", "/models/llama", True),
        ("org/llama", "/hub/models--org--llama/snapshots/0123abc", True),
        ("org/llama", "org/mistral", False),
        ("", "org/mistral", True),
    ],
)
def test_without_a_record_of_the_weights_the_bases_names_decide(base: str, here: str, same: bool) -> None:
    model = tiny.llama()
    model.config._name_or_path = here
    vector = ValueVector(tiny.random_vector(model, 0).layers, base=base)
    if same:
        assert soup_of(model, {"a": vector}).names == ["a"]
    else:
        with pytest.raises(UserError, match=r"'a' was trained on another base \('org/llama'\) than this one"):
            soup_of(model, {"a": vector})


def test_taken_and_impossible_names_are_refused() -> None:
    soup = soup_of(LLAMA, THREE)
    for name, said in (("v0", "already has a vector 'v0'"), ("", "cannot name"), ("a.b", "cannot name")):
        with pytest.raises(UserError, match=said):
            soup.add(name, THREE["v0"])
    with pytest.raises(UserError, match="at least one adapter"):
        Soup.from_adapters(LLAMA, {})


def test_a_base_that_already_is_in_a_soup_is_refused() -> None:
    model = tiny.llama()
    layers = target_layers(model)
    Soup(model, layers=layers)
    with pytest.raises(UserError, match="already is in a soup"):
        Soup(model, layers=layers)


def test_layers_that_see_flattened_rows_are_refused_rather_than_mixed_wrongly() -> None:
    soup = soup_of(LLAMA, THREE)
    layer = soup.model.get_submodule(soup.layer_names[0])
    soup.row_weights.set(torch.ones(2, 3))
    with pytest.raises(UserError, match="cannot differ per row"):
        layer(torch.ones(8, 32))


def test_weights_by_name_become_rows_in_the_soups_order() -> None:
    assert SOUP.weight_rows({"v2": 0.5}, 2).tolist() == [[0.0, 0.0, 0.5]] * 2
    assert SOUP.weight_rows([{"v1": 1}, {}], 2).tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert SOUP.weight_rows({"v1": 1}, 0).shape == (0, 3)
    with pytest.raises(UserError, match="3 mappings of weights were given for 2 prompts"):
        SOUP.weight_rows([{}] * 3, 2)
    with pytest.raises(UserError, match="the soup has no vector 'v9'; known: v0, v1, v2"):
        SOUP.weight_rows({"v9": 1}, 1)
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(UserError, match="weight of 'v0' must be a finite number"):
            SOUP.weight_rows({"v0": wrong}, 1)


def test_fresh_vectors_of_one_seed_share_a_and_start_at_the_base() -> None:
    model = tiny.llama()
    soup = Soup(copy.deepcopy(model), layers=target_layers(model))
    soup.add_fresh("a", rank=4, alpha=8, seed=3)
    soup.add_fresh("b", rank=4, alpha=8, seed=3)
    soup.add_fresh("c", rank=4, alpha=8, seed=4)
    a, b, c = (soup.vector(name).layers for name in "abc")
    for layer in soup.layer_names:
        assert torch.equal(a[layer].A, b[layer].A)
        assert not torch.equal(a[layer].A, c[layer].A)
        assert not a[layer].B.any()
        assert a[layer].scale == 2.0
        assert a[layer].A.abs().max() <= 1 / 32**0.5  # Kaiming's uniform bound with a = √5, as PEFT draws it
    assert len({tuple(f.A.flatten().tolist()) for f in a.values()}) == len(a)  # layers do not repeat each other
    assert torch.equal(logits(soup, [[1.0, 1.0, 1.0]], ids()), logits(soup, None, ids()))
