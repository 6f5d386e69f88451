"""Losses of secrecy and of checks, each as a change of the text of one file that leaves results right where it can, and the tests to notice it."""

from __future__ import annotations

from tests.mutations.ahead import AHEAD
from tests.mutations.deeper_truncations import DEEPER_TRUNCATIONS
from tests.mutations.jobs import JOBS
from tests.mutations.mutation import mutation as _mutation
from tests.mutations.peers import PEERS
from tests.mutations.pieces import PIECES
from tests.mutations.plans import PLANS
from tests.mutations.six_messages import SIX_MESSAGES
from tests.mutations.tiles import TILES
from tests.mutations.two_messages import TWO_MESSAGES
from tests.mutations.weights import WEIGHTS

TRANSCRIPTS = "tests/protocol/test_transcripts.py"
PROTOCOL = "tests/protocol"
STREAMS = "tests/test_prf.py"
SESSIONS = "tests/party/test_sessions.py"
DEPLOYMENT = "tests/end_to_end/test_deployment.py"
SECRECY = "tests/party/test_secrecy.py"


PRF, RUNS, GATE = "threepc/prf.py", "threepc/kernels/runs.py", "threepc/kernels/gate.py"
PRODUCT, LOOKUP = "threepc/kernels/product.py", "threepc/kernels/lookup.py"
LOOKUPS = ("tests/protocol/test_lookup.py",)
DECISIONS, COMPARISON = "threepc/kernels/decisions.py", "threepc/kernels/comparison.py"
IN_OUT, ROLES = "threepc/protocol/input_output.py", "threepc/protocol/roles.py"
CHANNEL, LISTENER, LAYERS = "threepc/transport/channel.py", "threepc/transport/zmq_listener.py", "threepc/plan/layers.py"
SERVER, PROVIDER, CLIENT = "threepc/party/server.py", "threepc/party/provider.py", "threepc/party/client.py"

