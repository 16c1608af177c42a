"""Damaged artifacts of every kind: named in a sentence and made again, and only they; a reader takes none for right."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny_run
from faults.machine import Machine, events, kinds
from valuesoup.errors import UserError
from valuesoup.pipeline.run import SHARED_STAGES, open_run
from valuesoup.store.artifacts import MANIFEST

KINDS = {
    *("pairs", "split", "part-scores", "gaps", "filter", "pretrain", "reward", "scores", "reference", "train"),
    *("conflict", "connectivity", "geometry", "prompts", "answers", "rated", "frontier", "quality"),
}
"""Of stages, that the tiny demo has."""


def largest(folder: Path) -> Path:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]
    return max(files, key=lambda path: path.stat().st_size)


def flip(folder: Path) -> str:
    """Change one bit in the middle of a file, and keep its times."""
    file = largest(folder)
    content, before = bytearray(file.read_bytes()), file.stat()
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    return f"{file.relative_to(folder).as_posix()} differs from its hash"


def truncate(folder: Path) -> str:
    file = largest(folder)
    os.truncate(file, file.stat().st_size - 1)
    return f"{file.relative_to(folder).as_posix()} differs from its hash"


def lose_manifest(folder: Path) -> str:
    (folder / MANIFEST).unlink()
    return f"{MANIFEST} is missing or unreadable"


def garble_manifest(folder: Path) -> str:
    content = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(content[: len(content) // 2] + b"\xff\x00")
    return f"{MANIFEST} is missing or unreadable"


def change_cost(folder: Path) -> str:
    """Change one digit of what the stage cost, which stays a number."""
    content = json.loads((folder / MANIFEST).read_text())
    text = (folder / MANIFEST).read_text().replace(f'"seconds": {content["seconds"]}', '"seconds": 7.25')
    assert json.loads(text) != content
    (folder / MANIFEST).write_text(text)
    return f"{MANIFEST} differs from its hash"


def lose_folder(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.write_text("")
    return "it is no folder"


MANIFESTS = (lose_manifest, garble_manifest, change_cost, lose_folder)
HARMS = (flip, truncate, *MANIFESTS)
Harm = Callable[[Path], str]


@pytest.fixture
def run(demo_run: tuple[Path, str], tmp_path: Path) -> Path:
    return shutil.copytree(demo_run[0], tmp_path / "run")


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return time and size of every file but the locks."""
    files = [path for path in folder.rglob("*") if path.name != ".lock"]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def manifests(run: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in (run / "artifacts").glob(f"*/{MANIFEST}")}


@pytest.mark.parametrize("round_", range(3))
def test_one_artifact_of_every_kind_is_named_and_made_again_and_nothing_else(
    run: Path, machine: Machine, tmp_path: Path, round_: int
) -> None:
    found = kinds(run)
    assert set(found) == KINDS
    uninterrupted, before, logged = tiny_run.figures(run), manifests(run), len(events(run))
    damaged = {}
    for place, (kind, folders) in enumerate(found.items()):
        # Three rounds: a bit, an end, a manifest; of another artifact each time, where a kind has several.
        harm = (flip, truncate, MANIFESTS[place % len(MANIFESTS)])[(round_ + place) % 3]
        damaged[folders[round_ % len(folders)].name] = (kind, harm(folders[round_ % len(folders)]))
    out = machine.completes(tmp_path / "cache", run)
    named = [line for line in out.splitlines() if line.startswith("! ")]
    sentences = {f"! artifact {name} is damaged ({wrong}); it is made again" for name, (_, wrong) in damaged.items()}
    assert len(named) == len(damaged) and set(named) == sentences
    since = events(run)[logged:]
    made = [f"{event['stage']}-{event['key']}" for event in since if event["event"] == "done"]
    assert sorted(made) == sorted(damaged)
    assert [event["event"] for event in since].count("damaged") == len(damaged)
    after = manifests(run)
    assert {name for name in after if after[name] != before[name]} == set(damaged)
    assert tiny_run.figures(run) == uninterrupted
    assert open_run(run).results


def test_a_sound_copy_in_the_shared_cache_mends_and_a_damaged_one_is_replaced(
    run: Path, machine: Machine, tmp_path: Path
) -> None:
    cache, found, uninterrupted = tmp_path / "cache", kinds(run), tiny_run.figures(run)
    shared = [found[kind][0] for kind in sorted(SHARED_STAGES)]
    copies = [shutil.copytree(folder, cache / folder.name) for folder in shared]
    for folder in shared:
        flip(folder)
    flip(copies[0])
    logged = len(events(run))
    out = machine.completes(cache, run)
    assert f"! shared artifact {copies[0]} is damaged" in out
    made = [f"{event['stage']}-{event['key']}" for event in events(run)[logged:] if event["event"] == "done"]
    assert made == [shared[0].name]
    assert largest(copies[0]).read_bytes() == largest(shared[0]).read_bytes()
    assert tiny_run.figures(run) == uninterrupted


