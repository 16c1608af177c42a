"""The check itself: choose policies, read texts, measure what is not known yet, keep it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from valuesoup.errors import UserError
from valuesoup.pipeline.run import Finished, open_run
from valuesoup.pipeline.study import seed_folders
from valuesoup.regression.command import read_command, run_command
from valuesoup.regression.kept import Content, read_kept, shown, take_subjects, write_kept
from valuesoup.regression.measuring import measure
from valuesoup.regression.subjects import Subject, subjects_of
from valuesoup.regression.texts import held_out_texts, read_texts
from valuesoup.store import Progress
from valuesoup.store.artifacts import lock_run
from valuesoup.store.files import disk_errors


def check(
    run: str | Path | Finished,
    texts: Sequence[str | Path] = (),
    command: str | None = None,
    *,
    methods: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    split: str = "test",
    limit: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure what alignment cost the base model; what was measured before is not measured again.

    Perplexity on held-out text is measured in one pass over all policies: each row of a batch has a policy's weights,
    the base zeros. A command is run on the merged model of each policy, one after the other.

    Args:
        run: A finished run, or its folder.
        texts: Files, folders or hub ids, see `read_texts`. None and no command: the dialogues that a base pretrained
            in the run has not seen.
        command: With ``{model}`` and ``{out}``, folders; see `read_command` and `read_outputs`.
        methods: Methods, or ids of candidates; by default every method, by its most balanced frontier candidate.
        weights: Takes each method's candidate with these weights instead.
        split: Of texts that are folders or hub data sets.
        limit: Most documents of each text.
        progress: Where to show what goes on.

    Returns:
        As `checked_run`, of what was asked here; ``left_out`` names the methods without a candidate to check, with
        the reason.

    Raises:
        UserError: A name, a text or the command is wrong, or another process holds the run folder.
        RunError: The command or the disk fails; what was measured stays.
    """
    progress = progress or Progress()
    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}; take at least one document.")
    parts = None if command is None else read_command(command)
    finished = run if isinstance(run, Finished) else _open(run)
    subjects, left_out = subjects_of(finished, methods, weights or {})
    given = [read_texts(source, split, limit) for source in texts]
    if not texts and command is None:
        given = [held_out_texts(finished, limit)]
    with lock_run(finished.folder), disk_errors(f"checking {finished.folder}", finished.folder):
        content = read_kept(finished)
        asked: Content = {**content, "texts": [], "commands": []}
        for one in given:
            asked["texts"].append(measure(finished, content, one, subjects, progress))
        if command is not None and parts is not None:
            asked["commands"].append(_command(finished, content, command, parts, subjects, progress))
    return {**shown(asked, {one.policy.id: one.key for one in subjects}), "left_out": left_out}


def _open(folder: str | Path) -> Finished:
    if seeds := seed_folders(folder):
        raise UserError(f"{folder} is the folder of a study; check its runs one by one, such as {seeds[0]}.")
    return open_run(folder)


def _command(
    finished: Finished,
    content: Content,
    text: str,
    parts: Sequence[str],
    subjects: Sequence[Subject],
    progress: Progress,
) -> dict[str, Any]:
    """Run a command on the policies that it was not run on yet, and return its entry."""
    entry = next((one for one in content["commands"] if one["command"] == text), None)
    if entry is None:
        entry = {"command": text, "policies": [], "metrics": {}}
        content["commands"].append(entry)
    take_subjects(entry, subjects)
    todo = {one.key: one for one in subjects if one.key not in entry["metrics"]}
    with progress.task(f"running {parts[0]}", len(todo), "models") as task:
        for key, subject in todo.items():
            entry["metrics"][key] = {
                name: metric._asdict() for name, metric in run_command(parts, finished, subject).items()
            }
            write_kept(finished, content)
            task.advance()
    write_kept(finished, content)
    return entry
