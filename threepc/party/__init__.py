"""Who: client, server and provider, each with its sessions, and all three on one host or on three."""
