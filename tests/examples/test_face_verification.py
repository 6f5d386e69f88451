"""Face verification as its README says, with an eighth and less of the channels."""

import re

import torch
from click.testing import CliRunner

from tests.examples.programs import program
from threepc.card import ModelCard, Preprocessing
from threepc.model.assemble import Settings, assemble
from threepc.protocol.argmax import Argmax


def test_decisions_are_those_of_plaintext_and_are_of_both_kinds(monkeypatch):
    verify = program("face_verification/verify.py", monkeypatch)
    done = CliRunner().invoke(verify.main, ["--channels", "2", "--people", "2"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = re.findall(r"^ +\d+ +-?\d\.\d+ +(\w+)$", done.output, re.MULTILINE)
    assert rows == ["same", "different"] * 2 and "4 of 4 decisions are those of plaintext" in done.output
    assert re.search(r"^threepc, a deployment in one process, asynchronous, two pairs at a time +\d", done.output, re.MULTILINE)


def test_the_comparison_is_the_cosine_s_and_one_bit_is_revealed(monkeypatch):
    verify = program("face_verification/verify.py", monkeypatch)
    network = verify.sphereface(2).eval().requires_grad_(False)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules()) == 20
    pairs = verify.pairs(verify.photos(4, seed=3))
    verify.centred(network, verify.photos(4, seed=3).flatten(0, 1))
    model = verify.Verification(network, 0.3)
    assert torch.equal(model(pairs).argmax(1) == 1, verify.cosines(network, pairs) >= 0.3)
    card = ModelCard("verification", Preprocessing((224, 96)))
    assembled = assemble(model.eval(), pairs[:1], card, Settings(reveal="label", calibration=pairs.numpy()))
    assert isinstance(assembled.public.plan(1).steps[-1].protocol, Argmax), "the index alone leaves the parties"