MUTATIONS = (
    # Keys and streams
    _mutation("every key is the same", PRF, ("return secrets.token_bytes(KEY_BYTES)", "return bytes(KEY_BYTES)"), tests=(STREAMS, SECRECY)),
    _mutation("an attempt may come again", PRF, ("if attempt <= self._last_attempt:", "if False:"), tests=(STREAMS, TRANSCRIPTS)),
    _mutation("an address may be opened again", PRF, ("if address in self._opened[attempt]:", "if False:"), tests=(STREAMS, TRANSCRIPTS)),
    _mutation("a closed attempt can be drawn from", PRF, ("if attempt not in self._opened:", "if False:"), tests=(STREAMS,)),
    _mutation(
        "an address without its attempt",
        PRF,
        ("return (attempt << OP_BITS | op) << PURPOSE_BITS | purpose", "return op << PURPOSE_BITS | purpose"),
        tests=(STREAMS, TRANSCRIPTS),
    ),
    _mutation(
        "an address without its op",
        PRF,
        ("return (attempt << OP_BITS | op) << PURPOSE_BITS | purpose", "return (attempt << OP_BITS) << PURPOSE_BITS | purpose"),
        tests=(STREAMS, TRANSCRIPTS),
    ),
    _mutation(
        "an address without its purpose",
        PRF,
        ("return (attempt << OP_BITS | op) << PURPOSE_BITS | purpose", "return (attempt << OP_BITS | op) << PURPOSE_BITS"),
        tests=(STREAMS, TRANSCRIPTS),
    ),
    _mutation("an erased key still draws", PRF, ("            self._algorithm = None\n", ""), tests=(STREAMS,)),
    _mutation("an erased key stays in memory", PRF, ("self._key[:] = bytes(KEY_BYTES)", "pass"), tests=(STREAMS,)),
    _mutation("fields wider than their bits", PRF, ("if not 0 <= value < 1 << bits:", "if False:"), tests=(STREAMS,)),
    _mutation(
        "a derived key forgets its context",
        PRF,
        ('info=b"threepc/derived-key/" + context', 'info=b"threepc/derived-key/"'),
        tests=(STREAMS,),
    ),
    # Tiles
    _mutation(
        "every tile draws the first one's words",
        RUNS,
        ("    return TILE * bytes_of_an_element // BLOCK_BYTES", "    return 0 * bytes_of_an_element // BLOCK_BYTES"),
        tests=(PROTOCOL,),
    ),
    _mutation(
        "every tile draws the first one's planes",
        RUNS,
        ("    return 8 * rows * TILE_WORDS // BLOCK_BYTES", "    return 0 * rows"),
        tests=(PROTOCOL,),
    ),
    # Openings
    _mutation(
        "the client's half of an opening without its mask",
        RUNS,
        ("        draw(client_stream, tile * step, masks)\n", "        masks[:] = 0\n"),
        (
            "        t = masks[: end - begin]\n        draw(client_stream, tile * step, t)\n",
            "        t = masks[: end - begin]\n        t[:] = 0\n",
        ),
        tests=(TRANSCRIPTS,),
    ),
    _mutation(
        "the server's half of an opening without its mask",
        RUNS,
        ("        draw(server_stream, tile * step, s)\n        for i", "        s[:] = 0\n        for i"),
        ("        draw(server_stream, tile * step, s)\n        gate.open_masked", "        s[:] = 0\n        gate.open_masked"),
        tests=(TRANSCRIPTS,),
    ),
    # Decisions
    _mutation(
        "wire masks of the client all zero",
        DECISIONS,
        ("    half, masks = own\n", "    half, masks = own\n    masks[:] = 0\n"),
        ("        one, two = theirs[", "        theirs[:] = 0\n        one, two = theirs["),
        tests=(TRANSCRIPTS,),
    ),
    _mutation(
        "shares of tables and products without their pad",
        DECISIONS,
        ("    half, theirs = both[: rows.dealt],", "    both[: rows.dealt] = 0\n    half, theirs = both[: rows.dealt],"),
        ("    return both[: rows.dealt], both", "    both[: rows.dealt] = 0\n    return both[: rows.dealt], both"),
        tests=(TRANSCRIPTS,),
    ),
    _mutation(
        "the client, told its share, draws the masks of the share that it is told",
        "threepc/protocol/drelu.py",
        (
            "(stream, both), (told_stream, own) = self._draw(drawing, False), self._draw(told, True)",
            "(stream, both), (told_stream, own) = self._draw(provider.with_client, False), self._draw(provider.with_server, True)",
        ),
        tests=(f"{PROTOCOL}/test_relu.py", TRANSCRIPTS),
    ),
    _mutation(
        "the decision's bit without the server's mask",
        DECISIONS,
        ("        result[0, j] = highest[j] ^ sign[j] ^ mine[leaf + top, j]", "        result[0, j] = highest[j] ^ sign[j]"),
        tests=(PROTOCOL,),
    ),
    _mutation(
        "the decision's bit without the client's mask",
        DECISIONS,
        ("        result[0, j] ^= own[0, j]", "        result[0, j] ^= 0"),
        tests=(PROTOCOL,),
    ),
    # Gates
    _mutation(
        "masks of a sloped gate's lift only 16 bits long",
        GATE,
        ("    return word & np.uint64(0xFFFFFFFF), word >> np.uint64(32)", "    return word & np.uint64(0xFFFF), word >> np.uint64(48)"),
        (
            "    return (word >> (np.uint64(32) & branch)) & np.uint64(0xFFFFFFFF)",
            "    return (word >> (np.uint64(48) & branch)) & np.uint64(0xFFFF)",
        ),
        tests=(TRANSCRIPTS,),
    ),
    _mutation(
        "a value that is lifted beside its ReLU has the ReLU's mask",
        "threepc/protocol/relu_layer.py",
        ("        return d, passed_d\n", "        return d, d if self.both else passed_d\n"),
        tests=(TRANSCRIPTS,),
    ),
    _mutation(
        "a gate's value without its pad",
        GATE,
        ("            v[p] = t + ring(difference &", "            v[p] = ring(difference &"),
        tests=(PROTOCOL,),
    ),
    _mutation(
        "one pad for both branches of a gate",
        RUNS,
        (
            "    if lifted:\n        draw(stream, block, pads.w)\n",
            "    pads.t[1] = pads.t[0]\n    if lifted:\n        draw(stream, block, pads.w)\n",
        ),
        tests=(TRANSCRIPTS,),
    ),
    _mutation(
        "a gate's carries without pads", RUNS, ("        draw(stream, block, pads.w)\n", "        pads.w[:] = 0\n"), tests=(TRANSCRIPTS,)
    ),
    _mutation(
        "a truncation's carries without pads",
        RUNS,
        (
            "        w = pads[: end - begin]\n        draw(client_stream, tile * step, w)\n        part =",
            "        w = pads[: end - begin]\n        w[:] = 0\n        part =",
        ),
        (
            "        w = pads[: end - begin]\n        draw(client_stream, tile * step, w)\n        gate.infer",
            "        w = pads[: end - begin]\n        w[:] = 0\n        gate.infer",
        ),
        tests=(TRANSCRIPTS,),
    ),
    # Products
    _mutation(
        "a product's factors without their masks",
        PRODUCT,
        ("        draw(server_stream, tile * step, s[begin:end])\n", "        s[begin:end] = 0\n"),
        tests=(TRANSCRIPTS,),
    ),
    _mutation(
        "the server's half of a product without its mask",
        PRODUCT,
        ("        draw(server_stream, tile * _blocks(r.itemsize), r)\n", "        r[:] = 0\n"),
        ("        draw(server_stream, tile * _blocks(s.itemsize), s)\n", "        s[:] = 0\n"),
        tests=(TRANSCRIPTS,),
    ),
    _mutation(
        "a product's value without its pad",
        PRODUCT,
        ("    draw(client_stream, block, w)\n", "    draw(client_stream, block, w)\n    t[:] = 0\n"),
        tests=(TRANSCRIPTS,),
    ),
    _mutation(
        "a product's lift without the pad of the other branch",
        PRODUCT,
        ("    draw(client_stream, block, w)\n", "    draw(client_stream, block, w)\n    w[:] = w >> np.uint32(31) << np.uint32(31)\n"),
        tests=(TRANSCRIPTS,),
    ),
    _mutation(
        "a product's carry without its mask",
        PRODUCT,
        ("    draw(client_stream, block, w)\n", "    draw(client_stream, block, w)\n    w[:] = w & np.uint32(0x7FFFFFFF)\n"),
        tests=(TRANSCRIPTS,),
    ),
    _mutation("what a product deals without the result's mask", PRODUCT, (" - d[begin + p] - t[p]", " - t[p]"), tests=(TRANSCRIPTS,)),
    # Lookups
    *(
        _mutation(name, LOOKUP, (old, new), tests=LOOKUPS)
        for name, old, new in (
            (
                "a lookup's choice without the client's half",
                "draw(stream, block, choice)\n",
                "draw(stream, block, choice)\n    choice[:] = 0\n",
            ),
            (
                "what a lookup deals without the client's half",
                "draw(stream, block, words)\n",
                "draw(stream, block, words)\n    words[:] = 0\n",
            ),
            ("the client's coefficients without their pads", "    draw(stream, block, pads)\n", "    pads[:] = 0\n"),
            (
                "the server's coefficients without their pads",
                "    draw(stream, begin * 8 * COEFFICIENTS // BLOCK_BYTES, pads)\n",
                "    pads[:] = 0\n",
            ),
            ("what a lookup deals without the result's mask", ", flip) - shift", ", flip)"),
            ("every run of a lookup draws the first one's words", "    block = begin * 8 * (", "    block = 0 * begin * ("),
        )
    ),
    # Input, output
    _mutation("the image without its mask", IN_OUT, ("(x - d).reshape(-1)", "x.reshape(-1)"), tests=(TRANSCRIPTS, "tests/protocol")),
    _mutation(
        "the provider's part of the output without its mask",
        IN_OUT,
        ("-self._mask(provider, provider.with_client)", "0 * self._mask(provider, provider.with_client)"),
        tests=(TRANSCRIPTS,),
    ),
    # Sessions
    _mutation(
        "k_SP is a constant",
        SERVER,
        ("channels, key = offered.public, [online], new_key()", "channels, key = offered.public, [online], bytes(16)"),
        tests=(SECRECY,),
    ),
    _mutation(
        "k_SP is the weights' key",
        SERVER,
        ("channels, key = offered.public, [online], new_key()", "channels, key = offered.public, [online], offered.key"),
        tests=(SECRECY,),
    ),
    _mutation(
        "the weights' key is a constant",
        "threepc/party/offered.py",
        ("self.public, self.key = model.public, new_key()", "self.public, self.key = model.public, bytes(16)"),
        tests=(SECRECY,),
    ),
    _mutation("k_CP is a constant", CLIENT, ("self._attempt, key = 0, new_key()", "self._attempt, key = 0, bytes(16)"), tests=(SECRECY,)),
    _mutation(
        "the provider takes any number of keys of any size",
        PROVIDER,
        (
            "    if len(client_hello.attachments) != 1 or len(server_hello.attachments) != 2 or any(len(k) != KEY_BYTES for k in keys):",
            "    if False:",
        ),
        tests=(SESSIONS, SECRECY),
    ),
    _mutation(
        "whoever calls itself the server is believed",
        PROVIDER,
        ("if not self._connector.is_known(role, channel.connection.peer):", "if False:"),
        tests=(DEPLOYMENT, SECRECY),
    ),
    _mutation(
        "two connections of two keys make a session",
        SERVER,
        ("if offline.connection.peer != online.connection.peer:", "if False:"),
        tests=(SECRECY,),
    ),
    _mutation(
        "an attempt is not begun at the server",
        SERVER,
        ("        stream.begin_attempt(attempt)\n", "        stream._opened[attempt] = set()\n"),
        tests=(SECRECY, SESSIONS),
    ),
    _mutation(
        "the server's keys stay after the session", SERVER, ("                stream.erase()\n", "                pass\n"), tests=(SECRECY,)
    ),
    _mutation(
        "the provider's keys stay after the session",
        PROVIDER,
        ("                    stream.erase()\n", "                    pass\n"),
        tests=(SECRECY,),
    ),
    _mutation("the client's key stays after the session", CLIENT, ("            self._stream.erase()\n", ""), tests=(SECRECY,)),
    _mutation(
        "the provider deals for a model that the client did not confirm",
        PROVIDER,
        ('if client_hello.fields.get("fingerprint") != model.fingerprint:', "if False:"),
        tests=(SESSIONS,),
    ),
    # What is opened, and to whom
    _mutation(
        "all low bits of the output are opened",
        LAYERS,
        ("protocol = Output(at.op, elements(value), at.bits, shift)", "protocol = Output(at.op, elements(value), at.bits, 0)"),
        tests=("tests/plan/test_schedule.py", PROTOCOL),
    ),
    _mutation(
        "an argmax without the mask of its last message",
        "threepc/protocol/input_output.py",
        ("-self._mask(provider, provider.with_client)", "(0 if self.bits < 32 else -1) * self._mask(provider, provider.with_client)"),
        (
            "z.reshape(-1) - self._mask(client, client.with_provider)[: self.count]",
            "z.reshape(-1) + (0 if self.bits < 32 else -1) * self._mask(client, client.with_provider)[: self.count]",
        ),
        tests=("tests/protocol/test_argmax.py", TRANSCRIPTS),
    ),
    _mutation(
        "messages of another session are taken",
        CHANNEL,
        ("expected = self.session, kind,", "expected = header.session, kind,"),
        tests=("tests/transport",),
    ),
    _mutation(
        "messages of another attempt are taken",
        CHANNEL,
        ("expected = self.session, kind, attempt,", "expected = self.session, kind, header.attempt,"),
        tests=("tests/transport",),
    ),
    _mutation(
        "messages in another order are taken",
        CHANNEL,
        (", op, self._received, parts", ", op, header.sequence, parts"),
        tests=("tests/transport",),
    ),
    _mutation(
        "whoever has a key is admitted", LISTENER, ("if key in self._authorised else", "if key else"), tests=("tests/transport", DEPLOYMENT)
    ),
    _mutation(
        "whose authorisation ended stays connected",
        LISTENER,
        ("elif peer is not None and peer not in self._authorised:", "elif False:"),
        tests=("tests/transport",),
    ),
    # What a peer may ask for
    _mutation(
        "a batch beyond a party's memory is begun",
        "threepc/party/memory.py",
        ("if (needs := plan.held_bytes) <= memory:", "if (needs := 0) <= memory:"),
        tests=("tests/party/test_memory.py",),
    ),
    _mutation(
        "weights beyond a party's memory are received",
        "threepc/party/memory.py",
        ("if takes > memory:", "if False:"),
        tests=("tests/party/test_memory.py",),
    ),
    _mutation(
        "a model may take any number of multiplications",
        "threepc/model/limits.py",
        ("if products > MOST_PRODUCTS:", "if False:"),
        tests=("tests/model/test_hostile.py",),
    ),
    _mutation(
        "a stride passes over any number of cells",
        "threepc/model/limits.py",
        ("_copied(node) > MOST_COPIED:", "False:"),
        tests=("tests/model/test_hostile.py",),
    ),
    _mutation(
        "a client that has used its images asks for more",
        "threepc/party/queries.py",
        ("if used + images > limit:", "if False:"),
        tests=("tests/party/test_queries.py",),
    ),
    *JOBS,
    *TWO_MESSAGES,
    *SIX_MESSAGES,
    *DEEPER_TRUNCATIONS,
    *PIECES,
    *PLANS,
    *WEIGHTS,
    *AHEAD,
    *PEERS,
    *TILES,
)
