"""A chapter's parameters: what each may be, and what is given for them.

A parameter is a line `name = literal  # meaning, unit` of the parameters cell. Its type is the
literal's. Its range stands in the comment, `# share of Thai, 0 to 1`; where it does not, a count
reaches from 1 to a hundred times the largest value that a scale gives it, any other number from 0
to a million, a seed from 0 to 4,294,967,295. What is given on a command line is read as the type
that is wanted: 010 and 1:30 are no numbers, and `no` is a text where a text is wanted.
"""

import io
import math
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from reprlib import Repr
from typing import Any

import yaml

from lib import scale

NUMBER = r"-?[0-9][0-9,]*(?:\.[0-9]+)?(?:e-?[0-9]+)?"
RANGE = re.compile(rf"(?:[,;:] |^)({NUMBER}) to ({NUMBER})(?=[,;:]|$)")
WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
REAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
SEEDS = 2**32 - 1  # the largest that NumPy's and torch's generators share
TIMES = 100  # a count may be so many times its largest value at any scale
REALS = 1e6  # the largest number that is no count
LONGEST = 4096  # characters of a text, or of what is given
ITEMS = 1000  # of a list
SHORT = Repr()  # of a value in a message: its beginning
SHORT.maxstring = SHORT.maxother = 60
SHORT.maxlevel = 2


class ParameterError(ValueError):
    """A parameter that the chapter does not have, of another type, or out of its range."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a chapter."""

    name: str
    literal: Any
    meaning: str  # its comment, with the unit
    least: float
    most: float

    @property
    def wanted(self) -> str:
        """What it may be, in words."""
        return self._wanted(self.literal)

    def _wanted(self, literal: Any) -> str:
        if isinstance(literal, bool):
            return "true or false"
        if isinstance(literal, (int, float)):
            kind = "an integer" if isinstance(literal, int) else "a number"
            return f"{kind} from {_plain(self.least)} to {_plain(self.most)}"
        if isinstance(literal, (list, tuple)):
            item = self._wanted(literal[0] if literal else "")
            return f"a list, each item {item}"
        if self.name == "colormap":
            return "the name of a colour map"
        return "a text" if isinstance(literal, str) else f"a {type(literal).__name__}"

    def read(self, text: str) -> Any:
        """The checked value that a text on a command line means. Raises ParameterError."""
        if len(text) > LONGEST:
            raise self.refused(text)
        return self.check(self._read(text, self.literal))

    def _read(self, text: Any, literal: Any) -> Any:
        """As `literal` is, where the text can be read so; else as it is, for `check` to refuse."""
        if isinstance(literal, (list, tuple)):
            if isinstance(text, str):
                try:  # every scalar a text: none is a number or a date that was not meant
                    text = yaml.load(text, Loader=yaml.BaseLoader)
                except (yaml.YAMLError, RecursionError):
                    return text
            item = literal[0] if literal else ""
            return [self._read(one, item) for one in text] if isinstance(text, list) else text
        if not isinstance(text, str):
            return text
        if isinstance(literal, bool):
            return {"true": True, "false": False}.get(text, text)
        if isinstance(literal, int):
            return int(text) if WHOLE.fullmatch(text) else text
        if isinstance(literal, float):
            return float(text) if REAL.fullmatch(text) else text
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
        return text[1:-1] if quoted else text

    def check(self, value: Any) -> Any:
        """The value, whole numbers as floats where these are wanted. Raises ParameterError."""
        if not self._fits(value, self.literal):
            raise self.refused(value)
        return _as(value, self.literal)

    def _fits(self, value: Any, literal: Any) -> bool:
        if isinstance(literal, (list, tuple)):
            item = literal[0] if literal else ""
            sized = isinstance(value, (list, tuple)) and bool(literal) <= len(value) <= ITEMS
            return sized and all(self._fits(one, item) for one in value)
        if type(value) is not type(literal) and (type(value), type(literal)) != (int, float):
            return False
        if isinstance(literal, str):
            return self._is_text(value)
        if isinstance(literal, (int, float)) and not isinstance(literal, bool):
            return self.least <= value <= self.most  # never of a NaN
        return True

    def _is_text(self, value: str) -> bool:
        if self.name == "colormap":
            from matplotlib import colormaps

            return value in colormaps
        needed = self.literal not in ("", [])  # an empty one says that there is none
        return value.isprintable() and needed <= len(value) <= LONGEST

    def refused(self, value: Any) -> ParameterError:
        """The error for a value that it cannot have."""
        meaning = f" ({self.meaning})" if self.meaning else ""
        return ParameterError(f"{self.name} must be {self.wanted}, not {_short(value)}{meaning}")


def of(code: str, where: Any, scales: Iterable[Mapping[str, Any]] = ()) -> dict[str, Parameter]:
    """The parameters of a parameters cell by name; `scales`: what each scale gives them.

    Raises scale.ScaleError where a line is no `name = literal`.
    """
    literals, scales, found = scale.parameter_literals(code, where), list(scales), {}
    comments = _comments(code)
    for name, literal in literals.items():
        comment = comments.get(name, "")
        stated = RANGE.search(comment)
        if stated:
            least, most = (float(text.replace(",", "")) for text in stated.groups())
            comment = comment[: stated.start()] + comment[stated.end() :]
        else:
            scaled = [given[name] for given in scales if name in given]
            least, most = _range(name, [*_numbers(literal), 1], [*_numbers(scaled)])
        found[name] = Parameter(name, literal, comment, least, most)
    return found


def _range(name: str, numbers: list[float], scaled: list[float]) -> tuple[float, float]:
    """Least and most of a parameter that has these numbers, and those at other scales."""
    if name == "seed":
        return 0, SEEDS
    if any(isinstance(number, float) for number in numbers):
        return min(0, *numbers), REALS
    return min(numbers), TIMES * max(numbers + scaled)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)):
        yield value


def _comments(code: str) -> dict[str, str]:
    """The comment after each `name = literal`, by name."""
    found, name = {}, ""
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.NAME and token.start[1] == 0:
            name = token.string
        elif token.type == tokenize.COMMENT and token.start[1] > 0:
            found[name] = token.string.lstrip("# ")
    return found


def _as(value: Any, literal: Any) -> Any:
    """Whole numbers as floats where floats are wanted."""
    if isinstance(literal, (list, tuple)):
        return [_as(item, literal[0] if literal else "") for item in value]
    return float(value) if isinstance(literal, float) else value


def _plain(number: float) -> str:
    """A limit of a range: 1,000,000, 0.5, 1e-09."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:g}"


def _short(value: Any) -> str:
    try:
        text = SHORT.repr(value)
        return text if len(text) <= 100 else f"{text[:98]} …"
    except ValueError:  # an integer of more digits than Python spells out
        return f"an integer of {int(math.log10(abs(value))) + 1:,} digits"
