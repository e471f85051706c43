"""The data behind a figure: what its axes show, as a table that a reader can take along.

`in_kernel` lets the running kernel put the table of every figure into the executed notebook,
beside the picture; `files_of` takes it out again. A row is one point, bar, cell or vertex:

    panel    the axes it stands in, from 1
    mark     line, points, bars, cells, outline or steps
    series   its label in the legend
    part     which line or outline, where a mark has several
    x, y     where it stands, in the units of the axes; z in a room; x2, y2 where a bar ends
    value    what its colour says

Lines before the table that begin with # say what the axes of each panel are. Text, arrows and what
stands nowhere in the data (a legend, a colour bar) are left out.
"""

import base64
import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from IPython import get_ipython
from IPython.core.formatters import BaseFormatter
from traitlets import ObjectName, Unicode

MIME = "application/vnd.book.figure-data"  # a gzipped CSV in base64
PLOTLY = "application/vnd.plotly.v1+json"
COLUMNS = ("x", "y", "z", "x2", "y2", "value")
DIGITS, FEWER = "{:.7g}", "{:.5g}"  # float32 has about seven; a mark of MANY points needs fewer
MANY = 10_000
LEVEL = 6  # of gzip: the highest takes longer and saves little
PACKED = 100_000  # bytes from which on a file is offered packed

Mark = tuple[str, str, Any, dict[str, np.ndarray]]  # mark, series, part, columns


class _Formatter(BaseFormatter):
    format_type = Unicode(MIME)
    print_method = ObjectName("_book_figure_data_")

    def lookup(self, obj: Any) -> Any:
        """How `obj` is written; not by registered type, as matplotlib's backend clears those."""
        kind = type(obj)
        if (kind.__module__, kind.__name__) != ("matplotlib.figure", "Figure"):
            raise KeyError(kind)
        return _packed


def in_kernel() -> None:
    """Let the running kernel keep the table of every matplotlib figure that it shows."""
    kernel = get_ipython()
    if kernel is None:
        return
    kernel.display_formatter.formatters[MIME] = _Formatter(parent=kernel.display_formatter)


def files_of(label: str, outputs: Iterable[Mapping[str, Any]]) -> dict[str, bytes]:
    """The files, by name, that offer the tables of a cell's figures: packed where they are large.

    `label` is the cell's, `outputs` its own in the form of a notebook.
    """
    tables = _packed_of(outputs)
    named = zip(_names(label, tables), tables, strict=True)
    return {n: table if n.endswith(".gz") else gzip.decompress(table) for n, table in named}


