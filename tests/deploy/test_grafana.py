"""The dashboard asks for what a party that is observed really shows."""

import http.client
import json
import re
import socket
from pathlib import Path

from threepc.errors import RunError
from threepc.party.observation import Observation
from threepc.tasks.observe import watched

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "threepc.json"


def test_every_metric_of_the_dashboard_is_shown():
    observation = Observation("server")
    observation.failed(RunError("gone", "lost"))
    with observation.session(bytes(8), "client ada", "tcp://192.0.2.1:1"):
        observation.inferred(bytes(8), 1, 0.1, {"client->server": {"online": [1, 1]}})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with watched(observation, str(port)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/metrics")
        shown = set(re.findall(r"^([a-z_]+)", connection.getresponse().read().decode(), re.MULTILINE))
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {name for panel in panels for target in panel["targets"] for name in re.findall(r"(?:threepc|process)_[a-z_]+", target["expr"])}
    assert len(asked) >= 10
    assert asked <= shown, asked - shown
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels]
    assert len(set(places)) == len(places)
