"""What CONTRIBUTING.md says of blocks holds: a block that is wrong is found, run or read."""

from pathlib import Path

import pytest

import pages

READ = "<!-- read, not run: a reason -->\n"


def done(text: str) -> None:
    for block in pages.blocks(text):
        pages.Session("a page", Path(), {"PATH": "/usr/bin:/bin"}).do(block)


@pytest.mark.parametrize(
    "text",
    [
        "```python\nimport valuesoup as vs\nvs.nothing\n```",
        f"{READ}```python\nvs.nothing(1)\n```",
        f"{READ}```python\nfrom valuesoup.errors import Nothing\n```",
        f"{READ}```python\ndef (\n```",
        "```sh\nfalse\ntrue\n```",
        "```console\n$ false\nwhat it prints\n```",
        f"{READ}```sh\nvaluesoup nothing\n```",
        f"{READ}```sh\nvaluesoup pick runs/demo --maximize helpful\n```",
        f"{READ}```sh\nOMP_NUM_THREADS=1 valuesoup run \\\n  a.yaml --nothing\n```",
        f"{READ}```sh\naccelerate launch -m valuesoup run a.yaml --nothing\n```",
        f"{READ}```sh\nvaluesoup run examples/stories.yaml --set training.rnak=2\n```",
        f"{READ}```sh\npip install 'valuesoup[nothing]'\n```",
        f"{READ}```sh\nmake nothing\n```",
        "```yaml\ntraining: {rnak: 2}\n```",
        "```yaml\n- {preset: vc-soop}\n```",
        "```yaml\nrnak: 2\n```",
        "```yaml\nrank: none\n```",
        "```json\n{'a': 1}\n```",
        "```toml\na = \n```",
        "```bash\ntrue\n```",
        "<!-- read, not run -->\n```sh\ntrue\n```",
        "<!-- read, not run: -->\n```sh\ntrue\n```",
    ],
)
def test_a_wrong_block_is_found(text: str) -> None:
    with pytest.raises(Exception, match=r"."):
        done(text)


@pytest.mark.parametrize(
    "text",
    [
        "```sh\ntrue\n```",
        "```console\n$ true\nfalse\n```",
        "```\nfalse ( [\n```",
        f"{READ}```sh\nserve --port 1 'over\nlines' | valuesoup\n```",
        f"{READ}\n```sh\nvaluesoup run mine.yaml --jobs 2  # a comment's quotation\n```",
        "* in a list\n\n  ```yaml\n  rank: 64\n  ```",
        "```yaml\nvalues:\n  brief: {reward: {train: {}}}\n```",
        '```json\n{"a": 1}\n{"a": 2}\n```',
    ],
)
def test_a_right_block_passes(text: str) -> None:
    done(text)


def test_a_mark_holds_for_the_next_block_alone() -> None:
    found = pages.blocks(f"{READ}```sh\na\n```\n\n```sh\nb\n```\n{READ}Text.\n```sh\nc\n```")
    assert [block.reason for block in found] == ["a reason", None, None]


@pytest.mark.parametrize("span", ["`valuesoup nothing`", "`valuesoup pick RUN --maximize x`", "`vs.nothing`"])
def test_a_wrong_command_in_the_running_text_is_found(span: str) -> None:
    with pytest.raises(AssertionError, match="there is no"):
        pages.read_inline(f"Call {span}.", "a page")
