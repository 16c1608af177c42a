"""The stage in which a server answers, over a tiny base and two vectors; and the same answers by this process."""

from pathlib import Path
from typing import Any

import tiny
import tiny_answering
from valuesoup.config import GenerationConfig
from valuesoup.endpoint import GenerationServer
from valuesoup.pipeline.answering import answer_prompts, load_answers, open_soup
from valuesoup.pipeline.serving import serve_answers
from valuesoup.soup import Soup
from valuesoup.store import Artifact, Progress, Work

CANDIDATES = ((1.0, 0.0), (0.5, 0.5), (0.0, 0.0), (-0.5, 1.2), (0.0, 1.0))
NAMES = ("one", "half", "base", "odd", "two")
MODELS = dict(zip(NAMES, CANDIDATES, strict=True))
PROMPTS = 7
TEMPLATE = "<s> " + tiny.TEMPLATE
WORDS = ["<pad>", "</s>", "<s>", "<user>", "<asst>", *(f"w{place}" for place in range(tiny.WORDS))]


def tokenizer(*, ended: bool = False) -> Any:
    """A word tokenizer that sets ``<s>`` before every text, as Llama's does, and where asked ``</s>`` after it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({name: place for place, name in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    around = "<s> $A </s>" if ended else "<s> $A"
    inner.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("<s>", 2), ("</s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    made.chat_template = TEMPLATE
    return made


def save_base(folder: Path, seed: int = 0) -> Path:
    model = tiny.llama(seed)
    model.generation_config.eos_token_id = [1, 0, 2]  # whatever special token it writes ends an answer
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


class Sweep:
    """The stage over a tiny base and two vectors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        save_base(folder / "base")
        self.given = tiny_answering.inputs(folder, CANDIDATES, PROMPTS, GenerationConfig(max_new_tokens=10))
        self.base, self.vectors = self.given["base"], self.given["vectors"]

    def soup(self) -> Soup:
        return open_soup(self.base, self.vectors, "cpu")

    def inputs(self, temperature: float, **changes: Any) -> dict[str, Any]:
        generation = GenerationConfig(max_new_tokens=10, temperature=temperature)
        return {**self.given, "generation": generation, **changes}

    def work(self, name: str) -> Work:
        out = self.folder / "run" / "artifacts" / name
        out.mkdir(parents=True, exist_ok=True)
        return Work(out, Progress(), "answers", lambda **_: None)

    def ask(self, url: str, name: str = "served", temperature: float = 0.0, **changes: Any) -> Artifact:
        settings = {"retries": 0, "concurrency": 2, "extra": {}, **changes.pop("server", {})}
        server = GenerationServer(url=url, **settings)
        given = self.inputs(temperature, names=NAMES, trained=[], server=server, extra=server.extra)
        work = self.work(name)
        serve_answers.function(work, **{**given, **changes})
        return Artifact(work.out, name, 0.0)

    def local(self, **changes: Any) -> Artifact:
        work = self.work("local")
        answer_prompts.function(work, **self.inputs(0.0, **changes))
        return Artifact(work.out, "local", 0.0)


def table(answers: Artifact) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = load_answers(answers).to_pylist()
    return sorted(rows, key=lambda row: (row["candidate"], row["prompt"]))


def parity(answers: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = answers.json("parity.json")["policies"]
    return found


def only_base(**changes: Any) -> dict[str, Any]:
    """What a stack of the base alone has."""
    return {"vectors": {}, "candidates": ((),), **changes}
