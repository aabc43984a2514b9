"""``make dag``: the pipeline as a picture, a box a kind of stage, whatever the resolutions.

``dvc dag`` has a box a stage and resolution, 17 of them, and every arrow; no option joins them.
"""

from __future__ import annotations

import re
import sys


def picture(dot: str) -> str:
    """Draw what ``dvc dag --dot`` says, with ``grow@16`` and ``grow@32`` as one ``grow``.

    Arrows that follow from others are left out (transitive reduction); what needs nothing is on
    top.
    """
    import networkx as nx
    from dvc.dagascii import draw

    lines = [re.findall(r'"([^"@]+)(?:@[^"]*)?"', line) for line in dot.splitlines()]
    graph = nx.DiGraph()
    graph.add_nodes_from(name for line in lines for name in line)
    graph.add_edges_from(line for line in lines if len(line) == 2 and line[0] != line[1])
    arrows = sorted(nx.transitive_reduction(graph).edges)
    return str(draw(list(graph), [(after, before) for before, after in arrows]))  # drawn upwards


if __name__ == "__main__":
    print(picture(sys.stdin.read()))
