"""Settings of all tests: one torch thread, and hypothesis without deadlines, since a first call may compile a kernel."""

import hypothesis
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("threepc", deadline=None, print_blob=True)
hypothesis.settings.load_profile("threepc")
