"""The model card of an export: what it is, how it was made and measured, and where it ends; in the hub's format."""

import html
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from valuesoup.config import RunConfig
from valuesoup.data import Messages
from valuesoup.data.transcripts import render_transcript
from valuesoup.methods import Method, Preset, preset
from valuesoup.pipeline.data import load_part
from valuesoup.pipeline.plan import BASE
from valuesoup.pipeline.run import Finished
from valuesoup.shipping.choice import SAME, Choice
from valuesoup.shipping.exported import ExportedPolicy, Form
from valuesoup.shipping.origin import Origin, Source, data_sources
from valuesoup.shipping.serving import PROMPT, client_example, serve_command, write_serve_script

README = "README.md"
_MARKDOWN = re.compile(r"([\\`*_\[\]|~])")
_BLOCK = re.compile(r"^(?:[-+#>]|\d+[.)])")
_LINKS = {"://": ":&#47;&#47;", "www.": "www&#46;", "@": "&#64;", "$": "&#36;"}
"""What renderers turn into links, mentions and formulas without any markup."""


def write_cards(
    folder: Path,
    target: Path,
    form: Form,
    finished: Finished,
    chosen: Sequence[Choice],
    policies: Sequence[ExportedPolicy],
    origin: Origin,
    tell: Callable[[Sequence[Choice], Sequence[ExportedPolicy]], Sequence[str]],
) -> str:
    """Write ``README.md`` into an export, and into each adapter's folder of one for vLLM, with its ``serve.sh``.

    Args:
        folder: Where the export is now.
        target: Where it will be.
        form: Of the export.
        finished: The run.
        chosen: The policies.
        policies: The same, as written.
        origin: Of the base.
        tell: Returns what a person should know of policies.

    Returns:
        What to type to use the export.
    """
    common = _common(finished, origin)
    prompt = example_prompt(finished)
    notes = tell(chosen, policies)
    if form != "vllm":
        chat = has_chat_template(folder)
        usage = usage_example(form, origin, target, prompt, chat)
        shown = usage_example(form, origin, None, prompt, chat)
        text = _render(form, finished, chosen, policies, origin, notes, {**common, "usage": shown})
        (folder / README).write_text(text, encoding="utf-8")
        return usage
    command = serve_command(policies, origin)
    write_serve_script(folder, command)
    generation, chat = finished.plan.config.generation, has_chat_template(folder / policies[0].name)
    client = client_example(policies[0].name, prompt, chat, generation.temperature, generation.max_new_tokens)
    serving = {"serve": command, "client": client}
    text = _render(form, finished, chosen, policies, origin, notes, {**common, **serving})
    (folder / README).write_text(text, encoding="utf-8")
    for choice, policy in zip(chosen, policies, strict=True):
        usage = usage_example("adapter", origin, None, prompt, chat)
        own = tell([choice], [policy])
        text = _render("adapter", finished, [choice], [policy], origin, own, {**common, "usage": usage})
        (folder / policy.name / README).write_text(text, encoding="utf-8")
    return f"cd {shlex.quote(str(target))}\n{command}"


def example_prompt(finished: Finished) -> Messages:
    """Return what examples ask: a short prompt of the run's data where the base was made of these and knows no other.

    Any other base is asked `PROMPT`, for a card is there to be published, and data may be private.
    """
    config = finished.plan.config
    if config.base.model is not None:
        return PROMPT
    held_out = load_part(finished.artifacts[finished.plan.split.key], next(iter(config.values)), "validation")
    return min((pair.prompt for pair in held_out.slice(0, 100)), key=lambda turns: (len(turns), len(str(turns))))


