"""The file of a configuration: YAML and overrides, read and written back; what is no configuration is told."""

from pathlib import Path

import pytest

from tiny_config import GOOD, complaint, parse
from valuesoup.configfile import dump_config, load_config
from valuesoup.errors import UserError


def test_several_mistakes_are_all_told_each_on_its_line() -> None:
    text = complaint(GOOD.replace("rank: 8", "rank: 0\n  ranc: 8").replace("base:\n  model", "base:\n  modell"))
    assert [line.split(":")[0] for line in text.splitlines()] == [f"run.yaml, line {line}" for line in (13, 15, 16)]


def test_overrides_reach_into_sections_and_lists_and_make_sections() -> None:
    config = parse(
        GOOD,
        "values.wise.data.0.limit=7",
        "values.wise.data.1.arguments.size=9",
        "generation.temperature=0",
        "methods=[dpo]",
        "methods.0=soup",
        "title=x=y",
    )
    assert config.values["wise"].data[0].limit == 7
    assert config.values["wise"].data[1].arguments == {"size": 9}
    assert config.generation.temperature == 0
    assert [entry.name for entry in config.methods] == ["soup"]
    assert config.title == "x=y"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.rank", "--set: write key.path=value"),
        ("=3", "--set: write key.path=value"),
        ("a..b=3", "--set a..b: write key.path=value"),
        ("training.rank=[", "not valid YAML"),
        ("title=2020-13-45", "not valid YAML (month must be in 1..12)"),
        ("title.x=1", "--set title.x: title is not a section."),
        ("values.wise.data.2.limit=1", "'2' must be a place in a list of 2, counted from 0."),
        ("values.wise.data.x=1", "'x' must be a place in a list of 2"),
        ("trainin.rank=3", "--set trainin.rank: unknown key trainin; did you mean 'training'?"),
        ("training.ranc=3", "--set training.ranc: unknown key training.ranc; did you mean 'rank'?"),
    ],
)
def test_a_wrong_override_is_named(override: str, says: str) -> None:
    assert says in complaint(GOOD, override)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["methods=[{name: x, pairs: {kind: consistent, keep: 0.5}}, {preset: vc-soup, keep: 0.25}]"],
        ["methods=[{preset: vc-soup, tau: {kind: 0.1, wise: strict}, statistics: pooled}]"],
        ["methods=[{preset: seqt, orders: [[wise, kind]]}, {preset: mva, points: 4}, {preset: modpo, primary: wise}]"],
        ["methods=[{preset: mora, rewriter: {function: 'm:f'}, thresholds: {kind: 0, wise: 1}}]"],
        ["methods=[{preset: soup, composition: {kind: dare}, weights: {kind: simplex, totals: [1, 1.5]}}]"],
        ["methods=[{name: x, objective: {kind: weighted}, weights: {kind: points, rows: [{kind: 1}, {wise: 0.5}]}}]"],
        ["methods=[{preset: mora, pairs: {kind: expanded, filter: {keep: 0.5}}, training: {likelihood: 0.2}}]"],
        ["base={pretrain: {steps: 3}, dialogues: {function: 'm:f'}}", "evaluation.fluency='m:g'"],
        ["values.kind.reward={train: {epochs: 0.5}}", "values.kind.truth='m:t'", "title='é: #1'"],
        ["values.kind.reward={model: m, self_check: [[a, b, c]]}", "training.target_modules=[q_proj]"],
    ],
)
def test_the_resolved_configuration_reads_back_as_itself(overrides: list[str], tmp_path: Path) -> None:
    config = parse(GOOD, *overrides)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    again = load_config(path)
    assert again == config
    assert [entry.method for entry in again.methods] == [entry.method for entry in config.methods]
    assert dump_config(again) == dump_config(config)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "a configuration is a mapping of keys such as values, base and methods."),
        (b"# nothing\n", "a configuration is a mapping"),
        (b"[1, 2]", "a configuration is a mapping"),
        (b"just text", "a configuration is a mapping"),
        (b"values: [", "line 1: not valid YAML"),
        (b"a: b\n\tc: d", "line 2: not valid YAML"),
        (b"a: \x00", "not valid YAML"),
        (b"\xff\xfe\xfa\x00PNG", "cannot be read"),
        (b"a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        (b"a: &a [*a]", "anchors (&, *) repeat each other"),
        (b"? [1]\n: 2", "not valid YAML"),
        (b"[" * 5000, "not valid YAML"),
        (b"seed: 1\ntitle: x\nseed: 2\n", "line 3: key seed is given twice, first in line 1."),
        (b"a:\n  b: 1\n  b: 1\n", "line 3: key b is given twice, first in line 2."),
    ],
)
def test_a_file_that_is_no_configuration_gets_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert says in str(caught.value)
    assert "run.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_that_grows_without_end_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 12)]
    assert "repeat each other" in complaint("\n".join(lines))


def test_anchors_and_merge_keys_may_be_used() -> None:
    text = GOOD.replace("kind: {data: kind.jsonl, reward: ", "kind: {data: kind.jsonl, reward: &r ").replace(
        "    reward:\n      model: some/classifier\n      sign: -1", "    reward: *r"
    )
    config = parse(text)
    assert config.values["kind"].reward == config.values["wise"].reward


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no configuration .*gone.yaml; `valuesoup demo` runs without one"):
        load_config(tmp_path / "gone.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    "override",
    [
        "generation.endpoint={url: 'http://u:HIDDEN@h/v1'}",
        "generation.endpoint={url: 'http://h/v1#HIDDEN'}",
        "generation.endpoint={url: 'http://h/v1', api_key: HIDDEN}",
        "generation.endpoint=http://u:HIDDEN@h/v1",
        "base.token=HIDDEN",
        "base.model=https://u:HIDDEN@h/x",
        "base.token=[HIDDEN",
        "values.kind.data=https://u:HIDDEN@h/x",
        "values.kind.data={path: 'https://h/x?token=HIDDEN'}",
        "values.kind.reward={model: 'https://u:HIDDEN@h/x'}",
        "https://u:HIDDEN@h/x",
    ],
)
def test_a_refused_override_does_not_repeat_its_value_which_may_be_a_secret(override: str) -> None:
    text = complaint(GOOD, override)
    assert "HIDDEN" not in text
    assert text.startswith(f"--set {override.partition('=')[0]}" if "=" in override else "--set: ")


@pytest.mark.parametrize("text", [r'title: "\ud800"', r'values: {"\udfff": 1}', r'methods: [["a", "\ud83d\ude00"]]'])
def test_half_a_character_is_named_with_its_line(text: str) -> None:
    assert complaint(f"seed: 1\n{text}\n").splitlines()[0].endswith("takes; write the whole character.")
    assert "line 2: holds half a character" in complaint(f"seed: 1\n{text}\n")


def test_half_a_character_in_an_override_is_refused() -> None:
    assert "--set title, line 1: holds half a character" in complaint(GOOD, r'title="\ud800"')
    assert "a key is text in UTF-8" in complaint(GOOD, "title\udcff=1")
    assert parse(GOOD, 'title="\U0001f600"').title == "\U0001f600"
