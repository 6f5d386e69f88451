"""MMLab (mmcls, mmsegmentation): builds plain torch modules from their configs and checkpoints. Nothing else of threepc imports MMLab."""