@pytest.mark.parametrize("harm", HARMS)
def test_whoever_opens_a_run_is_told_of_a_damaged_artifact_of_any_kind_and_changes_nothing(
    run: Path, harm: Harm
) -> None:
    for folder in [folders[-1] for folders in kinds(run).values()]:
        kept = shutil.copytree(folder, run.parent / "kept")
        wrong = harm(folder)
        before = state(run)
        with pytest.raises(UserError) as caught:
            open_run(run)
        assert str(caught.value) == (
            f"the run in {run} holds a damaged {folder.name} ({wrong}); "
            f"`valuesoup run {run / 'config.yaml'} --out {run}` makes it again."
        )
        assert state(run) == before
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        kept.rename(folder)
    assert open_run(run).results


def test_every_command_that_reads_a_damaged_run_ends_in_one_sentence(
    run: Path, machine: Machine, tmp_path: Path
) -> None:
    folder = kinds(run)["train"][0]
    flip(folder)
    before = state(run)
    for arguments in (
        ["report", run],
        ["explore", run],
        ["check", run],
        ["judge", run, "--url", "http://127.0.0.1:9/v1", "--model", "m", "--yes"],
        ["export", run, "--to", tmp_path / "to", "--method", "soup", "--weights", "helpful=1"],
        ["export", run, "--to", tmp_path / "to", "--all"],
    ):
        told = machine.valuesoup(tmp_path / "cache", *arguments).told(2)
        assert told.startswith(f"the run in {run} holds a damaged {folder.name} (")
        assert told.endswith("makes it again.")
    assert state(run) == before
    assert not (tmp_path / "to").exists()


def test_a_comparison_takes_no_damaged_scores(
    run: Path, demo_run: tuple[Path, str], machine: Machine, tmp_path: Path
) -> None:
    answered = {folder.name for folder in kinds(run)["rated"]}
    for name in answered:
        flip(run / "artifacts" / name)
    told = machine.valuesoup(tmp_path / "cache", "compare", run, demo_run[0]).told(2)
    assert any(name in told for name in answered)
    assert f"`valuesoup run {run / 'config.yaml'} --out {run}` makes it again" in told


def test_status_counts_no_artifact_that_lacks_its_manifest_a_file_or_the_end_of_one(
    run: Path, machine: Machine, tmp_path: Path
) -> None:
    folders = [folders[0] for folders in kinds(run).values()]
    count = tiny_run.stages(run) + 1
    assert machine.valuesoup(tmp_path / "cache", "status", run).well().endswith(f"\n{count} of {count} done\n")
    lost = [folders[place] for place in range(4)]
    lose_manifest(lost[0])
    garble_manifest(lost[1])
    truncate(lost[2])
    largest(lost[3]).unlink()
    out = machine.valuesoup(tmp_path / "cache", "status", run).well()
    assert out.endswith(f"\n{count - 4} of {count} done\n")
    undone = [line for line in out.splitlines() if line.startswith("to do")]
    assert [line.rpartition("(")[2].rstrip(")") for line in undone] == [folder.name for folder in lost]


def test_of_a_damaged_artifact_that_is_a_link_only_the_link_goes(
    run: Path, demo_run: tuple[Path, str], machine: Machine, tmp_path: Path
) -> None:
    folder = kinds(run)["gaps"][0]
    elsewhere = shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(elsewhere)
    assert open_run(run).results, "a sound one may be a link"
    wrong = truncate(folder)
    said = machine.completes(tmp_path / "cache", run)
    assert f"! artifact {folder.name} is damaged ({wrong})" in said
    assert not folder.is_symlink()
    assert len(list(elsewhere.iterdir())) > 1
    assert tiny_run.figures(run) == tiny_run.figures(demo_run[0])


def test_results_a_configuration_and_a_log_that_are_no_text_are_written_anew(
    run: Path, demo_run: tuple[Path, str], machine: Machine, tmp_path: Path
) -> None:
    configuration = shutil.copyfile(run / "config.yaml", tmp_path / "mine.yaml")
    for name in ("results.json", "config.yaml"):
        (run / name).write_bytes(b"\xff\xfe\x00" + (run / name).read_bytes())
    with (run / "log.jsonl").open("ab") as log:
        log.write(b"\xff\x00 half a li")
    told = machine.valuesoup(tmp_path / "cache", "report", run).told(2)
    assert str(run / "config.yaml") in told
    # The page is let be written up to its first figure.
    at = ("open", "*/figures/*")
    ended = machine.valuesoup(tmp_path / "cache", "run", configuration, "--out", run, at=at)
    assert (ended.code, ended.errors) == (-9, "")
    assert tiny_run.figures(run) == tiny_run.figures(demo_run[0])
    assert (run / "config.yaml").read_bytes() == configuration.read_bytes()


def test_a_file_in_the_place_of_the_figures_is_told(run: Path, machine: Machine, tmp_path: Path) -> None:
    shutil.rmtree(run / "figures")
    (run / "figures").write_text("")
    told = machine.valuesoup(tmp_path / "cache", "report", run).told(2)
    assert told == f"{run / 'figures'}: File exists; give another file or folder."
