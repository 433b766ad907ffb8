"""The key log of memories in Python: a second implementation, written from docs/MEMORY.md, for heads and segments. What the document
takes from docs/PROTOCOL.md (XEdDSA, device lists, padding) is that of sprag1.py.

It exists to check the text and the vectors, not to be used.
"""

import sprag1 as s


class Refused(Exception):
    """`str` is the error's name in docs/MEMORY.md."""


def need(condition, error="Damaged"):
    if not condition:
        raise Refused(error)


def u32(n):
    return n.to_bytes(4, "big")


def u64(n):
    return n.to_bytes(8, "big")


# --- Keys ---------------------------------------------------------------------------------------------------------------------


def parts_of(space):
    return [(space[name] or "").encode() for name in ("app", "user", "agent", "kind")]


def lps(parts):
    return b"".join(s.lp(part) for part in parts)


def space_key(generation, space):
    return s.hkdf(b"", generation["key"], b"Sprag/1 space" + lps(parts_of(space)), 32)


def generation_id(key):
    return s.hmac(key, b"Sprag/1 generation")[:8]


def names_key(account_root):
    return s.hkdf(b"", account_root, b"Sprag/1 names", 32)


def root_name(account_root):
    return s.hmac(names_key(account_root), lps([b"root"]))


def head_name(account_root, space):
    if space["kind"] == "root":
        return root_name(account_root)
    return s.hmac(names_key(account_root), lps([b"head", *parts_of(space)]))


# --- What seals heads and segments --------------------------------------------------------------------------------------------


def seal(generation, space, label, name, plaintext, salt):
    prefix = u64(generation["epoch"]) + u32(generation["number"]) + generation_id(generation["key"])
    material = s.hkdf(salt, space_key(generation, space), label, 44)
    return prefix + salt + s.gcm_seal(material[:32], material[32:], s.pad(plaintext, True), prefix + name)


def is_held(held, sealed):
    return [g for g in held if u64(g["epoch"]) + u32(g["number"]) + generation_id(g["key"]) == sealed[:20]]


def opened(held, space, label, name, sealed):
    need(len(sealed) >= 20)
    prefix, salt, rest = sealed[:20], sealed[20:36], sealed[36:]
    fits = is_held(held, sealed)
    need(fits, "NotYet")
    need(len(salt) == 16 and len(rest) >= 16)
    material = s.hkdf(salt, space_key(fits[0], space), label, 44)
    padded = s.gcm_open(material[:32], material[32:], rest, prefix + name)
    need(padded is not None)
    stripped = padded.rstrip(b"\0")
    need(stripped[-1:] == b"\x80")
    return stripped[:-1]


class Reader:
    def __init__(self, data):
        self.rest = data

    def take(self, n):
        need(len(self.rest) >= n)
        taken, self.rest = self.rest[:n], self.rest[n:]
        return taken

    def number(self, n):
        return int.from_bytes(self.take(n), "big")

    def block(self):
        return self.take(self.number(4))

    def end(self):
        need(not self.rest)


# --- Segments -----------------------------------------------------------------------------------------------------------------

MAX_SPACE_ID = 4 * 4 + 3 * 255 + 8


def encode_segment(entries):
    out = b"\x01" + u32(len(entries))
    for e in entries:
        out += s.lp(e["id"]) + u64(e["revision"]) + u32(e["device"]) + u64(e["at"]) + s.lp(e["agent"].encode())
        out += bytes([e["state"]])
        if e["state"] in (0, 3):
            out += e["key"] + e["blob"] + u64(e["size"])
        elif e["state"] == 2:
            out += u64(e["under"][0]) + u32(e["under"][1])
    return out


def decode_segment(plaintext):
    r, entries = Reader(plaintext), []
    version = r.number(1)
    need(version <= 1, "NotYet")
    need(version == 1)
    count = r.number(4)
    need(count <= 4096)
    for _ in range(count):
        e = {"id": r.block(), "revision": r.number(8), "device": r.number(4), "at": r.number(8)}
        try:
            e["agent"] = r.block().decode()
        except UnicodeDecodeError:
            raise Refused("Damaged") from None
        e["state"] = r.number(1)
        need(e["state"] in (0, 1, 2, 3, 4))
        need(1 <= len(e["id"]) <= (MAX_SPACE_ID if e["state"] == 4 else 128))
        need(not entries or entries[-1]["id"] < e["id"])
        need(e["revision"] >= 1 and e["device"] >= 1 and len(e["agent"].encode()) <= 255)
        e.update(key=None, blob=None, size=None, under=None)
        if e["state"] in (0, 3):
            e.update(key=r.take(32), blob=r.take(32), size=r.number(8))
        elif e["state"] == 2:
            e["under"] = [r.number(8), r.number(4)]
        entries.append(e)
    r.end()
    return entries


