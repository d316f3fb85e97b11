"""The plots of the model card, as SVG: reliability of the probability, calibration by tenth, misses of the intervals.

Drawn from the backtest's JSON values alone. The same values give the same bytes, for a bundle is named by its content: no
date, no version, fixed ids, text as text, placed by the font that comes with matplotlib. Blue and vermilion are told apart
by the colour-blind (Okabe & Ito 2008), filled and open marks by anyone, in grey too.

Matplotlib is imported while something is drawn: whoever only reads or serves does not load it.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.card_text import shown_targets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = "plots"
RELIABILITY, DECILES, COVERAGE = "reliability", "deciles", "coverage"
PANELS, COLUMNS = 6, 3  # of one file: targets, side by side
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#8c8c8c"
ASKED_MISS, BAND = 0.1, (0.08, 0.12)

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "model card",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "text.parse_math": False,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "legend.frameon": False,
}


def plot_paths(targets: Sequence[str]) -> dict[str, list[str]]:
    """Where each plot stands, relative to the card, by kind; six of the shown targets fit a file."""
    files = range(1, -(-len(targets) // PANELS) + 1)
    names = {kind: [kind if number == 1 else f"{kind}_{number}" for number in files] for kind in (DECILES, COVERAGE)}
    return {
        kind: [f"{FOLDER}/{name}.svg" for name in chosen]
        for kind, chosen in {RELIABILITY: [RELIABILITY], **names}.items()
    }


def draw_plots(performance: Mapping[str, Any], currency: str) -> dict[str, bytes]:
    """The files of all plots, by their path relative to the card."""
    targets = shown_targets(performance["deciles"])
    paths = plot_paths(targets)
    chunks = [targets[begin : begin + PANELS] for begin in range(0, len(targets), PANELS)]
    with _own_style():
        drawn = {paths[RELIABILITY][0]: _reliability(performance["probability"]["reliability"])}
        for path, chunk in zip(paths[DECILES], chunks, strict=True):
            drawn[path] = _deciles({name: performance["deciles"][name] for name in chunk}, currency)
        for path, chunk in zip(paths[COVERAGE], chunks, strict=True):
            drawn[path] = _coverage({name: performance["intervals"][name] for name in chunk})
    return drawn


@contextmanager
def _own_style() -> Iterator[None]:
    """Nothing of a matplotlibrc that a user may have; it is back afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def _reliability(tenths: Sequence[Mapping[str, Any]]) -> bytes:
    """Share that bought against mean predicted, with what chance allows, over how many customers stand where."""
    figure = _figure(4.6, 5.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    told, came = ([tenth[key] for tenth in tenths] for key in ("predicted", "bought"))
    rows = [tenth["customers"] for tenth in tenths]
    ends = [wilson_ends(share, n) for share, n in zip(came, rows, strict=True)]
    errors = [
        [max(share - low, 0.0) for share, (low, _) in zip(came, ends, strict=True)],
        [max(high - share, 0.0) for share, (_, high) in zip(came, ends, strict=True)],
    ]
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="as it should be")
    upper.errorbar(told, came, yerr=errors, fmt="o", color=BLUE, capsize=2, label="tenth of customers, 95 % interval")
    upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="share that bought within 30 days")
    upper.set_title("Reliability of the served purchase probability")
    upper.legend(loc="upper left")
    lower.bar(told, rows, width=0.012, color=BLUE)
    lower.set(xlabel="mean predicted probability", ylabel="customers", ylim=(0, 1.25 * max(rows)))
    figure.subplots_adjust(left=0.13, right=0.97, top=0.94, bottom=0.1, hspace=0.12)
    return _svg(figure, "Reliability of the served purchase probability")


