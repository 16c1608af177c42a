"""Methods are found by name, imported when used, and may come from other packages."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from valuesoup.errors import UserError
from valuesoup.methods import (
    All,
    Consistent,
    Cube,
    Decorrelated,
    Expanded,
    Independent,
    Margin,
    Method,
    Mixed,
    Sequential,
    Simplex,
    Single,
    Sobol,
    Weighted,
    known_methods,
    method,
    preset,
)


def python(code: str, *paths: Path) -> str:
    places = [str(path) for path in paths]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {places!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def plug_in(folder: Path, entries: str, code: str = "") -> Path:
    """Lay out an installed distribution with entry points, as pip would."""
    info = folder / "otherlab-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: otherlab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[valuesoup.methods]\n{entries}\n")
    (folder / "otherlab.py").write_text(code)
    return folder


OTHER = """
from valuesoup.methods import All, Independent, Method, Simplex, method

@method("fine", title="Fine grid", paper="none")
def fine(steps: int = 20) -> Method:
    return Method(pairs=All(), objective=Independent(), weights=Simplex(steps=steps))

@method("odd", title="Odd", paper="none")
def odd():
    return "simplex"

def plain():
    pass
"""


def test_the_built_in_methods_are_their_three_choices() -> None:
    grid = Simplex(steps=10)
    assert {name: preset(name).build({}) for name in known_methods()} == {
        "dpo": Method(pairs=All(), objective=Independent(), weights=Single()),
        "seqt": Method(pairs=All(), objective=Sequential(orders="given"), weights=Single()),
        "dpo-lw": Method(pairs=All(), objective=Weighted(), weights=grid),
        "modpo": Method(pairs=All(), objective=Margin(primary=None, rewards="implicit"), weights=grid),
        "soup": Method(pairs=All(), objective=Independent(), weights=grid),
        "vc-soup": Method(pairs=Consistent(tau=0.7, statistics="dataset"), objective=Independent(), weights=grid),
        "vc-soup-nll": Method(
            pairs=Consistent(tau="positive"), objective=Independent(), weights=grid, training={"likelihood": 0.2}
        ),
        "mva": Method(pairs=All(), objective=Decorrelated(alpha=10.0, mode="sequential"), weights=Cube()),
        "mora": Method(pairs=Expanded(rollouts=16), objective=Sequential(), weights=Single()),
    }


def test_what_goes_beyond_the_papers_is_off_in_every_preset_of_theirs() -> None:
    for name in set(known_methods()) - {"vc-soup-nll"}:
        made = preset(name).build({})
        assert made.composition.kind == "linear"
        assert made.training == {}
        if isinstance(made.weights, Simplex):
            assert made.weights.totals == (1.0,)
        if isinstance(made.pairs, Consistent):
            assert not (made.pairs.soft or made.pairs.flip or made.pairs.pooled)


def test_every_preset_is_called_as_it_is_registered_and_says_its_source_and_formula() -> None:
    for name in known_methods():
        found = preset(name)
        assert found.name == name
        assert found.title
        assert found.paper.startswith("arXiv:")
        assert found.formula
        assert found.summary.endswith(".")
        assert "\n" not in found.summary
        assert found.build(found.defaults) == found.build({})


def test_a_preset_lists_its_settings_with_their_defaults() -> None:
    assert preset("dpo").defaults == {}
    assert preset("modpo").defaults == {"primary": None, "rewards": "implicit", "normalise": False, "steps": 10}
    assert preset("seqt").summary == (
        "Train one policy on value after value; each stage starts from the policy before it and refers to it."
    )


def test_settings_reach_the_choices() -> None:
    assert preset("seqt").build({"orders": [["b", "a"]]}).objective == Sequential(orders=(("b", "a"),))
    assert preset("dpo-lw").build({"steps": 4}).weights == Simplex(steps=4)
    rule = {"primary": "b", "rewards": "models", "normalise": True}
    assert preset("modpo").build(rule).objective == Margin(primary="b", rewards="models", normalise=True)
    joint = preset("mva").build({"mode": "joint", "alpha": 3, "points": 8})
    assert joint.objective == Decorrelated(mode="joint", alpha=3.0)
    assert joint.weights == Sobol(points=8, low=0.0, high=1.0)
    assert preset("mva").build({"levels": [0.5, 1.5]}).weights == Cube(levels=(0.5, 1.5))
    together = preset("mora").build({"mode": "simultaneous", "rollouts": 4, "thresholds": {"a": 0}, "most": 9})
    assert together.objective == Mixed()
    assert together.pairs == Expanded(rollouts=4, thresholds={"a": 0.0}, most=9)
    beyond = preset("vc-soup").build({"tau": "auto", "soft": True, "flip": True, "pooled": True})
    assert beyond.pairs == Consistent(tau="auto", soft=True, flip=True, pooled=True)


def test_a_cube_of_levels_and_one_of_points_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="give either levels or points, not both"):
        preset("mva").build({"levels": [0.5], "points": 8})


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"there is no method 'vcsoup'; did you mean 'vc-soup'\?"):
        preset("vcsoup")
    with pytest.raises(
        UserError, match="there is no method 'zzz'; known: dpo, dpo-lw, modpo, mora, mva, seqt, soup, vc-soup"
    ):
        preset("zzz")


def test_an_unknown_or_wrong_setting_is_refused() -> None:
    with pytest.raises(UserError, match=r"method 'vc-soup' has no setting 'kep'; did you mean 'keep'\?"):
        preset("vc-soup").build({"kep": 0.5})
    with pytest.raises(UserError, match="method 'dpo' has no setting 'steps'"):
        preset("dpo").build({"steps": 3})
    with pytest.raises(ValidationError):
        preset("soup").build({"steps": 0})


def test_keep_takes_the_place_of_the_threshold_and_both_are_refused() -> None:
    rule = preset("vc-soup").build({"keep": 0.25}).pairs
    assert isinstance(rule, Consistent)
    assert (rule.keep, rule.tau) == (0.25, None)
    with pytest.raises(ValidationError, match="give either tau or keep, not both"):
        preset("vc-soup").build({"keep": 0.25, "tau": 0.5})
    with pytest.raises(ValidationError, match="give either tau or keep"):
        Consistent(tau=None)


@pytest.mark.parametrize("values", [1, 2, 3, 5])
def test_a_threshold_per_value_is_found_by_name(values: int) -> None:
    taus = {f"v{place}": place / 10 for place in range(values)}
    rule = Consistent(tau=taus)  # type: ignore[arg-type]
    assert {value: rule.tau_of(value) for value in taus} == taus
    with pytest.raises(KeyError):
        rule.tau_of("other")


def test_importing_the_registry_imports_no_method() -> None:
    code = (
        "import valuesoup.methods, valuesoup.methods.registry as r\n"
        "r.known_methods()\n"
        "print([name for name in sys.modules if name in {target.partition(':')[0] for target in r.BUILT_IN.values()}])"
    )
    assert python(code) == "[]"


def test_another_package_can_offer_a_method_that_configurations_use_by_name(tmp_path: Path) -> None:
    plug_in(tmp_path, "fine = otherlab:fine", OTHER)
    code = (
        "from valuesoup.configfile import parse_config\n"
        "from valuesoup.methods import known_methods\n"
        "assert 'fine' in known_methods() and 'otherlab' not in sys.modules\n"
        "text = 'values: {a: {data: x, reward: {function: \"m:f\"}}}\\nbase: {model: m}\\n'\n"
        "entry = parse_config(text, 'c', ['methods=[{preset: fine, steps: 3}]']).methods[0]\n"
        "print(entry.title, entry.method.weights.steps)"
    )
    assert python(code, tmp_path) == "Fine grid 3"


def test_a_module_of_a_plug_in_may_postpone_its_annotations(tmp_path: Path) -> None:
    plug_in(tmp_path, "fine = otherlab:fine", "from __future__ import annotations\n" + OTHER)
    code = (
        "from pydantic import ValidationError\nfrom valuesoup.methods import preset\n"
        "print(preset('fine').build({'steps': '7'}).weights.steps)\n"
        "try:\n    preset('fine').build({'steps': 'many'})\n"
        "except ValidationError as error:\n    print(error.error_count())"
    )
    assert python(code, tmp_path).split() == ["7", "1"]


def test_a_plug_in_that_returns_no_method_is_named(tmp_path: Path) -> None:
    plug_in(tmp_path, "odd = otherlab:odd", OTHER)
    code = (
        "from valuesoup.errors import UserError\nfrom valuesoup.methods import preset\n"
        "try:\n    preset('odd').build({})\nexcept UserError as error:\n    print(error)"
    )
    assert python(code, tmp_path) == "method 'odd' returns str, not a valuesoup.methods.Method."


@pytest.mark.parametrize(
    ("entries", "name", "says"),
    [
        (
            "soup = otherlab:fine",
            "dpo",
            "method 'soup' is offered twice: by valuesoup.methods.rewarded_soup:soup and by",
        ),
        ("fine = otherlab:gone", "fine", "method 'fine' cannot be imported from otherlab:gone"),
        ("fine = nowhere:fine", "fine", "method 'fine' cannot be imported from nowhere:fine"),
        ("fine = otherlab:plain", "fine", "offered as method 'fine', is not made with @valuesoup.methods.method."),
    ],
)
def test_a_plug_in_that_does_not_work_is_named(tmp_path: Path, entries: str, name: str, says: str) -> None:
    plug_in(tmp_path, entries, OTHER)
    code = (
        "from valuesoup.errors import UserError\nfrom valuesoup.methods import preset\n"
        f"try:\n    preset({name!r})\nexcept UserError as error:\n    print(error)"
    )
    assert says in python(code, tmp_path)


def test_a_method_is_made_by_its_decorator() -> None:
    @method("mine", title="Mine", paper="arXiv:0")
    def mine(steps: int = 2) -> Method:
        return Method(weights=Simplex(steps=steps))

    assert mine.build({"steps": "5"}).weights == Simplex(steps=5)


def test_a_preset_is_called_like_the_function_that_it_was_made_of() -> None:
    @method("fine", title="Fine", paper="none")
    def fine(steps: int, tau: float = 0.5) -> Method:
        return Method(pairs=Consistent(tau=tau), objective=Independent(), weights=Simplex(steps=steps))

    assert fine(steps=4) == fine.build({"steps": 4})
    assert fine(steps=4, tau=0.2).pairs == Consistent(tau=0.2)
    with pytest.raises(UserError, match="has no setting 'step'; did you mean 'steps'"):
        fine(step=4)
    with pytest.raises(ValidationError, match="steps"):
        fine()
    assert preset("soup")() == preset("soup").build({})
