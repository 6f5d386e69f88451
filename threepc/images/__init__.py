"""From image files to inputs and from outputs to maps: reading, the model card that says how, segmentation. Needs no torch."""
