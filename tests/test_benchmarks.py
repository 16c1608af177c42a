"""The benchmarks run in a small form: the results of both ways are equal, and a claim is kept once."""

import json
from importlib import import_module
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1])


def test_a_claim_replaces_its_older_self(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    from benchmarks import __main__, filtering

    monkeypatch.setattr(__main__, "RESULTS", tmp_path / "results" / "cpu.json")
    monkeypatch.setattr(__main__, "PAGE", tmp_path / "performance.md")
    monkeypatch.setitem(__main__.CLAIMS, "filter", lambda repeats: filtering.claim(repeats, pairs=5000))
    monkeypatch.setattr("sys.argv", ["benchmarks", "filter", "--repeats", "2"])
    for _ in range(2):
        __main__.main()
    (claim,) = json.loads((tmp_path / "results" / "cpu.json").read_text(encoding="utf-8"))
    assert set(claim) == {"name", "opponent", "ratio", "low", "high", "unit", "note"}
    assert 0 < claim["low"] <= claim["ratio"] <= claim["high"]
    assert f"**{claim['ratio']:.2f}**" in (tmp_path / "performance.md").read_text(encoding="utf-8")


def test_unequal_results_are_no_claim() -> None:
    from benchmarks.timing import compare

    def same(ours: int, theirs: int) -> None:
        assert ours == theirs

    assert len(compare(lambda: 1, lambda: 1, same, 3).ours) == 3
    with pytest.raises(AssertionError):
        compare(lambda: 1, lambda: 2, same, 1)


def test_the_pairs_to_audit_load_with_their_scores(tmp_path: Path) -> None:
    from benchmarks.auditing import VALUES, write_pairs

    from valuesoup.data import load_pairs

    write_pairs(tmp_path / "pairs.parquet", 50)
    pairs = load_pairs(tmp_path / "pairs.parquet")
    assert (len(pairs), sorted(pairs.score_values)) == (50, sorted(VALUES))


@pytest.mark.parametrize(
    ("module", "name", "sizes"),
    [
        ("training", "claim", {"pairs": 8}),
        ("training", "bf16", {"pairs": 8}),
        ("study", "claim", {"pairs": 8}),
        ("candidates", "k66_few_prompts", {"prompts": 1}),
        ("scoring", "score", {"texts": 20}),
        ("scoring", "score_shared_prompt", {"prompts": 2, "answers": 3}),
        ("search", "claim", {}),
    ],
)
def test_both_sides_of_a_claim_find_the_same(module: str, name: str, sizes: dict[str, int]) -> None:
    claim = getattr(import_module(f"benchmarks.{module}"), name)(1, **sizes)
    assert claim.ratio > 0


def test_growth_is_measured_in_a_process_of_its_own() -> None:
    from benchmarks.growth import measure

    point = measure("filter", (1000, 2))
    assert point.size == "1,000 pairs × 2 values"
    assert point.seconds >= 0
