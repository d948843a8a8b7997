"""Ways out by sockets."""

import fcntl
import socket
import struct

from tools import attack, succeeded


def connects(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(3)
        s.connect(address)
        return succeeded(address)


@attack
def api_on_loopback(facts):
    return connects(socket.AF_INET, ("127.0.0.1", facts["api"]))


@attack
def gateway_on_loopback(facts):
    return connects(socket.AF_INET, ("127.0.0.1", facts["gateway"]))


@attack
def api_by_any_address(facts):
    return connects(socket.AF_INET, ("0.0.0.0", facts["api"]))


@attack
def api_by_version_six(facts):
    return connects(socket.AF_INET6, ("::1", facts["api"]))


@attack
def api_by_mapped_address(facts):
    return connects(socket.AF_INET6, ("::ffff:127.0.0.1", facts["api"]))


@attack
def address_of_machine(facts):
    return connects(socket.AF_INET, (facts["address"], facts["api"]))


@attack
def metadata_directly(facts):
    return connects(socket.AF_INET, ("169.254.169.254", 80))


@attack
def internet_directly(facts):
    return connects(socket.AF_INET, ("1.1.1.1", 443))


@attack
def datagram_to_machine(facts):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", (facts["address"], facts["udp"]))
    return succeeded()


@attack
def datagram_to_loopback(facts):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("127.0.0.1", facts["udp"]))
        s.send(b"x")
        s.send(b"x")
    return succeeded()


@attack
def abstract_socket(facts):
    return connects(socket.AF_UNIX, "\0" + facts["abstract"])


@attack
def socket_file(facts):
    return connects(socket.AF_UNIX, facts["socket"])


@attack
def raw_socket(facts):
    return succeeded(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))


@attack
def packet_socket(facts):
    return succeeded(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300))


@attack
def bring_up_interface(facts):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0))
    return succeeded()


@attack
def route_by_netlink(facts):
    """Asks for a route to the machine: RTM_NEWROUTE."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as s:
        body = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 4, 253, 1, 0)
        body += struct.pack("=HHI", 8, 4, 1)
        s.send(struct.pack("=IHHII", 16 + len(body), 24, 0x505, 1, 0) + body)
        code = struct.unpack("=i", s.recv(4096)[16:20])[0]
    if code:
        raise OSError(-code, "netlink")
    return succeeded()


@attack
def interfaces(facts):
    names = [name for _, name in socket.if_nameindex()]
    return "only lo" if names == ["lo"] else succeeded(names)
