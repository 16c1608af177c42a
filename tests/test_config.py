"""The configuration and its file: every mistake gets one sentence with file, line and what would be right."""

from pathlib import Path

import pytest

from valuesoup.config import RunConfig
from valuesoup.configfile import dump_config, load_config, parse_config
from valuesoup.consistency import threshold
from valuesoup.errors import UserError
from valuesoup.methods import Consistent, Decorrelated, Expanded, Sequential, Sobol, preset

GOOD = """\
title: a run
values:
  kind: {data: kind.jsonl, reward: {function: "m:kind"}}
  wise:
    data:
      - path: wise.parquet
        limit: 100
      - {function: "m:rows", arguments: {size: 3}}
    reward:
      model: some/classifier
      sign: -1
base:
  model: some/base
training:
  rank: 8
"""


def parse(text: str = GOOD, *overrides: str) -> RunConfig:
    return parse_config(text, "run.yaml", overrides)


def complaint(text: str = GOOD, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(text, *overrides)
    return str(caught.value)


def test_a_good_configuration_keeps_the_order_of_values_and_the_papers_defaults() -> None:
    config = parse()
    assert list(config.values) == ["kind", "wise"]
    assert [entry.name for entry in config.methods] == ["dpo", "soup", "vc-soup"]
    assert (config.training.rank, config.training.lora_alpha) == (8, 16.0)
    assert (config.training.beta, config.training.learning_rate, config.training.batch_size) == (0.1, 1e-5, 2)
    assert (config.evaluation.test_prompts, config.evaluation.validation_prompts) == (200, 50)
    assert config.values["kind"].data[0].path == "kind.jsonl"
    assert config.values["wise"].data[1].arguments == {"size": 3}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("title:", "titel:", "run.yaml, line 1: unknown key titel; did you mean 'title'?"),
        (
            "  wise:\n    data:",
            "  wise:\n    dat:",
            "run.yaml, line 5: unknown key values.wise.dat; did you mean 'data'?",
        ),
        ("        limit:", "        limmit:", "line 7: unknown key values.wise.data.0.limmit; did you mean 'limit'?"),
        ("      sign:", "      sgin:", "run.yaml, line 11: unknown key values.wise.reward.sgin; did you mean 'sign'?"),
        ("  model: some/base", "  modell: some/base", "line 13: unknown key base.modell; did you mean 'model'?"),
        ("  rank: 8", "  ranc: 8", "run.yaml, line 15: unknown key training.ranc; did you mean 'rank'?"),
        ("  rank: 8", "  zzzzzz: 8", "run.yaml, line 15: unknown key training.zzzzzz; known: accumulate, alpha,"),
    ],
)
def test_an_unknown_key_is_answered_with_file_line_and_the_nearest_key(old: str, new: str, says: str) -> None:
    assert says in complaint(GOOD.replace(old, new))


