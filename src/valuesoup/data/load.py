"""The one call that opens, converts and checks preference data."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from valuesoup.data.checks import check
from valuesoup.data.formats import convert
from valuesoup.data.pairs import Pairs
from valuesoup.data.sources import open_source
from valuesoup.errors import UserError


def load_pairs(
    source: str | Path | Iterable[Mapping[str, object]],
    *,
    data_dir: str | None = None,
    split: str = "train",
    value: str | None = None,
    limit: int | None = None,
    pairs_per_prompt: int = 1,
    seed: int = 0,
    arguments: Mapping[str, object] | None = None,
) -> Pairs:
    """Load preference pairs from anywhere, checked; ``.dropped`` says how many rows went, and why.

    Args:
        source: A local file (json, jsonl, either with .gz, csv, parquet), a folder of such files or made by
            ``datasets.save_to_disk``, a hub id ``owner/name``, a function ``module:function`` that yields
            rows, or the rows. The layouts recognised are listed in ``valuesoup.data.formats``.
        data_dir: Sub-folder of a folder or hub data set.
        split: Split of a folder or hub data set (of a folder of files: the word in their names; files that
            name no split are ``train``). A single file and rows have none, there it is not looked at.
        value: Which label (``better`` or ``safer`` of PKU-SafeRLHF) or attribute (``helpfulness``) says which
            answer was chosen, where rows carry several.
        limit: Read at most this many rows.
        pairs_per_prompt: Of several scored answers to a prompt make at most this many pairs, those with the
            largest difference first.
        seed: Decides between pairs of scored answers with the same difference.
        arguments: Keyword arguments of a function.

    Raises:
        UserError: The source, split, value or layout is unknown, or a row is malformed (file and row).
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit must be at least 1 row, got {limit}")
    return check(convert(open_source(source, data_dir, split, arguments, limit), value, pairs_per_prompt, seed))
