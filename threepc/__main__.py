"""`python -m threepc`: the `threepc` command."""

from threepc.cli.main import main

if __name__ == "__main__":
    main()
