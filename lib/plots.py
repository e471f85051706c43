"""The house style of figures.

Dark on paper, except naked-eye plots of the token sky, which are black. Colours are Okabe and
Ito's, which stay apart for colour-blind readers; density maps are `inferno` unless told otherwise.
"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib import font_manager

from lib import figure_data, files, paths, show

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


def use_house_style(colormap: str = "inferno") -> None:
    """Set matplotlib's defaults for the running chapter, how its text shows numbers, and that the
    data of its figures are kept.
    """
    show.in_text()
    figure_data.in_kernel()
    for font in sorted((paths.DATA / "fonts").glob("*.[ot]tf")):
        font_manager.fontManager.addfont(files.checked(font))
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
