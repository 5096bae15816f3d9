"""Figures hold the numbers of their table, read back from what is drawn; files are the same every time."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import lmms_ca_plugin.figures
from lmms_ca_plugin.errors import InputError
from lmms_ca_plugin.figures.chosen import chosen
from lmms_ca_plugin.figures.curve import curve
from lmms_ca_plugin.figures.differences import differences
from lmms_ca_plugin.figures.distances import distances
from lmms_ca_plugin.figures.save import save
from lmms_ca_plugin.figures.style import LINES, Caption

CAPTION = Caption("lab/toy", "95 % intervals, clustered by picture")
NOTHING = {"delta": np.nan, "delta_ci95_low": np.nan, "delta_ci95_high": np.nan, "p_value": np.nan, "p_holm": np.nan}


def tidy(tasks=("ca_gqa",), xs=(0, 1, 2), methods=("layermask",), seconds=True) -> pd.DataFrame:
    """A table as the studies write it; every number is another, so that none can stand for another."""
    rng, rows = np.random.default_rng(0), []
    for number, task in enumerate(tasks):
        common = {"study": "layermask", "task": task, "metric": "vqa_accuracy", "n": 100 + number}
        for variant, method, x in [("vanilla", "vanilla", None), *((f"{m}_{x}", m, x) for m in methods for x in xs)]:
            score, down, up, delta = rng.uniform(20, 80), *rng.uniform(1, 5, 2), rng.normal()
            interval = {"score": score, "ci95_low": score - down, "ci95_high": score + up}
            paired = {"delta": delta, "delta_ci95_low": delta - down, "delta_ci95_high": delta + up}
            tested = {"p_value": 0.001, "p_holm": 0.01 if len(rows) % 2 else 0.2}
            time = {"seconds_per_question": rng.uniform(0.1, 0.2) if seconds else None}
            named = {"variant": variant, "method": method, "x": x}
            rows.append(common | named | interval | (NOTHING if x is None else paired | tested) | time)
    return pd.DataFrame(rows)


def caption_of(figure: Figure) -> str:
    return figure.get_supxlabel().replace("\n", " ").replace("\u00a0", " ")


def by_label(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def named(axes, gid):
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


# ---- curve -----------------------------------------------------------------------------------------------------------
def test_a_curve_holds_scores_intervals_and_times():
    table = tidy(xs=(2, 0, 1))
    upper, lower = curve(table, CAPTION, x_label="masked block").axes
    vanilla, points = table.iloc[0], table.iloc[1:].sort_values("x")
    line = by_label(upper)["layermask"]
    assert line.get_xdata().tolist() == [0, 1, 2] and line.get_ydata().tolist() == points["score"].tolist()
    (bars,) = named(upper, "intervals")
    drawn = {segment[0][0]: sorted(segment[:, 1]) for segment in bars.get_segments()}
    assert drawn == {row.x: [row.ci95_low, row.ci95_high] for row in points.itertuples()}
    assert by_label(upper)["vanilla"].get_ydata() == [vanilla["score"]] * 2
    (band,) = named(upper, "vanilla interval")
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((vanilla.ci95_low, vanilla.ci95_high))
    level, times = lower.get_lines()
    assert level.get_ydata() == [vanilla["seconds_per_question"]] * 2
    assert times.get_ydata().tolist() == points["seconds_per_question"].tolist()
    assert lower.get_ylim()[0] == 0 and lower.get_ylim()[1] > table["seconds_per_question"].max()
    assert lower.get_xlabel() == "masked block"


def test_every_task_has_a_panel_and_every_method_a_line_of_its_own_shape():
    tasks = ("ca_gqa", "ca_okvqa", "ca_vizwiz", "ca_textvqa")
    table = tidy(tasks, xs=(0.0, 0.5), methods=("contrastive", "random"), seconds=False)
    figure = curve(table, CAPTION, x_label="masked share")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f"{task}, vqa_accuracy" for task in tasks]
    for axes, task in zip(figure.axes, tasks, strict=True):
        lines = by_label(axes)
        for method in ("contrastive", "random"):
            rows = table[(table["task"] == task) & (table["method"] == method)]
            assert lines[method].get_ydata().tolist() == rows["score"].tolist()
        shapes = {(lines[m].get_marker(), lines[m].get_linestyle()) for m in ("contrastive", "random")}
        assert len(shapes) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["vanilla", "contrastive", "random"]


def test_a_point_of_score_is_as_high_in_every_panel():
    table = tidy(("a", "b", "c"), seconds=False)
    table.loc[table["task"] == "b", ["score", "ci95_low", "ci95_high"]] /= 20
    spans = [np.ptp(axes.get_ylim()) for axes in curve(table, CAPTION, x_label="masked block").axes]
    assert spans == pytest.approx([spans[0]] * 3)


def test_blocks_are_shaded_in_every_panel_and_named_once():
    blocks = {"fusion": (0, 1), "post": (), "review": (2,)}
    figure = curve(tidy(("ca_gqa", "ca_vqav2"), seconds=False), CAPTION, x_label="masked block", blocks=blocks)
    for axes in figure.axes:
        for gid, left in {"fusion 0": -0.5, "fusion 1": 0.5, "review 2": 1.5}.items():
            (span,) = named(axes, gid)
            assert (span.get_x(), span.get_width()) == (left, 1)
    styles = {named(figure.axes[0], gid)[0].get_hatch() for gid in ("fusion 0", "review 2")}
    assert len(styles) == 2, "they differ in grey print, too"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["vanilla", "layermask", "fusion", "review"]


def test_labels_below_panels_lie_apart():
    """However long they are: none runs into its neighbour's, or over the page's edge."""
    for label in ("masked block", "block at whose input the image tokens are taken away, counted from 0"):
        figure = curve(tidy(("a", "b", "c"), xs=range(12)), CAPTION, x_label=label)
        figure.canvas.draw()
        below = [axes.xaxis.label.get_window_extent() for axes in figure.axes if axes.get_xlabel()]
        assert len(below) == 3 and all(one.x1 < other.x0 for one, other in pairwise(below))
        assert below[0].x0 >= 0 and below[-1].x1 <= figure.bbox.x1


def test_several_methods_stand_beside_one_another():
    """At a single x, too, which has no neighbour to be measured by."""
    for xs in ((0, 1, 2), (4,)):
        axes = curve(tidy(xs=xs, methods=("a", "b")), CAPTION, x_label="x").axes[0]
        a, b = (by_label(axes)[name].get_xdata() for name in "ab")
        assert a == pytest.approx(np.array(xs) - 0.1) and b == pytest.approx(np.array(xs) + 0.1)


def test_no_two_lines_look_alike_in_grey_or_in_colour():
    assert len({line.marker for line in LINES}) == len({line.colour for line in LINES}) == len(LINES)


def test_without_vanilla_or_intervals_nothing_is_made_up():
    table = tidy(seconds=False).iloc[1:].assign(ci95_low=np.nan, ci95_high=np.nan)
    (axes,) = curve(table, CAPTION, x_label="block").axes
    assert set(by_label(axes)) == {"layermask"} and not named(axes, "vanilla interval")
    assert named(axes, "intervals")[0].get_segments() == []


def test_the_caption_says_checkpoint_n_and_interval():
    assert caption_of(curve(tidy(), CAPTION, x_label="")) == (
        "lab/toy; n = 100; bars and band: 95 % intervals, clustered by picture"
    )
    two = curve(tidy(("a", "b")), CAPTION, x_label="")
    assert "n = 100 (a), 101 (b)" in caption_of(two)
    uneven = tidy().assign(n=[100, 100, 98, 1234])
    assert "n = 98 to 1,234;" in caption_of(curve(uneven, CAPTION, x_label=""))


# ---- differences -----------------------------------------------------------------------------------------------------
def test_differences_hold_every_interval_and_fill_what_is_significant():
    table = tidy(("ca_gqa", "ca_okvqa"), methods=("contrastive",))
    figure = differences(table, CAPTION)
    assert len(figure.axes) == 2
    for axes, (task, rows) in zip(figure.axes, table.groupby("task"), strict=True):
        rows = rows[rows["variant"] != "vanilla"]
        assert axes.get_title(loc="left") == f"{task}, vqa_accuracy"
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == rows["variant"].tolist()
        assert axes.get_yticks().tolist() == [0, 1, 2] and axes.get_ylim() == (2.5, -0.5)
        (bars,) = axes.collections
        drawn = [sorted(segment[:, 0]) for segment in bars.get_segments()]
        assert [segment[0][1] for segment in bars.get_segments()] == [0, 1, 2]
        assert drawn == rows[["delta_ci95_low", "delta_ci95_high"]].to_numpy().tolist()
        zero, *points = axes.get_lines()
        assert zero.get_xdata() == [0, 0]
        assert [point.get_xdata()[0] for point in points] == rows["delta"].tolist()
        filled = [point.get_fillstyle() == "full" for point in points]
        assert filled == (rows["p_holm"] < 0.05).tolist() and len(set(filled)) == 2
    assert caption_of(figure).endswith("clustered by picture; filled: Holm-adjusted p < 0.05")


def test_panels_share_a_scale_that_holds_every_interval():
    table = tidy(("a", "b", "c"))
    table.loc[table["task"] == "b", "delta_ci95_low"] = -60.0
    limits = [axes.get_xlim() for axes in differences(table, CAPTION).axes]
    assert len(set(limits)) == 1 and limits[0][0] < -60 and limits[0][1] > table["delta_ci95_high"].max()


def test_no_difference_looks_like_none():
    table = tidy().assign(delta=0.0, delta_ci95_low=0.0, delta_ci95_high=0.0)
    (axes,) = differences(table, CAPTION).axes
    assert axes.get_xlim() == (-1, 1)


# ---- distances, chosen -----------------------------------------------------------------------------------------------
def test_distances_draw_the_mean_between_the_quartiles():
    values = {0: [0.0, 0.2, 0.4, 0.6, 1.0], 1: [0.1, 0.1, 0.2, 0.3, 0.3]}
    rows = [("a", layer, d) for layer, ds in values.items() for d in ds] + [("b", 0, 0.5), ("b", 1, 0.0)]
    figure = distances(pd.DataFrame(rows, columns=["task", "layer", "distance"]), Caption("lab/toy"))
    first, second = figure.axes
    (line,) = first.get_lines()
    assert line.get_ydata().tolist() == pytest.approx([0.44, 0.2])
    corners = first.collections[0].get_paths()[0].vertices
    for layer, quartiles in ((0, (0.2, 0.6)), (1, (0.1, 0.3))):
        at = corners[corners[:, 0] == layer, 1]
        assert (at.min(), at.max()) == quartiles
    assert second.get_lines()[0].get_ydata().tolist() == [0.5, 0.0]
    assert caption_of(figure) == (
        "lab/toy; n = 5 (a), 1 (b); distances to block 1, the last; line: mean; band: first to third quartile"
    )


def test_distances_lie_inside_one_scale():
    """A later panel's, too."""
    rows = [(task, layer, far) for task, far in (("a", 0.1), ("b", 0.9)) for layer in (0, 1)]
    limits = [
        axes.get_ylim() for axes in distances(pd.DataFrame(rows, columns=["task", "layer", "distance"]), CAPTION).axes
    ]
    assert len(set(limits)) == 1 and limits[0][0] == 0 and limits[0][1] > 0.9


