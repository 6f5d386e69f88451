"""A graph in a ring: fractional bits, calibration, the steps with their declared cost, and the same arithmetic in the clear."""
