"""Objects behind which a library or a file stands: databases, TLS, hashes, loggers, the environment, parsers.

sqlite3.Connection -> its file and settings, or its content -> opened there (see `sqlite`)
SSLContext         -> its settings and CA certificates      -> made again there
logger, os.environ -> its name                              -> the receiver's own
hash, compressor   -> refused where it has been fed: C keeps that state to itself
"""

from __future__ import annotations

from bequest.carry import instances, namespaces
from bequest.carry.registry import NotCarriedError, carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    import ssl
    from typing import Any

    from bequest.carry.registry import Packing, Reduced


# -- the process's own


@carries("os._Environ", subclasses=True)
def reduce_environment(environment: Any, packing: Packing) -> Reduced:
    """`os.environ` is each process's own."""
    import os

    for name in ("environ", "environb"):
        if getattr(os, name, None) is environment:
            return namespaces.find_attribute, ("os", name)
    return instances.reduce_by_state(environment)


@carries("logging.Logger", subclasses=True)
def reduce_logger(logger: logging.Logger, packing: Packing) -> Reduced:
    """By name where `getLogger` knows it, else by value; its own way refuses the latter."""
    import logging

    if logger is logging.getLogger():
        return logging.getLogger, ()
    if logger.manager is logging.Logger.manager and logger.manager.loggerDict.get(logger.name) is logger:
        return logging.getLogger, (logger.name,)
    return instances.reduce_by_state(logger, replace={"_cache": {}})


@carries("logging.Manager")
def reduce_manager(manager: Any, packing: Packing) -> Reduced:
    """The manager of all loggers is each process's own."""
    import logging

    if manager is logging.Logger.manager:
        return own_manager, ()
    return instances.reduce_by_state(manager)


def own_manager() -> Any:
    """Return the manager of this process's loggers."""
    import logging

    return logging.Logger.manager


@carries("random.SystemRandom", subclasses=True)
def reduce_system_random(source: Any, packing: Packing) -> Reduced:
    """By its attributes: it draws from the system, and raises where it is asked for a state."""
    import random

    kind = type(source)
    attributes = (instances.instance_dict(source) or None, instances.read_slots(source) or None, None)
    # The C class under `Random`: what is between may have a constructor that needs arguments.
    base = random.Random.__base__
    return instances.create, (kind, base, None), attributes, None, None, instances.fill


@carries("zoneinfo.ZoneInfo", subclasses=True)
def reduce_time_zone(zone: Any, packing: Packing) -> Reduced:
    """By its key. One of a user's class is made past the cache of its class, which may hold this very one.

    The cache is an attribute of the class, and comes with it. A zone made of a file has no key, and refuses.
    """
    import zoneinfo

    kind = type(zone)
    if kind is zoneinfo.ZoneInfo or zone.key is None:
        return packing.own_way(zone)
    attributes = (instances.instance_dict(zone) or None, instances.read_slots(zone) or None, None)
    return make_time_zone, (kind, zone.key), attributes, None, None, instances.fill


def make_time_zone(kind: Any, key: str) -> Any:
    """Return a time zone that no cache knows."""
    import zoneinfo

    # Of the library's class, whatever the user's has under that name.
    return zoneinfo.ZoneInfo.__dict__["no_cache"].__get__(None, kind)(key)


@carries("xmlrpc.client.ServerProxy", subclasses=True)
def reduce_server_proxy(proxy: Any, packing: Packing) -> Reduced:
    """By state: any attribute that pickle asks for, even `__setstate__`, it takes for a remote method."""
    return instances.reduce_by_state(proxy)


# -- small objects of C


@carries("_struct.Struct", subclasses=True)
def reduce_struct(packer: Any, packing: Packing) -> Reduced:
    """By its format."""
    return type(packer), (packer.format,)


_SCANNER_PARTS = (
    "strict",
    "object_hook",
    "object_pairs_hook",
    "array_hook",  # since 3.15
    "parse_float",
    "parse_int",
    "parse_constant",
)


@carries("_json.Scanner")
def reduce_scanner(scanner: Any, packing: Packing) -> Reduced:
    """What a `json.JSONDecoder` keeps: made again of its settings."""
    return make_scanner, (
        {name: getattr(scanner, name) for name in _SCANNER_PARTS if hasattr(scanner, name)},
    )


def make_scanner(settings: dict[str, Any]) -> Any:
    """Return a scanner of JSON text."""
    from json import scanner
    from types import SimpleNamespace

    make: Any = scanner.c_make_scanner  # type: ignore[attr-defined]  # not in typeshed
    return make(SimpleNamespace(**settings))


# -- hashes and compressors

_HASH_REMEDY = "Make the hash and feed it in one process, or pass its digest"


