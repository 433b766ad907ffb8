"""Sprag/1 in Python: a second implementation, written from docs/PROTOCOL.md alone.

It exists to check the text and the vectors, not to be used: big integers are not constant time, nothing is wiped, and the state of
a device is a plain object. It leaves out the post-quantum ratchet (section 4.4), and all that only a clock or a queue needs: tasks,
fetches, expiry. Section numbers are those of docs/PROTOCOL.md.
"""

import base64
import copy
import hashlib
import hmac as _hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kyber_py.ml_kem import ML_KEM_1024


class Refused(Exception):
    """An error of section 11; `str` is its name."""


class Unsupported(Exception):
    """A part of the protocol that this implementation leaves out."""


def refuse(condition, error):
    if condition:
        raise Refused(error)


# --- 0.2 Notation -------------------------------------------------------------------------------------------------------------

Z32 = bytes(32)
P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493


def u8(n):
    return n.to_bytes(1, "big")


def u32be(n):
    return n.to_bytes(4, "big")


def lp(x):
    return u32be(len(x)) + x


def sha256(m):
    return hashlib.sha256(m).digest()


def sha512(m):
    return hashlib.sha512(m).digest()


def hmac(k, m):
    return _hmac.digest(k, m, "sha256")


def hkdf(salt, ikm, info, n):
    prk = hmac(salt, ikm)
    out = block = b""
    counter = 1
    while len(out) < n:
        block = hmac(prk, block + info + u8(counter))
        out += block
        counter += 1
    return out[:n]


def gcm_seal(k, n, p, a):
    return AESGCM(k).encrypt(n, p, a)


def gcm_open(k, n, c, a):
    """The plaintext, or None."""
    try:
        return AESGCM(k).decrypt(n, c, a)
    except InvalidTag:
        return None


# --- 1 Keys -------------------------------------------------------------------------------------------------------------------


def clamp(k):
    b = bytearray(k)
    b[0] &= 0xF8
    b[31] = (b[31] & 0x7F) | 0x40
    return bytes(b)


def public_key(private):
    return b"\x05" + X25519PrivateKey.from_private_bytes(clamp(private)).public_key().public_bytes_raw()


def dh(private, public):
    try:
        return X25519PrivateKey.from_private_bytes(clamp(private)).exchange(X25519PublicKey.from_public_bytes(public[1:]))
    except ValueError:
        raise Refused("InvalidKey") from None


def kem_public(seed):
    return b"\x0a" + MLKEM1024PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


def kem_check(public):
    raw = public[1:-32]
    for i in range(0, len(raw), 3):
        low = raw[i] | (raw[i + 1] & 0x0F) << 8
        high = raw[i + 1] >> 4 | raw[i + 2] << 4
        refuse(low >= 3329 or high >= 3329, "InvalidKey")


def encaps(public, m):
    kem_check(public)
    secret, ciphertext = ML_KEM_1024._encaps_internal(public[1:], m)  # the only library call with the randomness given
    return secret, b"\x0a" + ciphertext


def decaps(seed, ciphertext):
    return MLKEM1024PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext[1:])


# Edwards25519 in extended coordinates, -x^2 + y^2 = 1 + d x^2 y^2.
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
IDENTITY = (0, 1, 1, 0)


def point_add(a, b):
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    g = 2 * a[3] * b[3] * D % P
    h = 2 * a[2] * b[2] % P
    e, h, f, g = f - e, h + g, f + e, h - g
    return e * g % P, h * f % P, g * h % P, e * f % P


def point_mul(n, a):
    out = IDENTITY
    while n:
        if n & 1:
            out = point_add(out, a)
        a = point_add(a, a)
        n >>= 1
    return out


