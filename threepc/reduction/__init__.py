"""Reducing ReLUs: the relu spec, the trainable block ReLU, and the pipeline distortion -> knapsack -> finetuning.

Only what needs neither torch nor a solver is re-exported here, so that the parties read specs without loading either.
"""
