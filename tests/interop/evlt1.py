"""evlt/v1 in Python: a second implementation, written from docs/VAULT.md alone.

It exists to check the text and the vectors, not to be used: it holds everything in memory and wipes nothing.
"""

import hashlib
import hmac as _hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

MAGIC = bytes.fromhex("8945564C540D0A1A")
AEADS = {1: AESGCM, 2: ChaCha20Poly1305}
BODY_LENGTHS = {0: 0, 2: 80, 3: 85}


class Refused(Exception):
    """An error of "Reading"; `str` is its name."""


class Unreachable(Exception):
    """A key service that cannot be reached."""


def refuse(condition, error):
    if condition:
        raise Refused(error)


def u16(n):
    return n.to_bytes(2, "big")


def hmac(key, message):
    return _hmac.new(key, message, hashlib.sha256).digest()


def extract(salt, ikm):
    return hmac(salt or bytes(32), ikm)


def expand(prk, info, length):
    out, block, i = b"", b"", 1
    while len(out) < length:
        block = hmac(prk, block + info + bytes([i]))
        out, i = out + block, i + 1
    return out[:length]


# --- Keys ---------------------------------------------------------------------------------------------------------------------


def derive(key, salt, suite):
    """k_enc, commitment, k_hdr."""
    prk = extract(salt, key)
    return tuple(expand(prk, b"evlt/v1 " + label + bytes([suite]), 32) for label in (b"enc", b"commit", b"header"))


def ctx(context):
    return len(context).to_bytes(8, "big") + context


def header_mac(k_hdr, core, section, context):
    return hmac(k_hdr, b"slots" + core + section + ctx(context))


def body_ad(k_hdr, core, context):
    return hmac(k_hdr, b"body" + core + ctx(context))


def nonce(i, last):
    return i.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


# --- Layout -------------------------------------------------------------------------------------------------------------------


class Header:
    def __init__(self, blob):
        refuse(len(blob) < 82 or blob[:8] != MAGIC or blob[8] != 1 or blob[9] not in AEADS, "FORMAT")
        refuse(int.from_bytes(blob[10:12], "big") & ~1 or not 12 <= blob[12] <= 24 or any(blob[13:16]), "FORMAT")
        self.core, self.suite, self.chunk = blob[:80], blob[9], 1 << blob[12]
        self.salt, self.commitment = blob[16:48], blob[48:80]
        end = 82 + int.from_bytes(blob[80:82], "big")
        refuse(len(blob) < end + 32, "FORMAT")
        self.section, self.mac, self.length = blob[80:end], blob[end : end + 32], end + 32
        self.slots = parse_slots(blob[82:end])


def parse_slots(section):
    refuse(not section or not 1 <= section[0] <= 16, "FORMAT")
    slots, at = [], 1
    for _ in range(section[0]):
        parts = []
        refuse(at >= len(section), "FORMAT")
        kind, at = section[at], at + 1
        for _ in range(2):
            refuse(at + 2 > len(section), "FORMAT")
            length, at = int.from_bytes(section[at : at + 2], "big"), at + 2
            refuse(at + length > len(section), "FORMAT")
            parts.append(section[at : at + length])
            at += length
        refuse(kind in BODY_LENGTHS and len(parts[1]) != BODY_LENGTHS[kind], "FORMAT")
        if kind == 3:
            kib, passes, lanes = cost(parts[1])
            refuse(not (1 <= lanes <= 8 and 1 <= passes <= 16 and 8 * lanes <= kib <= 1_048_576), "FORMAT")
            refuse(kib * passes > 4_194_304, "FORMAT")
        slots.append((kind, *parts))
    refuse(at != len(section) or sum(slot[0] == 3 for slot in slots) > 4, "FORMAT")
    return slots


def cost(body):
    return int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big"), body[8]


def encode_section(slots):
    content = bytes([len(slots)])
    for kind, key_id, body in slots:
        content += bytes([kind]) + u16(len(key_id)) + key_id + u16(len(body)) + body
    return u16(len(content)) + content


# --- Slots --------------------------------------------------------------------------------------------------------------------


def argon2id(passphrase, salt, kib, passes, lanes):
    return Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=kib).derive(passphrase.encode())


def passphrase_body(key, passphrase, kib, passes, lanes, salt, iv):
    head = kib.to_bytes(4, "big") + passes.to_bytes(4, "big") + bytes([lanes]) + salt + iv
    return head + AESGCM(argon2id(passphrase, salt, kib, passes, lanes)).encrypt(iv, key, b"")


def hpke_key(shared, enc, recipient, info):
    """RFC 9180: the shared secret of DHKEM(X25519, HKDF-SHA256), then key and nonce of base mode."""

    def labelled(suite, prk, label, info, length):
        return expand(prk, u16(length) + b"HPKE-v1" + suite + label + info, length)

    def labelled_extract(suite, salt, label, ikm):
        return extract(salt, b"HPKE-v1" + suite + label + ikm)

    kem = b"KEM" + u16(0x20)
    eae = labelled_extract(kem, b"", b"eae_prk", shared)
    secret = labelled(kem, eae, b"shared_secret", enc + recipient, 32)
    suite = b"HPKE" + u16(0x20) + u16(1) + u16(3)
    context = b"\0" + labelled_extract(suite, b"", b"psk_id_hash", b"") + labelled_extract(suite, b"", b"info_hash", info)
    prk = labelled_extract(suite, secret, b"secret", b"")
    return labelled(suite, prk, b"key", context, 32), labelled(suite, prk, b"base_nonce", context, 12)


