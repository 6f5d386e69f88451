"""Networks as public graphs. Needs no torch; `importer` and `clear` do, and are imported by name."""
