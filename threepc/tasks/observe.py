"""Watching a server or a provider: a page for machines on this host, JSON lines for the log, and `threepc status`, which reads the page."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from threepc.errors import InputError, RunError, missing
from threepc.party.observation import Observation
from threepc.party.session import log
from threepc.transport.framing import printable

if TYPE_CHECKING:
    from prometheus_client.core import Metric

DEFAULT_HOST = "127.0.0.1"


class JsonLines(logging.Formatter):
    """A line of JSON for each event: time in seconds, level, event, text, and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {"time": round(record.created, 3), "level": record.levelname.lower(), "event": getattr(record, "event", "message")}
        return json.dumps(line | {"text": record.getMessage()} | getattr(record, "fields", {}))


def log_to_output(style: str | None = "text") -> None:
    """A line for each session and inference on standard output. style: one of `choices.LOG_FORMATS`, None to leave logging as it is."""
    if style is None:
        return
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines() if style == "json" else logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


class Collector:
    """The counts of an `Observation` as Prometheus names them."""

    def __init__(self, observation: Observation) -> None:
        self._observation = observation

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks for at every look."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        counts = self._observation.counts()
        yield GaugeMetricFamily("threepc_ready", "Whether the party takes sessions.", float(self._observation.state == "ready"))
        yield GaugeMetricFamily("threepc_sessions_active", "Sessions that last now.", counts.active)
        for name, what, value in (
            ("threepc_sessions", "Sessions that were set up.", counts.sessions),
            ("threepc_inferences", "Inferences that finished.", counts.inferences),
            ("threepc_images", "Images of these inferences.", counts.images),
            ("threepc_inference_seconds", "Seconds that these inferences took here.", counts.seconds),
        ):
            yield CounterMetricFamily(name, what, value)
        size = CounterMetricFamily("threepc_bytes", "Payload of these inferences.", labels=("link", "phase"))
        for labels, value in counts.bytes.items():
            size.add_metric(labels, value)
        yield size
        failures = CounterMetricFamily("threepc_failures", "Sessions that ended before their time, or never began.", labels=("kind",))
        for kind, value in counts.failures.items():
            failures.add_metric((kind,), value)
        yield failures


@contextlib.contextmanager
def watched(observation: Observation, address: str | None) -> Iterator[None]:
    """Serve /healthz, /readyz, /status and /metrics at [HOST:]PORT for as long as it lasts; nothing where the address is None.

    Raises InputError for an address that is none or in use, and where prometheus_client is not installed.
    """
    if address is None:
        yield
        return
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
    except ImportError:
        raise missing("prometheus_client") from None
    registry = CollectorRegistry()
    registry.register(Collector(observation))
    ProcessCollector(registry=registry)
    pages: dict[str, Callable[[], tuple[int, str, bytes]]] = {
        "/healthz": lambda: (200, "text/plain", b"ok\n"),
        "/readyz": lambda: (200 if observation.state == "ready" else 503, "text/plain", f"{observation.state}\n".encode()),
        "/status": lambda: (200, "application/json", json.dumps(observation.plain()).encode()),
        "/metrics": lambda: (200, "text/plain; version=0.0.4", generate_latest(registry)),
    }

    class Pages(BaseHTTPRequestHandler):
        """Nothing but these pages, for GET alone."""

        timeout = 10

        def do_GET(self) -> None:
            """One page."""
            status, kind, content = pages[self.path]() if self.path in pages else (404, "text/plain", b"no such page\n")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Looks are no events."""

    host, port = split_address(address)
    try:
        server = ThreadingHTTPServer((host, port), Pages)
    except OSError as error:
        raise InputError(f"--observe {address}: cannot listen there ({error.strerror or error})") from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="observe", daemon=True)
    thread.start()
    log.info("observed at http://%s:%d", *server.server_address[:2])
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def split_address(address: str) -> tuple[str, int]:
    """Host and port of [HOST:]PORT. Raises InputError for anything else."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not 1 <= int(port) < 1 << 16:
        raise InputError(f"--observe {address}: write [HOST:]PORT, with a port of 1 to 65535")
    return host.strip("[]") or DEFAULT_HOST, int(port)


def read_status(address: str) -> dict[str, Any]:
    """What a party that is observed at [HOST:]PORT says of itself. Raises RunError where nobody answers as one does."""
    connection = http.client.HTTPConnection(*split_address(address), timeout=5)
    try:
        connection.request("GET", "/status")
        answer = connection.getresponse()
        status = json.loads(answer.read(1 << 20))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise RunError(f"no server or provider is observed at {address}: {printable(str(error))}") from None
    finally:
        connection.close()
    if answer.status != 200 or not isinstance(status, dict) or not {"role", "state"} <= set(status):
        raise RunError(f"what answers at {address} is no server or provider of threepc")
    return status
