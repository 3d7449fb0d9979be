"""The address of the repository: one place, and everything that follows from it.

python book/tools/repository.py set URL    write another address in every file that uses it
python book/tools/repository.py check      find addresses that do not follow from the one place

The one place is `Repository` under `[project.urls]` in pyproject.toml.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "kdlearn"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
GITHUB = re.compile(rf"(?:github\.com[/:]|colab\.research\.google\.com/github/)({NAME})/({NAME})")
PAGES = re.compile(rf"({NAME})\.github\.io/({NAME})")


@dataclass(frozen=True)
class Address:
    """Owner and name of a repository on GitHub."""

    owner: str
    name: str

    @property
    def url(self) -> str:
        """The repository itself."""
        return f"https://github.com/{self.owner}/{self.name}"

    @property
    def pages(self) -> str:
        """The site that GitHub Pages makes of it."""
        return f"https://{self.owner}.github.io/{self.name}/"

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read `https://github.com/OWNER/NAME`."""
        match = re.fullmatch(rf"https://github\.com/({NAME})/({NAME}?)(?:\.git)?/?", url)
        if match is None:
            raise ValueError(f"{url!r} is no address of the form https://github.com/OWNER/REPO")
        return cls(match[1], match[2].removesuffix(".git"))


def read_address(root: Path = ROOT) -> Address:
    """Return the address in the one place."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r'^Repository = "(.+)"$', text, re.MULTILINE)
    if match is None:
        raise ValueError('pyproject.toml has no line Repository = "https://github.com/OWNER/REPO"')
    return Address.parse(match[1])


def text_files(root: Path) -> list[Path]:
    """Return the files of the repository that hold text, new ones included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    files = []
    for name in sorted(set(listed.stdout.split("\0")) - {""}):
        path = root / name
        if path.is_file() and b"\0" not in path.read_bytes()[:4096]:
            files.append(path)
    return files


def rename(text: str, old: Address, new: Address) -> str:
    """Replace every use of an address in a text."""

    def replaced(match: re.Match[str]) -> str:
        name = match[2].removesuffix(".git").rstrip(".")
        if (match[1], name) != (old.owner, old.name):
            return match[0]
        start, rest = match[0][: match.start(1) - match.start()], match[2][len(name) :]
        middle = match[0][match.end(1) - match.start() : match.start(2) - match.start()]
        return f"{start}{new.owner}{middle}{new.name}{rest}"

    return PAGES.sub(replaced, GITHUB.sub(replaced, text))


def strays(text: str, ours: Address) -> list[str]:
    """Return the addresses in a text that look like this repository's but are not."""
    found: list[str] = []
    if "github" not in text:  # the patterns take four seconds for all lines
        return found
    for pattern in (GITHUB, PAGES):
        for match in pattern.finditer(text):
            owner, name = match[1], match[2].removesuffix(".git").rstrip(".")
            placeholder = owner == "OWNER"
            alike = owner in (ours.owner, PACKAGE) or name in (ours.name, PACKAGE)
            colab = "colab.research" in match[0]
            if (owner, name) != (ours.owner, ours.name) and (alike or colab) and not placeholder:
                found.append(match[0])
    return found


def set_address(new: Address, root: Path = ROOT) -> list[Path]:
    """Write a new address everywhere and return the files that changed."""
    old = read_address(root)
    changed = []
    for path in text_files(root):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        renamed = rename(text, old, new)
        if renamed != text:
            path.write_text(renamed, encoding="utf-8")
            changed.append(path)
    return changed


def check(root: Path = ROOT) -> list[str]:
    """Return one line for every address that does not follow from the one place."""
    ours = read_address(root)
    faults = []
    for path in text_files(root):
        if path.name == "test_repository.py":  # plants wrong addresses on purpose
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            for stray in strays(line, ours):
                where = path.relative_to(root)
                faults.append(f"{where}:{number}: {stray}, but pyproject.toml says {ours.url}")
    return faults


def main(arguments: list[str]) -> int:
    """Run one of the two commands."""
    if arguments == ["check"]:
        faults = check()
        print("\n".join(faults) if faults else f"every address is {read_address().url}")
        return 1 if faults else 0
    if len(arguments) == 2 and arguments[0] == "set":
        try:
            new = Address.parse(arguments[1])
        except ValueError as error:
            print(error)
            return 2
        for path in set_address(new):
            print(path.relative_to(ROOT))
        print(f"the address is {read_address().url}")
        return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