def names_of(label: str, outputs: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of the files that `files_of` makes."""
    return _names(label, _packed_of(outputs))


def _packed_of(outputs: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """The gzipped tables of a cell's figures: as the kernel packed them, not packed again."""
    found = []
    for data in (out.get("data", {}) for out in outputs):
        if MIME in data:
            found.append(base64.b64decode("".join(data[MIME])))
        elif PLOTLY in data:
            found.append(gzip.compress(of_plotly(data[PLOTLY]), LEVEL, mtime=0))
    return found


def _names(label: str, tables: Sequence[bytes]) -> list[str]:
    numbers = [f"-{number}" for number in range(1, len(tables) + 1)] if len(tables) > 1 else [""]
    sizes = [int.from_bytes(table[-4:], "little") for table in tables]  # as gzip writes them
    ends = (".csv" if size < PACKED else ".csv.gz" for size in sizes)
    return [f"{label}{number}{end}" for number, end in zip(numbers, ends, strict=False)]


def links(names: Iterable[str], folder: str) -> str:
    """Markdown that offers files of tables lying in `folder`, on pages alone."""
    offered = " ".join(f'[Data]({folder}/{name}){{.data download="{name}"}}' for name in names)
    return f'[{offered}]{{.content-visible when-format="html"}}' if offered else ""


def _packed(figure: Any) -> str | None:
    """None where the table cannot be made: a page is not to fail for it, a test sees it missing."""
    try:
        table = of_matplotlib(figure)
    except Exception:
        return None
    return base64.b64encode(gzip.compress(table, LEVEL, mtime=0)).decode()


def of_matplotlib(figure: Any) -> bytes:
    """The table of a matplotlib figure as CSV (UTF-8)."""
    shown = [ax for ax in figure.axes if ax.get_label() != "<colorbar>" and ax.get_visible()]
    about = [f"# panel {i}: {_axes(ax)}" for i, ax in enumerate(shown, 1)]
    marks = [(i, *mark) for i, ax in enumerate(shown, 1) for mark in _marks(ax)]
    return _csv(about, marks)


def of_plotly(figure: Mapping[str, Any]) -> bytes:
    """The table of a plotly figure's JSON as CSV (UTF-8): its traces' coordinates."""
    marks = []
    for trace in figure.get("data", []):
        columns = {name: _decoded(trace[name]) for name in "xyz" if trace.get(name) is not None}
        value = (trace.get("marker") or {}).get("color")
        if isinstance(value, (list, dict)):
            columns["value"] = _decoded(value)
        marks.append((1, "points", trace.get("name") or "", "", columns))
    return _csv(["# panel 1"], marks)


def _decoded(values: Any) -> np.ndarray:
    if isinstance(values, Mapping):
        return np.frombuffer(base64.b64decode(values["bdata"]), np.dtype(values["dtype"]))
    return np.asarray(values, float)


def _plain(values: Any) -> np.ndarray:
    """Numbers as float64, NaN where they are masked."""
    return np.ma.asarray(values).astype(float).filled(np.nan)


def _axes(ax: Any) -> str:
    """Title, axes and the names on them."""
    said = [ax.get_title(loc) for loc in ("left", "center", "right")]
    said = [title for title in said if title]
    for name in ("x", "y"):
        label, scale = getattr(ax, f"get_{name}label")(), getattr(ax, f"get_{name}scale")()
        said.append(f"{name} = {label or 'without a name'}" + f" ({scale})" * (scale != "linear"))
        axis = getattr(ax, f"{name}axis")
        if type(axis.get_major_formatter()).__name__ in ("FixedFormatter", "StrCategoryFormatter"):
            names = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
            said.append(", ".join(f"{at:g} is {text.get_text()}" for at, text in names))
    return " ".join("; ".join(said).split())


def _marks(ax: Any) -> Iterator[Mark]:
    """All marks of the axes that stand in its data."""
    for line in ax.lines:
        yield from _line(ax, line)
    for collection in ax.collections:
        yield from _collection(ax, collection)
    bars = {id(bar): box.get_label() for box in ax.containers for bar in box if _is_bar(bar)}
    groups: dict[tuple, list] = {}
    for patch in ax.patches:
        if _is_bar(patch):
            in_data = patch.get_transform().contains_branch_seperately(ax.transData)
            key = bars.get(id(patch), patch.get_label()), *in_data
            groups.setdefault(key, []).append(patch)
        else:
            yield from _patch(patch)
    for (label, *in_data), patches in groups.items():
        yield "bars", label, "", _boxes(patches, *in_data)
    for image in ax.images:
        yield from _image(image)


def _line(ax: Any, line: Any) -> Iterator[Mark]:
    """A curve; of a line across the whole panel, only where it stands."""
    kind = "line" if line.get_linestyle() not in ("None", "none", "", " ") else "points"
    if hasattr(line, "get_data_3d"):
        yield kind, line.get_label(), "", dict(zip("xyz", line.get_data_3d(), strict=True))
        return
    in_data = line.get_transform().contains_branch_seperately(ax.transData)
    if any(in_data):
        values = zip("xy", line.get_data(orig=False), in_data, strict=True)
        columns = {name: _plain(value) for name, value, is_data in values if is_data}
        if not all(in_data):
            columns = {name: value[:1] for name, value in columns.items()}
        yield kind, line.get_label(), "", columns


def _collection(ax: Any, found: Any) -> Iterator[Mark]:
    """Points, cells of a mesh, or the lines and outlines of a collection."""
    label, value = found.get_label(), found.get_array()
    value = None if value is None else _plain(value).ravel()
    if hasattr(found, "get_coordinates"):
        corners = found.get_coordinates()
        centres = ((corners[:-1, :-1] + corners[1:, 1:]) / 2).reshape(-1, 2)
        columns = dict(zip("xy", centres.T, strict=True))
        if value is not None and len(value) == len(centres):  # not one of gouraud's corners
            columns["value"] = value
        yield "cells", label, "", columns
        return
    points = _plain(found.get_offsets())
    if type(found).__name__.startswith("Path") or len(points) > 1:  # scattered, or hexagons
        columns = dict(zip("xy", points.T, strict=True))
        if hasattr(found, "_offsets3d"):
            columns = dict(zip("xyz", map(np.asarray, found._offsets3d), strict=True))
        if value is not None and len(value) == len(points):
            columns["value"] = value
        yield "points", label, "", columns
        return
    if not any(found.get_transform().contains_branch_seperately(ax.transData)):
        return
    for part, path in enumerate(found.get_paths(), 1):
        columns = dict(zip("xy", path.vertices.T, strict=True))
        if value is not None and part <= len(value):
            columns["value"] = np.full(len(path.vertices), value[part - 1])
        yield "outline", label, part, columns


def _is_bar(patch: Any) -> bool:
    return hasattr(patch, "get_width") and hasattr(patch, "get_xy") and hasattr(patch, "get_y")


def _boxes(bars: list, x_in_data: bool, y_in_data: bool) -> dict[str, np.ndarray]:
    """Both corners of bars; of a band across the whole panel, only where it begins and ends."""
    x, y = np.array([bar.get_xy() for bar in bars], float).T
    width = np.array([bar.get_width() for bar in bars], float)
    height = np.array([bar.get_height() for bar in bars], float)
    columns = {"x": x, "x2": x + width} if x_in_data else {}
    return columns | ({"y": y, "y2": y + height} if y_in_data else {})


def _patch(patch: Any) -> Iterator[Mark]:
    """Steps of a histogram, or an outline."""
    if hasattr(patch, "get_data"):
        values, edges, _ = patch.get_data()
        columns = {"x": edges[:-1], "x2": edges[1:], "y": np.asarray(values, float)}
        yield "steps", patch.get_label(), "", columns
    elif type(patch).__name__ == "Polygon":
        yield "outline", patch.get_label(), "", dict(zip("xy", patch.get_xy().T, strict=True))


def _image(image: Any) -> Iterator[Mark]:
    """The cells of a map of numbers, each at its centre; a picture in colours has none."""
    values = _plain(image.get_array())
    if values.ndim == 2:
        left, right, bottom, top = image.get_extent()
        rows, columns = values.shape
        if image.origin == "upper":  # the first row stands at the top
            bottom, top = top, bottom
        x = left + (np.arange(columns) + 0.5) * (right - left) / columns
        y = bottom + (np.arange(rows) + 0.5) * (top - bottom) / rows
        grid = np.meshgrid(x, y)
        yield "cells", "", "", {"x": grid[0].ravel(), "y": grid[1].ravel(), "value": values.ravel()}


def _csv(about: list[str], marks: list[tuple]) -> bytes:
    """Comment lines, a header of the columns that are used, and the rows."""
    used = [name for name in COLUMNS if any(name in columns for *_, columns in marks)]
    lines = [*about, ",".join(["panel", "mark", "series", "part", *used])]
    for panel, mark, series, part, columns in marks:
        series = "" if str(series).startswith("_") else str(series)
        head = f"{panel},{mark},{_quoted(series)},{part},"
        count = max(map(len, columns.values()), default=0)
        cells = [_numbers(columns[n]) if n in columns else [""] * count for n in used]
        lines += (head + ",".join(row) for row in zip(*cells, strict=True))
    return ("\n".join(lines) + "\n").encode()


def _numbers(values: np.ndarray) -> list[str]:
    values = np.asarray(values, float)
    whole = len(values) <= MANY or np.array_equal(values, np.rint(values))  # ids keep all digits
    texts = map((DIGITS if whole else FEWER).format, values.tolist())
    return ["" if text == "nan" else text for text in texts]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n#') else text
