"""The notebook of the examples runs as it stands, from pairs to an exported soup that plain transformers loads."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "examples" / "soup.ipynb"


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs if output.get("name") == "stdout")


def test_the_notebook_goes_from_pairs_to_a_chosen_and_exported_soup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    noise = [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]
    assert not noise, noise
    text = "\n".join(map(printed, cells))
    assert "model.safetensors" in text
    assert len(printed(cells[-1]).split()) > 3, "the exported model answers"
    (picture,) = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(picture["data"]["image/png"]) > 10_000
    stored = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    # What the reader sees in the file is what comes out: exactly, up to training, whose last digits are a machine's.
    assert [printed(cell) for cell in stored[:3]] == [printed(cell) for cell in cells[:3]]
