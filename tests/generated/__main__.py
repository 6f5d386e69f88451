"""`python -m tests.generated`: writes the generated parts of docs/protocol.md and docs/errors.md anew."""

from tests.generated import error_messages, protocol_costs

error_messages.PAGE.write_text(error_messages.written(error_messages.PAGE.read_text(), error_messages.by_file()))
protocol_costs.PAGE.write_text(protocol_costs.written(protocol_costs.PAGE.read_text()))
