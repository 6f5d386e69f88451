"""Reducing ReLUs: the relu spec, the trainable block ReLU, and the pipeline distortion -> knapsack -> finetuning.

Only what needs neither torch nor a solver is re-exported here, so that the parties read specs without loading either.
"""
from threepc.brelu.paper import import_paper, paper_networks
from threepc.brelu.spec import IDENTITY, PLAIN, ZERO, ReluSpec, check, decisions, drelus, full_drelus, load, save, show, uniform

__all__ = ["IDENTITY", "PLAIN", "ZERO", "ReluSpec", "check", "decisions", "drelus", "full_drelus", "import_paper", "load",
           "paper_networks", "save", "show", "uniform"]
