"""`threepc keygen` and `threepc clients`: who the parties are, and which clients may connect."""

from __future__ import annotations

from pathlib import Path

from threepc.party.keygen import LOCAL, PARTIES, generate


def make_keys(
    directory: Path | str, names: tuple[str, ...] = (), server: str | None = None, provider: str | None = None, per_host: bool = False
) -> list[str]:
    """Keys and a deployment.yaml in `directory`, as `keygen.generate` makes them; lines that say what was written and what is next."""
    addresses = {"server": server or LOCAL["server"], "provider": provider or LOCAL["provider"]}
    lines = [f"wrote {path}" for path in generate(directory, names or PARTIES, addresses, per_host)]
    if per_host:
        return [*lines, f"next: copy each folder in {directory} to its party's host, and there alone"]
    place = f"put the hosts' addresses into {Path(directory) / 'deployment.yaml'}, " if addresses == LOCAL else ""
    return [*lines, f"next: {place}copy it and the .public files to every host,", "and each .secret file to its party's host alone"]