def test_a_source_that_stands_without_a_list_is_named_as_it_was_written() -> None:
    text = GOOD.replace("kind: {data: kind.jsonl,", "kind: {data: {\n path: kind.jsonl,\n spilt: train},")
    assert complaint(text) == "run.yaml, line 5: unknown key values.kind.data.spilt; did you mean 'split'?"


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("vc-sop", "methods.0: there is no method 'vc-sop'; did you mean 'vc-soup'?"),
        ("{preset: vc-soup, tua: 0.5}", "method 'vc-soup' has no setting 'tua'; did you mean 'tau'?"),
        ("{preset: vc-soup, settings: {tua: 0.5}}", "method 'vc-soup' has no setting 'tua'; did you mean 'tau'?"),
        ("{preset: vc-soup, settings: 4}", "methods.0.settings: input should be a valid mapping, not 4."),
        ("{preset: vc-soup, steps: 0}", "methods.0.steps: input should be greater than 0, not 0."),
        (
            "{preset: vc-soup, tau: 1.5}",
            "methods.0.tau: the consistency threshold is 1.5; it must be a number in [-1, 1]",
        ),
        ("{preset: vc-soup, tau: -1.01}", "the consistency threshold is -1.01; it must be a number in [-1, 1]"),
        ("{preset: vc-soup, tau: .nan}", "the consistency threshold is nan; it must be a number in [-1, 1]"),
        ("{preset: vc-soup, tau: stric}", "no consistency threshold named 'stric'; did you mean 'strict'?"),
        ("{preset: vc-soup, tau: [0.5]}", "methods.0.tau: a threshold is a number in [-1, 1] or one of strict"),
        ("{preset: vc-soup, tau: {kind: 0.5}}", "method 'vc-soup': tau must name the values kind, wise."),
        ("{preset: vc-soup, tau: {kind: 0.5, wise: 2}}", "the consistency threshold is 2"),
        ("{preset: vc-soup, tau: 0.5, keep: 0.5}", "methods.0: give either tau or keep, not both."),
        ("{preset: vc-soup, keep: 1.5}", "methods.0.keep: input should be less than or equal to 1, not 1.5."),
        ("{name: x, pairs: {kind: consistent, tua: 1}}", "unknown key methods.0.pairs.tua; did you mean 'tau'?"),
        (
            "{name: x, pairs: {kind: consisten}}",
            "methods.0.pairs.kind: there is no 'consisten'; did you mean 'consistent'?",
        ),
        ("{name: x, pairs: {kind: consistent, tau: 3}}", "methods.0.pairs.tau: the consistency threshold is 3"),
        ("{name: x, settings: {steps: 4}}", "methods.0: settings are those of a preset; name one, or spell out pairs,"),
        ("{name: vc-soup}", "methods.0: name a preset, or spell out pairs, objective and weights."),
        ("{name: x, training: {beta: 1}}", "methods.0: name a preset, or spell out pairs, objective and weights."),
        ("{preset: soup, weights: {kind: cub}}", "methods.0.weights.kind: there is no 'cub'; did you mean 'cube'?"),
        ("{preset: soup, weights: {kind: cube, level: [1]}}", "methods.0.weights.level; did you mean 'levels'?"),
        ("{preset: soup, objective: {kind: margin, primry: kind}}", "methods.0.objective.primry; did you mean"),
        ("{preset: soup, composition: {kind: tie}}", "methods.0.composition.kind: there is no 'tie'; did you mean"),
        ("{preset: mora, rewriter: {}}", "methods.0.rewriter: a rewriter is exactly one of endpoint, function and"),
        ("{preset: modpo, primary: kid}", "method 'modpo': primary 'kid' is none of the values kind, wise."),
        ("{preset: seqt, orders: [[kind]]}", "method 'seqt': an order must hold each of kind, wise once, not kind."),
        ("{preset: mva, levels: [1, 1]}", "method 'mva': The levels of a cube are [1.0, 1.0]; they must be different"),
        ("{preset: soup, steps: 10000000}", "method 'soup': A weight space of 10000001 candidates"),
        ("{preset: vc-soup, tau: 0, flip: true}", "method 'vc-soup': flip needs a tau above 0, not 0"),
        (
            "{preset: soup, training: {likelihod: 1}}",
            "methods.0.training: there is no setting 'likelihod'; did you mean",
        ),
        ("{preset: soup, training: {max_length: 9}}", "methods.0.training: max_length is the same for every method"),
        ("{preset: soup, training: {beta: 0}}", "method 'soup': training.beta: input should be greater than 0."),
        ("{preset: soup, training: {accumulate: 3}}", "method 'soup': training: accumulate = 3 must divide batch_size"),
        ("{pairs: {kind: all}}", "methods.0.name is missing; it is required."),
        ("{name: base, preset: soup}", "no method can be called 'base'"),
        ("{name: 'a b', preset: soup}", "methods.0.name: string should match pattern"),
        ("3", "methods.0: input should be a valid mapping, not 3."),
    ],
)
def test_a_wrong_method_is_answered_in_one_sentence(entry: str, says: str) -> None:
    text = complaint(GOOD + f"methods:\n  - {entry}\n")
    assert says in text
    assert "\n" not in text
    assert text.startswith("run.yaml")


def test_two_methods_of_one_name_are_refused_and_a_second_name_helps() -> None:
    assert "two methods are called 'soup'; give one of them another name." in complaint(GOOD, "methods=[soup, soup]")
    config = parse(GOOD, "methods=[soup, {name: fine, preset: soup, steps: 20}]")
    assert [(entry.name, entry.title) for entry in config.methods] == [("soup", "SOUP"), ("fine", "fine")]


def test_a_method_spelled_out_as_three_choices_equals_its_preset() -> None:
    spelled = (
        "methods=[{name: mine, pairs: {kind: consistent, tau: 0.7}, objective: {kind: independent}, "
        "weights: {kind: simplex, steps: 10}}, vc-soup]"
    )
    mine, named = parse(GOOD, spelled).methods
    assert mine.method == named.method
    changed, other = parse(
        GOOD,
        "methods=[{name: a, preset: vc-soup, tau: 0.2, steps: 4}, {name: b, pairs: {kind: consistent, tau: 0.2}, "
        "weights: {kind: simplex, steps: 4}}]",
    ).methods
    assert changed.method == other.method


