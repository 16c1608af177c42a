"""The ten lines of the library, as documentation shows them, on tiny local models."""

import json
from pathlib import Path

import numpy as np
import pytest

import valuesoup as vs
from tiny import llama, random_vector, save_base
from valuesoup.data import Messages

ROWS = [
    {"prompt": f"w{i} w{i + 1}", "chosen": " ".join(["w2"] * (1 + i % 5)), "rejected": " ".join(["w3"] * (1 + i % 3))}
    for i in range(30)
]
PROMPTS = ["w1 w2", "w3", "w4 w5 w6"]


def helpful(prompts: list[Messages], answers: list[str]) -> list[float]:
    return [float(len(answer.split())) for answer in answers]


def harmless(prompts: list[Messages], answers: list[str]) -> list[float]:
    return [-float(len(answer.split())) / 2 + answer.count("w2") for answer in answers]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs, a base and one adapter per value."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    save_base(folder / "base")
    for seed, value in enumerate(("helpful", "harmless")):
        random_vector(llama(), seed).save_pretrained(folder / value)
    return folder


def load_soup(home: Path) -> vs.Soup:
    return vs.Soup.from_adapters(home / "base", {"helpful": home / "helpful", "harmless": str(home / "harmless")})


def test_pairs_are_scored_and_filtered_by_consistency(home: Path) -> None:
    pairs = vs.load_pairs(home / "pairs.jsonl")
    table = vs.score(pairs, {"helpful": helpful, "harmless": harmless})
    vc = vs.value_consistency(table.gaps(normalise=True))
    kept = pairs.filter(vc >= vs.threshold("strict", values=2))

    words = np.array([[len(row[side].split()) for side in ("chosen", "rejected")] for row in ROWS], dtype=float)
    raw = np.stack([words, np.stack([words[:, 0] / 2, -words[:, 1] / 2], axis=1)], axis=2)
    gaps = (raw[:, 0] - raw[:, 1]) / raw.reshape(-1, 2).std(axis=0)
    cosine = gaps.sum(axis=1) / np.linalg.norm(gaps, axis=1) / np.sqrt(2)
    np.testing.assert_allclose(vc, cosine, atol=1e-12)
    assert 0 < len(kept) < len(pairs)
    assert kept.ids == [pairs.ids[row] for row in np.flatnonzero((gaps >= 0).all(axis=1))]


def test_a_soup_answers_at_one_mixture_or_at_one_per_prompt(home: Path) -> None:
    soup = load_soup(home)
    half = {"helpful": 0.5, "harmless": 0.5}
    texts = soup.generate(PROMPTS, weights=half, max_new_tokens=8, temperature=0)
    assert len(texts) == len(PROMPTS)
    mixed = soup.generate(PROMPTS, weights=[half, {"helpful": 1}, {}], max_new_tokens=8, temperature=0)
    assert mixed[0] == texts[0]
    assert mixed[1] == soup.generate(PROMPTS[1:2], weights={"helpful": 1}, max_new_tokens=8, temperature=0)[0]
    assert mixed[2] == soup.generate(PROMPTS[2:], weights={"helpful": 0}, max_new_tokens=8, temperature=0)[0]
    assert len(set(soup.generate(["w1"] * 3, [half, {"helpful": 1}, {}], max_new_tokens=8, temperature=0))) == 3


def test_the_frontier_and_its_volume_take_scores_where_higher_is_better() -> None:
    scores = [[1.0, 3.0], [2.0, 2.0], [1.0, 2.0], [3.0, 1.0]]
    front = vs.pareto(scores)
    assert front.tolist() == [True, True, False, True]
    assert vs.hypervolume(scores, reference=[0.0, 0.0]) == pytest.approx(6.0)  # columns of height 3, 2 and 1


def test_peft_loads_the_soups_adapter_with_the_same_logits(home: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    soup = load_soup(home)
    weights = {"helpful": 0.6, "harmless": 0.4}
    soup.adapter(weights).save_pretrained(tmp_path / "mine")
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(home / "base"), str(tmp_path / "mine"))
    ids = torch.arange(5, 17).reshape(2, 6)
    with torch.inference_mode():
        expected = soup(soup.weight_rows(weights, 2), input_ids=ids).logits
        base = soup(None, input_ids=ids).logits
        torch.testing.assert_close(loaded(ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert (base - expected).abs().max() > 0.1  # the adapter does something


def test_every_public_name_exists_and_is_listed() -> None:
    assert set(vs.__all__) <= set(dir(vs))
    for name in vs.__all__:
        assert getattr(vs, name) is not None
