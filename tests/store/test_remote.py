"""Artifacts behind a URL: whole or not at all, checked on arrival, on a server that speaks S3."""

import json
import os
import pickle
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tiny_stages import add
from tiny_storage import SECRET, bucket
from valuesoup.errors import RunError, UserError
from valuesoup.store import Artifact, Node, Progress, Remote, RunLog, Store, run_graph


class Said(Progress):
    """Keeps what would be shown."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "file":
        yield (tmp_path / "storage").as_uri()
    else:
        with bucket(monkeypatch) as found:
            yield found


def graph() -> list[Node]:
    root = add("root", one=1, to=[])
    return [root, add("leaf", one=2, to=[root])]


def make(folder: Path, url: str, progress: Progress | None = None, jobs: int = 1) -> Mapping[str, Artifact]:
    store = Store(folder, remote=Remote(url))
    return run_graph(graph(), store, progress or Progress(), RunLog(folder.parent / "log.jsonl"), jobs)


def started(tmp_path: Path) -> list[str]:
    lines = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    return [event["label"] for event in lines if event["event"] == "start"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_one_machine_made_another_takes(tmp_path: Path, url: str, jobs: int) -> None:
    Remote(url).check()
    first = make(tmp_path / "one", url, jobs=jobs)
    second = make(tmp_path / "two", url, jobs=jobs)
    assert started(tmp_path) == ["root", "leaf"]
    for key, artifact in first.items():
        assert second[key].json("sum.json") == artifact.json("sum.json")
        assert second[key].path.parent == tmp_path / "two"
    assert not list((tmp_path / "two").glob(".*"))


def test_what_was_made_before_there_was_a_url_is_uploaded(tmp_path: Path, url: str) -> None:
    run_graph(graph(), Store(tmp_path / "one"), Progress(), RunLog(tmp_path / "log.jsonl"))
    make(tmp_path / "one", url)
    make(tmp_path / "two", url)
    assert started(tmp_path) == ["root", "leaf"]


def damage(remote: Remote, folder: str, how: str) -> None:
    files, at = remote._files, remote._at
    manifest = json.loads(files.cat_file(at(folder, "manifest.json")))
    (entry,) = manifest["files"]
    match how:
        case "changed":
            files.pipe_file(at(folder, entry["sha256"]), b"999")
        case "gone":
            files.rm_file(at(folder, entry["sha256"]))
        case "no manifest":  # an upload that was broken off
            files.rm_file(at(folder, "manifest.json"))
        case "cut manifest":
            files.pipe_file(at(folder, "manifest.json"), b'{"files": [')
        case "other key":
            files.pipe_file(at(folder, "manifest.json"), json.dumps({**manifest, "key": "0" * 16}).encode())
        case "outside" | "absolute" | "hidden" | "foreign":
            names = {"outside": "../../../stolen", "absolute": "/tmp/stolen", "hidden": ".x/y", "foreign": "c:\\x"}
            entry["name"] = names[how]
            files.pipe_file(at(folder, "manifest.json"), json.dumps(manifest).encode())
        case "hash":
            entry["sha256"] = "../../elsewhere"
            files.pipe_file(at(folder, "manifest.json"), json.dumps(manifest).encode())


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("changed", "sum.json differs from its hash"),
        ("gone", "sum.json is missing"),
        ("no manifest", None),
        ("cut manifest", "manifest.json is unreadable"),
        ("other key", "that of another artifact"),
        ("outside", "names no file"),
        ("absolute", "names no file"),
        ("hidden", "names no file"),
        ("foreign", "names no file"),
        ("hash", "names no file"),
    ],
)
def test_a_damaged_or_half_upload_is_not_taken_and_is_made_good(tmp_path: Path, how: str, says: str | None) -> None:
    url = (tmp_path / "storage").as_uri()
    make(tmp_path / "one", url)
    leaf = graph()[1]
    damage(Remote(url), leaf.folder, how)
    said = Said()
    assert make(tmp_path / "two", url, said)[leaf.key].json("sum.json") == 3
    assert started(tmp_path) == ["root", "leaf", "leaf"]
    complaints = [line for line in said.lines if line.startswith("! ")]
    assert [says in line and leaf.folder in line for line in complaints] == ([True] if says else [])
    make(tmp_path / "three", url)
    assert started(tmp_path) == ["root", "leaf", "leaf"]
    assert not list(tmp_path.rglob("stolen*"))


def test_the_manifest_is_written_last(tmp_path: Path) -> None:
    remote = Remote((tmp_path / "storage").as_uri())
    made = run_graph(graph(), Store(tmp_path / "one"), Progress(), RunLog(None))
    root = graph()[0]
    (tmp_path / "one" / root.folder / "sum.json").unlink()  # so that the upload breaks off
    with pytest.raises(
        RunError, match=rf"did not take {root.folder} \(FileNotFoundError: .*run the same command again"
    ):
        remote.put(made[root.key].path)
    assert not remote.has(root.folder)
    assert not remote.fetch(tmp_path / "two" / root.folder, print)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("runs/demo", "is no URL"),
        ("s3://key:hidden@bucket/runs", "keep keys and options .* out of the URL"),
        ("s3://bucket/runs?secret=hidden", "keep keys and options .* out of the URL"),
        ("s3://bucket/runs#hidden", "keep keys and options .* out of the URL"),
        ("s3://AKIA:abc/hidden@bucket/x", "keep keys and options .* out of the URL"),
        ("s3:AK:hidden@b", "keep keys and options .* out of the URL"),
        ("s3:AK:hidden", "is no URL"),
        ("s3://AK:hidden/x", "is no URL"),
        ("s3:///hidden", "s3:// names no bucket or host"),
        ("nowhere://bucket", "nowhere"),
    ],
)
def test_a_wrong_url_is_refused_in_one_sentence(url: str, text: str) -> None:
    with pytest.raises(UserError, match=text) as caught:
        Remote(url).check()
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_storage_that_refuses_or_is_gone_is_named_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bucket(monkeypatch) as url:
        with pytest.raises(
            UserError, match=r"s3://not-there/runs cannot be written \(.*bucket does not exist"
        ) as refused:
            Remote("s3://not-there/runs").check()
        with pytest.raises(RunError, match=r"s3://not-there/runs did not take add-.*finished stages stay"):
            make(tmp_path / "one", "s3://not-there/runs")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"s3://soups-.*/runs/demo cannot be written \(.*127\.0\.0\.1:1") as gone:
        Remote(url).check()
    for caught in (refused, gone):
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_connection_stays_in_its_process(tmp_path: Path, url: str) -> None:
    remote = Remote(url)
    remote.check()
    assert SECRET.encode() not in pickle.dumps(remote)
    assert pickle.loads(pickle.dumps(remote)) == remote
    assert os.environ.get("AWS_SECRET_ACCESS_KEY", SECRET) == SECRET
    shutil.rmtree(tmp_path / "storage", ignore_errors=True)
