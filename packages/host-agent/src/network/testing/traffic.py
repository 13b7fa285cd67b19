"""Real traffic for the network tests: a stand-in for a guest on a slot's tap, servers, and clients of every kind.

attach NAMESPACE TAP UID GUEST_NAMESPACE   be the engine: attach to the tap as UID, and join it to eth0 in the guest's namespace
serve PORT                                 TCP and UDP on PORT: tell each peer its own address, then echo
probe [PROTOCOL HOST PORT]...              try all at once; print one outcome per line
ping HOST                                  print whether it answers
flow HOST PORT SECONDS                     keep one TCP connection busy; print how many of the bytes sent came back
talk HOST PORT                             send on one TCP connection until it breaks; print why
talk-to-caller PORT                        the same on the first connection that comes in
stray HOST PORT                            send a segment from far out of a TCP connection's window; print what becomes of it
burst HOST PORT LOCAL_PORT                 from LOCAL_PORT, ask a server for a datagram every 50 ms for 2 s
listen PORT SECONDS                        print how many datagrams arrive on PORT
frame MAC SOURCE DESTINATION PORT PAYLOAD  send one UDP datagram in a frame with these sources, right or forged, to the gateway
"""

import ctypes
import fcntl
import os
import select
import socket
import socketserver
import struct
import sys
import threading
import time

GATEWAY_MAC = "06:00:a9:fe:00:16"
TIMEOUT_SECONDS = 1.5


def enter(namespace):
    with open(namespace) as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def open_tap(name):
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH", name.encode(), 0x1002))  # TUNSETIFF, IFF_TAP | IFF_NO_PI
    return tap


def attach(namespace, tap_name, uid, guest_namespace):
    enter(namespace)
    # Leaving root's effective id drops its capabilities too: only the tap's owner gets past this.
    os.seteuid(int(uid))
    tap = open_tap(tap_name)
    os.seteuid(0)
    enter(guest_namespace)
    eth0 = open_tap("eth0")
    say("ready")
    while True:
        for source in select.select([tap, eth0], [], [])[0]:
            try:
                os.write(eth0 if source == tap else tap, os.read(source, 65536))
            except OSError:
                pass  # The other side is not up yet, or no longer: frames are lost then, as on any wire.


