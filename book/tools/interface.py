"""What the site itself says, in the language of this build: `_("Search")`.

English is the key, as in gettext. A build has one language, which `speak` sets when it begins.
"""

import json

ENGLISH = "en"
_texts: dict[str, str] = {}
_language = [ENGLISH]


def speak(language: str, texts: dict[str, str]) -> None:
    """Take language and translations of this build."""
    _language[:] = [language]
    _texts.clear()
    _texts.update(texts)


def english() -> bool:
    """Tell whether this build is the English one."""
    return _language == [ENGLISH]


def script() -> str:
    """Return the translations of this build as a script, for the scripts of a page."""
    table = json.dumps(_texts, ensure_ascii=False, separators=(",", ":"))
    return f"globalThis.kdlearnTexts = {table};\n"


def _(text: str, **values: object) -> str:
    """Return a text of the site in the language of this build, with its values filled in.

    Example:
        >>> _("About {n} minutes", n=3)
        'About 3 minutes'
    """
    text = _texts.get(text, text)
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text
