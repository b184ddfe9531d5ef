"""The GPU back end. Importing it takes neither Triton nor a GPU; computing does."""

from .backend import BACKEND

__all__ = ["BACKEND"]