class TcpPeer(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(self.client_address[0].encode() + b"\n")
        while data := self.request.recv(65536):
            self.request.sendall(data)


class UdpPeer(socketserver.BaseRequestHandler):
    def handle(self):
        payload, server = self.request
        say(f"datagram {payload.decode()} from {self.client_address[0]}")
        for _ in range(40 if payload == b"burst" else 1):
            server.sendto(self.client_address[0].encode(), self.client_address)
            if payload == b"burst":
                time.sleep(0.05)


class Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class Udp(socketserver.ThreadingUDPServer):
    daemon_threads = True


def serve(port):
    servers = [Tcp(("0.0.0.0", int(port)), TcpPeer), Udp(("0.0.0.0", int(port)), UdpPeer)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    say("ready")
    signal_never = threading.Event()
    signal_never.wait()


def probe(*targets):
    outcomes = [None] * (len(targets) // 3)

    def attempt(at, protocol, host, port):
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        try:
            with socket.socket(socket.AF_INET, kind) as client:
                client.settimeout(TIMEOUT_SECONDS)
                client.connect((host, int(port)))
                if protocol == "udp":
                    client.send(b"who")
                outcomes[at] = f"answered {client.recv(100).decode().strip()}"
        except TimeoutError:
            outcomes[at] = "silence"
        except OSError as error:
            outcomes[at] = error.strerror

    threads = [
        threading.Thread(target=attempt, args=(at, *targets[3 * at : 3 * at + 3])) for at in range(len(outcomes))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outcome in outcomes:
        say(outcome)


def ping(host):
    echo = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as wire:
        wire.settimeout(TIMEOUT_SECONDS)
        wire.sendto(echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:], (host, 0))
        try:
            answer, peer = wire.recvfrom(100)
            say(f"answered {peer[0]}" if answer[20] == 0 else f"type {answer[20]} from {peer[0]}")
        except TimeoutError:
            say("silence")


def flow(host, port, seconds):
    sent = returned = 0
    with socket.create_connection((host, int(port)), TIMEOUT_SECONDS) as client:
        client.recv(100)
        say("ready")
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            client.sendall(b"x")
            sent += 1
            returned += len(client.recv(1))
            time.sleep(0.01)
    say(f"{returned} of {sent}")


def talk(host, port):
    with socket.create_connection((host, int(port)), TIMEOUT_SECONDS) as client:
        client.recv(100)
        say("ready")
        talk_on(client)


def talk_to_caller(port):
    with socket.create_server(("0.0.0.0", int(port))) as server:
        say("ready")
        talk_on(server.accept()[0])


def talk_on(connection):
    # Longer than the kernel waits before it sends again, shorter than any of its own limits.
    end = time.monotonic() + 20
    try:
        while time.monotonic() < end:
            connection.sendall(b"x")
            if select.select([connection], [], [], 0.01)[0]:
                connection.recv(100)
        say("silence")
    except OSError as error:
        say(error.strerror)


def stray(host, port):
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as tap, socket.create_connection((host, int(port))) as client:
        tap.bind(("eth0", 3))  # ETH_P_ALL
        client.recv(100)
        echo_some(client)
        (source, source_port), (destination, _) = client.getsockname(), client.getpeername()
        sequence, acknowledged = last_numbers(tap, source_port)
        # An answer to it as if it belonged to no connection would be accepted: it names the byte that is expected next.
        segment = struct.pack(
            "!HHIIBBHHH", source_port, int(port), (sequence + 10_000_000) % 2**32, acknowledged, 5 << 4, 0x10, 1024, 0, 0
        )
        addresses = socket.inet_aton(source) + socket.inet_aton(destination)
        sum_of_all = checksum(addresses + struct.pack("!HH", socket.IPPROTO_TCP, len(segment)) + segment)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as wire:
            wire.sendto(segment[:16] + struct.pack("!H", sum_of_all) + segment[18:], (host, 0))
        try:
            echo_some(client)
            say("goes on")
        except OSError as error:
            say(error.strerror or "silence")


def echo_some(client):
    for _ in range(20):
        client.sendall(b"x")
        client.recv(1)
        time.sleep(0.01)


def last_numbers(tap, source_port):
    """Sequence and acknowledgement numbers of the last segment sent from a port."""
    numbers = None
    while select.select([tap], [], [], 0.2)[0]:
        packet = tap.recv(2000)
        if packet[9] == socket.IPPROTO_TCP and struct.unpack_from("!H", packet, 20)[0] == source_port:
            numbers = struct.unpack_from("!II", packet, 24)
    return numbers


def burst(host, port, local_port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("0.0.0.0", int(local_port)))
        client.sendto(b"burst", (host, int(port)))


def listen(port, seconds):
    count = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", int(port)))
        end = time.monotonic() + float(seconds)
        while (left := end - time.monotonic()) > 0:
            if select.select([server], [], [], left)[0]:
                server.recv(100)
                count += 1
    say(str(count))


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def frame(mac, source, destination, port, payload):
    body = payload.encode()
    udp = struct.pack("!HHHH", 4000, int(port), 8 + len(body), 0) + body
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(destination)
    )
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    ethernet = b"".join(bytes.fromhex(part.replace(":", "")) for part in (GATEWAY_MAC, mac)) + b"\x08\x00"
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        wire.send(ethernet + head + udp)


def say(line):
    print(line, flush=True)


commands = dict(attach=attach, serve=serve, probe=probe, ping=ping, flow=flow, burst=burst, listen=listen, frame=frame)
commands.update({"talk": talk, "talk-to-caller": talk_to_caller, "stray": stray})
commands[sys.argv[1]](*sys.argv[2:])
