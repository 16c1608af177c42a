"""What mkdocs does beyond the pages in docs/: the reference, and the files of the repository that pages link."""

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import site_reference
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
ALWAYS = ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "RELEASING.md")
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
LANGUAGES = {".yaml": "yaml", ".yml": "yaml", ".py": "python", ".toml": "toml", ".json": "json", ".sh": "sh"}

_pages: dict[str, str] = {}
"""Of the copied files of the repository: the path in the repository, by the page in the site."""


def on_files(files: Any, *, config: Any) -> Any:
    """Add the generated pages."""
    for name, text in site_reference.pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    _pages.clear()
    texts = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    waiting = [*ALWAYS, *(target for page, text in texts.items() for target, _ in _outside(page, text))]
    while waiting:
        target = waiting.pop()
        page = _page_of(target)
        if page not in _pages:
            _pages[page] = target
            text = _copied(target)
            waiting += [found for found, _ in _outside(_folder_file(target), text)]
            files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Let links to files of the repository lead to their pages."""
    here = page.file.src_uri
    origin = _folder_file(_pages[here]) if here in _pages else f"docs/{here}"
    targets = {written: target for target, written in _outside(origin, markdown)}

    def place(match: re.Match[str]) -> str:
        written = match[2]
        if written in targets:
            new = _page_of(targets[written])
        elif here in _pages and (found := _resolved(origin, written)) is not None:
            new = found.removeprefix("docs/")  # a page that is not copied
        else:
            return match[0]
        return f"{match[1]}{posixpath.relpath(new, posixpath.dirname(here) or '.')}{match[3]}"

    return _outside_of_code(markdown, lambda text: LINK.sub(place, text))


def _outside(origin: str, text: str) -> list[tuple[str, str]]:
    """Return what a text of the repository links outside docs/: paths in the repository, and as they are written."""
    found: list[tuple[str, str]] = []

    def note(text: str) -> str:
        for match in LINK.finditer(text):
            target = _resolved(origin, match[2])
            if target is not None and not target.startswith("docs/") and match[2] not in [one for _, one in found]:
                found.append((target, match[2]))
        return text

    _outside_of_code(text, note)
    return found


def _resolved(origin: str, written: str) -> str | None:
    """Return the path in the repository that a link means, None where there is none."""
    if re.match(r"[a-z]+:", written):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), written))
    return target if not target.startswith("..") and (ROOT / target).exists() else None


def _page_of(target: str) -> str:
    """Return the page of the site that shows a file or folder of the repository."""
    if (ROOT / target).is_dir():
        return f"project/{target}/index.md"
    return f"project/{target}" if target.endswith(".md") else f"project/{target}.md"


def _folder_file(target: str) -> str:
    """Return where links of a page count from: of a folder, from a file in it."""
    return f"{target}/README.md" if (ROOT / target).is_dir() else target


def _copied(target: str) -> str:
    """Return a file or folder of the repository as Markdown."""
    place = ROOT / target
    if place.is_dir():
        readme = place / "README.md"
        head = readme.read_text(encoding="utf-8") if readme.is_file() else f"# {target}\n"
        names = sorted(file.name for file in place.iterdir() if file.is_file() and file != readme)
        return head + "\n\n## Files\n\n" + "".join(f"* [{name}]({name})\n" for name in names)
    text = place.read_text(encoding="utf-8")
    if place.suffix == ".md":
        return text
    if place.suffix == ".ipynb":
        return f"{''.join(_notebook(json.loads(text)))}"
    return f"# {target}\n\n{_fence(text, LANGUAGES.get(place.suffix, ''))}"


def _notebook(content: Any) -> Iterator[str]:
    """Yield the cells of a notebook and what they printed."""
    for cell in content["cells"]:
        source = "".join(cell["source"])
        yield f"{source}\n\n" if cell["cell_type"] == "markdown" else _fence(source, "python")
        for output in cell.get("outputs", ()):
            printed = "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
            if printed:
                yield _fence(printed, "")


def _fence(text: str, language: str) -> str:
    return f"~~~~{language}\n{text.rstrip()}\n~~~~\n\n"


def _outside_of_code(markdown: str, change: Any) -> str:
    """Apply a change to a text but for its fenced blocks."""
    parts = re.split(r"(?ms)(^ *(?:```|~~~~).*?^ *(?:```|~~~~) *$)", markdown)
    return "".join(part if number % 2 else change(part) for number, part in enumerate(parts))