@carries(
    "_hashlib.HASH",
    "_hashlib.HASHXOF",
    "_md5.md5",
    "_sha1.sha1",
    "_sha256.sha224",
    "_sha256.sha256",
    "_sha512.sha384",
    "_sha512.sha512",
    "_sha2.SHA224Type",
    "_sha2.SHA256Type",
    "_sha2.SHA384Type",
    "_sha2.SHA512Type",
    "_sha3.sha3_224",
    "_sha3.sha3_256",
    "_sha3.sha3_384",
    "_sha3.sha3_512",
    "_sha3.shake_128",
    "_sha3.shake_256",
    "_blake2.blake2b",
    "_blake2.blake2s",
)
def reduce_hash(digest: Any, packing: Packing) -> Reduced:
    """As new where nothing has been fed to it, which its digest tells."""
    import hashlib

    length = (16,) if digest.name.startswith("shake") else ()
    try:
        fresh: Any = hashlib.new(digest.name, usedforsecurity=False)
    except ValueError:  # not in this build of OpenSSL under that name
        fresh = None
    if (
        fresh is None
        or fresh.digest(*length) != digest.digest(*length)
        or fresh.digest_size != digest.digest_size
    ):
        raise NotCarriedError("what it has been fed is in C state that nothing can read back", _HASH_REMEDY)
    return hashlib.new, (digest.name,)


@carries("_hashlib.HMAC", "_hmac.HMAC")
def refuse_keyed_hash(digest: Any, packing: Packing) -> Reduced:
    """The key went in first."""
    raise NotCarriedError(
        "its key and what it has been fed are in C state that nothing can read back", _HASH_REMEDY
    )


@carries(
    "zlib.Compress",
    "zlib.Decompress",
    "zlib._ZlibDecompressor",
    "_bz2.BZ2Compressor",
    "_bz2.BZ2Decompressor",
    "_lzma.LZMACompressor",
    "_lzma.LZMADecompressor",
    "compression.zstd.ZstdCompressor",
    "compression.zstd.ZstdDecompressor",
    "_zstd.ZstdCompressor",
    "_zstd.ZstdDecompressor",
)
def refuse_compressor(compressor: Any, packing: Packing) -> Reduced:
    """Where it is in its stream cannot be told, nor set."""
    raise NotCarriedError(
        "where it is in its stream is in C state that nothing can read back",
        "Make it in the process that uses it",
    )


@carries("pyexpat.xmlparser", "xml.etree.ElementTree.XMLParser", "xml.etree.ElementTree.TreeBuilder")
def refuse_parser(parser: Any, packing: Packing) -> Reduced:
    """As a compressor."""
    raise NotCarriedError(
        "where it is in its document is in C state that nothing can read back",
        "Parse in one process, and pass the result",
    )


@carries("_dbm.dbm", "_gdbm.gdbm", "_tkinter.tkapp", "_curses.window", "_curses_panel.panel")
def refuse_handle(handle: Any, packing: Packing) -> Reduced:
    """A handle of a C library."""
    raise NotCarriedError(
        "it is a handle of a C library in this process", "Open it in the process that uses it"
    )


@carries("sqlite3.Blob")
def refuse_blob(blob: Any, packing: Packing) -> Reduced:
    """It is open on a row of its connection."""
    raise NotCarriedError(
        "it is part of a connection of this process", "Pass the connection and open it there"
    )


# -- TLS


@carries("ssl.SSLContext", subclasses=True)
def reduce_tls_context(context: ssl.SSLContext, packing: Packing) -> Reduced:
    """By what it shows of its settings, and its CA certificates.

    It does not show its own certificate chain and key (`load_cert_chain`), ALPN and DH parameters, nor a
    directory of CA certificates. A context that verifies and has none loaded is given the system's, as it
    must have had them.
    """
    import ssl

    certificates = context.get_ca_certs(binary_form=True)
    verifies = context.verify_mode != ssl.CERT_NONE
    state = {
        "certificates": b"".join(certificates),
        "system": verifies and not certificates,
        "ciphers": [cipher["name"] for cipher in context.get_ciphers()],
        "settings": {name: getattr(context, name) for name in _TLS_SETTINGS if hasattr(context, name)},
        "attributes": dict(context.__dict__),
    }
    return make_tls_context, (type(context), int(context.protocol)), state, None, None, set_tls_context


# In an order in which each may be set: `verify_mode` may not be CERT_NONE while `check_hostname` is true.
_TLS_SETTINGS = (
    "check_hostname",
    "verify_mode",
    "verify_flags",
    "options",
    "minimum_version",
    "maximum_version",
    "post_handshake_auth",
    "hostname_checks_common_name",
    "num_tickets",
    "keylog_filename",
    "sni_callback",
)


def make_tls_context(kind: Any, protocol: int) -> Any:
    """Return a context with the settings that its protocol starts with."""
    import ssl
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sender has been told that its protocol is deprecated
        return ssl.SSLContext.__new__(kind, protocol)


def set_tls_context(context: Any, state: dict[str, Any]) -> None:
    """Give a context of `make_tls_context` its settings and certificates, those alone that differ."""
    import warnings

    settings = state["settings"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above, for versions and options
        context.check_hostname = False
        context.verify_mode = settings["verify_mode"]
        for name, value in settings.items():
            if getattr(context, name) != value:
                setattr(context, name, value)
    if [cipher["name"] for cipher in context.get_ciphers()] != state["ciphers"]:
        context.set_ciphers(
            ":".join(name for name in state["ciphers"] if not name.startswith("TLS_")) or "DEFAULT"
        )
    if state["certificates"]:
        context.load_verify_locations(cadata=state["certificates"])
    elif state["system"]:
        context.set_default_verify_paths()
    context.__dict__.update(state["attributes"])
