"""The subcommands of `threepc`, a module for each group of them. They parse, call and print; what they call is imported when they run."""
