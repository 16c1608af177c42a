"""The endpoint client against a real server on loopback: nothing is asked twice, nothing answered is lost."""

import asyncio
import builtins
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tiny_endpoint import Served, serving
from valuesoup.endpoint import Endpoint, Reply, ask
from valuesoup.errors import RunError, UserError


def endpoint(served: Served, **settings: Any) -> Endpoint:
    return Endpoint(url=served.url, model="m", **{"concurrency": 2, "retries": 2, "timeout": 20, **settings})


def conversations(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def texts(replies: list[Reply]) -> list[str | None]:
    return [reply.text for reply in replies]


def echo(text: str, before: int) -> str:
    return f"to {text}"


def test_replies_stand_in_the_order_of_the_requests_and_at_most_so_many_are_under_way(tmp_path: Path) -> None:
    asked = [f"q{number}" for number in range(20)]
    done: list[int] = []
    with serving(echo) as served:
        replies = ask(endpoint(served, concurrency=3), conversations(*asked), tmp_path / "a.jsonl", done.append)
        assert served.busiest <= 3
    assert texts(replies) == [f"to {text}" for text in asked]
    assert sum(done) == 20


def test_identical_requests_are_asked_once(tmp_path: Path) -> None:
    done: list[int] = []
    with serving(echo) as served:
        replies = ask(endpoint(served), conversations("a", "b", "a", "a"), tmp_path / "a.jsonl", done.append)
        assert sorted(served.asked) == ["a", "b"]
    assert texts(replies) == ["to a", "to b", "to a", "to a"]
    assert sum(done) == 4


def test_what_was_answered_is_not_asked_again_and_other_settings_are(tmp_path: Path) -> None:
    with serving(echo) as served:
        one, file = endpoint(served), tmp_path / "a.jsonl"
        first = ask(one, conversations("a", "b"), file)
        done: list[int] = []
        assert ask(one, conversations("b", "a"), file, done.append) == first[::-1]
        assert len(served.bodies) == 2
        assert sum(done) == 2
        patient = one.model_copy(update={"timeout": 3.0, "concurrency": 1, "retries": 0, "key_env": "OTHER"})
        assert ask(patient, conversations("a"), file) == first[:1]
        assert len(served.bodies) == 2
        ask(one.model_copy(update={"temperature": 0.5}), conversations("a"), file)
        ask(one.model_copy(update={"model": "other"}), conversations("a"), file)
        ask(one, conversations("a"), file, attempt=1)
        assert len(served.bodies) == 5


def test_the_request_carries_the_settings_and_leaves_out_what_is_left_to_the_endpoint(tmp_path: Path) -> None:
    with serving(echo) as served:
        ask(endpoint(served, temperature=0.3, max_tokens=7), conversations("a"), tmp_path / "a.jsonl")
        free = endpoint(served, temperature=None, max_tokens=None, extra={"max_completion_tokens": 9})
        ask(free, conversations("b"), tmp_path / "a.jsonl")
        one, other = served.bodies
    assert (one["model"], one["temperature"], one["max_tokens"]) == ("m", 0.3, 7)
    assert not {"temperature", "max_tokens"} & set(other)
    assert other["max_completion_tokens"] == 9


@pytest.mark.parametrize("fault", [429, 500, 503, "cut"])
def test_a_passing_fault_is_met_by_asking_again(tmp_path: Path, fault: str | int) -> None:
    with serving(lambda text, before: fault if before == 0 else "fine") as served:
        assert texts(ask(endpoint(served), conversations("a"), tmp_path / "a.jsonl")) == ["fine"]
        assert len(served.bodies) == 2


def test_a_request_that_hangs_is_given_up_and_asked_again(tmp_path: Path) -> None:
    with serving(lambda text, before: "hang" if before == 0 else "fine") as served:
        assert texts(ask(endpoint(served, timeout=0.3), conversations("a"), tmp_path / "a.jsonl")) == ["fine"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (400, "status 400 (no, not with [key])"),
        (500, "status 500 (no, not with [key])"),
        ("garbage", "the answer is no chat completion"),
        ("page", "the answer is no chat completion"),
        ("nothing", "the answer is no chat completion"),
        ("cut", "the connection broke"),
    ],
)
def test_a_request_that_fails_for_good_says_why_and_is_asked_again_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str | int, reason: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    file = tmp_path / "a.jsonl"
    with serving(lambda text, before: fault if text == "bad" else "fine") as served:
        replies = ask(endpoint(served, retries=0), conversations("good", "bad", "better"), file)
        assert replies == [Reply("fine"), Reply(None, failure=reason), Reply("fine")]
        assert len(file.read_text().splitlines()) == 2
        ask(endpoint(served, retries=0), conversations("good", "bad", "better"), file)
        assert sorted(served.asked) == ["bad", "bad", "better", "good"]


