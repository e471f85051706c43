"""How a value is shown: one display for every number in the text, and what needs another form.

In a chapter's text `` `{python} count.holes` `` shows the value as `number` writes it, in both
editions: Quarto and the press ask the kernel's display, for which `in_text` registers. A text is
shown as it is, made safe for Markdown. Where a share, an exponent or a sign is meant, the form is
named: `` `{python} show.percent(share)` ``.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from IPython import get_ipython
from IPython.display import Markdown

from lib import foreign

NO_BREAK = "\u00a0"  # a space at which no line ends
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def in_text() -> None:
    """Let the running kernel show numbers as `number` does, and texts as they are."""
    kernel = get_ipython()
    if kernel is None:
        return
    formatter = kernel.display_formatter.formatters["text/markdown"]
    for kind in (int, float, np.integer, np.floating):
        formatter.for_type(kind, number)
    formatter.for_type(str, plain)
    formatter.for_type(bool, lambda x: "yes" if x else "no")


def number(x: float, digits: int = 3) -> str:
    """A number for prose: integers with thousands separators, floats with `digits` significant.

    Floats below a thousandth or from a million on are in scientific notation. Raises ValueError
    for NaN and infinity.
    """
    if isinstance(x, int) or (hasattr(x, "dtype") and x.dtype.kind in "iu"):
        return f"{int(x):,}".replace("-", "−")
    x = _finite(x)
    if x != 0 and not 1e-3 <= abs(x) < 1e6:
        return scientific(x, digits)
    places = digits if x == 0 else max(0, digits - 1 - math.floor(math.log10(abs(x))))
    return f"{x:,.{places}f}".replace("-", "−")


def fixed(x: float, places: int = 2) -> str:
    """A number with `places` decimals."""
    return f"{_finite(x):,.{places}f}".replace("-", "−")


def percent(share: float, places: int = 0) -> str:
    """A share of one in per cent, with `places` decimals: 0.123 is 12 %."""
    return f"{fixed(100 * _finite(share), places)}{NO_BREAK}%"


def signed(x: float, places: int = 1) -> str:
    """A number with its sign and `places` decimals; what rounds to zero has no sign."""
    text = f"{_finite(x):+,.{places}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def spread(sample: Any, places: int = 1) -> str:
    """Mean and standard deviation of a (n,) array with `places` decimals, e.g. "12.8 ± 1.1"."""
    sample = np.asarray(sample)
    return f"{fixed(sample.mean(), places)} ± {fixed(sample.std(), places)}"


def scientific(x: float, digits: int = 2) -> str:
    """A number in scientific notation as plain text, e.g. 1.5 × 10⁻⁹.

    Plain Unicode on purpose: mathematics would not survive in a table's cell or an inline value.
    """
    mantissa, exponent = f"{_finite(x):.{digits - 1}e}".split("e")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return f"{mantissa}{NO_BREAK}×{NO_BREAK}{power}".replace("-", "−")


def power_of_two(x: float) -> str:
    """A power of two as one, e.g. "2⁻⁹". Raises ValueError otherwise."""
    mantissa, exponent = math.frexp(x)
    if mantissa != 0.5:
        raise ValueError(f"{x} is no power of two")
    return "2" + str(exponent - 1).translate(SUPERSCRIPTS)


def listed(items: Iterable[Any], digits: int = 3) -> str:
    """Values with commas between them, numbers as `number` writes them."""
    return ", ".join(item if isinstance(item, str) else number(item, digits) for item in items)


def plain(text: str) -> str:
    """A text as Markdown that shows just this text: nothing in it is markup."""
    return foreign.markdown(text)


def table(rows: Iterable[Sequence], headers: Sequence[str], align: str | None = None) -> Markdown:
    """A pipe table. `align` has one of l, r, c per column; by default numbers stand right."""
    rows = [[_cell(value) for value in row] for row in rows]
    if align is None:
        columns = zip(*rows, strict=True) if rows else [[] for _ in headers]
        align = "".join("r" if all(_is_number(v) for v in column) else "l" for column in columns)
    rule = {"l": ":---", "r": "---:", "c": ":---:"}
    lines = [
        "| " + " | ".join(headers) + " |",
        "|" + "|".join(rule[a] for a in align) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return Markdown("\n".join(lines))


def _cell(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, float, np.integer, np.floating)):
        return number(value)
    return re.sub(r"(?<!\\)\|", r"\\|", str(value)).replace("\n", " ")


def _is_number(text: str) -> bool:
    stripped = text.strip("−-+±≈~<>%" + NO_BREAK).replace(",", "").replace(" ", "")
    return stripped == "" or stripped[:1].isdigit()


def _finite(x: float) -> float:
    x = float(x)
    if not math.isfinite(x):
        raise ValueError(f"a figure in the text must be finite, got {x}")
    return x
