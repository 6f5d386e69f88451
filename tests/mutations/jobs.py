"""Mutations of what jobs on private tensors add: inputs that owners share out, openings to the server, policies."""

from __future__ import annotations

from tests.mutations.mutation import mutation

OWNERS, PARTIES, PROGRAM = "threepc/tensors/owners.py", "threepc/tensors/parties.py", "threepc/tensors/program.py"
RANGES = "threepc/tensors/ranges.py"

JOBS = (
    mutation(
        "the client's part of what the server is shown without its mask",
        "threepc/protocol/input_output.py",
        (
            "z.reshape(-1) - self._mask(client, client.with_provider)[: self.count]",
            "0 * self._mask(client, client.with_provider)[: self.count] + z.reshape(-1)",
        ),
        tests=("tests/protocol/test_server_output.py",),
    ),
    mutation(
        "a data owner's share without its mask",
        OWNERS,
        ("masked -= _mask(key, words.size, bits)", "masked -= 0 * _mask(key, words.size, bits)"),
        tests=("tests/tensors/test_owners.py",),
    ),
    mutation("a data owner's key is always the same", OWNERS, ("new_key()", "bytes(KEY_BYTES)"), tests=("tests/tensors/test_owners.py",)),
    mutation(
        "a party assumes what its policy does not let it",
        PROGRAM,
        ("not policy.assumptions and (", "False and ("),
        tests=("tests/tensors/test_ranges.py",),
    ),
    mutation(
        "a party does not ask its policy", PARTIES, ("        check_policy(model, policy)\n", ""), tests=("tests/tensors/test_parties.py",)
    ),
    mutation(
        "a policy that does not look at the receiver",
        PROGRAM,
        ("if policy[name] != to:", "if False:"),
        tests=("tests/tensors/test_parties.py",),
    ),
    mutation(
        "a party runs another job than its own",
        PARTIES,
        ("if model.fingerprint != program.fingerprint:", "if False:"),
        tests=("tests/tensors/test_parties.py",),
    ),
    mutation(
        "an owner brings numbers beyond the limit that the job states",
        PROGRAM,
        ("if np.abs(array).max() > declared.limit:", "if False:"),
        tests=("tests/tensors/test_parties.py",),
    ),
    mutation(
        "a job whose numbers leave the ring is traced",
        RANGES,
        ("if not largest < 2.0**bound.exponent:", "if not largest < 2.0 ** (bound.exponent + 2):"),
        tests=("tests/tensors/test_ranges.py",),
    ),
    mutation(
        "what a party describes may leave the ring", PARTIES, ("        check_ranges(model)\n", ""), tests=("tests/tensors/test_ranges.py",)
    ),
    mutation(
        "an owner's word counts for what it does not bring",
        RANGES,
        ('if "by" in node.attrs and not _is_brought(graph, graph[node.inputs[0]]):', "if False:"),
        tests=("tests/tensors/test_ranges.py",),
    ),
    mutation(
        "what nobody checks is not said",
        PARTIES,
        ('        log.warning("%s: %s", program.name, line)', "        pass"),
        tests=("tests/tensors/test_ranges.py",),
    ),
    mutation(
        "a party without a policy runs what shows the server something",
        "threepc/party/session.py",
        ("    if shown:\n", "    if False:\n"),
        tests=("tests/tensors/test_parties.py",),
    ),
    mutation(
        "a deployment's parties do not ask what the server is shown",
        "threepc/party/three_hosts.py",
        ("    shows_the_server_nothing(model)\n", ""),
        tests=("tests/tensors/test_parties.py",),
    ),
    mutation(
        "the server's inputs of one run serve a batch of any size",
        "threepc/party/memory.py",
        ("    if batch > 1 and model.has_server_side:\n", "    if False:\n"),
        tests=("tests/tensors",),
    ),
    mutation(
        "the server's inputs reach kernels without a look at their size",
        "threepc/party/inference.py",
        ("            if words.shape != wanted.shape or words.dtype != word_of(wanted.bits):", "            if False:"),
        tests=("tests/tensors",),
    ),
    *(
        mutation(name, RANGES, (old, new), tests=("tests/tensors/test_ranges.py",))
        for name, old, new in (
            ("an owner sees to the limit of a difference", ' and "signs" not in node.attrs', ""),
            ("an owner sees to the limit of what is made of another's array", 'and graph[part.inputs[0]].kind == "input")', ")"),
            (
                "what the server is shown may leave the ring",
                "isinstance(step, OutputStep | ServerOutputStep):\n",
                "isinstance(step, OutputStep):\n",
            ),
            ("moves bring no zeros", "return _hull(*inputs, Interval(0.0, 0.0))", "return _hull(*inputs)"),
            ("squares of numbers of both signs stay away from 0", "0.0 if one.low <= 0 <= one.high else", ""),
            ("a rounding may take a number beyond a bound", " + 2 * ROUNDING * unit\n", "\n"),
        )
    ),
    *(
        mutation(name, PARTIES, (old, new), tests=("tests/tensors/test_parties.py",))
        for name, old, new in (
            ("no party asks its policy before it opens anything", "    program.check(policy)\n", ""),
            (
                "a provider deals for any job",
                "three_hosts.open_provider(load(deployment), accept=willing(program, policy))",
                "three_hosts.open_provider(load(deployment), accept=lambda _: None)",
            ),
            ("a client runs any job", "cache=False, accept=willing(program, policy)", "cache=False, accept=lambda _: None"),
            ("a log shows a number of the server's", 'where or str(error).partition(":")[0]', "where or str(error)"),
        )
    ),
    mutation("a data owner's key stays in memory", OWNERS, ("    stream.erase()\n", ""), tests=("tests/tensors/test_owners.py",)),
)
