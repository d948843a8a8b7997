"""Ways out by the proxy."""

import socket

from tools import attack, succeeded

PROXY = ("127.0.0.1", 3128)


def said(request):
    """What the proxy says to this."""
    with socket.create_connection(PROXY, 10) as s:
        s.sendall(request)
        return s.recv(4096)


def refused(requests):
    """Whether it refuses them all: with a status from 400 to 403, and not by trying in vain."""
    answers = {request: said(request).split(b" ") for request in requests}
    through = [r for r, answer in answers.items() if answer[1] not in (b"400", b"403")]
    return "all refused" if answers and not through else succeeded(through)


def to(targets):
    return refused(f"CONNECT {t} HTTP/1.1\r\nHost: {t}\r\n\r\n".encode() for t in targets)


@attack
def metadata_through_proxy(facts):
    return to(["169.254.169.254:80", "169.254.170.2:80", "[fd00:ec2::254]:80", "100.100.100.200:80"])


@attack
def metadata_in_odd_notations(facts):
    hosts = ["2852039166", "0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376", "169.254.43518",
             "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]",
             "169.254.169.254.", "[::169.254.169.254]"]
    return to(host + ":80" for host in hosts)


@attack
def metadata_by_request(facts):
    url = "http://169.254.169.254/latest/meta-data/"
    heads = [f"GET {url} HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
             f"GET {url} HTTP/1.1\r\nHost: one.one.one.one\r\n\r\n",
             "GET http://one.one.one.one@169.254.169.254/ HTTP/1.1\r\nHost: one.one.one.one\r\n\r\n",
             "GET / HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n"]
    return refused(head.encode() for head in heads)


@attack
def metadata_by_socks(facts):
    with socket.create_connection(PROXY, 10) as s:
        s.sendall(b"\x05\x01\x00")
        s.recv(2)
        s.sendall(b"\x05\x01\x00\x01" + socket.inet_aton("169.254.169.254") + b"\x00\x50")
        code = s.recv(10)[1]
        return "not allowed" if code == 2 else succeeded(code)


@attack
def machine_through_proxy(facts):
    hosts = ["127.0.0.1", "127.1.2.3", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "localhost",
             facts["address"]]
    return to(f"{host}:{port}" for host in hosts for port in (facts["api"], facts["gateway"]))


@attack
def private_ranges_through_proxy(facts):
    hosts = ["10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "192.0.0.1", "198.18.0.1", "224.0.0.1",
             "255.255.255.255", "[fe80::1]", "[fd00::1]", "[ff02::1]", "[2001:db8::1]"]
    return to(host + ":443" for host in hosts)
