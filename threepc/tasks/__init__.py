"""What each command does, callable from Python: options in, an outcome or a served party out; nothing is parsed or printed here."""