def usage_example(form: Form, origin: Origin, folder: Path | None, prompt: Messages, chat: bool) -> str:
    """Return the Python that loads an export and asks it as the run did.

    Args:
        form: adapter or merged.
        origin: Of the base.
        folder: Of the export; None writes a placeholder for readers of the card.
        prompt: What to ask.
        chat: Whether the base's tokenizer has a chat template; else the prompt is written out as it was in training.
    """
    where = repr(str(folder)) if folder else '"FOLDER-OR-HUB-ID"  # of this model'
    options = ", trust_remote_code=True" if origin.trust_remote_code else ""
    if form == "merged":
        return "\n".join(
            [
                "from transformers import AutoModelForCausalLM, AutoTokenizer",
                "",
                f"where = {where}",
                f"model = AutoModelForCausalLM.from_pretrained(where{options})",
                "tokenizer = AutoTokenizer.from_pretrained(where)",
                *_asking(prompt, chat, ""),
            ]
        )
    revision = f", revision={origin.revision!r}" if origin.revision else ""
    base = repr(origin.path) if folder or origin.hub else '"THE-BASE"  # a local folder of whoever made this adapter'
    return "\n".join(
        [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig",
            "",
            f"where = {where}",
            f"base = {base}",
            f"model = AutoModelForCausalLM.from_pretrained(base{revision}{options})",
            "model = PeftModel.from_pretrained(model, where)",
            "tokenizer = AutoTokenizer.from_pretrained(where)",
            *_asking(prompt, chat, ", generation_config=GenerationConfig.from_pretrained(where)"),
        ]
    )


