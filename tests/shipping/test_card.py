"""The model card: metadata that the hub reads, figures of the run, and no text of anyone's that becomes markup."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, metadata_load

from valuesoup.config import BaseConfig, DataConfig
from valuesoup.pipeline.data import load_part
from valuesoup.pipeline.run import Finished
from valuesoup.shipping import Exported, export
from valuesoup.shipping.card import example_prompt, fenced, plain
from valuesoup.shipping.origin import Origin, _describe
from valuesoup.shipping.serving import PROMPT


@pytest.fixture(scope="module")
def measured(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    out = tmp_path_factory.mktemp("out") / "adapter"
    return export(finished, out, candidates=["dpo/helpful=1,harmless=0"])


def test_the_metadata_are_the_hubs(measured: Exported) -> None:
    card = ModelCard.load(measured.folder / "README.md")
    assert card.data.library_name == "peft"
    assert card.data.pipeline_tag == "text-generation"
    assert {"valuesoup", "lora", "alignment"} <= set(card.data.tags)
    known = metadata_load(measured.folder / "README.md")
    assert known is not None
    assert "license" not in known  # nothing states one
    assert "base_model" not in known  # the base is no model of the hub


def test_a_base_of_the_hub_is_named_with_the_relation(finished: Finished) -> None:
    from valuesoup.shipping.card import _metadata

    origin = Origin("org/base", "org/base", None, False, "cpu")
    for form, relation in (("adapter", "adapter"), ("vllm", "adapter"), ("merged", "merge")):
        text = _metadata(form, origin, [])  # type: ignore[arg-type]
        assert "base_model: org/base\n" in text
        assert f"base_model_relation: {relation}\n" in text


def test_it_shows_weights_scores_with_intervals_data_limits_and_the_configuration(
    finished: Finished, measured: Exported
) -> None:
    text = (measured.folder / "README.md").read_text(encoding="utf-8")
    row = next(row for row in finished.results["candidates"] if row["id"] == "dpo/helpful=1,harmless=0")
    for value in ("helpful", "harmless"):
        score = row["test"][value]
        assert f"{score['mean']:+.3f} [{score['low']:+.3f}, {score['high']:+.3f}]" in text
    for part in (
        "## Weights",
        "## Use",
        "## Scores",
        "## Data",
        "## Limits",
        "## Configuration",
        "| the base | test |",
    ):
        assert part in text
    assert "valuesoup.worlds.errands:pairs" in text
    assert "The reward model of helpful orders" in text
    assert "fluency_bound: 0" in text


def test_examples_ask_a_base_made_of_the_data_what_it_knows_and_tell_no_prompt_of_the_data_otherwise(
    finished: Finished, measured: Exported
) -> None:
    asked = example_prompt(finished)
    split = finished.artifacts[finished.plan.split.key]
    assert list(asked) in [list(pair.prompt) for pair in load_part(split, "helpful", "validation")]
    assert asked[-1]["content"] in (measured.folder / "README.md").read_text(encoding="utf-8")
    config = finished.plan.config
    other = config.model_copy(update={"base": BaseConfig(model="org/base")})
    assert example_prompt(replace(finished, plan=replace(finished.plan, config=other))) == PROMPT


def test_no_folder_of_this_machine_is_in_the_card(finished: Finished, measured: Exported) -> None:
    text = (measured.folder / "README.md").read_text(encoding="utf-8")
    assert str(finished.folder) not in text
    assert str(measured.folder) not in text


def test_a_data_file_that_is_gone_is_no_data_set_of_the_hub_and_its_folder_is_not_told() -> None:
    assert _describe(DataConfig(path="/home/someone/secret/pairs.jsonl")) == ("pairs.jsonl", False, None)
    assert _describe(DataConfig(path="owner/pairs")) == ("owner/pairs", True, None)


def test_weights_that_are_no_shares_of_1_are_a_limit_measured_or_not(finished: Finished, tmp_path: Path) -> None:
    for place, (weights, told) in enumerate(
        [({"helpful": 2, "harmless": 1}, True), ({"helpful": 0.75, "harmless": 0.25}, False)]
    ):
        done = export(finished, tmp_path / str(place), method="soup", weights=weights)
        text = (done.folder / "README.md").read_text(encoding="utf-8")
        assert ("no shares of 1" in text) == told


def test_a_licence_beside_the_base_is_passed_on(tmp_path: Path) -> None:
    origin = Origin(str(tmp_path), None, None, False, "cpu")
    assert origin.licence is None
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# a base\n")
    assert origin.licence == "apache-2.0"
    for text in ("---\nlicense: [a, b]\n---\n", "---\n: : :\n---\n", "no metadata"):
        (tmp_path / "README.md").write_text(text)
        assert origin.licence is None


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a | b\n# c", r"a \| b # c"),
        ("[x](http://evil.example)", r"\[x\](http:&#47;&#47;evil.example)"),
        ("www.evil.example and @someone", "www&#46;evil.example and &#64;someone"),
        ("`code` *bold* _it_ ~~no~~ $x$", r"\`code\` \*bold\* \_it\_ \~\~no\~\~ &#36;x&#36;"),
        ("- item", "&#45; item"),
        ("12. item", "12&#46; item"),
        ("vc-soup/helpful=0.6", "vc-soup/helpful=0.6"),
    ],
)
def test_any_text_is_shown_as_it_is(given: str, shown: str) -> None:
    assert plain(given) == shown


def test_a_code_block_ends_where_it_should() -> None:
    assert fenced("a\n```\n<b>", "yaml") == "````yaml\na\n```\n<b>\n````"
