"""One-to-one matching of boundary pixels, as `correspondPixels` of the BSDS500 benchmark.

With P the predicted and T one annotator's boundary pixels, a matching M pairs pixels of P with
pixels of T no further apart than d_max, each pixel at most once, so that

    sum over (p, t) in M of |p - t|  -  100 d_max |M|

is least: almost always as many pairs as there can be, and among such matchings one of least total
distance. A pair is given up where it would lengthen the others by more than 100 d_max together: the
cost is the official code's. The number of pairs alone would not do: a predicted pixel counts for
the precision if it is paired with any annotator's, so it matters which pixels are paired, and
matchings of one size differ in it.

SciPy solves this assignment, but clears arrays as long as the problem for every row. The problem
is therefore cut along connected components of the graph of candidate pairs, which changes nothing
about its solution, and small components are put together, which saves calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
    from scipy.spatial import KDTree
except ImportError as error:
    raise ImportError(
        "the boundary metrics need SciPy, which is not installed; get it with "
        "pip install 'pixelnet-triton[metrics]'"
    ) from error

__all__ = ["correspond_pixels", "minimum_cost_matching", "pixel_tree"]

Indices = NDArray[np.int64]
Costs = NDArray[np.float64]

UNMATCHED = 100  # an unmatched pixel costs as much as a pair at 100 times the largest distance
UNITS = 100  # costs are whole hundredths of a pixel, as in the official code
BLOCK = 256  # rows of one call of SciPy's solver


def pixel_tree(boundary: NDArray[np.bool_]) -> Any:
    """The boundary pixels of a bool ``(H, W)``, in the order of `numpy.argwhere`, as a KDTree."""
    return KDTree(np.argwhere(boundary))


def correspond_pixels(prediction: Any, truth: Any, max_distance: float) -> tuple[Indices, Indices]:
    """Match two sets of pixels.

    Args:
        prediction, truth: what `pixel_tree` gave.
        max_distance: in pixels; a pair may be exactly so far apart.

    Returns:
        the indices of the matched pixels, equally many of `prediction` and of `truth`.

    Example:
        >>> import numpy as np
        >>> line = np.eye(6, dtype=bool)
        >>> trees = pixel_tree(np.roll(line, 1, axis=1)), pixel_tree(line)
        >>> correspond_pixels(*trees, max_distance=1.0)[0]  # the last went around to column 0
        array([0, 1, 2, 3, 4])
    """
    nobody = np.empty(0, dtype=np.int64)
    if prediction.n == 0 or truth.n == 0:
        return nobody, nobody
    pairs = prediction.sparse_distance_matrix(truth, max_distance, output_type="ndarray")
    if len(pairs) == 0:
        return nobody, nobody
    predicted, left = np.unique(pairs["i"], return_inverse=True)
    true, right = np.unique(pairs["j"], return_inverse=True)
    costs = np.rint(UNITS * pairs["v"])
    unmatched = float(np.ceil(UNITS * UNMATCHED * max_distance))
    # Rows that stay unmatched take the longest; fewer of the smaller side do.
    if len(predicted) <= len(true):
        i, j = minimum_cost_matching(left, right, costs, (len(predicted), len(true)), unmatched)
    else:
        j, i = minimum_cost_matching(right, left, costs, (len(true), len(predicted)), unmatched)
    return predicted[i], true[j]


def minimum_cost_matching(
    rows: Indices, columns: Indices, costs: Costs, shape: tuple[int, int], unmatched_cost: float
) -> tuple[Indices, Indices]:
    """The matching of least cost in a bipartite graph, where a row may stay unmatched.

    Args:
        rows, columns: ``(E,)``, the two ends of each edge; there is at least one.
        costs: ``(E,)``, at least 0.
        shape: the number of rows and of columns.
        unmatched_cost: of each row that is not matched.

    Returns:
        the rows and the columns of the matched pairs, in no particular order.

    Example:
        >>> import numpy as np
        >>> edges = np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.0, 2.0, 1.0])
        >>> minimum_cost_matching(*edges, (2, 2), unmatched_cost=100.0)
        (array([0, 1]), array([1, 0]))
    """
    row_count, column_count = shape
    # Each row gets a column of its own, in which it is unmatched: all rows can be assigned then.
    # Every edge costs one more, which all matchings pay alike: SciPy drops edges that cost 0.
    every = np.arange(row_count)
    graph = csr_array(
        (
            np.concatenate([costs, np.full(row_count, unmatched_cost)]) + 1,
            (np.concatenate([rows, every]), np.concatenate([columns, column_count + every])),
        ),
        shape=(row_count, column_count + row_count),
    )
    parts = []
    for block_rows, block_columns, block in _blocks(graph):
        i, j = min_weight_full_bipartite_matching(block)
        parts.append((block_rows[i], block_columns[j]))
    i, j = (np.concatenate(ends) for ends in zip(*parts, strict=True))
    real = j < column_count
    return i[real], j[real]


def _blocks(graph: Any) -> Iterator[tuple[Indices, Indices, Any]]:
    """Whole components, some `BLOCK` rows together: rows, columns, and the graph between them."""
    rows, columns = graph.shape
    edges = graph.tocoo()
    ends = (edges.row, rows + edges.col)
    nodes = coo_array((np.ones(edges.nnz, np.int8), ends), shape=(rows + columns, rows + columns))
    count, component = connected_components(nodes, directed=False)
    # By size, so that the components of a block are alike, and the largest stand alone.
    size = np.bincount(component[:rows], minlength=count)
    by_size = np.argsort(-size, kind="stable")
    block = np.empty(count, dtype=np.int64)
    block[by_size] = (np.cumsum(size[by_size]) - size[by_size]) // BLOCK
    row_blocks, column_blocks = block[component[:rows]], block[component[rows:]]
    row_order = np.argsort(row_blocks, kind="stable")
    column_order = np.argsort(column_blocks, kind="stable")
    graph = graph[row_order][:, column_order]
    row = column = 0
    for number in np.unique(block):
        row_end = row + int((row_blocks == number).sum())
        column_end = column + int((column_blocks == number).sum())
        yield (
            row_order[row:row_end],
            column_order[column:column_end],
            graph[row:row_end, column:column_end],
        )
        row, column = row_end, column_end
