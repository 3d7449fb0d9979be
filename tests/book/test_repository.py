import subprocess
from pathlib import Path

import pytest
import repository


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('Repository = "https://github.com/ann/books"\n')
    colab = "https://colab.research.google.com/github/ann/books/blob/main/a.ipynb"
    (tmp_path / "a.md").write_text(
        f"{colab}\nhttps://ann.github.io/books/\nhttps://github.com/x/y\n"
    )
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_a_new_address_reaches_every_use_and_nothing_else(checkout: Path) -> None:
    new = repository.Address.parse("https://github.com/bob/shelf")
    changed = repository.set_address(new, checkout)
    assert {path.name for path in changed} == {"pyproject.toml", "a.md"}
    text = (checkout / "a.md").read_text()
    assert "github/bob/shelf/blob" in text and "bob.github.io/shelf/" in text
    assert "https://github.com/x/y" in text
    assert "ann" not in text
    assert repository.check(checkout) == []


def test_a_stray_address_is_found_with_its_line(checkout: Path) -> None:
    assert repository.check(checkout) == []
    colab = "https://colab.research.google.com/github/other/books/blob/main/a.ipynb"
    (checkout / "b.md").write_text(f"fine\n{colab}\n")
    (fault,) = repository.check(checkout)
    assert fault.startswith("b.md:2:") and "ann/books" in fault


@pytest.mark.parametrize(
    "url", ["bob/shelf", "http://github.com/bob/shelf", "https://github.com/bob"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="OWNER/REPO"):
        repository.Address.parse(url)
