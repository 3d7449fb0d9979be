"""The built site behind a server, for the tests that open it."""

from collections.abc import Iterator

import pytest

from tests.book.built_site import Handler, served


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(Handler) as root:
        yield root
