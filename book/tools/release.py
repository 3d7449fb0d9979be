"""What a release consists of, and a try of it: `make release`, `make try`.

_build/release gets the wheel, the source, the site as a zip, the book as PDF and as EPUB, each in
both languages, and the deck of cards; `try` installs wheel and source, each alone in an empty
environment, and uses them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import kdlearn

ROOT = Path(__file__).resolve().parents[2]
SITE, PDF, EPUB, TARGET = (ROOT / "_build" / name for name in ("html", "pdf", "epub", "release"))
DECK = SITE / "book/interview/kdlearn.apkg"
# What a user does first: each must end well, in a folder of its own, without the repository.
USES = (
    ("--version",),
    ("recipes",),
    ("drill", "list"),
    ("experiment", "kl-estimators", "--seeds", "0", "--no-progress", "--output", "table.csv"),
)


def build() -> None:
    """Put everything into _build/release, anew."""
    shutil.rmtree(TARGET, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", TARGET], cwd=ROOT, check=True
    )
    name = TARGET / f"kdlearn-{kdlearn.__version__}"
    shutil.make_archive(f"{name}-site", "zip", SITE)
    for language in ("", "-zh"):
        shutil.copy(PDF / f"kdlearn{language}.pdf", f"{name}-book{language}.pdf")
        shutil.copy(EPUB / f"kdlearn{language}.epub", f"{name}-book{language}.epub")
    shutil.copy(DECK, f"{name}-cards.apkg")
    for file in sorted(TARGET.iterdir()):
        print(f"{file.stat().st_size / 1e6:8.1f} MB  {file.relative_to(ROOT)}")


def use(python: str, package: Path) -> None:
    """Install a file into an empty environment and use it there; what fails says so."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        bin = Path(folder) / "bin"
        pip: list[str | Path] = [
            bin / "python",
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
        ]
        index = os.environ.get("TORCH_INDEX")
        subprocess.run([*pip, "torch", *(["--index-url", index] if index else [])], check=True)
        subprocess.run([*pip, package], check=True)
        for words in USES:
            subprocess.run([bin / "kdlearn", *words], cwd=folder, check=True)
        subprocess.run([bin / "python", "-m", "pip", "check"], check=True)
    print(f"-- {package.name} holds with {python}", flush=True)


def main(words: list[str]) -> None:
    """`build`, or `try` and the Pythons to try with."""
    if words == ["build"]:
        build()
        return
    for python in words[1:]:
        for kind in ("*.whl", "*.tar.gz"):
            (package,) = TARGET.glob(kind)
            use(python, package)


if __name__ == "__main__":
    main(sys.argv[1:])
