"""A small configuration, how a test reads it, and the sentence that a mistake in it gets."""

import pytest

from valuesoup.config import RunConfig
from valuesoup.configfile import parse_config
from valuesoup.errors import UserError

GOOD = """\
title: a run
values:
  kind: {data: kind.jsonl, reward: {function: "m:kind"}}
  wise:
    data:
      - path: wise.parquet
        limit: 100
      - {function: "m:rows", arguments: {size: 3}}
    reward:
      model: some/classifier
      sign: -1
base:
  model: some/base
training:
  rank: 8
"""


def parse(text: str = GOOD, *overrides: str) -> RunConfig:
    return parse_config(text, "run.yaml", overrides)


def complaint(text: str = GOOD, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(text, *overrides)
    return str(caught.value)
