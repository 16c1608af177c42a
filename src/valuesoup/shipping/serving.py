"""The layout for vLLM: a folder per adapter, the command that serves them, and a client's example."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from valuesoup.data import Message, Messages
from valuesoup.data.transcripts import render_transcript
from valuesoup.endpoint import BASE_NAME
from valuesoup.errors import UserError
from valuesoup.shipping.exported import ExportedPolicy
from valuesoup.shipping.origin import Origin

MAX_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What ``vllm serve --max-lora-rank`` accepts (vllm/config/lora.py, MaxLoRARanks); 1 is accepted too by newer ones."""
AT_A_TIME = 8
"""Most adapters of one batch; each takes its share of the GPU's memory, used or not, and the others wait on the CPU."""
SERVE = "serve.sh"
PROMPT = [Message(role="user", content="How do I bake bread?")]
"""What examples ask a base that was not made in the run."""


def check_served_rank(label: str, rank: int) -> None:
    """Refuse an adapter that vLLM would not load.

    Raises:
        UserError: Its rank is above vLLM's limit.
    """
    if rank > MAX_RANKS[-1]:
        raise UserError(
            f"the exact adapter of {label} has rank {rank}, and vLLM takes at most {MAX_RANKS[-1]}; cut it with "
            f"--rank {MAX_RANKS[-1]}, or export it with --format merged."
        )


def served_rank(policies: Sequence[ExportedPolicy]) -> int:
    """Return the smallest ``--max-lora-rank`` that holds every adapter."""
    largest = max(policy.rank or 0 for policy in policies)
    return next(rank for rank in MAX_RANKS if rank >= largest)


def serve_command(policies: Sequence[ExportedPolicy], origin: Origin) -> str:
    """Return the command that serves the base and all adapters, to be run in the export's folder."""
    lines = [f"vllm serve {shlex.quote(origin.path)}"]
    if origin.revision:
        lines.append(f"--revision {shlex.quote(origin.revision)}")
    if origin.trust_remote_code:
        lines.append("--trust-remote-code")
    lines += [
        f"--served-model-name {BASE_NAME}",
        "--generation-config vllm",  # else a top_p or top_k in the base's own settings changes what was measured
        "--enable-lora",
        f"--max-lora-rank {served_rank(policies)}",
        f"--max-loras {min(len(policies), AT_A_TIME)}",
        f"--max-cpu-loras {len(policies)}",
        "--lora-modules " + " ".join(f"{policy.name}=./{policy.name}" for policy in policies),
    ]
    return " \\\n  ".join(lines)


def write_serve_script(folder: Path, command: str) -> None:
    """Write ``serve.sh``, which runs the command wherever it is called from."""
    script = folder / SERVE
    script.write_text(f'#!/bin/sh\nset -e\ncd "$(dirname "$0")"\nexec {command} "$@"\n', encoding="utf-8")
    script.chmod(0o755)


def client_example(name: str, prompt: Messages, chat: bool, temperature: float, max_tokens: int) -> str:
    """Return Python that asks one of the served adapters as the run asked it.

    Args:
        name: The adapter's.
        prompt: What to ask.
        chat: Whether the base's tokenizer has a chat template; else the prompt is written out as it was in training.
        temperature: Of the run's answers.
        max_tokens: Of the run's answers.
    """
    asked = f"messages={json.dumps(prompt)}" if chat else f"prompt={json.dumps(render_transcript(prompt, True))}"
    ask, answer = ("chat.completions", "message.content") if chat else ("completions", "text")
    return "\n".join(
        [
            "from openai import OpenAI",
            "",
            'client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")',
            f"answer = client.{ask}.create(",
            f'    model="{name}",',
            f"    {asked},",
            f"    temperature={temperature:g},",
            f"    max_tokens={max_tokens},",
            ")",
            f"print(answer.choices[0].{answer})",
        ]
    )
