"""The tables of a study: its policies, their differences with a verdict, its methods."""

from dataclasses import replace

from synthetic_study import spread, study_data, with_volumes

from valuesoup.report.study import StudyData, differences_table, methods_table, ordered_differences, points_table


def test_the_policies_are_told_by_value_with_marks_for_filtering_and_merging(study: StudyData) -> None:
    table = points_table(study)
    assert list(table.headings[2:9]) == ["filtering", "kept", "τ", "merging", "helpful", "harmless", "average"]
    marks = {(row[0], row[1]): tuple(row[2:6]) for row in table.rows}
    assert marks["base", ""] == ("×", "–", "–", "×")
    assert marks["Each", "helpful"] == marks["Each", "harmless"] == ("×", "–", "–", "×")
    assert marks["Merge", "most balanced"] == ("×", "–", "–", "✓")
    assert marks["Kept-7", "most balanced"] == ("✓", "49%", "0.70", "✓")
    assert marks["Trained", "most balanced"] == ("×", "–", "–", "×")  # a training for every point
    row = next(row for row in table.rows if row[0] == "base")
    assert row[6:9] == ["−0.60 ± 0.00"] * 3
    seconds = [float(row[-1]) for row in table.rows]
    assert seconds == [13.0] * len(seconds)  # 10, 11, 12 of training and 2 of evaluation


def test_thresholds_that_differ_by_data_set_are_told_one_by_one(study: StudyData) -> None:
    mixed = {"helpful": {"tau": spread(-1, 0), "share": spread(1, 0)}}
    mixed["harmless"] = {"tau": spread(0.7, 0), "share": spread(0.3, 0)}
    changed = replace(study, combined={**study.combined, "filters": {"Kept-7": mixed}})
    row = next(row for row in points_table(changed).rows if row[0] == "Kept-7")
    assert row[3:5] == ["65%", "helpful −1.00, harmless 0.70"]


def test_one_value_needs_no_average_and_unknown_fluency_no_column() -> None:
    study = study_data(1, 2)
    points = [{**point, "fluency": None} for point in study.combined["points"]]
    headings = points_table(replace(study, combined={**study.combined, "points": points})).headings
    assert "average" not in headings and "fluency" not in headings


def test_differences_are_turned_to_be_positive_and_ordered_with_a_verdict(study: StudyData) -> None:
    told = with_volumes(study, [("Merge", "Each", -0.3, 0.1), ("Cube", "Each", 0.4, 0.5), ("Cube", "Merge", 0.1, None)])
    assert [row["mean"] for row in ordered_differences(told)] == [0.4, 0.3, 0.1]
    assert differences_table(told).rows == [
        ["Cube − Each", "0.400 [−0.100, 0.900]", "2 of 2", "includes zero"],
        ["Each − Merge", "0.300 [0.200, 0.400]", "2 of 2", "clear of zero"],
        ["Cube − Merge", "0.100", "2 of 2", "unknown: one seed"],
    ]


def test_the_methods_table_leaves_open_what_a_method_has_not(study: StudyData) -> None:
    table = {row[0]: row for row in methods_table(study).rows}
    assert table["Each"][3:6] == ["–", "–", "–"] and table["Kept-7"][3] == "0.61 ± 0.02"