def test_empty_and_cut_off_answers_are_answers(tmp_path: Path) -> None:
    with serving(lambda text, before: {"a": "", "b": "null", "c": "long"}[text]) as served:
        replies = ask(endpoint(served), conversations("a", "b", "c"), tmp_path / "a.jsonl")
        assert replies == [Reply(""), Reply(""), Reply("cut in the", finished=False)]
        assert ask(endpoint(served), conversations("a", "b", "c"), tmp_path / "a.jsonl") == replies
        assert len(served.bodies) == 3


def test_the_key_is_sent_and_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(lambda text, before: 401 if text == "refuse" else "fine") as served:
        ask(endpoint(served, key_env="MY_KEY"), conversations("a"), tmp_path / "a.jsonl")
        with pytest.raises(UserError) as refused:
            ask(endpoint(served, key_env="MY_KEY"), conversations("refuse"), tmp_path / "b.jsonl")
        ask(endpoint(served), conversations("b"), tmp_path / "a.jsonl")
        assert served.keys == {"Bearer sk-secret", "Bearer none"}
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    shown = capfd.readouterr()
    assert "sk-secret" not in written + str(refused.value) + repr(endpoint(served)) + shown.out + shown.err
    assert "MY_KEY (the key there is refused)" in str(refused.value)


@pytest.mark.parametrize(
    ("status", "error", "hint"),
    [
        (401, UserError, "check the environment variable OPENAI_API_KEY (it is not set)"),
        (404, UserError, "check its url and model"),
        (503, RunError, "check that it is up"),
    ],
)
def test_an_endpoint_that_refuses_everything_stops_the_call_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, error: type[Exception], hint: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(lambda text, before: status) as served:
        with pytest.raises(error) as stopped:
            ask(endpoint(served, retries=0), conversations(*map(str, range(1000))), tmp_path / "a.jsonl")
        assert len(served.bodies) < 10
    assert f"{served.url} answers no request for the model 'm': status {status}" in str(stopped.value)
    assert hint in str(stopped.value)


def test_nobody_there_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nobody = Endpoint(url=f"http://127.0.0.1:{port}/v1", model="m", retries=0)
    with pytest.raises(RunError, match="answers no request for the model 'm': nobody is there; check that it"):
        ask(nobody, conversations(*map(str, range(50))), tmp_path / "a.jsonl")


def test_an_endpoint_that_dies_midway_loses_no_answer_and_the_next_call_goes_on(tmp_path: Path) -> None:
    asked = [f"q{number}" for number in range(30)]
    file = tmp_path / "a.jsonl"
    alive = True
    with serving(lambda text, before: "fine" if alive or int(text[1:]) < 12 else 503) as served:
        alive = False
        with pytest.raises(RunError, match=r"what it answered is kept"):
            ask(endpoint(served, retries=0), conversations(*asked), file)
        kept = len(file.read_text().splitlines())
        assert 11 <= kept <= 12, "one may have been under way"
        alive = True
        assert texts(ask(endpoint(served), conversations(*asked), file)) == ["fine"] * 30
        assert all(served.asked.count(text) == 1 for text in asked[:11])


