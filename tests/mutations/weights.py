"""What goes wrong with weights: masks that are none or the same, and a graph that says more of them than how the network is written."""

from tests.mutations.mutation import mutation

LINEAR = "threepc/protocol/linear.py"
TRANSCRIPTS, SECRECY = "tests/protocol/test_transcripts.py", "tests/party/test_secrecy.py"

WEIGHTS = (
    mutation(
        "weights without their mask",
        LINEAR,
        (
            "return key.stream(0, self.op, Purpose.WEIGHT).fill(np.empty(padded(self._weights), word_of(self.bits)))",
            "return np.zeros(padded(self._weights), word_of(self.bits))",
        ),
        tests=(TRANSCRIPTS,),
    ),
    mutation(
        "all layers' weights under one mask",
        LINEAR,
        ("key.stream(0, self.op, Purpose.WEIGHT)", "key._stream(0)"),
        tests=(TRANSCRIPTS, SECRECY),
    ),
    mutation(
        "the graph says which weights are equal by chance",
        "threepc/graph/passes.py",
        ('(id(weights[node.name]["weight"]), ', '(hash(weights[node.name]["weight"].tobytes()), '),
        tests=("tests/graph/test_passes.py",),
    ),
)
