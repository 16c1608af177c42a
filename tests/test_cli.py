"""The command line as a person meets it: what it prints, its exit codes, and one sentence for each mistake."""

import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny_run
from valuesoup import __version__
from valuesoup.worlds.errands import pairs as errands

COMMANDS = (
    *("demo", "init", "run", "status", "report", "compare", "judge", "check"),
    *("audit", "methods", "pick", "export", "explore", "doctor"),
)


def valuesoup(tmp_path: Path, *arguments: str | Path) -> tuple[int, str, str]:
    done = tiny_run.valuesoup(tmp_path / "cache", *arguments, cwd=tmp_path)
    return done.returncode, done.stdout, done.stderr


def mistake(tmp_path: Path, *arguments: str | Path, code: int = 2) -> str:
    """Run a command that must fail, and return its one sentence."""
    found, out, errors = valuesoup(tmp_path, *arguments)
    assert found == code, (out, errors)
    assert "Traceback" not in errors
    (line,) = errors.strip().splitlines()
    assert line.startswith("error: ")
    assert "error" not in out
    return line.removeprefix("error: ")


def test_help_names_every_command_and_each_command_has_its_own(tmp_path: Path) -> None:
    code, out, _ = valuesoup(tmp_path, "--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)
    for command in COMMANDS:
        code, out, errors = valuesoup(tmp_path, command, "-h")
        assert (code, errors) == (0, "")
        assert f"{command} [OPTIONS]" in out


def test_version(tmp_path: Path) -> None:
    assert valuesoup(tmp_path, "--version") == (0, f"valuesoup {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demoo"], "No such command 'demoo'"),
        (["demo", "--ouut", "x"], "No such option"),
        (["run"], "Missing argument"),
        (["audit", "x", "--limit", "many"], "Invalid value for '--limit'"),
    ],
)
def test_a_wrong_command_or_option_is_code_2_with_a_hint(tmp_path: Path, arguments: list[str], says: str) -> None:
    code, _, errors = valuesoup(tmp_path, *arguments)
    assert code == 2
    assert says in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("helpful,harmles", "the embedded world has no value 'harmles'; did you mean 'harmless'?"),
        ("helpful,helpful", "value 'helpful' is given twice; name each once."),
        ("", "name at least one value of helpful, harmless, honest."),
        (" , ", "name at least one value of helpful, harmless, honest."),
    ],
)
def test_wrong_values_of_the_demo_are_told(tmp_path: Path, values: str, says: str) -> None:
    assert mistake(tmp_path, "demo", "--values", values) == says
    assert not (tmp_path / "runs").exists()


def test_a_wrong_setting_is_told_before_anything_is_written(tmp_path: Path) -> None:
    assert mistake(tmp_path, "demo", "--set", "trainin.rank=4") == (
        "--set trainin.rank: unknown key trainin; did you mean 'training'?"
    )
    (tmp_path / "mine.yaml").write_text("titel: x\nvalues: {a: {data: x}}\nbase: {model: m}\n")
    assert mistake(tmp_path, "run", "mine.yaml") == "mine.yaml, line 1: unknown key titel; did you mean 'title'?"
    assert mistake(tmp_path, "run", "gone.yaml").startswith("there is no configuration gone.yaml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml"]


def test_the_demo_shows_stages_the_frontier_table_and_the_report(demo_run: tuple[Path, str]) -> None:
    folder, out = demo_run
    assert f"[1/{tiny_run.stages(folder)}] read the pairs of helpful" in out
    assert "held-out accuracy" in out
    assert "Frontier, test scores" in out
    for method in ("base", "dpo", "soup", "vc-soup"):
        assert any(line.split()[:1] == [method] for line in out.splitlines())
    assert out.rstrip().endswith(f"report: {folder / 'report.html'}")
    assert "\x1b" not in out
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "artifacts", "results.json", "report.html", "figures", "log.jsonl"} <= names


def test_a_finished_run_is_continued_in_place_and_a_changed_title_writes_only_the_report(
    demo_run: tuple[Path, str], tmp_path: Path
) -> None:
    folder = shutil.copytree(demo_run[0], tmp_path / "run")
    code, out, errors = valuesoup(tmp_path, "run", folder / "config.yaml", "--set", "title=Another heading")
    assert code == 0, errors
    count = tiny_run.stages(folder)
    assert f"{count} of {count} stages are already done" in out
    assert "writing the report" in out
    assert "Another heading" in (folder / "report.html").read_text(encoding="utf-8")
    assert tiny_run.figures(folder) == tiny_run.figures(demo_run[0])
    code, again, _ = valuesoup(tmp_path, "run", folder / "config.yaml")
    assert code == 0
    assert "writing the report" not in again
    assert not (tmp_path / "runs").exists()


def test_a_persons_own_config_yaml_is_not_taken_for_a_run_folder(tmp_path: Path) -> None:
    text = (
        "# my notes\nvalues:\n  a:\n    data: gone.jsonl\n    reward: {function: 'tiny_rewards:length'}\n"
        "base: {model: m}\n"
    )
    (tmp_path / "config.yaml").write_text(text)
    assert "gone.jsonl" in mistake(tmp_path, "run", "config.yaml")
    assert (tmp_path / "config.yaml").read_text() == text
    assert (tmp_path / "runs" / "config" / "config.yaml").is_file()


