"""Checks of what a peer sends, and of what it is told, each taken away by itself."""

from tests.mutations.mutation import mutation

LISTENER, SOCKETS = "threepc/transport/zmq_listener.py", "threepc/transport/zmq_sockets.py"
PACING, CHANNEL, SESSION = "threepc/party/pacing.py", "threepc/transport/channel.py", "threepc/party/session.py"
CREDIT = ("tests/party/test_pacing.py::test_credit_is_for_what_was_sent_and_for_no_more",)
CONTROL = ("tests/transport/test_control.py::test_control_messages_are_a_text_and_a_few_bytes",)
AHEAD = ("tests/party/test_ahead.py::test_however_large_the_budget_the_clients_memory_and_a_number_are_limits",)
REFUSALS = "tests/transport/test_zmq_refusals.py"
REASONS = ("tests/party/test_deaths.py::test_reasons_carry_no_values",)
ASKED = ("tests/party/test_queries.py::test_who_may_have_the_first_of_several_results_has_asked",)
OVER = ("tests/party/test_ahead.py::test_an_attempt_that_is_over_is_closed_at_every_party",)

PEERS = (
    mutation("credit for more than was sent", PACING, ("if granted > self._outstanding:", "if False:"), tests=CREDIT),
    mutation(
        "credit that is no number", PACING, ('granted = number_field(credit, "bytes")', 'granted = credit.fields["bytes"]'), tests=CREDIT
    ),
    mutation(
        "a sender goes on with any credit at all",
        PACING,
        ("while self._outstanding > GRANT and", "if self._outstanding > GRANT and"),
        tests=("tests/party/test_pacing.py::test_a_sender_that_has_used_its_budget_waits",),
    ),
    mutation(
        "a control message without a text", CHANNEL, ("if described or not text or text[0]", "if described or text[0]"), tests=CONTROL
    ),
    mutation("a control message with a description", CHANNEL, ("if described or not text or", "if not text or"), tests=CONTROL),
    mutation(
        "any number of bytes attached to a control message",
        CHANNEL,
        (" or sum(part.nbytes for part in attachments) > ATTACHMENT_LIMIT", ""),
        tests=CONTROL,
    ),
    mutation(
        "any number of small inferences ahead", SESSION, ("min(limit // max(size, 1), MOST_AHEAD)", "limit // max(size, 1)"), tests=AHEAD
    ),
    mutation(
        "the client keeps more ahead than its memory", SESSION, ("[(plan.kept_bytes, options.memory)] if role", "[] if role"), tests=AHEAD
    ),
    mutation(
        "the server is told the text of the client's own error",
        "threepc/party/client.py",
        ('f"{type(error).__name__} in the client"', 'f"{error} in the client"'),
        tests=REASONS,
    ),
    mutation(
        "a stranger is told the text of a party's own error",
        "threepc/party/listening.py",
        ('close_all([channel], f"{type(error).__name__} in this party")', 'close_all([channel], f"{error} in this party")'),
        tests=REASONS,
    ),
    mutation(
        "a message under another key is of the connection",
        LISTENER,
        ("elif peer != connection.peer:", "elif False:"),
        tests=(f"{REFUSALS}::test_a_message_under_another_key_is_none_of_the_connection",),
    ),
    mutation(
        "what comes after a connection's end is received",
        LISTENER,
        ("        if self._end is None:\n            if self.wire", "        if True:\n            if self.wire"),
        tests=(f"{REFUSALS}::test_a_message_under_another_key_is_none_of_the_connection",),
    ),
    mutation(
        "any number of connections of one key",
        LISTENER,
        ("and self._count(peer) > self._max_of_a_key:", "and False:"),
        tests=(f"{REFUSALS}::test_too_many_connections_of_a_key_are_turned_away_but_for_a_listening_partys",),
    ),
    mutation(
        "who was told goodbye may greet again",
        LISTENER,
        ("            if identity not in self._dismissed:\n", "            if True:\n"),
        tests=(f"{REFUSALS}::test_who_was_told_goodbye_is_heard_no_more",),
    ),
    mutation(
        "a goodbye is shown as it is",
        SOCKETS,
        (
            'return printable(frames[1].bytes[:REASON_LIMIT].decode(errors="replace"))',
            'return frames[1].bytes[:REASON_LIMIT].decode(errors="replace")',
        ),
        tests=(f"{REFUSALS}::test_a_goodbye_cannot_disturb_a_terminal",),
    ),
    mutation(
        "a message has any number of frames",
        SOCKETS,
        ("        if len(frames) < FRAMES_LIMIT:\n", "        if True:\n"),
        tests=(f"{REFUSALS}::test_a_message_of_too_many_frames_is_cut_short",),
    ),
    mutation(
        "a client's key that was overwritten stays let in",
        "threepc/tasks/reload.py",
        (', *(folder / f"{name}.public" for name in self._deployment.clients))]', ")]"),
        tests=("tests/tasks/test_reload.py::test_a_key_that_is_overwritten_where_it_lies",),
    ),
    mutation(
        "a server says which file of a client's goes",
        "threepc/party/weight_cache.py",
        ("return self._folder / digest if _DIGEST.fullmatch(digest) else None", "return self._folder / digest"),
        tests=("tests/party/test_weight_cache.py::test_a_server_has_no_file_removed_that_is_no_digest",),
    ),
    mutation(
        "a server deals with a provider that confirms another model",
        "threepc/party/server.py",
        ('"fingerprint") != public.fingerprint:', '"fingerprint") == "":'),
        tests=("tests/party/test_session.py::test_a_provider_that_confirms_another_model_ends_the_session",),
    ),
    *(
        mutation(
            name, "threepc/party/server.py", ("charge.is_final = index >= plan.before_results", f"charge.is_final = {when}"), tests=ASKED
        )
        for name, when in (
            ("the first of several results is free", "index >= len(plan.steps) - 1"),
            ("a result that is on its way is free", "index > plan.before_results"),
            ("what fails before any result counts", "True"),
        )
    ),
    *(
        mutation(
            f"the {role} does not close an attempt that is over",
            f"threepc/party/{role}.py",
            (f"{stream}.end_attempt(attempt)", "pass"),
            tests=OVER,
        )
        for role, stream in (("client", "self._stream"), ("server", "stream"), ("provider", "stream"))
    ),
    mutation(
        "a client infers with a provider that confirms another model",
        "threepc/party/client.py",
        ('.fields.get("fingerprint") != self.model.fingerprint:', '.fields.get("fingerprint") is None:'),
        tests=("tests/party/test_session.py",),
    ),
    mutation(
        "a client runs what its provider accepts",
        "threepc/party/client.py",
        ("        self._options.accept(self.model)\n", ""),
        tests=("tests/tensors/test_parties.py::test_so_does_a_client_whatever_the_provider_accepts",),
    ),
)
