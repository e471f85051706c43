"""The house style of figures, and the small words every chapter needs to show a value.

Dark on paper, except naked-eye plots of the token sky, which are black. Colours are Okabe and
Ito's, which stay apart for colour-blind readers; density maps are `inferno` unless told otherwise.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from IPython.display import Markdown
from matplotlib import font_manager

from lib import paths

DPI = 200
PALETTE = {  # Okabe and Ito (2008): distinguishable with any common colour vision
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "yellow": "#F0E442",
    "ink": "#1b1b1b",
    "grey": "#8a8a8a",
}
DEAD, LIVE = PALETTE["vermillion"], PALETTE["blue"]  # the same two colours through the whole book
PAPER, SKY = "#fffdf8", "#000000"
NO_BREAK = "\u00a0"  # a space at which no line ends
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def use_house_style(colormap: str = "inferno") -> None:
    """Set matplotlib's defaults for the running chapter; call it in the chapter's first cell."""
    for font in sorted((paths.DATA / "fonts").glob("*.[ot]tf")):
        font_manager.fontManager.addfont(font)
    families = _scripts_fonts()
    mpl.rcParams.update(
        {
            "figure.dpi": DPI,
            "savefig.dpi": DPI,
            "figure.figsize": (7.0, 3.9),
            "figure.facecolor": PAPER,
            "savefig.facecolor": PAPER,
            "axes.facecolor": PAPER,
            "axes.edgecolor": "#444444",
            "axes.labelcolor": PALETTE["ink"],
            "axes.titlesize": 10.5,
            "axes.titlelocation": "left",
            "axes.labelsize": 9.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": mpl.cycler(color=list(PALETTE.values())[:6]),
            "axes.axisbelow": True,
            "axes.grid": True,
            "grid.color": "#ded9cf",
            "grid.linewidth": 0.6,
            "xtick.labelsize": 8.5,
            "ytick.labelsize": 8.5,
            "legend.frameon": False,
            "legend.fontsize": 8.5,
            "lines.linewidth": 1.5,
            "font.family": ["DejaVu Sans", *families],
            "image.cmap": colormap,
            "figure.constrained_layout.use": True,
        }
    )


def _scripts_fonts() -> list[str]:
    """Families of the fonts shipped with the book, for labels in Thai, Hebrew, Arabic and Han."""
    shipped = {p.resolve() for p in (paths.DATA / "fonts").glob("*.[ot]tf")}
    found = {f.name for f in font_manager.fontManager.ttflist if Path(f.fname) in shipped}
    return sorted(found)


def sky_axes(fig: plt.Figure, *spec: int, projection: str | None = None, **options) -> plt.Axes:
    """Axes for a naked-eye plot: black sky, light grid, light labels on a black figure."""
    fig.set_facecolor(SKY)
    ax = fig.add_subplot(*(spec or (1, 1, 1)), projection=projection, facecolor=SKY, **options)
    ax.grid(True, color="#ffffff", alpha=0.18, linewidth=0.5)
    ax.tick_params(colors="#bdbdbd")
    for part in (ax.xaxis.label, ax.yaxis.label, ax.title):
        part.set_color("#e6e6e6")
    for spine in ax.spines.values():
        spine.set_color("#777777")
    return ax


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


def _cell(value) -> str:
    text = fmt(value) if isinstance(value, float) else str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        text = fmt(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _is_number(text: str) -> bool:
    stripped = text.strip("−-+±≈~<>%").replace(",", "").replace(" ", "")
    return stripped == "" or stripped[:1].isdigit()


def fmt(x: float, digits: int = 3) -> str:
    """A number for prose: integers with thousands separators, floats with `digits` significant."""
    if isinstance(x, int) or (hasattr(x, "dtype") and x.dtype.kind in "iu"):
        return f"{int(x):,}".replace("-", "−")
    x = float(x)
    if not math.isfinite(x):
        raise ValueError(f"a figure in the text must be finite, got {x}")
    if x != 0 and not 1e-3 <= abs(x) < 1e6:
        return sci(x, digits)
    places = digits if x == 0 else max(0, digits - 1 - math.floor(math.log10(abs(x))))
    return f"{x:,.{places}f}".replace("-", "−")


def signed(x: float, places: int = 1) -> str:
    """A number with its sign and `places` decimals; what rounds to zero has no sign."""
    if not math.isfinite(float(x)):
        raise ValueError(f"a figure in the text must be finite, got {x}")
    text = f"{x:+.{places}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def sci(x: float, digits: int = 2) -> str:
    """A number in scientific notation as plain text, e.g. 1.5 × 10⁻⁹.

    Plain Unicode on purpose: Quarto escapes Markdown (and so mathematics) in inline text values.
    """
    x = float(x)
    if not math.isfinite(x):
        raise ValueError(f"a figure in the text must be finite, got {x}")
    mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return f"{mantissa}{NO_BREAK}×{NO_BREAK}{power}".replace("-", "−")
