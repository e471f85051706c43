"""Which script and Unicode block a piece of text belongs to."""

from functools import lru_cache

from fontTools import unicodedata as ucd

FRAGMENT = "Fragment"  # bytes that are no complete text
NEUTRAL = ("Zyyy", "Zinh", "Zzzz")  # common, inherited, unknown


def script(text: str) -> str:
    """Unicode script of a token: of its first character that is neither common nor inherited.

    Without such a character: "Fragment" if it has undecodable bytes (U+FFFD), else "Common".
    """
    for character in text:
        if (code := _code(character)) not in NEUTRAL:
            return ucd.script_name(code)
    return FRAGMENT if "\ufffd" in text else "Common"


@lru_cache(maxsize=1 << 16)
def _code(character: str) -> str:
    """ISO 15924 code of a character's script."""
    return ucd.script(character)


def block(text: str) -> str:
    """Unicode block of the token's first character that is not white space."""
    if "\ufffd" in text:
        return FRAGMENT
    return ucd.block((text.strip() or text or " ")[0])


def name(character: str) -> str:
    """Code point and Unicode name, e.g. "U+0E31 THAI CHARACTER MAI HAN-AKAT"."""
    return f"U+{ord(character):04X} {ucd.name(character, '')}".rstrip()
