"""The stages of MORA, made once for the tests of mining, rewriting and selection; and a sweep by a server."""

from pathlib import Path

import pytest

from tiny_expansion import Chain
from tiny_sweep import Sweep
from valuesoup.store import Store


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="session")
def store(chain: Chain) -> Store:
    return Store(chain.folder / "artifacts")


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)
