"""Who hears it: channels of typed, counted messages over ZeroMQ or between threads."""
