"""A finished run that nothing has interrupted, and the commands that the others are made with."""

from collections.abc import Iterator

import pytest
from support.commands import Commands
from support.killed import Whole, uninterrupted


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    with Commands(tmp_path_factory.mktemp("commands")) as server:
        yield server


@pytest.fixture(scope="session")
def whole(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return uninterrupted(commands, tmp_path_factory.mktemp("whole"))
