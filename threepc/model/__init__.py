"""What is served: a CONFIG and a CHECKPOINT, loaded, assembled with a relu spec and a ring, split into a public part and weights."""
