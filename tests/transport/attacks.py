"""What somebody may try against a listener, as a program: `PYTHONPATH=. python tests/transport/attacks.py NAME ADDRESS [PUBLIC SECRET SERVER_KEY]`.

It says "under way" once the attack is, and goes on until it is killed. The first two need no key, the others are those of a listed client.
"""

import socket
import sys
import time

import zmq

from threepc.transport.keys import KeyPair
from threepc.transport.zmq_sockets import new_socket

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
MEBIBYTE = 1 << 20


def under_way():
    sys.stdout.write("under way\n")
    sys.stdout.flush()


def half_open(address, keys, server_key):
    """Connections that say nothing, many more than a process may usually hold open."""
    sockets = []
    for _ in range(1500):
        sockets.append(socket.create_connection(place(address)))
        if len(sockets) == 700:
            under_way()
    return sockets


def stuff(address, keys, server_key):
    """A command of half a gigabyte before any handshake, as far as it is taken, on three connections."""
    sockets = [socket.create_connection(place(address)) for _ in range(3)]
    for each in sockets:
        each.sendall(GREETING + b"\x06" + (512 * MEBIBYTE).to_bytes(8, "big"))
    under_way()
    for _ in range(512):
        for each in sockets:
            try:
                each.sendall(bytes(MEBIBYTE))
            except OSError:
                return sockets
    return sockets


def creep(address, keys, server_key):
    """Two hundred connections that each send as large a command as is taken, and never its last byte."""
    sockets = []
    for _ in range(200):
        each = socket.create_connection(place(address))
        try:
            each.sendall(GREETING + b"\x06" + (1000 * 1024).to_bytes(8, "big") + bytes(1000 * 1024 - 1))
        except OSError:
            continue
        sockets.append(each)
    under_way()
    return sockets


def silent(address, keys, server_key):
    """Handshakes without a word after them."""
    dealers = [dealer(address, keys, server_key) for _ in range(100)]
    under_way()
    return dealers


def greedy(address, keys, server_key):
    """As many greetings as connections can be had."""
    dealers = [dealer(address, keys, server_key) for _ in range(100)]
    for each in dealers:
        each.send(b"")
    under_way()
    return dealers


def flood(address, keys, server_key):
    """Messages that nobody reads, without end."""
    one = dealer(address, keys, server_key)
    one.send(b"")
    under_way()
    while True:
        one.send(bytes(MEBIBYTE))


def endless(address, keys, server_key):
    """One message of four gigabytes in parts. libzmq lets none of it leave before it has all, so they are all the same."""
    one = dealer(address, keys, server_key)
    one.send(b"")
    one.send_multipart([bytes(MEBIBYTE)] * 4096, copy=False)
    under_way()
    return one


def crumbs(address, keys, server_key):
    """Messages of a byte, each of which takes much more to keep."""
    one = dealer(address, keys, server_key)
    one.send(b"")
    under_way()
    while True:
        one.send(b"x")


def trickle(address, keys, server_key):
    """Messages of a byte, each alone in what the receiver reads at once: where it is kept whole, a byte takes kilobytes."""
    one = dealer(address, keys, server_key)
    one.setsockopt(zmq.SNDHWM, 1)
    one.send(b"")
    under_way()
    while True:
        one.send(b"x")
        time.sleep(1e-4)


def dealer(address, keys, server_key):
    made = new_socket(zmq.Context.instance(), zmq.DEALER, address, keys)
    made.setsockopt(zmq.SNDHWM, 4)  # what is not taken stays with the attacker
    made.curve_serverkey = server_key
    made.connect(address)
    return made


def place(address):
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    return host, int(port)


if __name__ == "__main__":
    name, where, *given = sys.argv[1:]
    public, secret, listener = (text.encode() for text in given or ("", "", ""))
    held = globals()[name](where, KeyPair(public, secret), listener)
    while True:
        time.sleep(1)
