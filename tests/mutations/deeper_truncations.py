"""Losses of secrecy where a truncation removes more bits than half of a 32-bit mask hides: results stay right."""

from tests.mutations.mutation import mutation

TRANSCRIPTS = "tests/protocol/test_transcripts.py"

DEEPER_TRUNCATIONS = (
    mutation(
        "masks of a deeper truncation's gate only 16 bits long",
        "threepc/protocol/relu_layer.py",
        ("        return Slopes(0, 1, 0) if self.slopes is None and wide else self.slopes\n", "        return self.slopes\n"),
        tests=(TRANSCRIPTS,),
    ),
    mutation(
        "masks of a deeper truncation's lift only 16 bits long",
        "threepc/protocol/identity.py",
        ("        return np.uint32 if self.lift.bits - self.lift.kept_bits <= NARROW_LIFT else np.uint64\n", "        return np.uint32\n"),
        tests=(TRANSCRIPTS,),
    ),
)
