"""Dense prediction: the network at every pixel, in bounded memory.

predict               scales, mirror images, outputs           prediction.py
  -> head_at_every_pixel   tiles that keep within the budget   tiles.py
    -> first_layer         the MLP's first product on a tile   first_layer.py, ../cpu/dense.py
"""

from .prediction import OUTPUTS, predict
from .tiles import head_at_every_pixel

__all__ = ["OUTPUTS", "head_at_every_pixel", "predict"]
