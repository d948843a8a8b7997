"""Prints archives that try to get out of where they are unpacked, as JSON: name to base64."""

import base64
import gzip
import io
import json
import stat
import tarfile
import zipfile

SOURCE = b"def handle(context, payload):\n    return 1\n"


def tar(*entries):
    """Entries are (name, kind, link, content); a good handler stands beside them."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind, link, content in (("handler.py", tarfile.REGTYPE, "", SOURCE), *entries):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = kind, link, len(content), 0o4755
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), 1)


def file(name, content=b"x"):
    return (name, tarfile.REGTYPE, "", content)


def link(name, target, kind=tarfile.SYMTYPE):
    return (name, kind, target, b"")


def zipped(*entries):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("handler.py", SOURCE)
        for name, mode in entries:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, mode << 16
            archive.writestr(info, b"/etc/passwd")
    return raw.getvalue()


def raw_name(archive, name, other):
    """Puts a name into an archive that its maker would not write."""
    assert len(name) == len(other)
    return archive.replace(name, other)



ARCHIVES = {
    "parent": tar(file("../escaped")),
    "parent deep inside": tar(file("a/b/../../../escaped")),
    "absolute": tar(file("/tmp/escaped")),
    "link to a directory outside, then a file through it": tar(
        link("l", "/tmp"), file("l/escaped")
    ),
    "link out by parents": tar(link("l", "../../../../../../etc/passwd")),
    "hard link out": tar(link("h", "/etc/passwd", tarfile.LNKTYPE)),
    "hard link to the secrets' key": tar(link("h", "../../../master.key", tarfile.LNKTYPE)),
    "character device": tar(link("d", "", tarfile.CHRTYPE)),
    "block device": tar(link("d", "", tarfile.BLKTYPE)),
    "pipe": tar(link("p", "", tarfile.FIFOTYPE)),
    "one name twice": tar(file("x"), file("x", b"y")),
    "one name twice by another spelling": tar(file("x"), file("./x", b"y")),
    "name with a newline": tar(file("a\nb")),
    "name that is too long": tar(file("/".join(["d" * 100] * 20))),
    "too deep": tar(file("d/" * 100 + "x")),
    "too many": tar(*(file("n%d" % n, b"") for n in range(50_001))),
    "damaged": tar(file("x", b"x" * 100_000))[:-50],
    "no archive": b"#!/bin/sh\nid\n",
    "zip: parent": zipped(("../escaped", stat.S_IFREG | 0o644)),
    "zip: absolute": zipped(("/tmp/escaped", stat.S_IFREG | 0o644)),
    "zip: link": zipped(("l", stat.S_IFLNK | 0o777)),
    "zip: with NUL": raw_name(
        zipped(("aXb", stat.S_IFREG | 0o644)), b"aXb", b"a\0b"
    ),
}
print(json.dumps({name: base64.b64encode(data).decode() for name, data in ARCHIVES.items()}))