@pytest.mark.parametrize("status", [401, 404])
def test_a_few_requests_left_to_an_endpoint_that_now_refuses_all_are_not_dropped(tmp_path: Path, status: int) -> None:
    with serving(lambda text, before: "fine" if text == "a" else status) as served:
        one = endpoint(served, concurrency=8)
        ask(one, conversations("a"), tmp_path / "a.jsonl")
        with pytest.raises(UserError, match="answers no request"):
            ask(one, conversations("a", "b"), tmp_path / "a.jsonl")
    with pytest.raises(RunError, match="nobody is there"):
        ask(one.model_copy(update={"retries": 0}), conversations("a", "b"), tmp_path / "a.jsonl")


def test_a_few_requests_that_time_out_do_not_stop_an_endpoint_that_has_answered(tmp_path: Path) -> None:
    with serving(lambda text, before: "hang" if text == "slow" else "fine") as served:
        one = endpoint(served, timeout=0.3, retries=0)
        ask(one, conversations("a"), tmp_path / "a.jsonl")
        replies = ask(one, conversations("a", "slow"), tmp_path / "a.jsonl")
    assert replies == [Reply("fine"), Reply(None, failure="no answer within 0.3 s")]


def test_a_torn_last_line_is_asked_again_and_the_file_is_whole_after(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    with serving(echo) as served:
        ask(endpoint(served, concurrency=1), conversations("a", "b", "ü"), file)
        whole = file.read_bytes()
        file.write_bytes(whole[:-9])  # cuts through the text of the last answer
        replies = ask(endpoint(served), conversations("a", "b", "ü"), file)
        assert served.asked == ["a", "b", "ü", "ü"]
    assert texts(replies) == ["to a", "to b", "to ü"]
    assert file.read_bytes() == whole
    assert all(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"key": "x", "text": "y"}\nhello\n')
    nobody = Endpoint(url="http://127.0.0.1:1/v1", model="m")
    with pytest.raises(RunError, match=r"a\.jsonl, line 2 is no answer"):
        ask(nobody, conversations("a"), tmp_path / "a.jsonl")


def test_it_works_where_a_loop_is_running_already(tmp_path: Path) -> None:
    with serving(echo) as served:

        async def cell() -> list[Reply]:
            return ask(endpoint(served), conversations("a"), tmp_path / "a.jsonl")

        assert texts(asyncio.run(cell())) == ["to a"]


def test_no_request_needs_no_endpoint(tmp_path: Path) -> None:
    assert ask(Endpoint(url="http://127.0.0.1:1/v1", model="m"), [], tmp_path / "a.jsonl") == []


def test_without_the_package_the_command_to_install_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def lacking(name: str, *rest: Any) -> Any:
        if name == "openai":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(UserError, match=r"pip install 'valuesoup\[judge\]'"):
        ask(Endpoint(url="http://127.0.0.1:1/v1", model="m"), conversations("a"), tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "url is like http://127.0.0.1:8000/v1"),
        ({"url": "http://me:secret@host/v1"}, "url holds no key"),
        ({"url": "http://host:secret/v1"}, "url is like http://127.0.0.1:8000/v1"),
        ({"url": "http://host:99999/v1"}, "url is like http://127.0.0.1:8000/v1"),
        ({"url": "http://[host/v1"}, "url is like http://127.0.0.1:8000/v1"),
        ({"url": "http://host/v1?api_key=secret"}, "url holds no key"),
        ({"url": "http://host/v1#secret"}, "url holds no key"),
        ({"url": "http://me:sec/ret@host/v1"}, "url holds no key"),
        ({"retries": -1}, "greater than or equal to 0"),
        ({"timeout": float("inf")}, "finite number"),
        ({"key": "secret"}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Endpoint(**{"url": "http://127.0.0.1:8000/v1", "model": "m", **settings})


def test_an_answer_that_holds_the_key_is_stored_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789")
    file = tmp_path / "a.jsonl"
    with serving(lambda text, before: "your key is sk-secret-0123456789.") as served:
        assert texts(ask(endpoint(served), conversations("a"), file)) == ["your key is [key]."]
    assert "sk-secret" not in file.read_text()
    assert texts(ask(endpoint(served), conversations("a"), file)) == ["your key is [key]."]


def test_a_key_that_is_a_word_changes_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with serving(lambda text, before: "there is none") as served:
        assert texts(ask(endpoint(served), conversations("a"), tmp_path / "a.jsonl")) == ["there is none"]
