"""One file a protocol: what provider, client and server do, side by side, and what it costs."""
