"""How the CPU carries a plan out, as a pure function of shapes: every choice stands here.

A route has a way for both passes (expression, lists, grid_sample), and for each layer a word for
reading its map and one for writing its gradient: WORDS says what they mean. Where several ways are
open the planner takes the one whose work costs least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..call import CallShape, Plan, Route
from ..call.grids import enlarged_cells

__all__ = [
    "PART_POINTS",
    "PART_POINTS_OF_ONE_IMAGE",
    "WORDS",
    "admissible_reads",
    "admissible_writes",
    "blocks",
    "column_blocks",
    "copied_bytes",
    "fits",
    "in_double",
    "part_count",
    "parts",
    "routes",
]

WORDS = {
    "expression": "few operators, hypercolumns + linear, which autograd differentiates",
    "lists": "corners found once; maps read and written by lists of cells",
    "grid_sample": "PyTorch's sampling kernels, for points in its own coordinates",
    "sampled": "by grid_sample, or its backward; in an expression of exact positions",
    "projected": "the map is multiplied first, and its projected rows are read; Q = S^T G back",
    "rows": "read where they lie: channels_last, no conversion",
    "picked": "the cells touched are copied: of half precision, a view such as a crop, a large map",
    "planes": "NCHW: plane by plane, where few cells are touched",
    "converted": "turned into float32 rows first",
    "added": "corners added one by one",
    "touched": "corners sorted, written to the cells that are touched",
    "listed": "corners sorted, all cells written in order",
    "turned": "corners sorted, all cells turned into planes on the way",
}

# What an expression may keep for its backward pass, in values: a megabyte of hypercolumns in
# float32; two where layers are thin (channels on average) and finding corners is most of the work.
KEPT_VALUES = 1 << 18
KEPT_VALUES_OF_THIN, THIN = 1 << 19, 64
# ... and maps and weights that are converted, or maps that are enlarged: 4 MB.
KEPT_CONVERTED = 1 << 22

# From so many cells a corner on, single cells are touched rather than all of them converted.
SPARSE_CELLS_PER_CORNER = 1
# Rows that need no conversion are read where they lie; only the zeros of a gradient are saved.
SPARSE_ROWS_PER_CORNER = 5
# Up to so many corners, adding them one by one is quicker than sorting them first.
FEW_CORNERS = 128

# Points worked on together: their columns and their rows of the output stay in the cache, and a
# product of 2,000 rows runs at the rate of one of 10,000.
PART_POINTS = 2048
# One image is divided only above this: dividing repeats the conversion of maps that need one.
PART_POINTS_OF_ONE_IMAGE = 16384

# One block of output columns: malloc hands it out again without fresh pages (20 MB raised the peak
# of 10,000 x 4,096 outputs by a third). Short rows keep one image's table in the L2 cache, but
# every block starts its operators' threads anew: no more blocks than needed.
BLOCK_BYTES = 1 << 22
COLUMN_BLOCK, WIDEST_BLOCK = 256, 2048


def routes(shape: CallShape, plan: Plan) -> list[Route]:
    """All routes open to a plan, with the access to each map that suits it best."""
    open_routes = [_route(shape, plan, "lists", "lists")]
    sampled = not (plan.projected or shape.nearest) and shape.points > 0
    if sampled and shape.batch > 0:
        expressions = [_expression(shape, read) for read in _expression_reads(shape)]
        open_routes = [*filter(None, expressions), *open_routes]
        if shape.torch_coordinates and not shape.ragged and shape.itemsize >= 4:
            open_routes.append(_route(shape, plan, "grid_sample", "grid_sample"))
    return open_routes


def _route(shape: CallShape, plan: Plan, forward: str, backward: str) -> Route:
    layers = range(len(plan.layers))
    read = tuple([_words(shape, plan, i, forward, admissible_reads)[0] for i in layers])
    write = tuple([_words(shape, plan, i, forward, admissible_writes)[0] for i in layers])
    return Route(forward, backward, read, write) if shape.training else Route(forward, "", read, ())


def _expression(shape: CallShape, read: tuple[str, ...]) -> Route | None:
    """The expression that reads the maps so, if what autograd keeps of it is within bounds."""
    if not _may_keep(shape, read):
        return None
    if not shape.training:
        return Route("expression", "", read, (), by_autograd=True)
    write = tuple(["added" if word == "picked" else word for word in read])
    return Route("expression", "autograd", read, write, by_autograd=True)


def _expression_reads(shape: CallShape) -> list[tuple[str, ...]]:
    """How an expression may read the maps: all are sampled, or those picked that would be copied.

    Finding corners takes as long as telling positions exactly: nothing is won by a mixture.
    Gradients of picked cells are summed in the maps' dtype, which half precision is too coarse for.
    """
    coarse = shape.itemsize < 4 and shape.training
    pickable = [
        layer.dense and not (coarse or shape.torch_coordinates) and copied_bytes(shape, i) > 0
        for i, layer in enumerate(shape.layers)
    ]
    sampled = ("sampled",) * len(pickable)
    picked = tuple(["picked" if can_be else "sampled" for can_be in pickable])
    return [sampled] if sampled == picked else [sampled, picked]


def fits(shape: CallShape, plan: Plan, route: Route) -> bool:
    """Can a call of that shape be carried out so?"""
    if route.by_autograd:
        return route in routes(shape, plan)
    way, layers = route.forward, range(len(plan.layers))
    ways = {(open_route.forward, open_route.backward) for open_route in routes(shape, plan)}
    if (way, route.backward) not in ways or len(route.read) != len(layers):
        return False
    if len(route.write) != (len(layers) if shape.training else 0):
        return False
    reads = all(route.read[i] in _words(shape, plan, i, way, admissible_reads) for i in layers)
    return reads and all(
        word in _words(shape, plan, i, way, admissible_writes) for i, word in enumerate(route.write)
    )


def _words(
    shape: CallShape, plan: Plan, layer: int, way: str, open_words: Callable[..., tuple[str, ...]]
) -> tuple[str, ...]:
    if plan.layers[layer] != "gather":
        return ("projected",)
    return open_words(shape, layer) if way == "lists" else ("sampled",)


def _may_keep(shape: CallShape, read: Sequence[str]) -> bool:
    """Is what autograd keeps of the expression within bounds?"""
    if not shape.may_keep or shape.moving_points:
        return False
    points = shape.points + shape.points // 8  # planned for points rounded by an eighth at most
    thin = shape.channels <= THIN * len(shape.layers)
    if shape.training and points * shape.channels > (KEPT_VALUES_OF_THIN if thin else KEPT_VALUES):
        return False
    copied = {i: copied_bytes(shape, i) for i, word in enumerate(read) if word == "sampled"}
    if any(size and not shape.layers[i].dense for i, size in copied.items()):
        return False  # few cells of a view are read where they lie
    converted = sum(copied.values())
    if shape.itemsize < 4 and not shape.half_products:
        converted += 4 * shape.channels * shape.out_features
    return converted <= KEPT_CONVERTED or not shape.training


def in_double(shape: CallShape) -> bool:
    """Does an expression sample in float64? Half precision is rounded by more than that."""
    return shape.itemsize == 8 or (shape.itemsize == 4 and not shape.single)


def copied_bytes(shape: CallShape, layer: int) -> int:
    """Of a map as an expression samples it; 0 where it stays as it is."""
    m = shape.layers[layer]
    cells = m.cells if shape.torch_coordinates else enlarged_cells(m.rows, m.columns)
    itemsize = 8 if in_double(shape) else 4
    if m.exact or (cells == m.cells and itemsize == shape.itemsize):
        return 0
    return shape.batch * m.channels * cells * itemsize


def _is_rows(shape: CallShape, layer: int) -> bool:
    return shape.layers[layer].dense and shape.layers[layer].channels_last


def _is_planes(shape: CallShape, layer: int) -> bool:
    return shape.layers[layer].dense and not shape.layers[layer].channels_last


def _entries(shape: CallShape, layer: int) -> int:
    """Corners of all points."""
    return shape.points * shape.corners(layer)


def _sparse(shape: CallShape, layer: int, cells_per_corner: int) -> bool:
    """Do the corners touch so few of the cells that these are best treated one by one?"""
    cells = shape.batch * shape.layers[layer].cells
    return cells >= cells_per_corner * _entries(shape, layer)


def admissible_reads(shape: CallShape, layer: int) -> tuple[str, ...]:
    """The words for reading a gathered map by lists, the best one first."""
    if _is_rows(shape, layer):
        if shape.itemsize >= 4:
            return ("rows",)
        sparse = _sparse(shape, layer, SPARSE_CELLS_PER_CORNER)
        return ("picked", "converted") if sparse else ("converted", "picked")
    if _is_planes(shape, layer):
        sparse = _sparse(shape, layer, SPARSE_CELLS_PER_CORNER)
        return ("planes", "converted") if sparse else ("converted", "planes")
    sparse = _sparse(shape, layer, SPARSE_CELLS_PER_CORNER)
    return ("picked", "converted") if sparse else ("converted", "picked")


def admissible_writes(shape: CallShape, layer: int) -> tuple[str, ...]:
    """The words for writing the gradient of a gathered map by lists, the best one first."""
    direct = _is_rows(shape, layer) and shape.itemsize >= 4
    ratio = SPARSE_ROWS_PER_CORNER if direct else SPARSE_CELLS_PER_CORNER
    sparse = _sparse(shape, layer, ratio)
    words = ["touched", "listed"] if sparse else ["listed", "touched"]
    if _is_planes(shape, layer):
        if not shape.ragged:
            words.insert(words.index("listed"), "turned")
        words.insert(0 if sparse else len(words), "planes")
    few = _entries(shape, layer) <= FEW_CORNERS and words[0] != "planes"
    words.insert(0 if few else len(words), "added")
    return tuple(words)


def blocks(length: int, size: int) -> list[slice]:
    """0 .. length in slices of `size`, the last of which may be shorter."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def column_blocks(points: int, out_features: int, itemsize: int) -> list[slice]:
    """The columns of `points` rows of outputs, in blocks that are worked on together.

    `itemsize`: bytes of an operand of the products.
    """
    width = BLOCK_BYTES // itemsize // max(points, 1) // COLUMN_BLOCK * COLUMN_BLOCK
    return blocks(out_features, min(max(width, COLUMN_BLOCK), WIDEST_BLOCK))


def parts(points: int, batch: int, ragged: bool) -> Iterator[tuple[slice, slice]]:
    """Slices of points and of images: several whole images, or some points of one image."""
    if ragged:
        for part in blocks(points, PART_POINTS_OF_ONE_IMAGE):
            yield part, slice(0, batch)
        return
    per_image = points // batch
    for images in blocks(batch, max(1, PART_POINTS // per_image)):
        first = images.start * per_image
        for part in blocks((images.stop - images.start) * per_image, PART_POINTS_OF_ONE_IMAGE):
            yield slice(first + part.start, first + part.stop), images


def part_count(points: int, batch: int, ragged: bool) -> int:
    """How many :func:`parts` there are."""
    if points == 0 or batch == 0:
        return 1
    if ragged:
        return -(-points // PART_POINTS_OF_ONE_IMAGE)
    per_image = max(points // batch, 1)
    images = min(max(1, PART_POINTS // per_image), batch)  # in a part
    return -(-batch // images) * -(-images * per_image // PART_POINTS_OF_ONE_IMAGE)