def open_segment(held, space, name, sealed):
    return decode_segment(opened(held, space, b"Sprag/1 segment", name, sealed))


# --- Heads --------------------------------------------------------------------------------------------------------------------


def encode_head(head):
    out = b"\x01" + u64(head["list_epoch"]) + u32(head["restarts"]) + u32(len(head["writers"]))
    for device, counter, (epoch, number) in head["writers"]:
        out += u32(device) + u64(counter) + u64(epoch) + u32(number)
    out += b"\x01" + head["previous"] if head["previous"] else b"\x00"
    out += u32(len(head["segments"]))
    for blob, records, size in head["segments"]:
        out += blob + u32(records) + u64(size)
    return out + u32(head["signer"])


def signed(name, body):
    return b"Sprag/1 head" + s.lp(name) + body


def seal_head(generation, space, name, head, private, z, salt):
    body = encode_head(head)
    signature = s.xeddsa_sign(private, signed(name, body), z)
    return seal(generation, space, b"Sprag/1 head", name, body + signature, salt)


def decode_head(body):
    r = Reader(body)
    version = r.number(1)
    need(version <= 1, "NotYet")
    need(version == 1)
    head = {"list_epoch": r.number(8), "restarts": r.number(4), "writers": []}
    count = r.number(4)
    need(count <= 256)
    for _ in range(count):
        device, counter, holds = r.number(4), r.number(8), [r.number(8), r.number(4)]
        need(device >= 1 and counter >= 1)
        need(not head["writers"] or head["writers"][-1][0] < device)
        head["writers"].append([device, counter, holds])
    mark = r.number(1)
    need(mark in (0, 1))
    head["previous"] = r.take(32) if mark else None
    count = r.number(4)
    need(count <= 1000)
    head["segments"] = [[r.take(32), r.number(4), r.number(8)] for _ in range(count)]
    head["signer"] = r.number(4)
    r.end()
    need(head["signer"] in [writer[0] for writer in head["writers"]])
    return head


def seen_of(head, sealed):
    counters = {device: counter for device, counter, _ in head["writers"]}
    generation = (int.from_bytes(sealed[:8], "big"), int.from_bytes(sealed[8:12], "big"))
    return {"hash": s.sha256(sealed), "generation": generation, "counters": counters}


def judge_head(held, space, name, device_list, seen, sealed):
    """What a device that has seen `seen` (or None) makes of a head, with the newest list that it knows."""
    need(len(sealed) <= 65536)
    if seen and len(sealed) >= 20 and seen_of({"writers": []}, sealed)["generation"] < seen["generation"]:
        need(is_held(held, sealed), "Stale")
    plaintext = opened(held, space, b"Sprag/1 head", name, sealed)
    need(len(plaintext) >= 64)
    body, signature = plaintext[:-64], plaintext[-64:]
    head = decode_head(body)
    now = seen_of(head, sealed)
    if seen and seen["hash"] == now["hash"]:
        return head
    need(head["list_epoch"] <= device_list.epoch, "NotYet")
    key = device_list.key_of(head["signer"])
    need(key, "UnlistedDevice")
    need(s.xeddsa_verify(key, signed(name, body), signature), "BadSignature")
    if seen:
        need(now["generation"] >= seen["generation"], "Stale")
        before, after = seen["counters"], now["counters"]
        devices = before.keys() | after.keys()
        higher = any(after.get(d, 0) > before.get(d, 0) for d in devices)
        lower = any(after.get(d, 0) < before.get(d, 0) for d in devices)
        need(not (lower and not higher), "Stale")
        need(higher and not lower, "Forked")
    return head


# --- Merging ------------------------------------------------------------------------------------------------------------------


def rank(e):
    """The higher one counts."""
    kind = {4: 0, 0: 1, 3: 1, 1: 2, 2: 3}[e["state"]]
    under = tuple(e["under"] or (0, 0))
    last = (e["size"] or 0, e["state"] == 3, e["key"] or b"")
    return (kind == 3, e["revision"], e["device"], kind, under, e["blob"] or b"", e["at"], e["agent"].encode(), *last)
