"""What a power cut leaves of stages that were under way: none of it is taken for right, whatever it holds."""

import shutil
from pathlib import Path

import tiny_run
from faults.machine import Machine, kinds
from valuesoup.store.artifacts import MANIFEST


def test_half_written_files_of_every_kind_of_stage_are_not_gone_on_with(
    demo_run: tuple[Path, str], machine: Machine, tmp_path: Path
) -> None:
    run = shutil.copytree(demo_run[0], tmp_path / "run")
    for number, folders in enumerate(kinds(run).values()):
        folder = folders[0]
        (folder / MANIFEST).unlink()
        for place, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
            content = bytearray(path.read_bytes())
            middle = len(content) // 2
            if (number + place) % 2:
                del content[middle:]
            else:
                content[middle] ^= 1
            path.write_bytes(content)
        folder.rename(folder.with_name(f".partial-{folder.name}"))
    machine.completes(tmp_path / "cache", run)
    assert tiny_run.figures(run) == tiny_run.figures(demo_run[0])
