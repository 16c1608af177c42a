"""The layout for vLLM: ranks that it accepts, commands that a shell reads as meant, a client as it was trained."""

import ast
import shlex

import pytest

from valuesoup.errors import UserError
from valuesoup.shipping.exported import Check, ExportedPolicy
from valuesoup.shipping.origin import Origin
from valuesoup.shipping.serving import PROMPT, check_served_rank, client_example, serve_command, served_rank


def policy(name: str, rank: int) -> ExportedPolicy:
    return ExportedPolicy(name, name, "mix", None, rank, Check(1, 0, 0.0, 0.0, 1.0, 1.0), None)


@pytest.mark.parametrize(
    ("ranks", "accepted"), [([4], 8), ([8, 2], 8), ([9], 16), ([64, 65], 128), ([257], 320), ([321], 512), ([512], 512)]
)
def test_the_served_rank_is_the_smallest_accepted_one_that_holds_all(ranks: list[int], accepted: int) -> None:
    assert served_rank([policy(f"p{rank}", rank) for rank in ranks]) == accepted


def test_a_rank_above_the_limit_is_refused_with_what_to_do() -> None:
    check_served_rank("mix/a", 512)
    with pytest.raises(UserError, match=r"rank 513, and vLLM takes at most 512; cut it with --rank 512"):
        check_served_rank("mix/a", 513)


def test_the_command_keeps_odd_paths_and_a_revision_in_one_word_each() -> None:
    origin = Origin("/my models/it's a base", None, "v1.0", True, "cpu")
    words = shlex.split(serve_command([policy("a", 4), policy("b", 20)], origin).replace("\\\n", ""))
    assert words == [
        "vllm", "serve", "/my models/it's a base", "--revision", "v1.0", "--trust-remote-code",
        "--served-model-name", "base", "--generation-config", "vllm",
        "--enable-lora", "--max-lora-rank", "32", "--max-loras", "2",
        "--max-cpu-loras", "2", "--lora-modules", "a=./a", "b=./b",
    ]  # fmt: skip


def test_many_adapters_wait_on_the_cpu() -> None:
    words = serve_command([policy(f"p{place}", 4) for place in range(50)], Origin("b", "b", None, False, "cpu")).split()
    assert words[words.index("--max-loras") + 1] == "8"
    assert words[words.index("--max-cpu-loras") + 1] == "50"


@pytest.mark.parametrize("chat", [True, False])
def test_the_client_is_python_and_asks_as_in_training(chat: bool) -> None:
    text = client_example("mix-a", PROMPT, chat, 0.7, 64)
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    options = {word.arg: word.value for call in calls for word in call.keywords}
    assert ast.literal_eval(options["model"]) == "mix-a"
    assert ast.literal_eval(options["temperature"]) == 0.7
    if chat:
        assert ast.literal_eval(options["messages"]) == [{"role": "user", "content": "How do I bake bread?"}]
    else:
        assert ast.literal_eval(options["prompt"]) == "\n\nHuman: How do I bake bread?\n\nAssistant:"
