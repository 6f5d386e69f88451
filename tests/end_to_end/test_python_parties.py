"""Server and provider of a deployment as programs of ten lines: until a signal, or in the background of a program that does other things."""

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn

import threepc as library
from tests.end_to_end.processes import REPOSITORY, write_deployment
from threepc.party.session import log

SERVER = """
import sys, torch, threepc

torch.manual_seed(3)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 4))
threepc.serve(model, sys.argv[1], example_input=torch.randn(4, 3, 8, 10))
"""
PROVIDER = "import sys, threepc\nthreepc.provide(sys.argv[1])\nassert 'torch' not in sys.modules\n"


@pytest.fixture(autouse=True)
def silence(monkeypatch):
    """Commands that other tests ran in this process have left handlers that write to where those tests looked."""
    monkeypatch.setattr(log, "handlers", [])


def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


@pytest.fixture
def inputs() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(2, 3, 8, 10)).astype(np.float32)


def assert_right(outputs: np.ndarray, inputs: np.ndarray) -> None:
    expected = model()(torch.from_numpy(inputs)).detach().numpy()
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=0.005 * np.abs(expected).max())


def test_programs_serve_until_a_signal(tmp_path, inputs):
    path = write_deployment(tmp_path / "keys")
    begin = lambda program: subprocess.Popen(
        [sys.executable, "-c", program, str(path)], cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    with begin(SERVER) as server, begin(PROVIDER) as provider:
        try:
            assert_right(library.Client(path).predict(inputs), inputs)
        finally:
            for process in (server, provider):
                process.send_signal(signal.SIGTERM)
        assert "2 image(s) in" in server.stdout.read() and "dealt for 2 image(s) in" in provider.stdout.read()
    assert (server.returncode, provider.returncode) == (0, 0)


def test_parties_in_the_background_of_a_program(tmp_path, inputs):
    path = write_deployment(tmp_path / "keys")
    before = set(threading.enumerate())
    network = model()
    network.train()
    with (
        library.provide(path, background=True) as provider,
        library.serve(network, path, example_input=torch.from_numpy(inputs), background=True) as server,
        library.Client(path) as client,
    ):
        assert server.address != provider.address and server.address.startswith("tcp://127.0.0.1:")
        assert_right(client.predict(inputs), inputs)
        assert client.card.name == "Sequential" and network.training
    server.close()
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("serve")]
    library.serve(network, path, example_input=torch.from_numpy(inputs), background=True).close()  # the address is free again


def test_what_cannot_be_served_is_said_before_anything_listens(tmp_path, inputs):
    path = write_deployment(tmp_path / "keys")
    with pytest.raises(library.InputError, match="takes images of 1 or 3 channels, not of 6"):
        library.serve(model(), path, example_input=torch.zeros(1, 6, 8, 10))
    with pytest.raises(library.InputError, match="give an example_input"):
        library.serve(model(), path, background=True)
    with pytest.raises(library.InputError, match="a model that is named knows its input"):
        library.serve("mmcls:any", path, example_input=torch.from_numpy(inputs))
    with pytest.raises(library.InputError, match="unknown config nothing"):
        library.serve("nothing", path, background=True)
    with library.provide(path, background=True), pytest.raises(library.InputError, match="Address already in use"):
        library.provide(path, background=True)
    failures = []

    def elsewhere() -> None:
        try:
            library.provide(path)
        except library.InputError as error:
            failures.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "serve with background=True" in failures[0]
