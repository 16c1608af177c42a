"""A disk that is full, or takes no more writes, in the midst of each kind of write: one sentence, nothing lost."""

import json
import shutil
from pathlib import Path

import pytest

import tiny_run
from faults.machine import Disk, Machine, events, kinds
from tiny_endpoint import serving
from valuesoup.pipeline.run import SHARED_STAGES
from valuesoup.store.artifacts import MANIFEST

WRITERS = {"pairs", "pretrain", "reward", "reference", "answers", "quality"}
"""Stages that write each in another way: tables, arrays, models, tokenizers, JSON."""
EXPORT = ("--method", "soup", "--weights", "helpful=0.5,harmless=0.5")


def check_full(told: str, *where: str) -> None:
    assert "No space left on device" in told, told
    assert "run the same command again once there is room to write" in told
    assert any(place in told for place in where), told


def made(run: Path, logged: int) -> list[str]:
    """Return the artifacts whose making is in the log behind its first lines."""
    return [f"{event['stage']}-{event['key']}" for event in events(run)[logged:] if event["event"] == "done"]


def test_a_disk_full_in_a_stage_of_any_kind_loses_nothing_and_the_command_completes_with_room(
    demo_run: tuple[Path, str], machine: Machine, disk: Disk, tmp_path: Path
) -> None:
    run, here = disk.holds(demo_run[0])
    logged = len(events(here))
    first = {kind: folders[0] for kind, folders in kinds(here).items() if kind in WRITERS}
    assert set(first) == WRITERS
    for folder in first.values():
        shutil.rmtree(folder)
    arguments = (tmp_path / "cache", "run", run / "config.yaml")
    labels = {event["key"]: str(event["label"]) for event in events(demo_run[0]) if event["event"] == "done"}
    for number, folder in enumerate(first.values()):
        # Its folder is made, and from then on there is no room for any of its files.
        at = ("os.mkdir", f"*/.partial-{folder.name}")
        told = machine.valuesoup(*arguments, at=at, fill=disk).told(1)
        check_full(told, str(run / "artifacts"))
        assert told.startswith(f"{labels[folder.name.rpartition('-')[2]]}: "), told
        assert not folder.exists()
        assert sum(one.is_dir() for one in first.values()) == number, "what was finished stays"
        disk.clear()
    machine.completes(tmp_path / "cache", run)
    assert sorted(made(here, logged)) == sorted(folder.name for folder in first.values()), "each once"
    assert tiny_run.figures(here) == tiny_run.figures(demo_run[0])
    assert not list((here / "artifacts").glob(".partial-*"))


def test_a_disk_full_at_a_checkpoint_or_a_manifest_costs_no_step_behind_the_last_checkpoint(
    demo_run: tuple[Path, str], machine: Machine, disk: Disk, tmp_path: Path
) -> None:
    run, here = disk.holds(demo_run[0])
    folder = kinds(here)["train"][0]
    steps = json.loads((folder / "summary.json").read_text())["steps"]
    shutil.rmtree(folder)
    checkpoints = folder.with_name(f".partial-{folder.name}") / ".checkpoints"
    for at, whole in (
        (("os.mkdir", "*/.checkpoints/best/*"), False),
        (("os.mkdir", f"*/.checkpoints/checkpoint-{steps}"), True),
        (("open", f"*/.{MANIFEST}.*.tmp"), True),
    ):
        told = machine.valuesoup(tmp_path / "cache", "run", run / "config.yaml", at=at, fill=disk).told(1)
        check_full(told, str(run / "artifacts"))
        states = [path for path in checkpoints.glob("checkpoint-*/trainer_state.json") if path.stat().st_size]
        assert bool(states) == whole
        disk.clear()
    assert [path.parent.name for path in states] == [f"checkpoint-{steps}"], "the training itself was at its end"
    # A step that is made again would come to a checkpoint, and that would fill the disk.
    machine.completes(tmp_path / "cache", run, at=("os.mkdir", "*/.checkpoints/checkpoint-*"), fill=disk)
    assert not disk.is_full
    assert tiny_run.figures(here) == tiny_run.figures(demo_run[0])
    vector = f"artifacts/{folder.name}/adapter/adapter_model.safetensors"
    assert (here / vector).read_bytes() == (demo_run[0] / vector).read_bytes()


