"""Figure of win rates: wins, ties and losses of each policy against each baseline, per value (VC-soup, Fig. 4)."""

from dataclasses import replace

import altair as alt

from valuesoup.report.figures.base import Figure, Row, Table, bounded, extra, panels, source
from valuesoup.report.judge_text import remarks, share_text
from valuesoup.report.look import QUADRANTS
from valuesoup.report.model import ReportData

OUTCOMES = ("win", "tie", "loss")
_COUNTS = {"win": "wins", "tie": "ties", "loss": "losses"}
_ROW = 46  # pixels of one comparison
_ROOM = 0.12  # least share that is written into its bar


def _winrates(data: ReportData) -> Table:
    """One row per value, comparison and outcome that occurs; ``start`` and ``end`` are shares of the judged pairs."""
    rows: list[Row] = []
    for row in data.judged.get("comparisons") or ():
        pairs = sum(row[name] for name in _COUNTS.values())
        start = 0
        for outcome in OUTCOMES:
            count = row[_COUNTS[outcome]]
            if count:
                bar: Row = {"dataset": row["value"], "method": row["policy_title"], "baseline": row["baseline_title"]}
                bar |= {"label": f"{row['policy_title']}\nvs {row['baseline_title']}", "outcome": outcome}
                bar |= {"pairs": count, "share": count / pairs, "start": start / pairs, "end": (start + count) / pairs}
                bar |= {"rate": row["win_rate"] and row["win_rate"]["value"]}
                bar |= {"low": row["win_rate"] and row["win_rate"]["low"]}
                bar |= {"high": row["win_rate"] and row["win_rate"]["high"]}
                orders = row["orders_agreement"]
                rewards = row["reward_agreement"]
                bar |= {"orders": orders and orders["value"], "rewards": rewards and rewards["value"]}
                bar |= {"left_out": row["invalid"] + row["unanswered"]}
                rows.append(bar)
            start += count
    headings = {"dataset": "value", "rate": "win rate", "orders": "orders agree", "rewards": "rewards agree"}
    return Table(rows, {**headings, "left_out": "pairs left out"})


def _panel(table: Table, value: str) -> alt.LayerChart:
    own = [row for row in table.rows if row["dataset"] == value]
    names = list(dict.fromkeys(str(row["label"]) for row in own))
    chart = source(table, value)
    axis = alt.Axis(
        labelExpr=r"split(datum.label, '\n')", labelLimit=190, labelOffset=-7, labelPadding=8, ticks=False, domain=False
    )
    y = alt.Y("label:N", title=None, sort=names, axis=axis)
    x = alt.X(
        "start:Q",
        title="share of the judged pairs",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1]),
    )
    colours = alt.Scale(domain=list(OUTCOMES), range=list(QUADRANTS.values()))
    bars = chart.mark_bar(height=26, opacity=0.8).encode(
        x=x,
        x2="end:Q",
        y=y,
        color=alt.Color("outcome:N", scale=colours, title=None),
        tooltip=[
            *(alt.Tooltip(f"{name}:N") for name in ("method", "baseline", "outcome")),
            alt.Tooltip("pairs:Q"),
            alt.Tooltip("share:Q", format=".1%"),
            alt.Tooltip("rate:Q", title="win rate, ties half", format=".1%"),
            *(alt.Tooltip(f"{end}:Q", format=".1%") for end in ("low", "high")),
            alt.Tooltip("orders:Q", title="orders agree", format=".1%"),
            alt.Tooltip("rewards:Q", title="rewards agree", format=".1%"),
            alt.Tooltip("left_out:Q", title="pairs left out"),
        ],
    )
    layers = [bars, extra([{"half": 0.5}]).mark_rule(strokeDash=[4, 4], opacity=0.7).encode(x="half:Q")]
    for outcome, end, align, inward in (("win", "start", "left", 6), ("loss", "end", "right", -6)):
        wide = chart.transform_filter(f"datum.outcome === '{outcome}' && datum.share >= {_ROOM}")
        text = alt.Text("share:Q", format=".0%")
        layers.append(wide.mark_text(align=align, dx=inward, fontSize=11).encode(x=f"{end}:Q", y=y, text=text))
    rates = list({str(row["label"]): {**row} for row in own if row["rate"] is not None}.values())
    marks = extra([{key: row[key] for key in ("label", "rate", "low", "high")} for row in rates])
    known = bounded(marks)
    layers.append(known.mark_rule(strokeWidth=2.5).encode(x="low:Q", x2="high:Q", y=y))
    # A text, because texts have the colour of ink on a light and on a dark page.
    layers.append(marks.mark_text(text="●", fontSize=15, dy=-1).encode(x="rate:Q", y=y))
    return alt.layer(*layers).properties(title=value, width=300, height=_ROW * len(names))


def _chart(data: ReportData, table: Table) -> alt.TopLevelMixin:
    return panels([_panel(table, value) for value in dict.fromkeys(str(row["dataset"]) for row in table.rows)])


def _caption(data: ReportData, table: Table) -> str:
    judged = data.judged
    seeds = len(judged.get("seeds") or ())
    level = f"{100 * judged['level']:.0f}%"
    interval = f"its {level} Wilson interval"
    if seeds:
        interval = f"its {level} Student interval over {seeds} seeds" if seeds > 1 else "no interval from one seed"
    text = (
        f"Whose answer is better under each value, as judged by {judged['judge']['model']} in both orders: the same "
        "winner twice is a win, anything else a tie, as are identical answers. "
        f"The point is the win rate, ties as half, with {interval}; the dashed line is a draw. "
    )
    for value, of in judged["judges"].items():
        if of["orders_agreement"]:
            text += f"Under {value} the judge says the same in both orders for {share_text(of['orders_agreement'])}"
            rewards = of["reward_agreement"]
            text += f", and agrees with the reward for {share_text(rewards)} of what it decides. " if rewards else ". "
    return " ".join([text.strip(), *remarks(judged)])


WINRATES = Figure("win-rates", "Wins, ties and losses", _winrates, _chart, _caption, "")


def winrate_section(data: ReportData) -> list[Figure]:
    """The figures of what a judge said; none where none was asked, a sentence where what was said is of no use."""
    return [replace(WINRATES, missing=data.judged.get("missing", ""))] if data.judged else []
