"""Malformed configurations: a sentence with its place, or a configuration that says what was written."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fuzz.oracle as oracle
from fuzz.cases import CASES
from valuesoup.config import RunConfig
from valuesoup.configfile import dump_config, load_config, parse_config
from valuesoup.pipeline.demo import demo_config

SMALL = """\
values:
  kind: {data: kind.jsonl, reward: {model: some/reward, logit: 0, sign: -1, max_length: 128}}
  brief: {data: [brief.csv, {path: more.parquet, limit: 5}], reward: {train: {epochs: 1.5}}}
base: {model: some/base, dtype: bfloat16}
methods: [dpo, {preset: soup, steps: 3}, {preset: vc-soup, name: mine, tau: 0.5}]
training: {rank: 8, learning_rate: 1e-5, dropout: 0.1, bf16: false}
generation: {max_new_tokens: 20, temperature: 0.7}
evaluation: {test_prompts: 20, validation_prompts: 40, level: 0.9, racing: true}
seed: 3
"""
LARGE = dump_config(demo_config())


def test_what_is_changed_here_is_right_before() -> None:
    assert parsed(SMALL) is not None
    assert parsed(LARGE) is not None


def parsed(text: str) -> RunConfig | None:
    """Parse, and hold that what was taken round-trips."""
    found = oracle.answer(lambda: parse_config(text, "c.yaml"), lines=oracle.MOST_LINES)
    if found is not None:
        assert parse_config(dump_config(found), "again") == found
    return found


@pytest.mark.parametrize(("text", "cases"), [(SMALL, CASES["configurations"]), (LARGE, CASES["whole demos"])])
def test_a_configuration_with_anything_changed_is_refused_in_words_or_read_as_written(text: str, cases: int) -> None:
    content = yaml.safe_load(text)
    for seed in range(cases):
        random = Random(seed)
        changed = oracle.mutated(content, random)
        try:
            written = yaml.safe_dump(changed, allow_unicode=random.random() < 0.5)
        except (yaml.YAMLError, UnicodeEncodeError, RecursionError):
            written = repr(changed)
        parsed(written)


def test_yaml_that_is_cut_or_damaged_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for seed in range(CASES["damaged configurations"]):
        path.write_bytes(oracle.damaged(SMALL.encode(), Random(seed)))
        found = oracle.answer(lambda: load_config(path), lines=oracle.MOST_LINES)
        assert found is None or parse_config(dump_config(found), "again") == found


KEYS = st.sampled_from([*RunConfig.model_fields, "data", "reward", "model", "preset", "kind", "tau"]) | st.text(
    max_size=8
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=CASES["shapes of YAML"], database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(KEYS, VALUES, max_size=6) | VALUES)
def test_yaml_of_any_shape_is_refused_in_words(content: Any) -> None:
    try:
        parsed(yaml.safe_dump(content))
    except yaml.YAMLError:
        parsed(repr(content))


@settings(max_examples=CASES["overrides"], database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.text(max_size=40)
    | st.tuples(st.lists(KEYS | st.sampled_from("0123"), max_size=4), VALUES).map(
        lambda made: f"{'.'.join(made[0])}={yaml.safe_dump(made[1], default_flow_style=True)}"
    )
)
def test_any_override_is_refused_in_words(text: str) -> None:
    oracle.answer(lambda: parse_config(SMALL, "c.yaml", [text]), lines=oracle.MOST_LINES)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(12)
)
CORPUS = [
    "",
    "\n",
    "---",
    "--- a\n--- b",
    "\t",
    "values:\n\tkind: x",
    "values: {a: 1",
    "[" * 3000,
    "{" * 3000,
    "{a: " * 3000,
    "- " * 3000,
    "? " * 2000,
    BOMB,
    "a: &a\n  b: *a",
    "&a [*a]",
    "a: &a {<<: *a}",
    "<<: [1]",
    "<<: {values: 1}",
    SMALL + "seed: 4\n",
    SMALL + "'seed': 4\n",
    SMALL + "? [a, b]\n: c\n",
    SMALL + "? {a: b}\n: c\n",
    SMALL + "1: 2\n'1': 3\n",
    SMALL + "!!python/object/apply:os.system ['true']: 1",
    "!!python/object/apply:os.system ['true']",
    "!!python/name:os.system",
    "!!binary x",
    "!!timestamp x",
    "!!int x",
    "!!float x",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!bool maybe",
    "2024-13-45",
    "99999-01-01",
    "0x" + "f" * 5000,
    "9" * 5000,
    "seed: " + "9" * 5000,
    "1" + ":59" * 2000,
    "%YAML 9.9\n---\na",
    "%TAG ! x\n---\n!a b",
    "'",
    '"\\uD800"',
    '"\\x"',
    "|\n  a",
    ": : :",
    "\x00",
    "\ufeffseed: 1",
    "\u2028",
    "key: " + "a" * 200_000,
    "a" * 200_000 + ": 1",
    "\n".join(f"k{i}: {i}" for i in range(3000)),
    "values: {" + ", ".join(f"v{i}: 1" for i in range(500)) + "}",
    "methods: [" + ", ".join(["dpo"] * 500) + "]",
]


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_known_traps_of_yaml_are_refused_in_words(text: str) -> None:
    assert parsed(text) is None


def test_files_that_are_no_text_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for content in (b"\xff\xfe", b"\x00" * 100, SMALL.encode("utf-16"), b"\x89PNG\r\n", b"PK\x03\x04", b"\x1f\x8b\x08"):
        path.write_bytes(content)
        assert oracle.answer(lambda: load_config(path), lines=3) is None
    for other in (tmp_path, tmp_path / "none.yaml", Path("a\0b"), tmp_path / ("x" * 300), Path("/proc/self/mem")):
        assert oracle.answer(lambda other=other: load_config(other)) is None


@pytest.mark.parametrize(
    "written",
    [
        "seed: true",
        "seed: 1.5",
        "seed: -1",
        "seed: 4294967296",
        "seeds: [true, 2]",
        "training: {epochs: true}",
        "training: {rank: yes}",
        "training: {dropout: off}",
        "training: {gradient_checkpointing: 2}",
        "training: {target_modules: q_proj}",
        "generation: {temperature: .nan}",
        "generation: {temperature: .inf}",
        "evaluation: {level: false}",
        "evaluation: {test_prompts: true}",
        "title: 3",
        "title: [a]",
    ],
)
def test_a_setting_of_another_kind_is_not_taken_for_a_number(written: str) -> None:
    lines = [line for line in SMALL.splitlines() if not line.startswith(written.partition(":")[0] + ":")]
    text = "\n".join([*lines, written])
    with pytest.raises(Exception, match=r"c\.yaml, line") as caught:
        parse_config(text, "c.yaml")
    oracle.check_message(str(caught.value))