def test_every_mistake_in_a_method_that_its_text_shows_is_told_with_its_line() -> None:
    for entry in ("{preset: soup, stps: 4}", "{preset: soup, training: {ranc: 4}}", "{name: x}", "{preset: sop}"):
        assert complaint(GOOD + f"methods:\n  - dpo\n  - {entry}\n").startswith("run.yaml, line 18: ")


def test_every_preset_stands_by_its_name() -> None:
    names = ["dpo", "seqt", "dpo-lw", "modpo", "soup", "vc-soup", "mva", "mora"]
    config = parse(GOOD, f"methods=[{', '.join(names)}]")
    assert [entry.title for entry in config.methods] == [
        *("DPO", "SeqT", "DPO-LW", "MODPO", "SOUP", "VC-soup", "MVA", "MORA")
    ]
    assert [entry.method for entry in config.methods] == [preset(name).build({}) for name in names]


def test_choices_beside_a_preset_take_the_place_of_the_presets() -> None:
    (entry,) = parse(
        GOOD,
        "methods=[{preset: mva, mode: joint, pairs: {kind: consistent, tau: auto}, weights: {kind: sobol, points: 8}, "
        "composition: {kind: ties}, training: {likelihood: 0.2, beta: 1}}]",
    ).methods
    method = entry.method
    assert method.pairs == Consistent(tau="auto")
    assert method.objective == Decorrelated(alpha=10.0, mode="joint")
    assert method.weights == Sobol(points=8)
    assert method.composition.kind == "ties"
    assert method.training == {"likelihood": 0.2, "beta": 1}
    assert entry.title == "MVA"


@pytest.mark.parametrize(
    ("beside", "spelled"),
    [
        ("preset: mva, pairs: {kind: consistent}", "objective: {kind: decorrelated}, weights: {kind: cube}"),
        ("preset: modpo, pairs: {kind: consistent}", "objective: {kind: margin}"),
        ("preset: dpo-lw, pairs: {kind: consistent}", "objective: {kind: weighted}"),
        ("preset: seqt, pairs: {kind: consistent}", "objective: {kind: sequential}"),
        ("preset: soup, pairs: {kind: consistent}", "weights: {kind: simplex, steps: 10}"),
    ],
)
def test_a_filter_joins_any_objective_beside_a_preset_or_spelled_out(beside: str, spelled: str) -> None:
    first, second = parse(
        GOOD, f"methods=[{{name: a, {beside}}}, {{name: b, pairs: {{kind: consistent}}, {spelled}}}]"
    ).methods
    assert first.method == second.method
    assert first.method.pairs == Consistent(tau=0.7)


def test_a_filter_joins_prompt_expansion() -> None:
    (entry,) = parse(GOOD, "methods=[{preset: mora, pairs: {kind: expanded, filter: {tau: positive}}}]").methods
    assert entry.method.pairs == Expanded(filter=Consistent(tau="positive"))
    assert entry.method.objective == Sequential()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["methods=[soup, {name: SOUP, pairs: {kind: all}}]"], "two methods are shown as 'SOUP'"),
        (
            ["methods=[{preset: vc-soup, pooled: true, objective: {kind: mixed}, weights: {kind: single}}]"],
            "leave pooled",
        ),
        (["methods=[mora]", "generation.temperature=0"], "method 'mora' needs rollouts that differ"),
        (["values.policy={data: {path: a}, reward: {model: m}}"], "no value can be called 'policy'"),
    ],
)
def test_what_would_only_go_wrong_late_in_a_run_is_refused(overrides: list[str], says: str) -> None:
    assert says in complaint(GOOD, *overrides)


def test_a_methods_training_settings_fit_beside_the_runs() -> None:
    (entry,) = parse(GOOD, "training.batch_size=8", "methods=[{preset: soup, training: {accumulate: 4}}]").methods
    assert entry.method.training == {"accumulate": 4}
    assert "accumulate = 4 must divide batch_size = 2" in complaint(
        GOOD, "training.batch_size=8", "methods=[{preset: soup, training: {accumulate: 4, batch_size: 2}}]"
    )


@pytest.mark.parametrize("tau", [-1, 1, 0, 0.7, "strict", "positive", "lenient", "auto"])
def test_thresholds_from_minus_one_to_one_and_names_are_taken(tau: float | str) -> None:
    config = parse(GOOD, f"methods=[{{preset: vc-soup, tau: {tau}}}]")
    assert config.methods[0].method.pairs.tau_of("kind") == tau  # type: ignore[union-attr]
    assert tau == "auto" or -1 <= threshold(tau, 2) <= 1  # type: ignore[arg-type]