def test_a_disk_full_at_the_configuration_the_log_the_results_and_the_report(
    demo_run: tuple[Path, str], machine: Machine, disk: Disk, tmp_path: Path
) -> None:
    run, here = disk.holds(demo_run[0])
    arguments = (tmp_path / "cache", "run", run / "config.yaml", "--set", "title=Another")
    stages = kinds(here)
    # What is added to the log might find room in its last block; so that one is full.
    log, event = here / "log.jsonl", {"event": "filler", "with": ""}
    event["with"] = "x" * (-(log.stat().st_size + len(json.dumps(event)) + 1) % 4096)
    log.write_text(f"{log.read_text()}{json.dumps(event)}\n")
    for at in (
        ("open", "*/.config.yaml.*.tmp"),
        ("open", "*/log.jsonl"),
        ("open", "*/.results.json.*.tmp"),
        ("open", "*/.report.html.*.tmp"),
    ):
        check_full(machine.valuesoup(*arguments, at=at, fill=disk).told(1), str(run))
        disk.clear()
        assert kinds(here) == stages, "every line of the log is whole, and every artifact there"
        assert not [path for path in here.rglob(".*") if path.suffix == ".tmp"]
    assert not (here / "report.html").is_file(), "no page of other results"
    assert "already done" in machine.valuesoup(*arguments).well()
    assert "Another" in (here / "report.html").read_text(encoding="utf-8")
    assert tiny_run.figures(here) == tiny_run.figures(demo_run[0])


def test_a_disk_full_at_a_report_leaves_the_old_page_and_whole_figures(
    demo_run: tuple[Path, str], machine: Machine, disk: Disk, tmp_path: Path
) -> None:
    run, here = disk.holds(demo_run[0])
    before = {path: path.read_bytes() for path in (here / "report.html", *(here / "figures").iterdir())}
    told = machine.valuesoup(tmp_path / "cache", "report", run, at=("open", "*/figures/*"), fill=disk).told(1)
    check_full(told, str(run))
    assert {path: path.read_bytes() for path in before} == before
    assert set((here / "figures").iterdir()) | {here / "report.html"} == set(before)


def test_a_disk_full_at_an_export_a_check_or_a_study(
    demo_run: tuple[Path, str], machine: Machine, disk: Disk, tmp_path: Path
) -> None:
    run, here = disk.holds(demo_run[0])
    study = disk.path / "study"
    seeds = ("run", run / "config.yaml", "--set", "seeds=[0]", "--out", study)
    disk.machine.shell("mkdir", study)
    disk.machine.shell("cp", "-r", run, study / "seed-0")
    writes = {
        ("export", run, "--to", disk.path / "adapter", *EXPORT): ("os.mkdir", "*/.adapter.partial-*/adapter"),
        ("export", run, "--to", disk.path / "m", "--format", "merged", *EXPORT): ("os.mkdir", "*/.m.partial-*/m"),
        ("check", run, "--limit", "8"): ("open", "*/.check.json.*.tmp"),
        seeds: ("open", "*/.study.json.*.tmp"),
    }
    for arguments, at in writes.items():
        there = set(disk.here.iterdir())
        check_full(machine.valuesoup(tmp_path / "cache", *arguments, at=at, fill=disk).told(1), str(disk.path))
        disk.clear()
        assert set(disk.here.iterdir()) == there, "no half export"
    for arguments in writes:
        # The pages of the latter two take seconds, so all but these is let be written.
        ended = machine.valuesoup(tmp_path / "cache", *arguments, at=("open", "*/figures/*"), fill=disk)
        if disk.is_full:
            check_full(ended.told(1), "/figures/")
            disk.clear()
        else:
            ended.well()
    assert (disk.here / "adapter" / "adapter_model.safetensors").is_file()
    assert (disk.here / "m" / "model.safetensors").is_file()
    assert json.loads((here / "check.json").read_text())["texts"][0]["documents"] == 8
    assert json.loads((disk.here / "study" / "study.json").read_text())["seeds"] == [0]