def point_encode(a):
    inverse = pow(a[2], -1, P)
    x, y = a[0] * inverse % P, a[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def point_with_y(y, sign):
    """The point, or None."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * SQRT_M1 % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def small_order(a):
    x, y, z, _ = point_mul(8, a)
    return x % P == 0 and (y - z) % P == 0


BASE = point_with_y(4 * pow(5, -1, P) % P, 0)


def to_int(b):
    return int.from_bytes(b, "little")


def xeddsa_sign(private, message, z):
    k = to_int(clamp(private))
    encoded = bytearray(point_encode(point_mul(k, BASE)))
    a = -k % Q if encoded[31] & 0x80 else k % Q
    encoded[31] &= 0x7F
    a_public = bytes(encoded)
    r = to_int(sha512(b"\xfe" + b"\xff" * 31 + a.to_bytes(32, "little") + message + z)) % Q
    r_public = point_encode(point_mul(r, BASE))
    h = to_int(sha512(r_public + a_public + message)) % Q
    return r_public + ((r + h * a) % Q).to_bytes(32, "little")


def xeddsa_verify(public, message, signature):
    if len(signature) != 64:
        return False
    u, s = to_int(public[1:]), to_int(signature[32:])
    if u >= P or u == P - 1 or s >= Q:
        return False
    a = point_with_y((u - 1) * pow(u + 1, -1, P) % P, 0)
    if a is None or small_order(a):
        return False
    h = to_int(sha512(signature[:32] + point_encode(a) + message)) % Q
    minus_a = (-a[0] % P, a[1], a[2], -a[3] % P)
    r = point_add(point_mul(s, BASE), point_mul(h, minus_a))
    return point_encode(r) == signature[:32] and not small_order(r)


def valid_user(user):
    raw = user.encode()
    return 1 <= len(raw) <= 255 and not any(b < 0x20 or b == 0x7F for b in raw)


def id_bytes(identity_key, address):
    user, device = address
    return identity_key + u8(len(user.encode())) + user.encode() + u32be(device)


PQ_RATCHET, ACCEPTS_X3DH, SPRAG_2 = 1, 2, 4
HOLDER = 1


def prekey_message(kind, key_id, features, key):
    return b"Sprag/1 prekey" + u8(kind) + u32be(key_id) + u32be(features) + key


# --- 2, Appendix A: bytes -----------------------------------------------------------------------------------------------------

# message -> {field number: (name, type)}; * before a type: repeated.
SCHEMA = {
    "Address": {1: ("user", "str"), 2: ("device", "u32")},
    "Envelope": {1: ("from", "Address"), 2: ("to", "Address"), 3: ("id", "bytes"), 4: ("payload", "bytes")},
    "PreKeyBundle": {
        1: ("address", "Address"), 2: ("identity_key", "bytes"), 3: ("signed_pre_key", "SignedPreKey"),
        4: ("one_time_pre_key", "OneTimePreKey"), 5: ("kem_pre_key", "KemPreKey"), 6: ("device_list", "bytes"),
    },
    "DeviceList": {
        1: ("user", "str"), 2: ("account_key", "bytes"), 3: ("epoch", "u64"), 4: ("previous", "bytes"), 5: ("devices", "*Device"),
    },
    "Device": {1: ("device", "u32"), 2: ("identity_key", "bytes"), 3: ("flags", "u32")},
    "LinkRequest": {1: ("user", "str"), 2: ("identity_key", "bytes"), 3: ("nonce", "bytes")},
    "SignedPreKey": {1: ("id", "u32"), 2: ("features", "u32"), 3: ("public_key", "bytes"), 4: ("signature", "bytes")},
    "OneTimePreKey": {1: ("id", "u32"), 2: ("public_key", "bytes")},
    "KemPreKey": {1: ("id", "u32"), 2: ("kind", "u32"), 3: ("public_key", "bytes"), 4: ("signature", "bytes")},
    "PreKeyMessage": {1: ("handshake", "bytes"), 2: ("message", "bytes")},
    "Handshake": {
        1: ("mode", "u32"), 2: ("features", "u32"), 3: ("identity_key", "bytes"), 4: ("base_key", "bytes"),
        5: ("signed_pre_key_id", "u32"), 6: ("one_time_pre_key_id", "u32"), 7: ("kem_pre_key_id", "u32"),
        8: ("kem_ciphertext", "bytes"), 9: ("device_list", "bytes"), 10: ("responder_epoch", "u64"), 11: ("responder_list", "bytes"),
    },
    "RatchetMessage": {1: ("salt", "bytes"), 2: ("header", "bytes"), 3: ("body", "bytes")},
    "RatchetHeader": {
        1: ("ratchet_key", "bytes"), 2: ("previous_chain_length", "fixed32"), 3: ("message_number", "fixed32"), 4: ("pq_ratchet", "bytes"),
    },
    "Content": {
        1: ("message_id", "bytes"), 2: ("sent_at", "u64"), 3: ("application", "bytes"), 4: ("sync", "SyncCopy"),
        5: ("retry", "RetryRequest"), 6: ("ack", "Ack"), 8: ("key_share", "KeyShare"),
        9: ("received", "*bytes"), 10: ("device_list", "bytes"), 11: ("reset", "*bytes"),
    },
    "SyncCopy": {1: ("to", "*str"), 2: ("application", "bytes")},
    "KeyShare": {
        1: ("account_root", "bytes"), 2: ("generations", "*Generation"), 3: ("account_private_key", "bytes"), 4: ("link_proof", "bytes"),
    },
    "Generation": {1: ("epoch", "u64"), 2: ("number", "u32"), 3: ("key", "bytes")},
    "RetryRequest": {1: ("salts", "*bytes")},
    "Ack": {},
}
DEFAULTS = {"u32": 0, "u64": 0, "bytes": b"", "str": ""}
BODIES = ("application", "sync", "retry", "ack", "key_share")


class BadProtobuf(Exception):
    pass


def varint(n):
    out = b""
    while n > 0x7F:
        out += u8(n & 0x7F | 0x80)
        n >>= 7
    return out + u8(n)


def wire_type(kind):
    return {"u32": 0, "u64": 0, "fixed32": 5}.get(kind, 2)


def encode(message, value):
    """The canonical encoding: ascending, defaults left out, `fixed32` (optional) and embedded messages written if they are there."""
    out = []
    for number, (name, kind) in SCHEMA[message].items():
        many, kind = kind.startswith("*"), kind.lstrip("*")
        items = value.get(name, []) if many else [value.get(name, DEFAULTS.get(kind))]
        for item in items:
            if item is None or (not many and kind in DEFAULTS and item == DEFAULTS[kind]):
                continue
            tag = varint(number << 3 | wire_type(kind))
            if kind in ("u32", "u64"):
                out.append(tag + varint(item))
            elif kind == "fixed32":
                out.append(tag + item.to_bytes(4, "little"))
            else:
                raw = item if kind == "bytes" else item.encode() if kind == "str" else encode(kind, item)
                out.append(tag + varint(len(raw)) + raw)
    return b"".join(out)


def read_varint(data, at):
    n = 0
    for i in range(10):
        if at >= len(data):
            raise BadProtobuf
        byte = data[at]
        at += 1
        n |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if n >= 2**64:
                raise BadProtobuf
            return n, at
    raise BadProtobuf


def fields(data):
    """(number, wire type, value) of ordinary protobuf; groups are skipped as one field."""
    at, open_groups = 0, []
    while at < len(data):
        tag, at = read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number < 2**29 or wire > 5:
            raise BadProtobuf
        value = None
        if wire == 0:
            value, at = read_varint(data, at)
        elif wire in (1, 5, 2):
            size, at = (8, at) if wire == 1 else (4, at) if wire == 5 else read_varint(data, at)
            if at + size > len(data):
                raise BadProtobuf
            value, at = data[at : at + size], at + size
        elif wire == 3:
            open_groups.append(number)
        elif not open_groups or open_groups.pop() != number:
            raise BadProtobuf
        if not open_groups:
            yield number, wire, value
    if open_groups:
        raise BadProtobuf


def decode(message, data, seen=None):
    """Ordinary proto3 decoding. Absent fields have their default; absent messages and `fixed32` are None."""
    out = {name: [] if kind.startswith("*") else DEFAULTS.get(kind) for name, kind in SCHEMA[message].values()}
    for number, wire, raw in fields(data):
        if number not in SCHEMA[message]:
            continue
        name, kind = SCHEMA[message][number]
        many, kind = kind.startswith("*"), kind.lstrip("*")
        if wire != wire_type(kind):
            raise BadProtobuf
        if seen is not None:
            seen.append(name)
        if kind == "u32":
            item = raw & 0xFFFFFFFF
        elif kind in ("u64", "bytes"):
            item = raw
        elif kind == "fixed32":
            item = to_int(raw)
        elif kind == "str":
            try:
                item = raw.decode()
            except UnicodeDecodeError:
                raise BadProtobuf from None
        else:
            item = decode(kind, raw)
        if many:
            out[name].append(item)
        else:
            out[name] = item
    return out


def need(condition):
    refuse(not condition, "Malformed")


def is_curve_key(key):
    return len(key) == 33 and key[0] == 5


def is_kem(raw):
    return len(raw) == 1569 and raw[0] == 0x0A


def strict(message, data):
    """Section 2.2: the canonical encoding, and the table's rules."""
    try:
        value = decode(message, data)
    except BadProtobuf:
        raise Refused("Malformed") from None
    need(encode(message, value) == data)
    check_rules(message, value)
    return value


def check_rules(message, v):
    if message == "Address":
        need(valid_user(v["user"]) and v["device"] >= 1)
    elif message == "Envelope":
        need(v["from"] and v["to"])
        check_rules("Address", v["from"])
        check_rules("Address", v["to"])
        need(v["from"] != v["to"] and len(v["id"]) == 16)
        need(v["payload"][:1] in (b"\x11", b"\x12"))
        need(parse_frame(v["payload"])["salt"] == v["id"])
    elif message == "PreKeyBundle":
        need(v["address"] and v["signed_pre_key"] and v["kem_pre_key"])
        check_rules("Address", v["address"])
        need(is_curve_key(v["identity_key"]))
        spk, opk, kem = v["signed_pre_key"], v["one_time_pre_key"], v["kem_pre_key"]
        need(spk["id"] >= 1 and is_curve_key(spk["public_key"]) and len(spk["signature"]) == 64)
        need(opk is None or (opk["id"] >= 1 and is_curve_key(opk["public_key"])))
        need(kem["id"] >= 1 and kem["kind"] in (2, 3) and is_kem(kem["public_key"]) and len(kem["signature"]) == 64)
        need(inner_list(v["device_list"]).user == v["address"]["user"])
    elif message == "DeviceList":
        need(valid_user(v["user"]) and is_curve_key(v["account_key"]) and v["epoch"] >= 1)
        need(len(v["previous"]) == (32 if v["epoch"] > 1 else 0))
        devices = v["devices"]
        need(1 <= len(devices) <= 32)
        need(all(d["device"] >= 1 and is_curve_key(d["identity_key"]) for d in devices))
        need(all(a["device"] < b["device"] for a, b in zip(devices, devices[1:])))
        need(len({d["identity_key"] for d in devices} | {v["account_key"]}) == len(devices) + 1)
    elif message == "LinkRequest":
        need(valid_user(v["user"]) and is_curve_key(v["identity_key"]) and len(v["nonce"]) == 32)
    elif message == "PreKeyMessage":
        need(v["handshake"] and v["message"] and len(v["handshake"]) <= 4096)
    elif message == "Handshake":
        need(v["mode"] in (1, 2) and is_curve_key(v["identity_key"]) and is_curve_key(v["base_key"]) and v["signed_pre_key_id"] >= 1)
        if v["mode"] == 1:
            need(v["kem_pre_key_id"] >= 1 and is_kem(v["kem_ciphertext"]))
        else:
            need(v["kem_pre_key_id"] == 0 and not v["kem_ciphertext"])
        inner_list(v["device_list"])
        need(v["responder_epoch"] >= 1 and len(v["responder_list"]) == 32)
    elif message == "RatchetMessage":
        need(len(v["salt"]) == 16 and len(v["header"]) in (61, 115) and 17 <= len(v["body"]) <= 2**20 + 16)
    elif message == "RatchetHeader":
        need(is_curve_key(v["ratchet_key"]) and len(v["pq_ratchet"]) in (0, 52))
        need(v["previous_chain_length"] is not None and v["message_number"] is not None)


# first byte -> (message, length of the trailer, largest frame)
FRAMES = {
    0x10: ("Envelope", 0, 2**20 + 8192),
    0x11: ("RatchetMessage", 36, 2**20 + 4096),
    0x12: ("PreKeyMessage", 36, 2**20 + 4096),
    0x13: ("PreKeyBundle", 0, 4096),
    0x14: ("DeviceList", 64, 2048),
    0x15: ("LinkRequest", 0, 512),
}


def open_frame(frame, kinds):
    """Section 2.1: (first byte, message between first byte and trailer, trailer)."""
    need(len(frame) > 0)
    refuse(frame[0] >> 4 != 1, "UnsupportedVersion")
    need(frame[0] in FRAMES and frame[0] in kinds)
    _, trailer, largest = FRAMES[frame[0]]
    need(1 + trailer <= len(frame) <= largest)
    end = len(frame) - trailer
    return frame[0], frame[1:end], frame[end:]


def parse_frame(frame):
    """A frame of kind 1 or 2."""
    kind, inside, origin = open_frame(frame, (0x11, 0x12))
    out = {"prefix": frame[:-36], "origin": origin, "h": None, "handshake": None}
    if kind == 0x12:
        outer = strict("PreKeyMessage", inside)
        out["h"], inside = outer["handshake"], outer["message"]
        out["handshake"] = strict("Handshake", out["h"])
    out.update(strict("RatchetMessage", inside))
    return out


class DeviceList:
    """A decoded list, its signature not yet looked at."""

    def __init__(self, frame):
        _, inside, self.signature = open_frame(frame, (0x14,))
        value = strict("DeviceList", inside)
        self.frame, self.signed = frame, frame[:-64]
        self.user, self.account_key, self.epoch = value["user"], value["account_key"], value["epoch"]
        self.previous, self.entries = value["previous"], value["devices"]
        self.lh = sha256(self.signed)

    def signature_holds(self):
        return xeddsa_verify(self.account_key, b"Sprag/1 device list" + self.signed, self.signature)

    def key_of(self, device):
        """The identity key of that device, or None."""
        return next((e["identity_key"] for e in self.entries if e["device"] == device), None)


def inner_list(frame):
    need(frame[:1] == b"\x14")
    return DeviceList(frame)


def sign_list(account_private, user, account_key, epoch, previous, entries, z):
    value = {"user": user, "account_key": account_key, "epoch": epoch, "previous": previous, "devices": entries}
    signed = b"\x14" + encode("DeviceList", value)
    return signed + xeddsa_sign(account_private, b"Sprag/1 device list" + signed, z)


def parse_bundle(frame):
    _, inside, _ = open_frame(frame, (0x13,))
    return strict("PreKeyBundle", inside)


def parse(what, data):
    """Any of the top-level byte strings, and the bare messages that the vectors name."""
    bare = {"address": "Address", "handshake": "Handshake", "header": "RatchetHeader", "ratchet_message": "RatchetMessage"}
    if what in bare:
        return strict(bare[what], data)
    if what == "frame":
        return parse_frame(data)
    if what == "bundle":
        return parse_bundle(data)
    if what == "device_list":
        return DeviceList(data)
    if what == "envelope":
        return strict("Envelope", open_frame(data, (0x10,))[1])
    if what == "link_request":
        return strict("LinkRequest", open_frame(data, (0x15,))[1])
    raise Unsupported(what)


# --- 3 Handshake --------------------------------------------------------------------------------------------------------------


def handshake_secrets(mode, id_i, id_r, h, spk, features_r, opk, kem, dhs, ss):
    """Step 4. `kem` = u8(kind) + key or nothing; `dhs` = DH1..DH3, and DH4 or nothing."""
    t = lp(b"Sprag/1 transcript") + lp(id_i) + lp(id_r) + lp(h) + lp(spk) + lp(u32be(features_r)) + lp(opk) + lp(kem)
    th, sid = sha256(t), sha256(h)[:16]
    ikm = b"\xff" * 32 + b"".join(dhs) + ss
    okm = hkdf(Z32, ikm, b"Sprag/1 handshake" + u8(mode) + th, 128)
    dh1, dh2, dh3, dh4 = dhs
    return {
        "handshake": h, "transcript": t, "th": th, "sid": sid, "dh1": dh1, "dh2": dh2, "dh3": dh3, "dh4": dh4, "kem_secret": ss,
        "ikm": ikm, "sk": okm[:32], "hk_i": okm[32:64], "hk_r": okm[64:96], "pqk": okm[96:],
    }


# --- 4 Ratchet ----------------------------------------------------------------------------------------------------------------


def kdf_rk(rk, shared):
    okm = hkdf(rk, shared, b"Sprag/1 ratchet", 96)
    return okm[:32], okm[32:64], okm[64:]


def chain_step(ck):
    return hmac(ck, b"\x01"), hmac(ck, b"\x02")


def message_key(seed, salt, pq_key=b""):
    okm = hkdf(pq_key + salt, seed, b"Sprag/1 message", 44)
    return okm[:32], okm[32:]


def kid(header_key):
    return hmac(header_key, b"Sprag/1 chain")[:8]


class Session:
    """Section 4.1. Absent keys are empty."""

    def __init__(self, secrets, role, mode, features):
        if features & PQ_RATCHET:
            raise Unsupported("pq_ratchet")
        self.th, self.sid, self.role, self.mode, self.features = secrets["th"], secrets["sid"], role, mode, features
        self.rk = self.dhs = self.cks = self.hks = self.ckr = self.hkr = self.nhks = self.nhkr = b""
        self.ns = self.nr = self.pn = self.c = 0
        self.i_s = 0
        self.old, self.skipped = {}, {}  # index -> header key; (kid, N) -> seed, in the order stored
        self.pending, self.retired = None, False  # pending: (H, time)

    @classmethod
    def initiate(cls, secrets, mode, features, spk, ratchet_private, now):
        self = cls(secrets, "initiator", mode, features)
        self.dhs = clamp(ratchet_private)
        self.rk, self.cks, self.nhks = kdf_rk(secrets["sk"], dh(self.dhs, spk))
        self.hks, self.nhkr = secrets["hk_i"], secrets["hk_r"]
        self.pending = (secrets["handshake"], now)
        return self

    @classmethod
    def respond(cls, secrets, mode, features, spk_private):
        self = cls(secrets, "responder", mode, features)
        self.dhs, self.rk, self.i_s = clamp(spk_private), secrets["sk"], -1
        self.nhks, self.nhkr = secrets["hk_r"], secrets["hk_i"]
        return self

    def encrypt(self, plaintext, draw, values):
        """The `RatchetMessage`, encoded; its salt."""
        refuse(self.ns == 2**32 - 1, "ChainExhausted")
        salt = draw("salt")
        seed, after = chain_step(self.cks)
        header_plain = encode("RatchetHeader", {
            "ratchet_key": public_key(self.dhs), "previous_chain_length": self.pn, "message_number": self.ns,
        })
        header_aad = b"Sprag/1 header" + salt + self.th
        header = gcm_seal(self.hks, salt[:12], header_plain, header_aad)
        key, nonce = message_key(seed, salt)
        body_aad = b"Sprag/1 body" + salt + lp(header) + self.th
        body = gcm_seal(key, nonce, plaintext, body_aad)
        values.update(
            chain_key=self.cks, chain_index=self.i_s, number=self.ns, seed=seed, pq_key=b"", salt=salt, header_key=self.hks,
            header_plaintext=header_plain, header_aad=header_aad, body_key=key, body_nonce=nonce, body_aad=body_aad, plaintext=plaintext,
        )
        self.cks, self.ns = after, self.ns + 1
        return encode("RatchetMessage", {"salt": salt, "header": header, "body": body}), salt

    def skip(self, n, limits):
        jump, stored = limits
        if n <= self.nr:
            return
        refuse(n - self.nr > jump, "TooFarAhead")
        name = kid(self.hkr)
        while self.nr < n:
            seed, self.ckr = chain_step(self.ckr)
            self.skipped[name, self.nr] = seed
            if len(self.skipped) > stored:
                del self.skipped[next(iter(self.skipped))]
            self.nr += 1

    def take_skipped(self, header_key, n):
        refuse((kid(header_key), n) not in self.skipped, "Duplicate")
        return self.skipped.pop((kid(header_key), n))

    def decrypt(self, message, j, limits, draw, values):
        """Changes `self`, which is a copy: the caller drops it on error."""
        # 1
        refuse(j > self.c, "Desynchronised")
        refuse(j < self.c - 6, "Duplicate")
        header_key = self.nhkr if j == self.c else self.hkr if j == self.c - 1 else self.old[j]
        # 2
        salt = message["salt"]
        plain = gcm_open(header_key, salt[:12], message["header"], b"Sprag/1 header" + salt + self.th)
        refuse(plain is None or len(plain) != 45, "Unreadable")
        try:
            header = strict("RatchetHeader", plain)
        except Refused:
            raise Refused("Unreadable") from None
        values.update(header_key=header_key, header_plaintext=plain, pq_key=b"")
        # 3
        if j == self.c:
            if self.c > 0:
                self.skip(header["previous_chain_length"], limits)
                self.old[self.c - 1] = self.hkr
                if len(self.old) > 5:
                    name = kid(self.old.pop(min(self.old)))
                    self.skipped = {k: v for k, v in self.skipped.items() if k[0] != name}
            theirs = header["ratchet_key"]
            self.hkr = self.nhkr
            shared = dh(self.dhs, theirs)
            self.rk, self.ckr, self.nhkr = kdf_rk(self.rk, shared)
            values.update(
                step_dh_receive=shared, step_root_middle=self.rk, step_chain_receive=self.ckr, step_next_header_receive=self.nhkr
            )
            self.nr, self.c = 0, self.c + 1
            self.pn, self.ns, self.i_s, self.hks = self.ns, 0, self.i_s + 1, self.nhks
            self.dhs = clamp(draw("ratchet"))
            shared = dh(self.dhs, theirs)
            self.rk, self.cks, self.nhks = kdf_rk(self.rk, shared)
            values.update(step_dh_send=shared, step_root=self.rk, step_chain_send=self.cks, step_next_header_send=self.nhks)
        # 4
        n = header["message_number"]
        if j < self.c - 1 or n < self.nr:
            seed = self.take_skipped(header_key, n)
        else:
            self.skip(n, limits)
            seed, self.ckr = chain_step(self.ckr)
            self.nr = n + 1
        # 6
        key, nonce = message_key(seed, salt)
        plaintext = gcm_open(key, nonce, message["body"], b"Sprag/1 body" + salt + lp(message["header"]) + self.th)
        refuse(plaintext is None, "Unreadable")
        values.update(seed=seed, plaintext=plaintext)
        # 7
        self.pending = None
        return plaintext


# --- 5 Origin seal ------------------------------------------------------------------------------------------------------------


def origin_key(private, public, id_from, id_to):
    return hkdf(Z32, dh(private, public), b"Sprag/1 origin" + id_from + id_to, 32)


# --- 6 Content ----------------------------------------------------------------------------------------------------------------


def padme(length):
    length = max(length, 160)
    e = length.bit_length() - 1
    z = e - (e.bit_length() - 1) - 1
    return -(-length >> z) << z


def pad(content, padding):
    return (content + b"\x80").ljust(padme(len(content) + 1) if padding else 0, b"\0")


def unpad(plaintext):
    stripped = plaintext.rstrip(b"\0")
    refuse(stripped[-1:] != b"\x80", "BadContent")
    return stripped[:-1]


def parse_content(raw):
    """Rule 1: what can be decoded at all."""
    seen = []
    try:
        content = decode("Content", raw, seen)
    except BadProtobuf:
        raise Refused("BadContent") from None
    content["bodies"] = [name for name in seen if name in BODIES]
    refuse(len(content["message_id"]) != 16 or len(content["bodies"]) > 1, "BadContent")
    for name, most in (("received", 32), ("reset", 41)):
        refuse(len(content[name]) > most or any(len(x) != 16 for x in content[name]), "BadContent")
    return content


def check_body(content, from_own_user):
    """Rule 3; of key shares only who may send them."""
    body = content["bodies"][0] if content["bodies"] else None
    ok = True
    if body == "sync":
        to = content["sync"]["to"]
        ok = from_own_user and 1 <= len(to) <= 256 and all(valid_user(u) for u in to)
    elif body == "retry":
        salts = content["retry"]["salts"]
        ok = 1 <= len(salts) <= 64 and all(len(s) == 16 for s in salts)
    elif body == "key_share":
        ok = from_own_user
    refuse(not ok, "BadContent")


# --- 1.2, 7, 8: a device ------------------------------------------------------------------------------------------------------


class User:
    """What is remembered of a user (section 1.2)."""

    def __init__(self, account_key, own=False):
        self.account_key, self.own = account_key, own
        self.from_server, self.accepted = own, own
        self.newest, self.history = None, {}  # epoch -> LH
        self.numbers = set()  # of our own user: every device number ever seen

    def remember(self, new):
        self.numbers = self.numbers | {e["device"] for e in new.entries}
        if self.newest is None or new.epoch > self.newest.epoch:
            self.newest = new
            self.history[new.epoch] = new.lh
        if new.previous and self.history.get(new.epoch) == new.lh:
            self.history[new.epoch - 1] = new.previous
        if not self.own:
            self.history = {e: lh for e, lh in self.history.items() if e > self.newest.epoch - 32}


class Record:
    """All sessions with one device (section 8), and its ledger (section 9)."""

    def __init__(self, identity_key):
        self.identity_key = identity_key
        self.current, self.archive = None, []
        self.ledger = {}  # SID -> (closed, [salts])
        self.reset, self.reset_carriers = [], set()  # SIDs that ride; salts of frames that carried them
        self.outbox = {}  # salt -> number of the message
        self.last_ack = None
        self.last_read = 0

    def sessions(self):
        return ([self.current] if self.current else []) + self.archive

    def enter(self, sid, closed):
        self.ledger.pop(sid, None)
        self.ledger[sid] = (closed, [])
        if len(self.ledger) > 128:
            del self.ledger[next(iter(self.ledger))]

    def close_all(self):
        for session in reversed(self.sessions()):
            self.enter(session.sid, True)
        self.current, self.archive, self.outbox = None, [], {}

    def make_current(self, session, most):
        if self.current is session:
            return
        self.archive = [s for s in self.archive if s is not session]
        if self.current:
            self.archive.insert(0, self.current)
        self.current = session
        while len(self.archive) > most:
            self.enter(self.archive.pop().sid, True)


HEALS = ("NoSession", "UnknownPreKey", "ModeRefused", "Desynchronised", "TooFarAhead", "Unreadable")
SEEN_LIMIT = 65_536
DAY = 86_400


class Device:
    """A device and all that it remembers. Each verb may change it halfway and then refuse: run it on a copy, keep that on success or
    `BadContent`."""

    def __init__(self, user, device, features, identity_private, account_public, lists):
        self.address, self.features = (user, device), features
        self.identity_private, self.identity = identity_private, public_key(identity_private)
        self.signed, self.one_time, self.kem = {}, {}, {}  # id -> dict
        self.seen = {}  # id of a signed prekey -> {SID: None}
        own = User(account_public, own=True)
        for frame in lists:
            own.remember(DeviceList(frame))
        self.users = {user: own}
        self.account_private = None
        self.account_root, self.generations = b"", set()  # (epoch, number, key)
        self.nonce, self.aside = None, []  # waiting for a key share: its nonce, shares put aside
        self.messages = []  # [content, device, identity key, times re-sent]: what was sent, by number
        self.records = {}
        self.reads = 0

    # lists

    @property
    def own(self):
        return self.users[self.address[0]]

    def is_listed(self):
        return self.own.newest.key_of(self.address[1]) == self.identity

    def judge(self, frame, user, source):
        """`source`: newest (of the server, on its own), bundle, handshake, content, or asked (by its epoch). The list; True if it
        replaces a provisional account key."""
        new = inner_list(frame) if source == "content" else DeviceList(frame)
        refuse(new.user != user, "Malformed")
        known = self.users.get(user)
        replaces = False
        if known and new.account_key != known.account_key:
            refuse(known.accepted or source not in ("newest", "bundle", "asked"), "UntrustedIdentity")
            known, replaces = None, True
        history = known.history if known else {}
        if history.get(new.epoch) != new.lh:
            refuse(not new.signature_holds(), "BadSignature")
            refuse(new.epoch in history, "ForkedList")
        if new.previous:
            refuse(history.get(new.epoch - 1, new.previous) != new.previous, "ForkedList")
        refuse(known and new.epoch < known.newest.epoch and source in ("newest", "content"), "StaleList")
        return new, replaces

    def take(self, new, replaces, source):
        """Takes a judged list over."""
        known = self.users.get(new.user)
        if known is None or replaces:
            known = self.users[new.user] = User(new.account_key)
        known.remember(new)
        if source in ("newest", "bundle", "asked"):
            known.from_server = True
        self.apply_list(known, replaces)

    def apply_list(self, known, replaces):
        """What a list leaves out loses its sessions. `replaces`: it is of another account key."""
        for address, record in list(self.records.items()):
            if address[0] != known.newest.user:
                continue
            key = known.newest.key_of(address[1])
            if replaces or key != record.identity_key:
                record.close_all()
            if (key is not None and key != record.identity_key) or (key is None and not known.accepted):
                del self.records[address]
        if known.own and not self.is_listed():
            self.retire_all()

    def retire_all(self):
        for record in self.records.values():
            for session in record.sessions():
                session.retired = True

    def learn(self, user, frame, old):
        source = "asked" if old else "newest"
        new, replaces = self.judge(frame, user, source)
        self.take(new, replaces, source)
        return replaces

    def may_be_written_to(self, user):
        known = self.users.get(user)
        return known is not None and (known.accepted or known.from_server)

    def accept(self, user):
        refuse(not self.may_be_written_to(user), "NeedsBundle")
        self.users[user].accepted = True

    def accept_list(self, user, frame):
        """A changed account key, or a fork: the application goes on with this list."""
        new = DeviceList(frame)
        refuse(new.user != user, "Malformed")
        refuse(user == self.address[0], "BadInput")
        refuse(not new.signature_holds(), "BadSignature")
        before = self.users.get(user)
        known = self.users[user] = User(new.account_key)
        known.accepted = True
        known.remember(new)
        self.apply_list(known, before is not None and before.account_key != new.account_key)

    def settle_fork(self, frame):
        """A fork of our own list ends with this one."""
        new = DeviceList(frame)
        refuse(new.user != self.address[0], "Malformed")
        refuse(new.account_key != self.own.account_key, "UntrustedIdentity")
        refuse(not new.signature_holds(), "BadSignature")
        numbers = self.own.numbers
        known = self.users[new.user] = User(new.account_key, own=True)
        known.numbers = numbers
        known.remember(new)
        self.apply_list(known, False)
        self.retire_all()

    def next_list(self, put, drop, draw):
        """A holder signs on top of the newest list; here the server takes it at once."""
        newest = self.own.newest
        me = next((e for e in newest.entries if (e["device"], e["identity_key"]) == (self.address[1], self.identity)), None)
        refuse(self.account_private is None or me is None or not me["flags"] & HOLDER, "BadInput")
        entries = {e["device"]: e for e in newest.entries if e["device"] not in drop}
        entries.update({number: {"device": number, "identity_key": key, "flags": flags} for number, key, flags in put})
        entries = [entries[number] for number in sorted(entries)]
        frame = sign_list(
            self.account_private, newest.user, newest.account_key, newest.epoch + 1, newest.lh, entries, draw("xeddsa-z")
        )
        self.take(DeviceList(frame), False, "newest")
        return frame

    # sessions

    def archive_limit(self, user):
        return 40 if self.users[user].accepted else 3

    def record(self, address, identity_key):
        if address not in self.records:
            self.records[address] = Record(identity_key)
            if not self.users[address[0]].accepted:
                self.evict_strangers(address)
        return self.records[address]

    def evict_strangers(self, spared):
        strangers = [a for a in self.records if not self.users[a[0]].accepted]
        if len(strangers) <= 1000:
            return
        count = {}
        for user, _ in strangers:
            count[user] = count.get(user, 0) + 1
        most = max(count.values())
        candidates = [a for a in strangers if count[a[0]] == most and a != spared]
        if not candidates:
            return
        victim = min(candidates, key=lambda a: self.records[a].last_read)
        del self.records[victim]
        if count[victim[0]] == 1:
            del self.users[victim[0]]

    def establish(self, record, session, user):
        """A new session becomes current."""
        if session.mode == 1:
            for other in record.sessions():
                if other.mode == 2:
                    other.retired = True
        if not self.is_listed():
            session.retired = True
        record.make_current(session, self.archive_limit(user))

    def holds_pqxdh(self, address):
        record = self.records.get(address)
        return record is not None and any(s.mode == 1 for s in record.sessions())

    def open(self, to, frame, mode, now, draw, values, reset=False):
        """Section 3, initiator. Session id; whether a provisional account key was replaced. `reset`: for a reset (section 8)."""
        refuse(self.nonce is not None, "BadInput")
        refuse(not self.is_listed(), "UnlistedDevice")
        bundle = parse_bundle(frame)
        refuse((bundle["address"]["user"], bundle["address"]["device"]) != to, "BadInput")
        user, theirs = to[0], bundle["identity_key"]
        new, replaces = self.judge(bundle["device_list"], user, "bundle")
        self.take(new, replaces, "bundle")
        newest = self.users[user].newest
        refuse(newest.key_of(to[1]) != theirs, "UnlistedDevice")
        refuse(theirs == self.identity, "InvalidKey")
        spk, opk, kem = bundle["signed_pre_key"], bundle["one_time_pre_key"], bundle["kem_pre_key"]
        spk_message = prekey_message(1, spk["id"], spk["features"], spk["public_key"])
        refuse(not xeddsa_verify(theirs, spk_message, spk["signature"]), "BadSignature")
        kem_message = prekey_message(kem["kind"], kem["id"], 0, kem["public_key"])
        refuse(not xeddsa_verify(theirs, kem_message, kem["signature"]), "BadSignature")
        refuse(mode == 2 and (not spk["features"] & ACCEPTS_X3DH or self.holds_pqxdh(to)), "ModeRefused")
        refuse(self.features & spk["features"] & SPRAG_2, "ModeRefused")
        if mode == 1:
            kem_check(kem["public_key"])

        base = draw("base-key")
        ss, ct = encaps(kem["public_key"], draw("kem-m")) if mode == 1 else (b"", b"")
        h = encode("Handshake", {
            "mode": mode, "features": self.features, "identity_key": self.identity, "base_key": public_key(base),
            "signed_pre_key_id": spk["id"], "one_time_pre_key_id": opk["id"] if opk else 0,
            "kem_pre_key_id": kem["id"] if mode == 1 else 0, "kem_ciphertext": ct, "device_list": self.own.newest.frame,
            "responder_epoch": newest.epoch, "responder_list": newest.lh,
        })
        dhs = (
            dh(self.identity_private, spk["public_key"]), dh(base, theirs), dh(base, spk["public_key"]),
            dh(base, opk["public_key"]) if opk else b"",
        )
        secrets = handshake_secrets(
            mode, id_bytes(self.identity, self.address), id_bytes(theirs, to), h, spk["public_key"], spk["features"],
            opk["public_key"] if opk else b"", u8(kem["kind"]) + kem["public_key"] if mode == 1 else b"", dhs, ss,
        )
        values.update(secrets)
        session = Session.initiate(secrets, mode, self.features & spk["features"], spk["public_key"], draw("ratchet"), now)
        values.update(root=session.rk, chain_send=session.cks, next_header_send=session.nhks)
        self.users[user].accepted = True
        record = self.record(to, theirs)
        if reset:
            record.reset, record.reset_carriers = [s.sid for s in record.sessions()], set()
            for other in record.sessions():
                other.retired = True
        self.establish(record, session, user)
        return session.sid, replaces

    def send(self, to, content, padding, now, draw, values):
        """Sections 4.3, 5 and 8: the frame."""
        plaintext = pad(content, padding)
        refuse(len(plaintext) > 2**20 or application_length(content) > 2**20 - 2**17, "BadInput")
        refuse(self.nonce is not None, "BadInput")
        refuse(not self.is_listed(), "UnlistedDevice")
        refuse(not self.may_be_written_to(to[0]), "NeedsBundle")
        theirs = self.users[to[0]].newest.key_of(to[1])
        record = self.records.get(to)
        refuse(theirs is None, "UnlistedDevice")
        session = record and record.current
        refuse(not session or session.retired, "NeedsBundle")
        refuse(session.pending and now - session.pending[1] > 7 * DAY, "NeedsBundle")
        chain_index = session.i_s
        message, salt = session.encrypt(plaintext, draw, values)
        if session.pending:
            frame = b"\x12" + encode("PreKeyMessage", {"handshake": session.pending[0], "message": message})
        else:
            frame = b"\x11" + message
        key = origin_key(self.identity_private, theirs, id_bytes(self.identity, self.address), id_bytes(theirs, to))
        pointer = session.sid + u32be(chain_index)
        values.update(origin_key=key, origin_plaintext=pointer)
        self.users[to[0]].accepted = True
        self.sent(record, to, theirs, content, salt)
        return frame + gcm_seal(key, salt[:12], pointer, frame)

    def sent(self, record, to, theirs, content, salt):
        """Keeps the message for a `retry` (section 9; a share with proof is never sent again), and notes that it carried a reset."""
        try:
            decoded = parse_content(content)
        except Refused:
            return
        if record.reset and set(record.reset) <= set(decoded["reset"]):
            record.reset_carriers.add(salt)
        if decoded["key_share"] and decoded["key_share"]["link_proof"]:
            return
        key = decoded["message_id"]
        number = next((i for i, m in enumerate(self.messages) if m["key"] == (key, to, theirs)), None)
        if number is None:
            number = len(self.messages)
            self.messages.append({"key": (key, to, theirs), "content": content, "times": 0})
        record.outbox[salt] = number

    def resend(self, to, salts):
        """The contents to be sent again on a retry that names these salts (section 9); new riders are the caller's."""
        record, out = self.records.get(to), []
        if record is None or not self.users[to[0]].accepted or self.users[to[0]].newest.key_of(to[1]) != record.identity_key:
            return out
        for number in dict.fromkeys(record.outbox[s] for s in salts if s in record.outbox):
            message = self.messages[number]
            if message["times"] < 3 and message["key"][2] == record.identity_key:
                message["times"] += 1
                out.append(message["content"])
        return out

    def may_ack(self, to, now, quiet):
        """Nothing was re-sent: may an ack go? (section 9)"""
        user, record = self.users.get(to[0]), self.records.get(to)
        if quiet or not user or not user.accepted or user.newest.key_of(to[1]) is None or record is None:
            return False
        if record.last_ack is not None and now - record.last_ack < 600:
            return False
        record.last_ack = now
        return True

    def heal(self, met, error):
        """What section 9 does after this error: fresh, ask or None."""
        if met is None or error not in HEALS:
            return None
        sender, theirs, sid, salt, new = met
        user = self.users.get(sender[0])
        if user is None or not user.accepted:
            return None
        if new:
            self.take(*new, "handshake")
        if user.newest.key_of(sender[1]) != theirs:
            return None
        record = self.record(sender, theirs)
        if sid not in record.ledger:
            record.enter(sid, False)
            record.ledger[sid] = (False, [salt])
            for session in record.sessions():
                if session.sid == sid:
                    session.retired = True
            return "fresh"
        closed, salts = record.ledger[sid]
        if closed or len(salts) >= 64 or salt in salts:
            return None
        record.ledger[sid] = (False, salts + [salt])
        return "ask"

    # linking

    def link_accept(self, request, text, holder, number, draw):
        """Section 6.1, step 2; the number is given."""
        newest = self.own.newest
        refuse(text != "sprag-link:" + base64.urlsafe_b64encode(request).rstrip(b"=").decode(), "BadInput")
        try:
            asked = parse("link_request", request)
        except Refused:
            raise Refused("BadInput") from None
        key = asked["identity_key"]
        refuse(asked["user"] != newest.user or key == newest.account_key, "BadInput")
        refuse(any(e["identity_key"] == key for e in newest.entries) or len(newest.entries) >= 32, "BadInput")
        refuse(number < 2**16 or number in self.own.numbers, "BadInput")
        return self.next_list([(number, key, HOLDER if holder else 0)], [], draw)

    def is_holder(self, device, key):
        return any(e["device"] == device and e["identity_key"] == key and e["flags"] & HOLDER for e in self.own.newest.entries)

    def judge_share(self, share, sender, theirs, th):
        """Takes a share (section 6.1); True if it is put aside."""
        refuse(any(len(share[k]) not in (0, 32) for k in ("account_root", "account_private_key", "link_proof")), "BadContent")
        rows = [(g["epoch"], g["number"], g["key"]) for g in share["generations"]]
        refuse(len(rows) > 64 or any(e < 1 or n < 1 or len(k) != 32 for e, n, k in rows), "BadContent")
        refuse(any(a >= b for a, b in zip(rows, rows[1:])), "BadContent")
        if self.nonce is None:
            self.take_share(share, rows, sender, theirs)
            return False
        if not share["link_proof"]:
            refuse(not self.is_holder(sender[1], theirs) or len(self.aside) >= 8, "BadContent")
            self.aside.append((share, rows, sender, theirs))
            return True
        refuse(share["link_proof"] != hmac(self.nonce, b"Sprag/1 link" + th), "BadContent")
        self.take_share(share, rows, sender, theirs)
        self.nonce, aside, self.aside = None, self.aside, []
        for waiting in aside:
            try:
                self.take_share(*waiting)
            except Refused:
                pass
        return False

    def take_share(self, share, rows, sender, theirs):
        """Whole or not at all."""
        root, private = share["account_root"], share["account_private_key"]
        refuse(not self.is_holder(sender[1], theirs), "BadContent")
        refuse(root and self.account_root and root != self.account_root, "BadContent")
        refuse(any(epoch > self.own.newest.epoch for epoch, _, _ in rows), "BadContent")
        generations = self.generations | set(rows)
        for epoch, number, _ in rows:
            refuse(sum(g[:2] == (epoch, number) for g in generations) > 8, "BadContent")
        if private:
            fits = private == clamp(private) and public_key(private) == self.own.account_key
            refuse(not fits or not self.is_holder(self.address[1], self.identity), "BadContent")
            self.account_private = private
        self.account_root, self.generations = root or self.account_root, generations

    def writes(self):
        """The generation of new data, or None."""
        return min(self.generations, key=lambda g: (-g[0], -g[1], g[2]), default=None)

    def receive(self, sender, frame, draw, values, again=False):
        """Section 7. `again`: offered once more, after our own lists were fetched. What was read: `content`, the error of a list that
        rode in it, whether a key share was put aside, the error of the Content. `met` is what `heal` needs after an error."""
        self.met = None
        user = sender[0]
        # 1
        message = parse_frame(frame)
        h, handshake = message["h"], message["handshake"]
        if handshake:
            theirs = handshake["identity_key"]
        else:
            refuse(user not in self.users, "UnknownPeer")
            theirs = self.users[user].newest.key_of(sender[1])
            refuse(theirs is None, "UnlistedDevice")
        refuse(theirs == self.identity, "InvalidKey")
        # 2
        key = origin_key(self.identity_private, theirs, id_bytes(theirs, sender), id_bytes(self.identity, self.address))
        pointer = gcm_open(key, message["salt"][:12], message["origin"], message["prefix"])
        refuse(pointer is None, "BadOrigin")
        sid, j = pointer[:16], int.from_bytes(pointer[16:], "big")
        refuse(h is not None and sid != sha256(h)[:16], "BadOrigin")
        # 3
        if handshake:
            new, replaces = self.judge(handshake["device_list"], user, "handshake")
            self.take(new, replaces, "handshake")
            refuse(self.users[user].newest.key_of(sender[1]) != theirs, "UnlistedDevice")
            self.met = (sender, theirs, sid, message["salt"], (new, replaces))
        else:
            self.met = (sender, theirs, sid, message["salt"], None)
        # 4, 5, 6
        record = self.records.get(sender)
        session = next((s for s in record.sessions() if s.sid == sid), None) if record else None
        fresh = session is None
        if fresh:
            closed, _ = record.ledger.get(sid, (None, [])) if record else (None, [])
            refuse(closed is True, "Duplicate")
            refuse(not handshake or any(sid in seen for seen in self.seen.values()) or closed is False, "NoSession")
            session = self.respond(sender, h, handshake, values, again)
        limits = (25_000, 2_000) if self.users[user].accepted else (256, 256)
        plaintext = session.decrypt(message, j, limits, draw, values)
        # 7
        if fresh:
            record = self.record(sender, theirs)
            self.use_up(handshake, sid)
            self.establish(record, session, user)
        elif not session.retired:
            record.make_current(session, self.archive_limit(user))
        self.reads += 1
        record.last_read = self.reads
        out = {"content": None, "list_error": None, "aside": False, "error": None}
        try:
            out["content"] = unpad(plaintext)
            content = parse_content(out["content"])
            out["list_error"] = self.ride(content, user, record, session)
            check_body(content, user == self.address[0])
            if "key_share" in content["bodies"]:
                out["aside"] = self.judge_share(content["key_share"], sender, theirs, session.th)
        except Refused as error:
            out["error"] = str(error)
        return out

    def ride(self, content, user, record, session):
        """The riders of section 6."""
        list_error = None
        for salt in content["received"]:
            record.outbox.pop(salt, None)
            if salt in record.reset_carriers and session.sid not in record.reset:
                record.reset, record.reset_carriers = [], set()
        if content["device_list"]:
            try:
                new, replaces = self.judge(content["device_list"], user, "content")
                self.take(new, replaces, "content")
            except Refused as error:
                list_error = str(error)
        held = {s.sid: s for s in record.sessions()}
        for sid in content["reset"]:
            if sid in held:
                held[sid].retired = True
            elif sid not in record.ledger:
                record.enter(sid, False)
        return list_error

    def respond(self, sender, h, handshake, values, again):
        """Section 3, responder. Changes nothing."""
        history = self.own.history
        lh = history.get(handshake["responder_epoch"])
        refuse(lh is None, "ListMismatch" if again else "UnknownList")
        refuse(lh != handshake["responder_list"], "ListMismatch")
        mode = handshake["mode"]
        opk_id, kem_id = handshake["one_time_pre_key_id"], handshake["kem_pre_key_id"]
        spk = self.signed.get(handshake["signed_pre_key_id"])
        opk, kem = self.one_time.get(opk_id), self.kem.get(kem_id)
        refuse(spk is None or (opk_id and opk is None) or (kem_id and kem is None), "UnknownPreKey")
        if self.uses_up_nothing(handshake):
            refuse(len(self.seen[spk["id"]]) >= SEEN_LIMIT, "UnknownPreKey")
        if mode == 2:
            refuse(not (spk["features"] & self.features & ACCEPTS_X3DH), "ModeRefused")
            refuse(self.holds_pqxdh(sender), "ModeRefused")
        refuse(self.features & handshake["features"] & SPRAG_2, "ModeRefused")

        theirs, base = handshake["identity_key"], handshake["base_key"]
        dhs = (
            dh(spk["private"], theirs), dh(self.identity_private, base), dh(spk["private"], base),
            dh(opk["private"], base) if opk else b"",
        )
        ss = decaps(kem["seed"], handshake["kem_ciphertext"]) if kem else b""
        secrets = handshake_secrets(
            mode, id_bytes(theirs, sender), id_bytes(self.identity, self.address), h, public_key(spk["private"]), spk["features"],
            public_key(opk["private"]) if opk else b"", u8(kem["kind"]) + kem_public(kem["seed"]) if kem else b"", dhs, ss,
        )
        values.update(secrets)
        return Session.respond(secrets, mode, handshake["features"] & spk["features"], spk["private"])

    def uses_up_nothing(self, handshake):
        kem = self.kem.get(handshake["kem_pre_key_id"])
        return handshake["one_time_pre_key_id"] == 0 and (kem is None or kem["kind"] == 3)

    def use_up(self, handshake, sid):
        if self.uses_up_nothing(handshake):
            self.seen[handshake["signed_pre_key_id"]][sid] = None
            return
        self.one_time.pop(handshake["one_time_pre_key_id"], None)
        kem_id = handshake["kem_pre_key_id"]
        if kem_id and self.kem[kem_id]["kind"] == 2:
            del self.kem[kem_id]

    def forget(self, address):
        record = self.records.get(address)
        if record:
            record.current, record.archive = None, []

    def drop_signed(self, key_id):
        del self.signed[key_id]
        del self.seen[key_id]

    def fill_seen(self, key_id, count):
        for i in range(count):
            self.seen[key_id][sha256(u32be(i))[:16]] = None

    def copy(self):
        """Deep enough for any verb: lists, keys and bytes are never changed in place."""
        out = copy.copy(self)
        out.signed, out.one_time, out.kem = dict(self.signed), dict(self.one_time), dict(self.kem)
        out.seen = {k: dict(v) for k, v in self.seen.items()}
        out.users = {k: copy.copy(v) for k, v in self.users.items()}
        for user in out.users.values():
            user.history = dict(user.history)
        out.messages, out.aside = [dict(m) for m in self.messages], list(self.aside)
        out.records = {}
        for address, record in self.records.items():
            r = out.records[address] = copy.copy(record)
            r.ledger, r.reset_carriers, r.outbox = dict(record.ledger), set(record.reset_carriers), dict(record.outbox)
            r.current = record.current and record.current.copy()
            r.archive = [s.copy() for s in record.archive]
        return out


def session_copy(self):
    out = copy.copy(self)
    out.old, out.skipped = dict(self.old), dict(self.skipped)
    return out


Session.copy = session_copy


def application_length(content):
    try:
        return len(decode("Content", content)["application"])
    except BadProtobuf:
        return 0


# --- Appendix B: fingerprints -------------------------------------------------------------------------------------------------


def fingerprint(iterations, identifier, key):
    if not 2 <= iterations <= 1_000_000:
        raise ValueError("invalid iteration count")
    digest = sha512(b"\0\0" + key + identifier + key)
    for _ in range(iterations - 1):
        digest = sha512(digest + key)
    return digest


def digits(print_):
    return "".join(f"{int.from_bytes(print_[i:i + 5], 'big') % 100_000:05}" for i in range(0, 30, 5))


def safety_number(ours, theirs):
    return "".join(sorted((digits(ours), digits(theirs))))


def scannable(version, local, remote):
    def content(number, print_):
        inner = b"\x0a\x20" + print_[:32]
        return u8(number << 3 | 2) + varint(len(inner)) + inner

    return b"\x08" + varint(version) + content(2, local) + content(3, remote)