def test_numbers_in_scientific_notation_without_a_point_are_numbers() -> None:
    config = parse(GOOD, "training.learning_rate=1e-4", "methods=[{preset: vc-soup, tau: 1e-1}]")
    assert config.training.learning_rate == 1e-4
    assert config.methods[0].method.pairs.tau_of("wise") == 0.1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("values.kind.data={}", "values.kind.data: give either path or function."),
        ("values.kind.data={path: a, function: 'm:f'}", "values.kind.data: give either path or function."),
        ("values.kind.data=[]", "values.kind.data: value should have at least 1 item"),
        ("values.kind={}", "values.kind.data is missing; it is required."),
        ("values={}", "values: mapping should have at least 1 item"),
        ("values=null", "values: input should be a valid mapping, not None."),
        ("base={}", "base: give either model or pretrain."),
        ("base={model: m, pretrain: {}}", "base: give either model or pretrain."),
        ("values.kind.reward={}", "a reward needs exactly one of train, model, function; found none."),
        ("values.kind.reward={model: m, train: {}}", "exactly one of train, model, function; found train and model."),
        ("values.kind.reward={column: kind}", "found none (a column scores pairs, not new answers)."),
        ("values.kind.reward={train: {}, sign: 2}", "values.kind.reward.sign: input should be 1 or -1, not 2."),
        ("training.rank=0", "training.rank: input should be greater than 0, not 0."),
        ("training.rank=many", "training.rank: input should be a valid integer"),
        ("training.rank=2.5", "training.rank: input should be a valid integer"),
        ("training.learning_rate=.inf", "training.learning_rate: input should be a finite number, not inf."),
        ("training.schedule=linaer", "training.schedule: input should be 'linear', 'cosine',"),
        ("base.dtype=float8", "base.dtype: input should be 'float32', 'bfloat16', 'float16' or 'auto', not 'float8'."),
        ("training=3", "training: input should be a valid mapping, not 3."),
        ("generation.temperature=-1", "generation.temperature: input should be greater than or equal to 0, not -1."),
        ("evaluation.level=95", "evaluation.level: input should be less than 1, not 95."),
        ("evaluation.prompts=mine", "evaluation.prompts: input should be 'all' or 'own', not 'mine'."),
        ("seed=-1", "seed: input should be greater than or equal to 0, not -1."),
        ("methods=[]", "methods: list should have at least 1 item, not 0."),
        ("methods=soup", "methods: input should be a valid list, not 'soup'."),
        (
            "values.kind.data={function: 'm:f', arguments: {x: 2020-01-01}}",
            "arguments.x: input was not a valid JSON value",
        ),
        ("values.kind.data={function: 'm:f', arguments: {x: .nan}}", "input should be a finite number, not nan"),
    ],
)
def test_a_wrong_value_is_answered_with_the_override_and_what_would_be_right(override: str, says: str) -> None:
    text = complaint(GOOD, override)
    assert says in text
    assert text.startswith(f"--set {override}: ")
    assert "\n" not in text


def test_several_mistakes_are_all_told_each_on_its_line() -> None:
    text = complaint(GOOD.replace("rank: 8", "rank: 0\n  ranc: 8").replace("base:\n  model", "base:\n  modell"))
    assert [line.split(":")[0] for line in text.splitlines()] == [f"run.yaml, line {line}" for line in (13, 15, 16)]


@pytest.mark.parametrize("name", ["9lives", "a b", "a/b", "../up", "", "a" * 50, "é" * 50])
def test_names_that_could_not_name_a_folder_are_no_values(name: str) -> None:
    text = complaint(GOOD.replace("  kind: {", f"  {name!r}: {{"))
    assert "string should match pattern" in text


def test_names_that_yaml_takes_for_something_else_are_names() -> None:
    config = parse(GOOD.replace("  kind: {", "  no: {"))
    assert list(config.values) == ["False", "wise"]


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
        ("training.rank", "--set training.rank: write key.path=value"),
        ("=3", "--set =3: write key.path=value"),
        ("a..b=3", "--set a..b=3: write key.path=value"),
        ("training.rank=[", "not valid YAML"),
        ("title=2020-13-45", "not valid YAML (month must be in 1..12)"),
        ("title.x=1", "--set title.x=1: title is not a section."),
        ("values.wise.data.2.limit=1", "'2' must be a place in a list of 2, counted from 0."),
        ("values.wise.data.x=1", "'x' must be a place in a list of 2"),
        ("trainin.rank=3", "--set trainin.rank=3: unknown key trainin; did you mean 'training'?"),
        ("training.ranc=3", "--set training.ranc=3: unknown key training.ranc; did you mean 'rank'?"),
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
