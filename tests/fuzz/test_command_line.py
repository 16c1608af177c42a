"""Malformed files at the real command line: exit code 2 and a sentence, no traceback."""

from pathlib import Path

import pytest

import fuzz.oracle as oracle
import tiny_run
import tiny_studies

CASES = {
    "a configuration of bytes": (["run", "c.yaml"], {"c.yaml": b"\xff\xfe\x00"}),
    "a bomb": (["run", "c.yaml"], {"c.yaml": b"a: &a [1,1]\nb: [" + b"*a," * 60_000 + b"]"}),
    "a key with an escape": (["run", "c.yaml"], {"c.yaml": b'"\\e[2J": 1'}),
    "a run of another shape": (["pick", "run"], {"run/results.json": b'{"schema": 1, "values": 3}'}),
    "a run that is a list": (["status", "run"], {"run/config.yaml": b"[]"}),
    "a study without seeds": (["compare", "a", "b"], {"a/study.json": b'{"seeds": []}', "b/study.json": b"{}"}),
    "a folder that no disk can hold": (["report", "x" * 5000], {}),
    "a page that no disk can hold": (["compare", "a", "b", "--out", "x" * 5000 + ".html"], {}),
    "a folder without a run, to pick from": (["pick", "empty"], {"empty/note.txt": b""}),
    "a folder without a run, to explore": (["explore", "empty"], {"empty/note.txt": b""}),
    "data of zeros": (["audit", "rows.parquet", "--rewards", "a=column:a"], {"rows.parquet": b"\x00" * 64}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_malformed_file_ends_with_a_sentence_and_code_2(name: str, tmp_path: Path) -> None:
    arguments, files = CASES[name]
    for part in ("a", "b"):
        tiny_studies.write_study(tmp_path / part, ("kind", "brief"), {0: {"soup": [[1.0, 0.5]]}})
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    done = tiny_run.valuesoup(tmp_path / "cache", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert "loading" not in done.stdout, "it refuses before it begins"
    oracle.check_message(done.stderr.rstrip("\n"), lines=3)
