"""The public name of the model card for model factories of other people: `from threepc.card import ModelCard, Preprocessing, Sliding`."""

from threepc.images.card import ModelCard, Preprocessing, Sliding

__all__ = ["ModelCard", "Preprocessing", "Sliding"]