def test_status_lists_stages_with_their_folders_and_counts_them(demo_run: tuple[Path, str], tmp_path: Path) -> None:
    code, out, _ = valuesoup(tmp_path, "status", demo_run[0])
    assert code == 0
    lines = out.splitlines()
    count = tiny_run.stages(demo_run[0]) + 1  # and the results
    assert len(lines) == count + 1
    assert lines[0].startswith("done    read the pairs of helpful  (pairs-")
    assert lines[-1] == f"{count} of {count} done"
    (tmp_path / "new").mkdir()
    shutil.copy(demo_run[0] / "config.yaml", tmp_path / "new")
    code, out, _ = valuesoup(tmp_path, "status", "new")
    assert code == 0
    assert out.splitlines()[0].startswith("to do   read the pairs of helpful")
    assert out.splitlines()[-1] == f"0 of {count} done"


def test_a_report_is_written_again_and_an_unfinished_run_says_how_to_continue(
    demo_run: tuple[Path, str], tmp_path: Path
) -> None:
    folder = shutil.copytree(demo_run[0], tmp_path / "run")
    (folder / "report.html").unlink()
    shutil.rmtree(folder / "figures")
    code, out, errors = valuesoup(tmp_path, "report", folder)
    assert code == 0, errors
    assert out.strip() == str(folder / "report.html")
    assert (folder / "report.html").is_file()
    assert any((folder / "figures").iterdir())
    (folder / "results.json").unlink()
    how = f"`valuesoup run {folder / 'config.yaml'} --out {folder}`"
    assert mistake(tmp_path, "report", folder) == f"the run in {folder} has not finished; continue it with {how}."
    assert mistake(tmp_path, "report", "nowhere") == "nowhere is not a run folder: it has no config.yaml."
    assert mistake(tmp_path, "status", "nowhere") == "nowhere is not a run folder: it has no config.yaml."


def scored_rows(count: int, values: tuple[str, ...]) -> list[dict[str, object]]:
    rng = random.Random(0)
    return [
        {
            "prompt": f"what of {place}",
            "chosen": f"this {place}",
            "rejected": f"that {place}",
            **{f"{side}_score/{value}": rng.gauss(0, 1) for value in values for side in ("chosen", "rejected")},
        }
        for place in range(count)
    ]


def test_audit_of_scored_data_shows_conflict_and_writes_a_page(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(scored_rows(80, ("kind", "wise", "brief"))), tmp_path / "one.parquet")
    rows = scored_rows(40, ("kind", "wise", "brief"))
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, errors = valuesoup(tmp_path, "audit", "one.parquet", "two.jsonl", "--out", "page", "--show", "2")
    assert code == 0, errors
    for word in ("one", "two", "80", "40", "kind", "wise", "brief"):
        assert word in out
    assert (tmp_path / "page" / "audit.html").is_file()
    assert out.rstrip().endswith("audit: page/audit.html")


def test_audit_of_transcripts_takes_functions_as_rewards(tmp_path: Path) -> None:
    rows = [
        {
            side: f"\n\nHuman: {row['prompt'][0]['content']}\n\nAssistant: {row[side][0]['content']}"
            for side in ("chosen", "rejected")
        }
        for row in errands("harmless", 60)
    ]
    (tmp_path / "hh.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    world = "valuesoup.worlds.errands"
    rewards = [f"--rewards=helpful={world}:helpful", f"--rewards=harmless={world}:harmless"]
    code, out, errors = valuesoup(tmp_path, "audit", "hh.jsonl", *rewards, "--show", "1")
    assert code == 0, errors
    assert "helpful" in out
    assert (tmp_path / "audit" / "audit.html").is_file()
    assert mistake(tmp_path, "audit", "hh.jsonl", rewards[0]).startswith(
        "an audit compares values with each other: it needs the rewards of two values or more and has only that of "
        "helpful; give --rewards NAME=MODEL for each, or data with the columns"
    )
    assert "two values or more and has none; give --rewards" in mistake(tmp_path, "audit", "hh.jsonl")


def test_an_audit_says_that_a_reward_gives_every_pair_the_same_gap(tmp_path: Path) -> None:
    rows = scored_rows(40, ("kind", "wise"))
    for place, row in enumerate(rows):  # scores differ from pair to pair, and gaps do not
        row |= {"chosen_score/wise": place + 1.0, "rejected_score/wise": float(place)}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, errors = valuesoup(tmp_path, "audit", "rows.jsonl", "--show", "0")
    assert code == 0 and errors == ""
    said = "rows: the reward of wise gives every pair the same gap, so it tells no pair from another"
    assert said in out and "nan" not in out
    assert said in (tmp_path / "audit" / "audit.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gone.jsonl"], "gone.jsonl"),
        (["rows.jsonl", "--rewards", "kind"], "--rewards kind: write NAME=SOURCE"),
        (["rows.jsonl", "--rewards", "=x"], "--rewards =x: write NAME=SOURCE"),
        (["rows.jsonl", "--rewards", "a=column:kindd", "--rewards", "b=column:kind"], "did you mean 'kind'?"),
        (["rows.jsonl", "--rewards", "a=nowhere:f", "--rewards", "b=column:kind"], "nowhere"),
        (["rows.jsonl", "--rewards", "a=tiny_rewards:constant", "--rewards", "b=column:kind"], "the same score"),
        (["rows.jsonl", "--rewards", "a=tiny_rewards:not_a_number", "--rewards", "b=column:kind"], "Pair "),
        (["rows.jsonl", "--rewards", "a=column:kind", "--rewards", "a=column:wise"], "value 'a' has a reward already"),
        (["broken.jsonl"], "broken.jsonl, line 2"),
        (["rows.jsonl", "--limit", "0"], "limit must be at least 1 row, got 0"),
    ],
)
def test_a_wrong_audit_is_told_in_one_sentence(tmp_path: Path, arguments: list[str], says: str) -> None:
    rows = [json.dumps(row) for row in scored_rows(20, ("kind", "wise"))]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    (tmp_path / "broken.jsonl").write_text("\n".join([rows[0], rows[1][:-3]]))
    assert says in mistake(tmp_path, "audit", *arguments)
