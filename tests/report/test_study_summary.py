"""The sentences above a study: what is best, what is clear of zero, what stays open, and what to beware of."""

from dataclasses import replace

from synthetic_study import spread, study_data, with_volumes

from valuesoup.report.study import StudyData
from valuesoup.report.study_summary import summarise_study


def test_the_summary_names_the_best_the_clear_differences_biggest_first_and_the_open_ones(study: StudyData) -> None:
    told = with_volumes(
        study,
        [
            ("Grown-20", "Grown-40", -0.02, 0.05),
            ("Grown-40", "Merge", 0.30, 0.10),
            ("Each", "Grown-40", -0.40, 0.10),
            ("Merge", "Kept-0", -0.05, 0.01),
            ("base", "Merge", -0.2, 0.1),
            ("base", "Each", -0.1, 0.3),
        ],
    )
    sentences = summarise_study(told)
    assert "Grown-40 has the largest mean hypervolume, Grown-20 the next." in sentences[0]
    assert "0.020 [−0.030, 0.070], which includes zero: 3 seeds do not tell them apart" in sentences[0]
    assert sentences[1].startswith("Hypervolume over 3 seeds, mean and 95% interval: Grown-40 0.9")
    assert sentences[2] == (
        "Grown-40 is ahead of Each by 0.400 [0.300, 0.500], Merge by 0.300 [0.200, 0.400], "
        "paired by seed and clear of zero."
    )
    assert sentences[3] == "Kept-0 is ahead of Merge by 0.050 [0.040, 0.060], paired by seed and clear of zero."
    assert "1 of 4 differences between methods; the biggest of them Grown-40 − Grown-20 0.020" in sentences[4]
    assert sentences[5] == "Clearly above the base model: 1 of 2 methods; not told apart from it: Each."


def test_one_seed_claims_no_difference() -> None:
    sentences = summarise_study(study_data(2, 1))
    assert "one seed does not tell whether that is more than chance" in sentences[0]
    assert any(sentence.startswith("One seed cannot tell a difference from chance") for sentence in sentences)
    assert not any("clear of zero" in sentence or "±" in sentence for sentence in sentences)


def test_the_summary_says_what_a_higher_threshold_does_to_the_vectors(study: StudyData) -> None:
    (sentence,) = (sentence for sentence in summarise_study(study) if sentence.startswith("As τ rises"))
    assert sentence.startswith("As τ rises from −1.00 (Merge) to 0.70 (Kept-7, 49% of the pairs kept): cosine of the ")
    assert "cosine of the vectors −0.09 ± 0.02 to 0.61 ± 0.02" in sentence  # 0, 0.01, 0.02 more: 4.30 · 0.01 / √3


def test_a_study_in_which_every_candidate_is_broken_names_no_best_method(study: StudyData) -> None:
    zero = {"mean": 0.0, "low": 0.0, "high": 0.0, "each": [0.0] * 3}
    methods = {name: {**of, "hypervolume": zero} for name, of in study.combined["methods"].items()}
    kept = [point for point in study.combined["points"] if point["method"] == "base"]
    said = summarise_study(replace(study, combined={**study.combined, "methods": methods, "points": kept}))
    assert said[0].startswith("Every hypervolume is 0")
    (absent,) = (sentence for sentence in said if sentence.startswith("Not in the first table"))
    assert all(name in absent for name in methods if name != "base")


def test_broken_text_is_a_caution(study: StudyData) -> None:
    points = [
        {**point, "fluency": spread(0.4, 0.1)} if point["method"] == "Cube" else point
        for point in study.combined["points"]
    ]
    assert not any(sentence.startswith("Caution") for sentence in summarise_study(study))
    told = summarise_study(replace(study, combined={**study.combined, "points": points}))
    (caution,) = (sentence for sentence in told if sentence.startswith("Caution"))
    assert "with a mean fluency below 0.80 (Cube 0.40)" in caution


def test_many_methods_make_a_short_summary() -> None:
    study = study_data(5, 2)
    assert len(summarise_study(study)) <= 10
