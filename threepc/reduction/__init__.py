"""Fewer ReLUs: how much each patch size distorts, the best sizes within a budget, finetuning, the paper's specs, report pages."""
