"""The page: a board that the browser draws, a prompt, two answers side by side."""

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import gradio as gr

from valuesoup.config import RunConfig
from valuesoup.errors import UserError
from valuesoup.explorer.board import read_board
from valuesoup.explorer.models import Models
from valuesoup.explorer.visits import MOST_CHARACTERS, SIDES, Question, Turn, Visits, read_number, told

MOST_TOKENS = 1024
"""The longest answer that the page offers, where the run's own are not longer."""
MOST_TEMPERATURE = 2.0
MOST_SEED = 2**31 - 1
SAMPLE_LETTERS = 90
ASKING = ("prompt", "sample", "follows", "limit", "temperature", "seed")
"""What a visitor asks with, beside the board's settings."""
STATE = "(_, ...rest) => [window.valuesoup.state(), ...rest]"
"""The board's settings are read when a visitor asks; dragging sends nothing."""


def asset(name: str) -> str:
    """Return a script or style sheet of the page."""
    return (resources.files("valuesoup.explorer") / "assets" / name).read_text(encoding="utf-8")


def make_page(models: Models) -> gr.Blocks:
    """Return the page of a loaded run; dragging and choosing happen in the browser, the rest in :class:`_Page`."""
    page = _Page(models)
    with gr.Blocks(title=f"{_title(models)} · valuesoup", analytics_enabled=False) as blocks:
        gr.HTML(
            html_template=f"<style>{asset('page.css')}</style><div class='vs-head'><h1></h1><p></p></div>",
            js_on_load="element.querySelector('h1').textContent = props.title;"
            "element.querySelector('p').textContent = props.text;",
            title=_title(models),
            text=_introduction(models),
            apply_default_css=False,
        )
        parts: dict[str, Any] = {
            "board": gr.HTML(
                html_template="<div class='vs-board'></div>",
                js_on_load=asset("board.js"),
                data=read_board(models.finished),
                apply_default_css=False,
                elem_id="board",
            ),
            "notice": _notice("notice"),
            **_asking([(_short(page.last_turn(place)), place) for place in range(len(models.prompts))]),
            "refusal": _notice("refusal"),  # not where exports are told of, which go on while answers are written
            **_drawing(models.finished.plan.config),
            **_dialogues(),
        }
        gr.HTML(
            html_template="<p class='vs-small'></p>",
            js_on_load="element.querySelector('p').textContent = props.text;",
            text=_scores_text(models),
            apply_default_css=False,
        )
        _wire(blocks, page, parts)
    made: gr.Blocks = blocks
    return made


