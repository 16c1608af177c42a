"""The methods of a configuration: by preset or by their choices, and one sentence for each mistake."""

import pytest

from tiny_config import GOOD, complaint, parse
from valuesoup.consistency import threshold
from valuesoup.methods import Consistent, Decorrelated, Expanded, Sequential, Sobol, preset


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