def _asking(prompt: Messages, chat: bool, settings: str) -> list[str]:
    """Return the lines that ask; PEFT generates by the base's settings unless it is given others."""
    if chat:
        asked = [
            f"prompt = {json.dumps(prompt)}",
            "inputs = tokenizer.apply_chat_template(",
            '    prompt, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
            ")",
        ]
    else:
        asked = [
            f"prompt = {json.dumps(render_transcript(prompt, True))}",
            'inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")',
        ]
    return [
        *asked,
        f"answer = model.generate(**inputs{settings})",
        'print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]


def has_chat_template(folder: Path) -> bool:
    """Return whether the tokenizer in a folder has a chat template."""
    from valuesoup.soup import load_tokenizer

    return bool(load_tokenizer(folder).chat_template)


def plain(text: object) -> Markup:
    """Return Markdown that shows any text as it is, on one line, without markup, links or tags of its own."""
    shown = _MARKDOWN.sub(r"\\\1", html.escape(" ".join(str(text).split()), quote=False))
    for given, safe in _LINKS.items():
        shown = shown.replace(given, safe)
    return Markup(_BLOCK.sub(lambda start: f"{start[0][:-1]}&#{ord(start[0][-1])};", shown))


def fenced(text: str, language: str = "") -> Markup:
    """Return a code block that no text within it can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def _render(
    form: Form,
    finished: Finished,
    chosen: Sequence[Choice],
    policies: Sequence[ExportedPolicy],
    origin: Origin,
    notes: Sequence[str],
    context: Mapping[str, Any],
) -> str:
    from jinja2 import Environment, StrictUndefined

    source = (files("valuesoup.shipping") / "templates" / "card.md.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(plain=plain, fenced=fenced)
    results = finished.results
    entries = {entry.name: entry for entry in finished.plan.config.methods}
    methods = [_method(entries[name]) for name in dict.fromkeys(choice.method for choice in chosen)]
    body = environment.from_string(source).render(
        form=form,
        values=results["values"],
        policies=list(zip(chosen, policies, strict=True)),
        methods=methods,
        scores=_scores(results, chosen),
        limits=_limits(finished, chosen, policies, notes),
        **context,
    )
    return f"---\n{_metadata(form, origin, context['sources'])}---\n\n{body.strip()}\n"


def _common(finished: Finished, origin: Origin) -> dict[str, Any]:
    from valuesoup import __version__

    config = finished.plan.config
    return {
        "version": __version__,
        "base": origin.hub or f"{Path(origin.path).name} (a local model)"
        if config.base.model
        else "a small model made in the run",
        "base_licence": origin.licence,
        "base_made_here": config.base.model is None,
        "quantised": origin.quantize is not None,
        "sources": list(data_sources(finished)),
        "config": yaml.safe_dump(_without_paths(config), sort_keys=False, allow_unicode=True, width=100),
        "level": config.evaluation.level,
        "generation": config.generation,
    }


def _metadata(form: Form, origin: Origin, sources: Sequence[Source]) -> str:
    """Return the card's metadata; of what is not known nothing is claimed."""
    from huggingface_hub import ModelCardData

    hub = list(dict.fromkeys(source.name for source in sources if source.hub))
    data = ModelCardData(
        base_model=origin.hub,
        base_model_relation=None if origin.hub is None else "merge" if form == "merged" else "adapter",
        library_name="transformers" if form == "merged" else "peft",
        pipeline_tag="text-generation",
        license=origin.licence,
        datasets=hub or None,
        tags=[
            "valuesoup",
            "alignment",
            "preference-optimization",
            "model-soup",
            *(["merge"] if form == "merged" else ["lora"]),
        ],
    )
    return str(data.to_yaml()) + "\n"


def _method(entry: Any) -> dict[str, Any]:
    known: Preset | None = preset(entry.preset) if entry.preset else None
    made: Method = entry.method
    return {
        "name": entry.name,
        "title": entry.title,
        "paper": known.paper if known else "",
        "formula": known.formula if known else "",
        "summary": known.summary if known else "",
        "choices": f"pairs: {made.pairs.kind}, objective: {made.objective.kind}, weights: {made.weights.kind}, "
        f"composition: {made.composition.kind}",
    }


def _scores(results: Mapping[str, Any], chosen: Sequence[Choice]) -> list[dict[str, Any]]:
    """Return rows of the table of scores: each policy, or its nearest measured neighbour, and the base."""
    base = next((row for row in results["candidates"] if row["method"] == BASE), None)
    found = [(choice.label, choice.measured or choice.nearest, choice.measured is None) for choice in chosen]
    rows = [(label, row, near) for label, row, near in [*found, ("the base", base, False)] if row is not None]
    part = "test" if all(row["test"] for _, row, _ in rows) else "validation"
    return [
        {
            "label": f"{row['id']}, the nearest measured to {label}" if near else label,
            "part": part,
            "scores": [row[part][value] for value in results["values"]],
            "quality": row["quality"] or {},
        }
        for label, row, near in rows
    ]


def _limits(
    finished: Finished, chosen: Sequence[Choice], policies: Sequence[ExportedPolicy], notes: Sequence[str]
) -> list[str]:
    limits = list(notes)
    for value, model in finished.results["reward_models"].items():
        if model["validation_accuracy"] is not None:
            limits.append(
                f"The reward model of {value} orders {model['validation_accuracy']:.0%} of {model['validation_pairs']} "
                "held-out pairs as their labels do; a score is worth no more than that."
            )
    for choice, policy in zip(chosen, policies, strict=True):
        weights = list((choice.weights or {}).values())
        if weights and (min(weights) < 0 or abs(sum(weights) - 1) > SAME):
            limits.append(f"The weights of {choice.label} are no shares of 1: it is no average of its vectors.")
        if policy.cut:
            limits.append(
                f"{choice.label} is cut from rank {policy.cut.exact_rank} to {policy.rank}: the relative error of its "
                f"change of weights is {policy.cut.relative_error:.2g} (Frobenius), and answers diverge from the exact "
                f"ones by {policy.cut.kl:.2g} nats."
            )
    limits.append(
        "Scores are rewards that models or functions gave to sampled answers, not judgements of people, on prompts "
        "like those of the data above; nothing is claimed for other languages, tasks or adversarial prompts."
    )
    limits.append("A trade-off between values is not a guarantee of any of them: test before you deploy.")
    return limits


def _without_paths(config: RunConfig) -> Any:
    """Return the configuration without the folders of the machine that ran it."""

    def shorten(item: Any) -> Any:
        if isinstance(item, dict):
            return {name: shorten(of) for name, of in item.items()}
        if isinstance(item, list):
            return [shorten(of) for of in item]
        return f"…/{Path(item).name}" if isinstance(item, str) and Path(item).is_absolute() else item

    return shorten(config.model_dump(mode="json", exclude_none=True))
