"""What goes wrong where inferences are prepared before their images are there."""

from __future__ import annotations

from tests.mutations.mutation import mutation

TESTS = ("tests/party/test_ahead.py",)
SERVER, PROVIDER, CLIENT, POOL = (f"threepc/party/{name}.py" for name in ("server", "provider", "client", "pool"))

AHEAD = (
    mutation("ahead: what was prepared is used again", CLIENT, ("ahead = self._ready.popleft()", "ahead = self._ready[0]"), tests=TESTS),
    mutation(
        "ahead: the client prepares beyond its budget", CLIENT, ('check_ahead(self.model, self._options, "client")', "pass"), tests=TESTS
    ),
    mutation(
        "ahead: the server believes any number",
        SERVER,
        ("check_ahead(offered.public, self._options, self.role, hello)", "pass"),
        tests=TESTS,
    ),
    mutation(
        "ahead: the provider believes any number",
        PROVIDER,
        ("check_ahead(model, self._options, self.role, client_hello)", "pass"),
        tests=TESTS,
    ),
    mutation(
        "ahead: several in flight share a session", POOL, ("self._free.remove(client)", "pass"), tests=("tests/party/test_pool.py", *TESTS)
    ),
)