def _asking(samples: list[tuple[str, int]]) -> dict[str, Any]:
    """Lay out the prompt, the run's test prompts, and the buttons."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            prompt = gr.Textbox(
                label="Prompt to both A and B",
                placeholder="Write a prompt, or take one of the run's test prompts.",
                lines=2,
                max_lines=8,
                elem_id="prompt",
            )
            label = f"Test prompts of the run ({len(samples)})"
            sample = gr.Dropdown(choices=samples, value=None, label=label, elem_id="sample")
        with gr.Column(scale=1, min_width=220):
            ask = gr.Button("Ask both", variant="primary", elem_id="ask")
            with gr.Row():
                stop = gr.Button("Stop", elem_id="stop", min_width=80)
                clear = gr.Button("Clear", elem_id="clear", min_width=80)
            follows = gr.Checkbox(
                label="Go on with the conversation",
                info="Off: each prompt stands alone, as in the run's evaluation.",
                value=False,
                elem_id="follows",
            )
    return {"prompt": prompt, "sample": sample, "ask": ask, "stop": stop, "clear": clear, "follows": follows}


def _drawing(config: RunConfig) -> dict[str, Any]:
    """Lay out how answers are drawn; at first, as the run drew them."""
    generation = config.generation
    with gr.Accordion("How answers are drawn", open=False, elem_id="drawn"), gr.Row():
        limit = gr.Slider(
            1,
            max(MOST_TOKENS, generation.max_new_tokens),
            value=generation.max_new_tokens,
            step=1,
            label="Longest answer (tokens)",
            elem_id="limit",
        )
        temperature = gr.Slider(
            0,
            max(MOST_TEMPERATURE, generation.temperature),
            value=generation.temperature,
            step=0.05,
            label="Temperature",
            info="0 takes the likeliest token.",
            elem_id="temperature",
        )
        seed = gr.Number(
            value=config.seed,
            precision=0,
            minimum=0,
            label="Seed",
            info="The same draws for A and B.",
            elem_id="seed",
        )
    return {"limit": limit, "temperature": temperature, "seed": seed}


def _dialogues() -> dict[str, Any]:
    """Lay out the two conversations side by side."""
    found = {}
    with gr.Row(equal_height=True):
        for side in SIDES:
            with gr.Column(min_width=300):
                found[side] = gr.HTML(
                    value={"turns": []},
                    html_template="<div class='vs-dialogue' aria-live='polite'></div>",
                    js_on_load=asset("dialogue.js"),
                    side=side,
                    apply_default_css=False,
                    elem_id=f"answers-{side}",
                )
    return found


def _wire(blocks: gr.Blocks, page: "_Page", parts: Mapping[str, Any]) -> None:
    """Let the parts of the page call what answers them."""
    settings = gr.Textbox(visible=False)
    history = gr.State({side: [] for side in SIDES})
    answered = [*(parts[side] for side in SIDES), history, parts["refusal"]]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    # gradio tells a function of its visitor by these annotations.
    def asked(request: gr.Request, *given: Any) -> Iterator[tuple[Any, ...]]:
        *asking, history = given
        yield from page.ask(_session(request), dict(zip(("settings", *ASKING), asking, strict=True)), history)

    def stopped(request: gr.Request) -> None:
        page.visits.stop(_session(request))

    def cleared(request: gr.Request) -> tuple[Any, ...]:
        return page.clear(_session(request))

    def exported(event: gr.EventData) -> dict[str, Any]:
        return page.export(event._data.get("setting"))

    gr.on(
        [parts["ask"].click, parts["prompt"].submit],
        asked,
        [settings, *(parts[name] for name in ASKING), history],
        answered,
        js=STATE,
        concurrency_limit=None,
        **quiet,
    )
    parts["sample"].input(page.last_turn, parts["sample"], parts["prompt"], **quiet)
    parts["stop"].click(stopped, None, None, concurrency_limit=None, queue=False, **quiet)
    parts["clear"].click(cleared, None, answered, queue=False, **quiet)
    notice = parts["notice"]
    for event in (parts["board"].export_a, parts["board"].export_b):
        event(lambda: {"text": "Writing the adapter and checking it …"}, None, notice, queue=False, **quiet)
        event(exported, None, notice, concurrency_limit=1, concurrency_id="export", **quiet)
    blocks.unload(stopped)


class _Page:
    """What the page's events do; whatever comes from a browser is read with care."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.visits = Visits(models)

    def ask(
        self, session: str, given: Mapping[str, Any], history: Mapping[str, list[Turn]]
    ) -> Iterator[tuple[Any, ...]]:
        """Stream both sides' answers: two conversations, the session's history, and a sentence where it is refused."""
        before: dict[str, list[Turn]] = {side: list(history[side]) for side in SIDES}
        try:
            question = self._question(given)
        except Exception as error:
            yield (*map(_drawn, before.values()), before, {"text": told(error), "error": True})
            return
        for turns in self.visits.answer(session, question, before):
            if not turns:
                yield _nothing()  # after all that was sent before, which may reach the page later than the clearing
                return
            now = {side: [*before[side], turns[side]] for side in SIDES}
            yield (*map(_drawn, now.values()), now, {})

    def clear(self, session: str) -> tuple[Any, ...]:
        """Begin anew."""
        self.visits.clear(session)
        return _nothing()

    def last_turn(self, sample: Any) -> str:
        """Return the last turn of a test prompt."""
        found = self._sample(sample)
        return found[-1]["content"] if found else ""

    def export(self, setting: Any) -> dict[str, Any]:
        """Export a setting; return what to tell of it."""
        try:
            folder, command = self.visits.export(self.models.setting(json.loads(setting)))
        except Exception as error:
            return {"text": told(error), "error": True}
        return {"text": f"An adapter with its card is in {folder}. The same by command:", "command": command}

    def _question(self, given: Mapping[str, Any]) -> Question:
        prompt, generation = given["prompt"], self.models.finished.plan.config.generation
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError("write a prompt first, or take one of the run's test prompts.")
        if len(prompt) > MOST_CHARACTERS:
            raise UserError(f"the prompt has {len(prompt)} characters; at most {MOST_CHARACTERS} are taken.")
        settings = json.loads(given["settings"])
        messages = self._sample(given["sample"])
        tokens, hottest = max(MOST_TOKENS, generation.max_new_tokens), max(MOST_TEMPERATURE, generation.temperature)
        return Question(
            settings={side: self.models.setting(settings[side]) for side in SIDES},
            prompt=prompt,
            before=messages[:-1] if messages and messages[-1]["content"] == prompt else (),
            follows=bool(given["follows"]),
            max_new_tokens=int(read_number(given["limit"], "the longest answer", 1, tokens)),
            temperature=read_number(given["temperature"], "the temperature", 0, hottest),
            seed=int(read_number(given["seed"], "the seed", 0, MOST_SEED)),
        )

    def _sample(self, sample: Any) -> list[Any]:
        if not isinstance(sample, int) or not 0 <= sample < len(self.models.prompts):
            return []
        return self.models.prompts[sample]["messages"]


def _notice(name: str) -> gr.HTML:
    return gr.HTML(
        value={},
        html_template="<div class='vs-notice vs-none' role='status'></div>",
        js_on_load=asset("notice.js"),
        apply_default_css=False,
        elem_id=name,
    )


def _nothing() -> tuple[Any, ...]:
    """Return empty conversations, an empty history and no refusal."""
    empty: dict[str, list[Turn]] = {side: [] for side in SIDES}
    return (*map(_drawn, empty.values()), empty, {})


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


def _drawn(turns: list[Turn]) -> dict[str, Any]:
    return {"turns": turns}


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SAMPLE_LETTERS else f"{flat[: SAMPLE_LETTERS - 1]}…"


def _title(models: Models) -> str:
    return models.finished.plan.config.title or models.finished.folder.name


def _introduction(models: Models) -> str:
    values = models.values
    named = values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}"
    if models.dials:
        return (
            f"One base model, {len(values)} value{'s' * (len(values) > 1)} ({named}), a slider for each. "
            "A and B are two settings of the dials. Drag a slider and its pin moves over the frontier; ask, and both "
            "settings answer the same prompt side by side, scored by the run's reward models."
        )
    return (
        f"No method of this run has a dial: its {named} trade-offs are finished policies, each a point. Choose two of "
        "them as A and B; both answer the same prompt side by side, scored by the run's reward models."
    )


def _scores_text(models: Models) -> str:
    return (
        "A score is a reward model's view of this one answer, in the reward's own units; ▲ marks the better of the "
        "two. The points above are means over many prompts, so one answer may lie far from its setting's point."
    )
