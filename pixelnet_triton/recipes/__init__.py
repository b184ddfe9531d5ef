"""Recipes: the paper's trainings, evaluations and predictions, as functions and as commands.

>>> from pixelnet_triton.recipes import PRESETS, find, train

``python -m pixelnet_triton --help`` is the way in from a shell.
"""

from .card import TaskCard
from .curves import draw_curves
from .datasets import DATASETS, TASKS, DataSet
from .evaluation import Evaluation, evaluate, evaluate_boundaries
from .files import official_folder, write_official
from .finding import find
from .network import card_of, load, network
from .prediction import find_images, predict_files
from .setup import PRESETS, Setup
from .training import train
from .view import View, predict_image

__all__ = [
    "DATASETS",
    "PRESETS",
    "TASKS",
    "DataSet",
    "Evaluation",
    "Setup",
    "TaskCard",
    "View",
    "card_of",
    "draw_curves",
    "evaluate",
    "evaluate_boundaries",
    "find",
    "find_images",
    "load",
    "network",
    "official_folder",
    "predict_files",
    "predict_image",
    "train",
    "write_official",
]
