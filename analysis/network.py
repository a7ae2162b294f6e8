"""Affinities as a networkx graph, for drawing and graph algorithms."""

from __future__ import annotations

import networkx as nx

from analysis.affinity import Affinity


def network(affinity: Affinity) -> nx.Graph[str]:
    """Return a node for each label and an edge for each pair that reaches the threshold.

    Nodes carry `label`, `papers` (with it as a primary label), `dimension` and the coordinates `x`, `y`; edges carry
    `weight` (T), `inside` and `pair`. The coordinates are on a circle, in the order of the vocabulary, whatever the
    edges: pictures of two selections can be compared.
    """
    graph: nx.Graph[str] = nx.Graph()
    for label, papers in zip(affinity.labels, affinity.primary, strict=True):
        graph.add_node(label.code, label=label, papers=papers, dimension=label.dimension.code)
    for pair in affinity.edges:
        graph.add_edge(pair.one.code, pair.other.code, weight=pair.affinity, inside=pair.inside, pair=pair)
    for code, (x, y) in nx.circular_layout(graph).items():
        graph.nodes[code].update(x=float(x), y=float(y))
    return graph


def isolated(affinity: Affinity) -> list[str]:
    """Return the codes of the labels without an edge."""
    return sorted(nx.isolates(network(affinity)))
