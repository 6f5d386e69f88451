"""What happens when things go wrong: faults, attacks, load, soak and fuzzing, each a command whose table goes into docs/reliability.md."""
