"""Keys and passwords are in no file, no output and no error; nothing listens beyond this machine without a password."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest

import tiny_endpoint
import tiny_run
from valuesoup.configfile import parse_config
from valuesoup.errors import UserError
from valuesoup.explorer.server import check_open

SECRETS = {
    "OPENAI_API_KEY": "sk-secret-of-the-endpoint",
    "HF_TOKEN": "hf_secretofthehub",
    "VALUESOUP_PASSWORD": "secret-of-the-explorer",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-store",
}


def holds_a_secret(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if any(one.encode() in path.read_bytes() for one in SECRETS.values())]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_a_judge_that_echoes_the_key_leaves_it_nowhere(status: int, demo_run: tuple[Path, str], tmp_path: Path) -> None:
    run = shutil.copytree(demo_run[0], tmp_path / "run")
    environment = {**tiny_run.environment(tmp_path / "cache"), **SECRETS}
    with tiny_endpoint.serving(lambda *_: status) as served:
        command = tiny_run.command("judge", run, "--model", "m", "--url", served.url, "--yes", "--limit", "1")
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert served.keys == {f"Bearer {SECRETS['OPENAI_API_KEY']}"}
    assert done.returncode in (1, 2), done.stderr
    assert str(status) in done.stderr
    assert not any(one in done.stdout + done.stderr for one in SECRETS.values())
    assert holds_a_secret(tmp_path) == []


def test_a_run_and_its_report_hold_no_secret_of_the_environment(tmp_path: Path) -> None:
    environment = {**tiny_run.environment(tmp_path / "cache"), **SECRETS}
    settings = [*tiny_run.overrides("helpful"), "methods=[dpo]"]
    command = tiny_run.command(*tiny_run.demo_arguments(tmp_path / "run", settings), "--values", "helpful")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not any(one in done.stdout + done.stderr for one in SECRETS.values())
    assert holds_a_secret(tmp_path) == []


NAMES = ["../../x", "a/b", "..", ".", "", "a\\b", "a\0b", "a\nb", "/etc", "x" * 200, "<b>", "a b", "~", "a;b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    for key, content in {
        "values": {"values": {name: {"data": "a.jsonl"}}, "base": {"model": "a/b"}},
        "methods": {
            "values": {"kind": {"data": "a.jsonl"}},
            "base": {"model": "a/b"},
            "methods": [{"preset": "dpo", "name": name}],
        },
    }.items():
        with pytest.raises(UserError, match=f"c.yaml, line 1: {key}"):
            parse_config(json.dumps(content), "c.yaml")


def test_nothing_listens_beyond_this_machine_without_a_password() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(UserError, match="add --auth USER"):
            check_open(host, share=False, auth=None)
    with pytest.raises(UserError, match="add --auth USER"):
        check_open("127.0.0.1", share=True, auth=None)
    check_open("127.0.0.1", share=False, auth=None)


def test_the_audit_fails_on_what_is_known_and_says_so_where_nothing_can_be_known() -> None:
    spec = importlib.util.spec_from_file_location("audit", Path(__file__).parent / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    audit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(audit)
    unknown = {"name": "a", "skip_reason": "not found"}
    sound = {"name": "b", "version": "1", "vulns": []}
    broken = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1"}]}
    assert audit.verdict(1, "") == (0, "audit skipped: the advisory service gave no answer (pip-audit ended with 1).")
    assert audit.verdict(0, json.dumps({"dependencies": [unknown]}))[0] == 0
    assert audit.verdict(0, json.dumps({"dependencies": [unknown]}))[1].startswith("audit skipped")
    assert audit.verdict(0, json.dumps({"dependencies": [unknown, sound]}))[1].startswith("audit: 1 of 2")
    code, said = audit.verdict(1, json.dumps({"dependencies": [sound, broken]}))
    assert code == 1
    assert "c 2: PYSEC-1" in said