INFO = b"evlt/v1 slot"


def public(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def hpke_body(key, recipient, ephemeral):
    enc = public(ephemeral)
    shared = X25519PrivateKey.from_private_bytes(ephemeral).exchange(X25519PublicKey.from_public_bytes(recipient))
    k, iv = hpke_key(shared, enc, recipient, INFO)
    return enc + ChaCha20Poly1305(k).encrypt(iv, key, b"")


def hpke_open(private, body):
    enc, sealed = body[:32], body[32:]
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(enc))
    except ValueError:  # all zero
        return None
    k, iv = hpke_key(shared, enc, public(private), INFO)
    return opened(ChaCha20Poly1305(k), iv, sealed, b"")


def opened(aead, iv, sealed, ad):
    try:
        return aead.decrypt(iv, sealed, ad)
    except InvalidTag:
        return None


# --- Reading ------------------------------------------------------------------------------------------------------------------


def data_key(header, keys):
    """`keys`: direct {id: key}, kms {id: function}, hpke {id: private}, passphrase, limits {kib, passes, lanes}."""
    unavailable = limited = False
    for kind, key_id, body in header.slots:
        key = None
        if kind == 0:
            key = keys.get("direct", {}).get(key_id)
        elif kind == 1 and key_id in keys.get("kms", {}):
            try:
                key = keys["kms"][key_id](body)
            except Unreachable:
                unavailable = True
        elif kind == 2 and key_id in keys.get("hpke", {}):
            key = hpke_open(keys["hpke"][key_id], body)
        elif kind == 3 and keys.get("passphrase") is not None:
            limits = keys.get("limits", {})
            names = ("kib", "passes", "lanes")
            if any(name in limits and spent > limits[name] for name, spent in zip(names, cost(body))):
                limited = True
            else:
                stretched = argon2id(keys["passphrase"], body[9:25], *cost(body))
                key = opened(AESGCM(stretched), body[25:37], body[37:], b"")
        if key is not None and len(key) == 32:
            if _hmac.compare_digest(derive(key, header.salt, header.suite)[1], header.commitment):
                return key
    raise Refused("Unavailable" if unavailable else "LIMIT" if limited else "WRONG_KEY")


def open_blob(blob, keys, context, released=None):
    """The payload. What a stream would have let out by the time of an error is put into the list `released`."""
    header = Header(blob)
    key = data_key(header, keys)
    k_enc, _, k_hdr = derive(key, header.salt, header.suite)
    expected = header_mac(k_hdr, header.core, header.section, context)
    refuse(not _hmac.compare_digest(expected, header.mac), "CONTEXT_OR_HEADER")
    aead, ad = AEADS[header.suite](k_enc), body_ad(k_hdr, header.core, context)
    out = [] if released is None else released
    at, i, full = header.length, 0, header.chunk + 16
    while True:
        sealed, more = blob[at : at + full], at + full < len(blob)
        refuse(len(sealed) < 16, "TRUNCATED")
        text, other = opened(aead, nonce(i, not more), sealed, ad), None
        if text is None:
            other = opened(aead, nonce(i, more), sealed, ad)
        refuse(text is None and other is not None, "TRAILING" if more else "TRUNCATED")
        refuse(text is None or (text == b"" and i > 0), "DAMAGED")
        out.append(text)
        if not more:
            return b"".join(out)
        at, i = at + full, i + 1


# --- Writing ------------------------------------------------------------------------------------------------------------------


def seal_blob(key, slots, context, payload, *, salt, suite=1, chunk_log2=16, flags=0):
    k_enc, commitment, k_hdr = derive(key, salt, suite)
    core = MAGIC + bytes([1, suite]) + u16(flags) + bytes([chunk_log2]) + bytes(3) + salt + commitment
    section = encode_section(slots)
    aead, ad, chunk = AEADS[suite](k_enc), body_ad(k_hdr, core, context), 1 << chunk_log2
    pieces = [payload[at : at + chunk] for at in range(0, len(payload), chunk)] or [b""]
    body = b"".join(aead.encrypt(nonce(i, i == len(pieces) - 1), piece, ad) for i, piece in enumerate(pieces))
    return core + section + header_mac(k_hdr, core, section, context) + body


def reseal(blob, keys, context, slots):
    header = Header(blob)
    _, _, k_hdr = derive(data_key(header, keys), header.salt, header.suite)
    section = encode_section(slots)
    return header.core + section + header_mac(k_hdr, header.core, section, context) + blob[header.length :]


def encode_context(pairs):
    out = b""
    for name, value in sorted((n.encode(), v.encode()) for n, v in pairs):
        out += u16(len(name)) + name + len(value).to_bytes(4, "big") + value
    return out


# --- Older forms --------------------------------------------------------------------------------------------------------------


def raw12_seal(key, payload, iv):
    return iv + AESGCM(key).encrypt(iv, payload, None)


def raw12_open(key, blob):
    return AESGCM(key).decrypt(blob[:12], blob[12:], None)
