"""The trainer: what it starts from, which vectors it changes, what it returns, and where it stops."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from valuesoup.errors import RunError
from valuesoup.soup import Soup, SoupLinear, ValueVector
from valuesoup.training.preference import PreferenceTrainer
from valuesoup.training.reference import pair_log_probs
from valuesoup.training.rows import Ragged, TrainingRows
from valuesoup.training.settings import TrainingSettings
from valuesoup.training.trainer import Trained

LN2 = math.log(2)
Fresh = Callable[..., Soup]
Rows = Callable[..., TrainingRows]
Train = Callable[..., Trained]


def trainer_of(soup: Soup, training: TrainingRows, folder: Path, names: list[str], rho: float = 0.0) -> Any:
    from transformers import TrainingArguments

    for factor in soup.parameters_of(names):
        factor.requires_grad_(True)
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none")
    return PreferenceTrainer(soup, training, names, TrainingSettings(beta=0.1, likelihood=rho), args=arguments)


def gradients(soup: Soup, trainer: Any, places: list[int], names: list[str]) -> tuple[float, list[torch.Tensor]]:
    soup.zero_grad()
    soup.train()
    loss = trainer.compute_loss(soup, trainer.train_dataset.collate(places))
    loss.backward()
    soup.eval()
    return loss.item(), [factor.grad.clone() for factor in soup.parameters_of(names)]


def stirred(soup: Soup, std: float = 0.1) -> Soup:
    """Give every B random numbers, as inside a training."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for factor in soup.parameters_of(soup.names)[1::2]:
            factor.copy_(std * torch.randn(factor.shape, generator=draw))
    return soup


def swapped(rows: TrainingRows) -> TrainingRows:
    """The same pairs with the preference turned round."""
    pairs = replace(rows.pairs, chosen=rows.pairs.rejected, rejected=rows.pairs.chosen)
    return replace(rows, pairs=pairs, reference=rows.reference[:, ::-1].copy())