def test_chosen_writes_every_share_that_is_not_zero():
    shares = {("b", 2): 0.86, ("b", 4): 0.136, ("b", 8): 0.004, ("a", 2): 0.5, ("a", 4): 0.5}
    table = pd.DataFrame([(*key, share, 250) for key, share in shares.items()], columns=["task", "layer", "share", "n"])
    figure = chosen(table, Caption("lab/toy", "intervals that are not drawn"))
    axes = figure.axes[0]
    texts = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "86", (0, 1): "14", (0, 2): "<1", (1, 0): "50", (1, 1): "50"}
    assert axes.get_images()[0].get_array().tolist() == [[86, pytest.approx(13.6), pytest.approx(0.4)], [50, 50, 0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "4", "8"]
    assert caption_of(figure) == "lab/toy; n = 250 per task"
    dark = {text.get_text(): to_hex(text.get_color()) for text in axes.texts}
    assert dark["86"] == "#ffffff" and dark["14"] == "#000000"


# ---- what is refused -------------------------------------------------------------------------------------------------
DRAW = {
    "curve": lambda table: curve(table, CAPTION, x_label="block"),
    "differences": lambda table: differences(table, CAPTION),
    "distances": lambda table: distances(table, CAPTION),
    "chosen": lambda table: chosen(table, CAPTION),
}


@pytest.mark.parametrize("figure", DRAW)
def test_missing_columns_and_empty_tables_are_named(figure):
    with pytest.raises(InputError, match=rf"{figure}: the table lacks the columns .*task.*Needed: .*given: other\."):
        DRAW[figure](pd.DataFrame({"other": [1]}))
    everything = [*tidy().columns, "layer", "distance", "share"]
    with pytest.raises(InputError, match=f"{figure}: the table has no row"):
        DRAW[figure](pd.DataFrame(columns=everything))


def test_only_what_is_missing_is_named():
    with pytest.raises(InputError, match=r"lacks the columns ci95_low, n\. Needed"):
        curve(tidy().drop(columns=["n", "ci95_low"]), CAPTION, x_label="block")


@pytest.mark.parametrize(
    ("figure", "table", "message"),
    [
        ("curve", tidy().assign(score="high"), "the column score holds what is no number"),
        ("curve", tidy().assign(metric=list("abab")), "task ca_gqa has the metrics a, b. Keep the rows of one"),
        ("curve", tidy().iloc[:1], "no row of task ca_gqa has an x"),
        ("curve", tidy(xs=(0,), methods=tuple("abcdefg")), "7 methods are more than one can tell apart. Allowed: 6"),
        ("differences", tidy().iloc[:1], "no variant beside vanilla has a delta"),
        (
            "chosen",
            pd.DataFrame({"task": ["a"], "layer": [2], "share": [86.0], "n": [7]}),
            "of task a sum to 86",
        ),
        (
            "chosen",
            pd.DataFrame({"task": ["a", "a"], "layer": [2, 2], "share": [0.1, 0.1], "n": [7, 7]}),
            "a has layer 2 twice",
        ),
    ],
)
def test_tables_that_make_no_figure_are_refused(figure, table, message):
    with pytest.raises(InputError, match=message):
        DRAW[figure](table)


# ---- files -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def plain():
    figure = Figure(figsize=(2, 1))
    figure.text(0.1, 0.5, "cost: $5, 20 %")
    return figure


@pytest.mark.parametrize("name", ["a.png", "a.PDF", "a.svg"])
def test_the_same_figure_is_the_same_file(tmp_path, name):
    table = tidy()
    written = []
    for folder in ("one", "two"):
        save(curve(table, CAPTION, x_label="block"), tmp_path / folder / name)
        written.append((tmp_path / folder / name).read_bytes())
    assert written[0] == written[1]
    assert not re.search(rb"CreationDate|dc:date|date:create", written[0])
    assert [p.name for p in (tmp_path / "one").iterdir()] == [name]


def test_text_stays_text(tmp_path):
    save(curve(tidy(), CAPTION, x_label="masked block"), tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text()
    assert all(f">{text}<" in drawn for text in ("masked block", "ca_gqa, vqa_accuracy", "layermask"))
    save(curve(tidy(), CAPTION, x_label="masked block"), tmp_path / "a.pdf")
    assert b"/Type3" not in (tmp_path / "a.pdf").read_bytes()


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.csv"])
def test_an_unknown_ending_is_refused(tmp_path, plain, name):
    with pytest.raises(InputError, match=rf"'{re.escape(Path(name).suffix)}'. Allowed endings: .pdf, .png, .svg"):
        save(plain, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path, plain):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a.png cannot be written"):
        save(plain, tmp_path / "file" / "a.png")


def test_pyplot_is_not_used():
    for file in Path(lmms_ca_plugin.figures.__file__).parent.glob("*.py"):
        assert not re.search(r"import.*pyplot|pylab", file.read_text()), file.name