def test_a_disk_full_at_the_answers_or_the_verdicts_of_a_judge_loses_no_answer(
    demo_run: tuple[Path, str], machine: Machine, disk: Disk, tmp_path: Path
) -> None:
    run, here = disk.holds(demo_run[0])
    with serving(lambda question, before: '{"verdict": "A", "reason": "first"}') as served:
        asking = (tmp_path / "cache", "judge", run, "--url", served.url, "--model", "m", "--methods", "soup")
        asking = (*asking, "--limit", "2", "--concurrency", "1", "--yes")
        for at in (("open", "*/judge/answers.jsonl"), ("open", "*/.verdicts.jsonl.*"), ("open", "*/.judge.json.*")):
            check_full(machine.valuesoup(*asking, at=at, fill=disk).told(1), str(run))
            assert not (here / "judge.json").is_file()
            disk.clear()
        # All is judged, and only the page does not find room.
        told = machine.valuesoup(*asking, at=("open", "*/figures/*"), fill=disk).told(1)
        check_full(told, str(run / "figures"))
        disk.clear()
        lost = [question for question in set(served.asked) if served.asked.count(question) > 1]
    assert len(lost) <= 1, "only the answer that the full disk did not take was asked for again"
    assert json.loads((here / "judge.json").read_text())["judge"]["model"] == "m"


@pytest.mark.parametrize("fault", ["full", "read-only", "impossible"])
def test_a_shared_cache_that_takes_nothing_stops_no_run(
    demo_run: tuple[Path, str], machine: Machine, disk: Disk, tmp_path: Path, fault: str
) -> None:
    run = shutil.copytree(demo_run[0], tmp_path / "run")
    logged = len(events(run))
    sound, damaged, unknown = (kinds(run)[kind][0] for kind in sorted(SHARED_STAGES))
    cache = disk.path / ("x" * 300 if fault == "impossible" else "cache")
    if fault == "read-only":
        shutil.copytree(sound, disk.here / "cache" / sound.name)
        (shutil.copytree(damaged, disk.here / "cache" / damaged.name) / MANIFEST).unlink()
        disk.protect()
    elif fault == "full":
        disk.fill()
    for folder in (sound, damaged, unknown):
        shutil.rmtree(folder)
    before = set(disk.here.rglob("*"))
    said = machine.completes(cache, run)
    assert set(disk.here.rglob("*")) - before <= {disk.here / "cache"}, "nothing that is half there"
    assert said.count("is damaged (") == (fault == "read-only")
    expected = [damaged, unknown] if fault == "read-only" else [sound, damaged, unknown]
    assert sorted(made(run, logged)) == sorted(folder.name for folder in expected)
    assert tiny_run.figures(run) == tiny_run.figures(demo_run[0])


def test_a_read_only_run_is_read_and_exported_and_what_would_write_into_it_says_so(
    demo_run: tuple[Path, str], machine: Machine, disk: Disk, tmp_path: Path
) -> None:
    run, here = disk.holds(demo_run[0])
    cache, folder = tmp_path / "cache", kinds(here)["train"][0]
    disk.protect()
    for arguments in (
        ("status", run),
        ("compare", run, demo_run[0]),
        ("export", run, "--to", tmp_path / "adapter", *EXPORT),
    ):
        machine.valuesoup(cache, *arguments).well()
    for arguments in (
        ("run", run / "config.yaml"),
        ("report", run),
        ("check", run, "--limit", "8"),
        ("export", run, "--to", disk.path / "adapter", *EXPORT),
    ):
        told = machine.valuesoup(cache, *arguments).told(1)
        assert "Read-only file system" in told, told
        assert str(disk.path) in told, told
    disk.release()
    (folder / "adapter" / "adapter_model.safetensors").unlink()
    disk.protect()
    told = machine.valuesoup(cache, "report", run).told(2)
    assert told.startswith(f"the run in {run} holds a damaged {folder.name} (adapter/adapter_model.safetensors is m")
    disk.release()
    machine.completes(cache, run)
    assert tiny_run.figures(here) == tiny_run.figures(demo_run[0])