def differs(a: ValueVector, b: ValueVector) -> bool:
    return any(not torch.equal(f.B, b.layers[n].B) or not torch.equal(f.A, b.layers[n].A) for n, f in a.layers.items())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_first_loss_is_ln_2_also_where_the_base_has_dropout(
    kind: str, fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    soup = fresh("a", kind=kind, dropout=0.1)
    settings = small.model_copy(update={"dropout": 0.1, "epochs": 1.0})
    curves = train(soup, rows(12, kind=kind), settings).curves
    first = next(row for row in curves if "loss" in row)
    assert first["step"] == 1
    assert first["loss"] == pytest.approx(LN2, abs=1e-6)
    assert first["margin"] == pytest.approx(0, abs=1e-5)
    assert abs(next(row for row in curves if row["step"] == 2)["loss"] - LN2) > 1e-4


def test_training_raises_the_margin_and_logs_what_the_policy_does(
    fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    trained = train(fresh("a"), rows(12), small.model_copy(update={"epochs": 8.0}), rows(20, seed=1))
    losses = [row for row in trained.curves if "loss" in row]
    checks = [row for row in trained.curves if "eval_loss" in row]
    assert [row["step"] for row in losses] == list(range(1, 25))
    assert [row["step"] for row in checks] == list(range(3, 25, 3))
    assert {"chosen", "rejected", "margin", "accuracy", "learning_rate", "grad_norm"} <= set(losses[0])
    assert {"eval_chosen", "eval_rejected", "eval_margin", "eval_accuracy"} <= set(checks[0])
    assert np.mean([row["loss"] for row in losses[-3:]]) < LN2 - 0.1
    assert np.mean([row["accuracy"] for row in losses[-3:]]) == 1.0
    assert losses[-1]["margin"] > 0.2


def test_the_validation_curve_is_that_of_the_validation_rows(
    fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    validation = rows(20, seed=1)  # more rows than the training has, in batches of 16 and 4
    soup = fresh("a")
    trained = train(soup, rows(12), small, validation)
    (last,) = [row for row in trained.curves if "eval_loss" in row and row["step"] == trained.best_step]
    log_probs = pair_log_probs(soup, torch.ones(1, 1), validation.pairs)
    margins = 0.1 * ((log_probs - validation.reference) @ np.array([1.0, -1.0]))
    assert last["eval_loss"] == pytest.approx(np.logaddexp(0, -margins).mean(), abs=1e-5)
    assert last["eval_loss"] == pytest.approx(trained.best_loss, abs=1e-6)
    assert last["eval_margin"] == pytest.approx(margins.mean(), abs=1e-5)
    assert last["eval_accuracy"] == pytest.approx((margins > 0).mean())
    assert last["eval_chosen"] == pytest.approx(log_probs[:, 0].mean(), abs=1e-4)
    assert last["eval_rejected"] == pytest.approx(log_probs[:, 1].mean(), abs=1e-4)


def stirred_to(soup: Soup, vector: ValueVector) -> Soup:
    with torch.no_grad():
        for layer, factors in vector.layers.items():
            module = soup.model.get_submodule(layer)
            module.A["a"].copy_(factors.A)
            module.B["a"].copy_(factors.B)
    return soup


def test_the_vectors_of_the_best_validation_loss_are_returned(
    fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    training = rows(12)
    validation = swapped(training)  # the better the training, the worse the validation
    trained = train(fresh("a"), training, small.model_copy(update={"epochs": 4.0}), validation)
    checks = [row for row in trained.curves if "eval_loss" in row]
    assert (trained.best_step, trained.best_loss) == (3, pytest.approx(min(row["eval_loss"] for row in checks)))
    assert checks[-1]["eval_loss"] > trained.best_loss + 0.1
    policy = stirred_to(fresh("a"), trained.vectors["a"])
    log_probs = pair_log_probs(policy, torch.ones(1, 1), validation.pairs)
    margins = 0.1 * ((log_probs - validation.reference) @ np.array([1.0, -1.0]))
    assert np.logaddexp(0, -margins).mean() == pytest.approx(trained.best_loss, abs=1e-5)


def test_without_validation_rows_the_last_step_is_returned(
    fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    soup = fresh("a")
    trained = train(soup, rows(10), small)
    assert trained.best_step == 6
    assert math.isnan(trained.best_loss)
    assert not differs(trained.vectors["a"], soup.vector("a"))


def test_the_same_seed_gives_the_same_vectors_and_another_seed_others(
    fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    settings = small.model_copy(update={"dropout": 0.1})
    one, same, other = (
        train(fresh("a", dropout=0.1), rows(10), settings, work=work, seed=seed).vectors["a"]
        for work, seed in (("1", 7), ("2", 7), ("3", 8))
    )
    assert not differs(one, same)
    assert differs(one, other)


@pytest.mark.parametrize("trained_name", ["a", "b", "c"])
def test_only_the_named_vector_changes(
    trained_name: str, fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    soup = fresh("a", "b", "c")
    base = {name: p.clone() for name, p in soup.named_parameters() if ".layer." in name or "embed" in name}
    before = {name: soup.vector(name) for name in soup.names}
    trained = train(soup, rows(8), small, rows(4, seed=1), names=[trained_name])
    assert list(trained.vectors) == [trained_name]
    for name in soup.names:
        assert differs(before[name], soup.vector(name)) == (name == trained_name)
    assert all(torch.equal(p, base[name]) for name, p in soup.named_parameters() if name in base)
    assert not any(p.requires_grad for p in soup.parameters())
    assert not soup.training


def test_two_values_in_one_pass_have_the_gradients_of_each_alone(fresh: Fresh, rows: Rows, tmp_path: Path) -> None:
    training = rows(8)
    mixed = replace(training, vector=np.array([0, 1] * 4))
    together = stirred(fresh("a", "b"))
    _, both = gradients(together, trainer_of(together, mixed, tmp_path, ["a", "b"]), list(range(8)), ["a", "b"])
    joint = dict(zip([(i // 4, "ab"[i // 2 % 2], i % 2) for i in range(len(both))], both, strict=True))
    for name, places in (("a", [0, 2, 4, 6]), ("b", [1, 3, 5, 7])):
        alone = stirred(fresh("a", "b"))
        _, found = gradients(alone, trainer_of(alone, training_of(training), tmp_path, [name]), places, [name])
        for i, gradient in enumerate(found):
            torch.testing.assert_close(joint[(i // 2, name, i % 2)], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_values_trained_in_one_pass_end_in_the_vectors_of_each_trained_alone(
    names: str, fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    parts = [rows(10, seed=place, vector=place) for place in range(len(names))]
    small = small.model_copy(update={"max_grad_norm": 0.5, "warmup": 0.3})  # each vector is clipped by its own norm
    settings = small.model_copy(update={"batch_size": small.batch_size * len(names)})
    together = train(fresh(*names), TrainingRows.concat(parts), settings, work="joint")
    for name, part in zip(names, parts, strict=True):
        alone = train(fresh(name), training_of(part), small, work=name)
        assert alone.best_step == together.best_step == 6
        for layer, factors in alone.vectors[name].layers.items():
            found = together.vectors[name].layers[layer]
            torch.testing.assert_close(found.A, factors.A, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(found.B, factors.B, rtol=1e-3, atol=1e-4)


def training_of(rows: TrainingRows) -> TrainingRows:
    return replace(rows, vector=np.zeros(len(rows), np.int64))


def test_two_values_trained_in_one_pass_are_validated_as_they_are_now(
    fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    mixed = replace(rows(8), vector=np.array([0, 1] * 4))
    soup = fresh("a", "b")
    trained = train(soup, mixed, small.model_copy(update={"epochs": 4.0}), mixed)
    checks = [row["eval_loss"] for row in trained.curves if "eval_loss" in row]
    assert checks[-1] < checks[0] - 0.05  # a stack kept from the first validation would never move
    margins = np.empty(8)
    for vector in (0, 1):
        one_hot = torch.eye(2)[vector : vector + 1]
        gaps = (pair_log_probs(soup, one_hot, mixed.pairs) - mixed.reference) @ np.array([0.1, -0.1])
        margins[mixed.vector == vector] = gaps[mixed.vector == vector]
    assert np.logaddexp(0, -margins).mean() == pytest.approx(trained.best_loss, abs=1e-5)


def test_accumulated_passes_equal_the_big_batch_also_at_a_ragged_end(
    fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    training = rows(11)  # the last step of an epoch has 3 rows: passes of 1, 1, 1 or 2, 1
    curves = []
    for accumulate in (1, 2, 4):
        settings = small.model_copy(update={"accumulate": accumulate, "learning_rate": 1e-4})
        curves.append(train(fresh("a"), training, settings, work=str(accumulate)).curves)
    for other in curves[1:]:
        assert len(other) == len(curves[0])
        for one, same in zip(curves[0], other, strict=True):
            # Trainer counts the fraction of an epoch in passes; a margin of nearly zero may round to either side.
            counted = {"epoch": 0, "accuracy": 0, "eval_accuracy": 0}
            assert {**same, **counted} == pytest.approx({**one, **counted}, rel=1e-4, abs=1e-5)
            assert same.get("accuracy", 0) == pytest.approx(one.get("accuracy", 0), abs=1 / 4)


def test_gradient_checkpointing_computes_again_and_gives_the_same_gradients_of_every_rows_vector(
    fresh: Fresh, rows: Rows, tmp_path: Path
) -> None:
    training = replace(rows(6), vector=np.array([0, 1, 0, 0, 1, 1]), weight=np.linspace(0.5, 2, 6))
    found = []
    for checkpointing in (False, True):
        soup = stirred(fresh("a", "b"))
        if checkpointing:
            soup.checkpoint_activations()
        trainer = trainer_of(soup, training, tmp_path, ["a", "b"])
        assert trainer.shared
        read: list[int] = []
        layer = next(module for module in soup.modules() if isinstance(module, SoupLinear))
        layer.register_forward_hook(lambda _module, inputs, _output, read=read: read.append(len(inputs[0])))
        found.append(gradients(soup, trainer, list(range(6)), ["a", "b"]))
        # All rows twice, or once, in passes of similar length.
        assert (read == [6, 6]) if checkpointing else (sum(read) == 6)
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    for one, same in zip(found[0][1], found[1][1], strict=True):
        assert one.any()
        torch.testing.assert_close(same, one, rtol=1e-5, atol=1e-6)


def test_the_likelihood_term_is_the_chosen_answers_loss_per_token(fresh: Fresh, rows: Rows, tmp_path: Path) -> None:
    training = rows(6)
    soup = stirred(fresh("a"))
    log_probs = pair_log_probs(soup, torch.ones(1, 1), training.pairs)
    nll = float(np.mean(-log_probs[:, 0] / training.pairs.chosen.lengths()))
    places = list(range(6))
    plain, _ = gradients(soup, trainer_of(soup, training, tmp_path, ["a"]), places, ["a"])
    held, _ = gradients(soup, trainer_of(soup, training, tmp_path, ["a"], rho=0.25), places, ["a"])
    assert held - plain == pytest.approx(0.25 * nll, rel=1e-5)


def test_the_likelihood_term_is_in_the_curves_and_in_the_choice_of_the_best(
    fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    training = rows(8)
    trained = train(fresh("a"), training, small.model_copy(update={"likelihood": 0.5}), training)
    nll = float(np.mean(-training.reference[:, 0] / training.pairs.chosen.lengths()))
    checks = [row["eval_loss"] for row in trained.curves if "eval_loss" in row]
    assert trained.best_loss == pytest.approx(min(checks))
    assert trained.curves[0]["loss"] > LN2 + 0.3 * nll


def test_weight_scale_and_margin_reach_the_loss(fresh: Fresh, rows: Rows, tmp_path: Path) -> None:
    changed = {"margin": np.array([0.3, -0.6]), "scale": np.full(2, 0.5), "weight": np.array([2.0, 0.5])}
    training = replace(rows(2), **changed)
    soup = fresh("a")
    loss, _ = gradients(soup, trainer_of(soup, training, tmp_path, ["a"]), [0, 1], ["a"])
    wanted = (2.0 * math.log1p(math.exp(0.6)) + 0.5 * math.log1p(math.exp(-1.2))) / 2
    assert loss == pytest.approx(wanted, abs=1e-5)


def test_a_nan_loss_stops_with_the_step_and_the_pairs(
    fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    training = rows(4)
    training.reference[2, 0] = np.nan
    with pytest.raises(RunError, match=f"NaN or infinite at step 1, on pairs {training.pairs.ids[2]};"):
        train(fresh("a"), training, small, work="a")
    with pytest.raises(RunError, match=r"NaN or infinite at step [2-9].*lower learning_rate"):
        train(fresh("a"), rows(8), small.model_copy(update={"learning_rate": 1e30}), work="b")
    validation = rows(4, seed=3)
    validation.reference[1, 1] = np.nan
    with pytest.raises(RunError, match=validation.pairs.ids[1]):
        train(fresh("a"), rows(4), small, validation, work="c")


def test_the_reference_of_another_base_is_refused_before_the_first_step(
    fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    training = rows(4)
    other = Soup(tiny.llama(seed=9), layers=[])
    wrong = replace(training, reference=pair_log_probs(other, None, training.pairs))
    soup = fresh("a")
    before = soup.vector("a")
    with pytest.raises(RunError, match=r"before the first step .* first loss is not ln 2; the reference belongs"):
        train(soup, wrong, small)
    assert not differs(before, soup.vector("a"))


def test_a_vector_that_is_carried_on_may_start_away_from_the_reference(
    fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    assert train(stirred(fresh("a")), rows(4), small).best_step == 2


def test_a_bfloat16_base_is_not_taken_for_another_base(
    fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    soup = fresh("a")
    for module in soup.model.modules():  # the base in 16 bits, the vectors in 32, as load_model(dtype=...) gives it
        if isinstance(module, SoupLinear):
            module.layer.bfloat16()
        elif not any(isinstance(child, SoupLinear) for child in module.modules()):
            module.bfloat16()
    training = rows(8)
    exact = training.reference
    training = replace(training, reference=pair_log_probs(soup, None, training.pairs, batch_pairs=1))
    assert 1e-3 < np.abs(training.reference - exact).max() < 1
    losses = [row["loss"] for row in train(soup, training, small).curves]
    assert losses[0] == pytest.approx(LN2, abs=0.05)


def test_bfloat16_is_by_itself_only_where_a_gpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrainingSettings(bf16=True).autocasts("cpu")
    assert not TrainingSettings(bf16=False).autocasts("cuda")
    for has in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has, **_: has)
        assert TrainingSettings().autocasts("cuda") == has
        assert not TrainingSettings().autocasts("cpu")


def test_training_in_bfloat16_computes_in_it_and_starts_at_ln_2(
    fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    found = []
    for bf16 in (False, True):
        soup = fresh("a")
        kinds = set()
        layer = next(module for module in soup.modules() if isinstance(module, SoupLinear))
        layer.layer.register_forward_hook(
            lambda _m, _i, output, soup=soup, kinds=kinds: kinds.add((soup.training, output.dtype))
        )
        trained = train(soup, rows(8), small.model_copy(update={"bf16": bf16}), work=str(bf16))
        assert (True, torch.bfloat16 if bf16 else torch.float32) in kinds
        assert trained.curves[0]["loss"] == pytest.approx(LN2, abs=0.05 if bf16 else 1e-5)
        assert all(factors.B.dtype == torch.float32 for factors in trained.vectors["a"].layers.values())
        found.append(trained.curves[-1]["loss"])
    assert found[0] == pytest.approx(found[1], abs=0.05)


def test_a_reference_in_bfloat16_is_that_of_a_training_in_it(
    fresh: Fresh, rows: Rows, train: Train, small: TrainingSettings
) -> None:
    exact = rows(8)
    reference = pair_log_probs(fresh("a"), None, exact.pairs, bf16=True)
    assert np.abs(reference - exact.reference).max() > 0.01
    settings = small.model_copy(update={"bf16": True, "batch_size": 8, "epochs": 1.0})
    first, far = (
        train(fresh("a"), replace(exact, reference=log_probs), settings, work=name).curves[0]
        for name, log_probs in (("same", reference), ("other", exact.reference))
    )
    assert first["loss"] == pytest.approx(LN2, abs=1e-5)
    assert abs(far["loss"] - LN2) > 1e-4


def test_an_empty_sequence_of_ids_is_kept() -> None:
    ragged = Ragged.of([[1, 2], [], [3]])
    assert [ragged[place] for place in range(len(ragged))] == [[1, 2], [], [3]]
    assert ragged.lengths().tolist() == [2, 0, 1]