def wilson_ends(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The ends of the score interval of a share of n (Wilson 1927); at 0 and at 1 it is not empty."""
    middle, spread = share + z**2 / (2 * n), z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return (middle - spread) / (1 + z**2 / n), (middle + spread) / (1 + z**2 / n)


def _deciles(tables: Mapping[str, Sequence[Mapping[str, Any]]], currency: str) -> bytes:
    """Mean predicted and mean actual spend by tenth of prediction, a panel per target."""

    def panel(axes: "Axes", tenths: Sequence[Mapping[str, Any]]) -> None:
        numbers = range(1, len(tenths) + 1)
        axes.plot(
            numbers, [each["predicted"] for each in tenths], "-o", color=BLUE, clip_on=False, label="mean predicted"
        )
        actual = [each["actual"] for each in tenths]
        axes.plot(numbers, actual, "--s", color=VERMILION, markerfacecolor="white", clip_on=False, label="mean actual")
        axes.set_yscale("function", functions=(_root, np.square))  # or the lower tenths could not be told from 0
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if axes.get_ylim()[1] > 5 else f"{value:g}")
        axes.set_ylim(0, 1.05 * max(*(each[key] for each in tenths for key in ("predicted", "actual")), 1e-6))

    unit = f"spend in 30 days ({currency})"
    return _panels(tables, panel, unit, "Mean predicted and mean actual spend, square-root scale")


def _root(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """0 below 0, where nothing is drawn."""
    root: npt.NDArray[np.float64] = np.sqrt(np.maximum(values, 0.0))
    return root


def _coverage(intervals: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Share of customers below and above their 80 % interval by tenth of prediction, a panel per target."""

    def panel(axes: "Axes", interval: Mapping[str, Any]) -> None:
        above, below = (interval[f"{side}_by_decile"] for side in ("above", "below"))
        numbers = range(1, len(above) + 1)
        axes.axhspan(*(100 * edge for edge in BAND), color="#ececec", zorder=0)
        axes.axhline(100 * ASKED_MISS, color=GREY, linewidth=0.8)
        axes.plot(numbers, [100 * share for share in above], "-^", color=VERMILION, label="above the interval")
        under = [100 * share for share in below]
        axes.plot(numbers, under, "--v", color=BLUE, markerfacecolor="white", label="below the interval")
        axes.set_ylim(-0.5, max(16.0, 110 * max(*above, *below)))

    return _panels(
        intervals, panel, "customers (%)", "Customers outside of their 80 % interval (10 % on each side is asked for)"
    )


def _panels(contents: Mapping[str, Any], draw: Callable[["Axes", Any], None], unit: str, title: str) -> bytes:
    """One panel per target, the unit on the left, tenths of prediction below."""
    columns = min(COLUMNS, len(contents))
    lines = -(-len(contents) // columns)
    height = 2.2 * lines + 0.9
    figure = _figure(2.7 * columns + 0.3 if columns > 1 else 4.6, height)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for number, (axes, (name, content)) in enumerate(zip(grid, contents.items(), strict=False)):
        draw(axes, content)
        axes.set(title=name, xticks=(1, 4, 7, 10), xlim=(0.5, 10.5))
        axes.locator_params(axis="y", nbins=5)
        axes.set_ylabel(unit if number % columns == 0 else "")
        axes.set_xlabel("tenth of prediction, lowest first" if number + columns >= len(contents) else "")
    for axes in grid[len(contents) :]:
        axes.remove()
    figure.suptitle(title, y=1 - 0.1 / height, va="top", fontsize=9)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1 - 0.24 / height))
    figure.subplots_adjust(
        left=0.68 / figure.get_figwidth(),
        right=0.98,
        top=1 - 0.75 / height,
        bottom=0.45 / height,
        hspace=0.42,
        wspace=0.3,
    )
    return _svg(figure, title)


def _figure(width: float, height: float) -> "Figure":
    """Of so many inches, without pyplot, which would remember it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def _svg(figure: "Figure", title: str) -> bytes:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = io.BytesIO()
    said = {"Title": title, "Date": None, "Creator": None}
    FigureCanvasSVG(figure).print_svg(stream, metadata=said)
    return stream.getvalue()
