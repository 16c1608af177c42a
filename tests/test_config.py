"""The schema of a configuration: the papers' defaults, and one sentence with file, line and key for each mistake."""

import pytest

from tiny_config import GOOD, complaint, parse


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
    assert text.startswith(f"--set {override.partition('=')[0]}: ")
    assert "\n" not in text


@pytest.mark.parametrize("name", ["9lives", "a b", "a/b", "../up", "", "a" * 50, "é" * 50])
def test_names_that_could_not_name_a_folder_are_no_values(name: str) -> None:
    text = complaint(GOOD.replace("  kind: {", f"  {name!r}: {{"))
    assert "string should match pattern" in text


def test_names_that_yaml_takes_for_something_else_are_names() -> None:
    config = parse(GOOD.replace("  kind: {", "  no: {"))
    assert list(config.values) == ["False", "wise"]


HUGE = "99999999999999999999"


@pytest.mark.parametrize(
    "override",
    [
        *(f"training.{name}={HUGE}" for name in ("rank", "batch_size", "accumulate", "max_length", "evaluations")),
        *(f"training.{name}=1.0e+308" for name in ("epochs", "alpha", "beta", "likelihood", "learning_rate")),
        "training.max_grad_norm=1.0e+308",
        "training.rank=5000000",
        *(f"generation.{name}={HUGE}" for name in ("max_new_tokens", "max_prompt_tokens", "temperature", "batch_rows")),
        *(f"evaluation.{name}={HUGE}" for name in ("test_prompts", "validation_prompts", "resamples", "samples")),
        *(f"values.kind.data={{path: x.jsonl, {name}: {HUGE}}}" for name in ("limit", "max_words", "pairs_per_prompt")),
        *(f"values.kind.reward={{model: x, {name}: {HUGE}}}" for name in ("logit", "max_length")),
        *(
            f"base={{pretrain: {{{name}: {HUGE}}}}}"
            for name in ("vocabulary", "hidden", "layers", "heads", "context", "steps", "batch_size", "learning_rate")
        ),
        *(
            f"generation.endpoint={{url: 'http://h/v1', {name}: {HUGE}}}"
            for name in ("concurrency", "timeout", "retries")
        ),
        f"generation.endpoint={{url: 'http://h/v1', parity: {{prompts: {HUGE}, tolerance: 1}}}}",
        f"methods=[{{preset: soup, training: {{rank: {HUGE}}}}}]",
        f"seed={HUGE}",
    ],
)
def test_no_number_is_without_an_upper_bound(override: str) -> None:
    text = complaint(GOOD, override)
    assert "less than" in text
    assert "\n" not in text


def test_a_device_has_a_number_of_three_digits_at_most() -> None:
    assert "base.device" in complaint(GOOD, "base.device=cuda:999999999999")
    assert parse(GOOD, "base.device=cuda:15").base.device == "cuda:15"


def test_bounds_are_wide_enough_for_the_largest_runs() -> None:
    large = ["training.rank=4096", "training.max_length=10000000", "training.batch_size=65536", "training.epochs=1000"]
    assert parse(GOOD, *large, "training.max_grad_norm=1.0e+9").training.rank == 4096
