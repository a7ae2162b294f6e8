"""Papers over time: by behavior, by research community, with code."""

from __future__ import annotations

import plotly.graph_objects as go

from analysis.charts.chart import LEGEND, Chart, Row, Texts, layout
from analysis.charts.colors import INK, LINE, QUIET, color_of, dark_colors, grays, hatching
from analysis.selection import Selection
from analysis.timeline import months, years
from taxonomy.store.atlas import Atlas
from taxonomy.store.papers import Paper

HEIGHT = 400


def months_chart(atlas: Atlas, selection: Selection, language: str) -> Chart:
    """Draw papers by month, stacked by primary behavior."""
    texts, found = Texts("months", language), months(atlas, selection)
    figure = go.Figure()
    for index, behavior in enumerate(atlas.behaviors.values()):
        figure.add_bar(
            x=[f"{month.month}-01" for month in found],
            y=[month.by_behavior[behavior.code] for month in found],
            name=behavior.acronym,
            marker={"color": color_of(behavior), "pattern": hatching(index), "line": {"width": 0}},
            hovertemplate=f"{behavior.acronym}: %{{y}} (%{{x|%Y-%m}})<extra></extra>",
            customdata=[month.month for month in found],
        )
    layout(figure, height=HEIGHT, barmode="stack", bargap=0.12, legend=LEGEND)
    figure.update_yaxes(title={"text": texts.either("papers", "论文数")})
    peak = max(found, key=lambda month: len(month.papers))
    sums = {code: sum(month.by_behavior[code] for month in found) for code in atlas.behaviors}
    rows = [
        Row(
            {"month": month.month, "papers": len(month.papers), **month.by_behavior},
            month.month if month.papers else "",
        )
        for month in reversed(found)
    ]
    return Chart(
        "months",
        texts("title"),
        texts(
            "caption",
            papers=sum(len(month.papers) for month in found),
            first=found[0].month,
            last=found[-1].month,
            most=len(peak.papers),
            month=peak.month,
            added=atlas.last_added,
        ),
        texts("alt", first=found[0].month, last=found[-1].month, largest=max(sums, key=sums.__getitem__).upper()),
        figure,
        rows,
        {month.month: month.papers for month in found if month.papers},
        dark_colors(*atlas.behaviors.values()),
        HEIGHT,
    )


def venues_chart(atlas: Atlas, selection: Selection, language: str) -> Chart:
    """Draw papers by year, stacked by the research community of their venue; preprints last."""
    texts, found = Texts("venues", language), years(atlas, selection)
    figure = go.Figure()
    colors = grays(len(atlas.communities))  # communities belong to no dimension
    parts = [(c.code, texts.of(c.label), gray) for c, gray in zip(atlas.communities.values(), colors, strict=True)]
    parts.append(("preprint", texts.either("No venue", "无发表处"), LINE))
    lists: dict[str, list[Paper]] = {}
    for index, (code, name, color) in enumerate(parts):
        for year in found:
            lists[f"{year.year}+{code}"] = [p for p in year.papers if _community(p) == code]
        figure.add_bar(
            x=[str(year.year) for year in found],
            y=[len(lists[f"{year.year}+{code}"]) for year in found],
            name=name,
            marker={"color": color, "pattern": hatching(index), "line": {"color": QUIET, "width": 0.5}},
            hovertemplate=f"{name}: %{{y}} (%{{x}})<extra></extra>",
            customdata=[f"{year.year}+{code}" for year in found],
        )
    layout(figure, height=HEIGHT, barmode="stack", legend=LEGEND)
    figure.update_xaxes(type="category")
    figure.update_yaxes(title={"text": texts.either("papers", "论文数")})
    rows = [
        Row({"year": year.year, "papers": len(year.papers), **year.by_community, "no venue": year.preprints})
        for year in reversed(found)
    ]
    papers, preprints = sum(len(y.papers) for y in found), sum(y.preprints for y in found)
    return Chart(
        "venues",
        texts("title"),
        texts("caption", papers=papers, preprints=preprints),
        texts("alt"),
        figure,
        rows,
        {key: listed for key, listed in lists.items() if listed},
        dark_colors() | colors,
        HEIGHT,
    )


def code_chart(atlas: Atlas, selection: Selection, language: str) -> Chart:
    """Draw the share of papers whose entry links to the authors' code, by year."""
    texts, found = Texts("code", language), years(atlas, selection)
    shares = [year.with_code / len(year.papers) for year in found]
    figure = go.Figure(
        go.Bar(
            x=[str(year.year) for year in found],
            y=[round(share, 4) for share in shares],
            text=[f"{y.with_code / len(y.papers):.0%}<br>{y.with_code}/{len(y.papers)}" for y in found],
            textposition="outside",
            cliponaxis=False,
            marker={"color": QUIET, "line": {"color": INK, "width": 0.5}},
            hoverinfo="skip",
            customdata=[f"code+{year.year}" for year in found],
        )
    )
    layout(figure, height=320, showlegend=False, margin={"l": 10, "r": 10, "t": 40, "b": 10})
    figure.update_xaxes(type="category")
    figure.update_yaxes(tickformat=".0%", range=[0, 1])
    rows = [
        Row(
            {"year": year.year, "papers": len(year.papers), "with code": year.with_code, "share": round(share, 4)},
            f"code+{year.year}" if year.with_code else "",
        )
        for year, share in zip(found, shares, strict=True)
    ]
    return Chart(
        "code",
        texts("title"),
        texts("caption", with_code=sum(y.with_code for y in found), papers=sum(len(y.papers) for y in found)),
        texts("alt", list=", ".join(f"{y.year} {s:.0%}" for y, s in zip(found, shares, strict=True))),
        figure,
        rows,
        {f"code+{y.year}": [p for p in y.papers if "code" in p.links] for y in found if y.with_code},
        dark_colors(),
        320,
    )


def _community(paper: Paper) -> str:
    return paper.venue.community.code if paper.venue else "preprint"
