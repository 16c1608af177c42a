"""A command of the user's, such as lm-eval, run on the base and on merged candidates, without a shell."""

import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from valuesoup.errors import RunError, UserError
from valuesoup.pipeline.run import Finished
from valuesoup.regression.outputs import Metric, read_outputs
from valuesoup.regression.subjects import Subject, open_subjects

MODEL, OUT = "{model}", "{out}"
SCRATCH = ".check"
"""In the run folder, while a command runs: the merged model, what the command writes, and what it prints."""
LINES, WIDTH = 3, 200
"""How much of a failed command's output is told: its last lines, and of each so many characters."""


def read_command(text: str) -> list[str]:
    """Split a command as a POSIX shell would; nothing in it is expanded or interpreted.

    Raises:
        UserError: A quotation is not closed, or a placeholder is missing.
    """
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--command {text}: {str(error).lower()}; close what is opened.") from None
    for slot, what in ((MODEL, "the folder of the model"), (OUT, "the folder for its results")):
        if not any(slot in part for part in parts):
            raise UserError(f"--command {text}: there is no {slot}; put it where {what} goes.")
    return parts


def run_command(parts: Sequence[str], finished: Finished, subject: Subject) -> dict[str, Metric]:
    """Write the whole model of a policy, run the command on it, and return what it measured.

    The model is removed afterwards, whatever happens.

    Raises:
        UserError: There is no such program.
        RunError: The command fails, or writes no metrics.
    """
    from valuesoup.shipping.merged import write_merged

    who = subject.policy.title
    with _scratch(finished.folder / SCRATCH) as scratch:
        model, out, printed = scratch / "model", scratch / "out", scratch / "output.txt"
        out.mkdir()
        # On the CPU, and gone before the command starts, which may need the whole device.
        soup, rows, names = open_subjects(finished, [subject], "cpu")
        write_merged(soup, dict(zip(names, rows[0].tolist(), strict=True)), model)
        del soup
        arguments = [part.replace(MODEL, str(model.resolve())).replace(OUT, str(out.resolve())) for part in parts]
        with printed.open("wb") as file:
            try:
                code = subprocess.run(
                    arguments, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False
                ).returncode
            except OSError as error:
                raise UserError(f"--command: '{parts[0]}' cannot be run: {error.strerror}; give its path.") from None
        if code:
            ended = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
            raise RunError(f"the command for {who} {ended}; {_last_lines(printed)}")
        return read_outputs(out, who)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _last_lines(printed: Path) -> str:
    lines = [line.strip() for line in printed.read_text(encoding="utf-8", errors="replace").splitlines()]
    last = [line[:WIDTH] for line in lines if line][-LINES:]
    return f"the end of its output: {' / '.join(last)}" if last else "it printed nothing."
