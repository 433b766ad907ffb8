"""Recomputes the vectors of the vault with evlt1.py: every blob is written byte for byte and opened, every slot made from what it was made
of, every invalid blob refused with the error that it names. Called by check.py."""

import hashlib
import json

import evlt1 as v
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def sha256(x):
    return hashlib.sha256(x).hexdigest()


def to_id(text):
    return bytes.fromhex(text[4:]) if text.startswith("hex:") else text.encode()


def unhex(x):
    return bytes.fromhex(x)


def slots_of(case):
    return [(kind, to_id(key_id), unhex(body)) for kind, key_id, body in case["slots"]]


def payload_of(case):
    if case["plaintext"] == "byte i = i mod 251":
        return bytes(i % 251 for i in range(case["plaintext_len"]))
    return unhex(case["plaintext"])


class Keys:
    """What `open_with` says that the caller has; remembers what the key service was asked."""

    def __init__(self, given):
        self.asked, self.expected = [], given.get("kms_asked")
        self.keys = {
            "direct": {to_id(i): unhex(k) for i, k in given.get("direct", {}).items()},
            "hpke": {to_id(i): unhex(k) for i, k in given.get("hpke", {}).items()},
            "kms": {to_id(i): self.service(i, k) for i, k in given.get("kms", {}).items()},
            "passphrase": given.get("passphrase"),
            "limits": given.get("limits", {}),
        }

    def service(self, key_id, kek):
        def unwrap(wrapped):
            self.asked.append(key_id)
            if kek == "unreachable":
                raise v.Unreachable()
            return v.opened(AESGCM(unhex(kek)), wrapped[:12], wrapped[12:], None)

        return unwrap


def outcome(blob, keys, context):
    released = []
    try:
        text = v.open_blob(blob, keys.keys, context, released)
    except v.Refused as error:
        return str(error), len(b"".join(released))
    return "opens", sha256(text)


def check_slot(part, name, slot, made_of):
    if not made_of or "dek" not in made_of:
        return
    key = unhex(made_of["dek"])
    kind, _, body = slot
    if kind == 1:
        iv = unhex(made_of["iv"])
        part.check(f"{name}, KMS slot", (iv + AESGCM(unhex(made_of["kek"])).encrypt(iv, key, None)).hex(), body.hex())
    elif kind == 2:
        private = unhex(made_of["recipient_private"])
        part.check(f"{name}, public key", v.public(private).hex(), made_of["recipient_public"])
        part.check(f"{name}, HPKE slot opens", (v.hpke_open(private, body) or b"").hex(), key.hex())
        if "ephemeral_private" in made_of:
            ours = v.hpke_body(key, unhex(made_of["recipient_public"]), unhex(made_of["ephemeral_private"]))
            part.check(f"{name}, HPKE slot", ours.hex(), body.hex())
    elif kind == 3:
        cost = [made_of[k] for k in ("kib", "passes", "lanes")]
        salt, nonce = unhex(made_of["salt"]), unhex(made_of["nonce"])
        part.check(f"{name}, passphrase slot", v.passphrase_body(key, made_of["passphrase"], *cost, salt, nonce).hex(), body.hex())


def check_written(part, name, case, slots, published):
    """Writes the blob of a case and compares it with what is published of it."""
    key, salt, context = unhex(case["dek"]), unhex(case["salt"]), unhex(case["context"])
    how = {"suite": case["suite"], "chunk_log2": case["chunk_log2"], "flags": case.get("flags", 0)}
    blob = v.seal_blob(key, slots, context, payload_of(case), salt=salt, **how)
    part.check(f"{name}, length", len(blob), published["blob_len"])
    part.check(f"{name}, hash", sha256(blob), published["blob_sha256"])
    if "blob" in published:
        part.check(f"{name}, bytes", blob.hex(), published["blob"])
    header, (_, commitment, k_hdr) = v.Header(blob), v.derive(key, salt, case["suite"])
    if "header_mac" in published:
        part.check(f"{name}, header MAC", header.mac.hex(), published["header_mac"])
    if "commit" in case:
        part.check(f"{name}, commitment", commitment.hex(), case["commit"])
    if "body_ad" in case:
        part.check(f"{name}, body_ad", v.body_ad(k_hdr, header.core, context).hex(), case["body_ad"])
    return blob


def check_opens(part, name, blob, case, open_with):
    for given in open_with:
        keys = Keys(given)
        part.check(f"{name}, opens", outcome(blob, keys, unhex(case["context"])), ("opens", sha256(payload_of(case))))
        if keys.expected is not None:
            part.check(f"{name}, asked", keys.asked, keys.expected)


def evlt(part, cases):
    for case in cases:
        kind, key_id, body = case["slot"]
        slots = [(kind, to_id(key_id), unhex(body))]
        blob = check_written(part, case["name"], case, slots, case)
        check_opens(part, case["name"], blob, case, [{"direct": {key_id: case["dek"]}}])


def evlt_valid(part, cases):
    for case in cases:
        name, slots = case["name"], slots_of(case)
        for slot, made_of in zip(slots, case["slot_inputs"]):
            check_slot(part, name, slot, made_of)
        blob = check_written(part, name, case, slots, case)
        check_opens(part, name, blob, case, case["open_with"])
        if "context_pairs" in case:
            part.check(f"{name}, context", v.encode_context(case["context_pairs"]).hex(), case["context"])


def evlt_reseal(part, cases):
    for case in cases:
        name, before, after = case["name"], case["before"], case["after"]
        old = check_written(part, f"{name}, before", case, slots_of(before), before)
        new = v.reseal(old, Keys(before["open_with"][0]).keys, unhex(case["context"]), slots_of(after))
        part.check(f"{name}, after", (len(new), sha256(new)), (after["blob_len"], after["blob_sha256"]))
        part.check(f"{name}, body", sha256(new[after["header_len"] :]), case["body_sha256"])
        check_opens(part, f"{name}, before", old, case, before["open_with"])
        check_opens(part, f"{name}, after", new, case, after["open_with"])


def evlt_invalid(part, cases):
    for case in cases:
        keys = Keys(case["open_with"])
        error, released = outcome(unhex(case["blob"]), keys, unhex(case["context"]))
        part.check(case["name"], (error, released), (case["error"], case.get("released", 0)))
        if keys.expected is not None:
            part.check(f"{case['name']}, asked", keys.asked, keys.expected)


def hkdf(salt, ikm, info):
    return v.expand(v.extract(salt, ikm), info, 32)


def raw12(part, all_of):
    for name, case in all_of.items():
        if name.startswith("lumera_password"):
            key = hkdf(unhex(case["salt"]), case["password"].encode(), b"lumera-agent-memory")
            part.check(name, key.hex(), case["key"])
        elif name.startswith("lumera"):
            key, nonce, text, blob = unhex(case["key"]), unhex(case["nonce"]), case["text"].encode(), unhex(case["blob"])
            part.check(f"{name}, sealed", v.raw12_seal(key, text, nonce).hex(), case["blob"])
            part.check(f"{name}, opened", v.raw12_open(key, blob).decode(), case["text"])
            part.check(f"{name}, hash of the payload", sha256(text), case["plaintext_sha256"])
            part.check(f"{name}, hash of the blob", sha256(blob), case["ciphertext_sha256"])
            part.check(f"{name}, address", "cascade://" + sha256(blob), case["cascade_uri"])
            part.check(f"{name}, bytes", len(blob), case["bytes"])
            for form in ("metadata", "metadata_tool", "metadata_plugin"):
                if form in case:
                    fields = json.loads(case[form])
                    fields = fields.get("crypto", fields)
                    part.check(f"{name}, {form}", fields["plaintext_sha256"], case["plaintext_sha256"])
                    part.check(f"{name}, {form}", fields.get("ciphertext_bytes", len(blob) - 12), len(blob) - 12)
            try:
                v.raw12_open(key, blob[:-1] + bytes([blob[-1] ^ 1]))
                part.check(f"{name}, damaged", "opens", "refused")
            except InvalidTag:
                part.check(f"{name}, damaged", "refused", "refused")
        elif name == "aegis_vault_file":
            key, rest, texts = unhex(case["key"]), unhex(case["file"]), []
            while rest:
                length = int.from_bytes(rest[:4], "little")
                texts.append(v.raw12_open(key, rest[4 : 4 + length]).decode())
                rest = rest[4 + length :]
            part.check(name, texts, [case["header_json"], case["payload"]])
        elif name == "pyagent":
            identity = v.public(unhex(case["identity_private"]))
            part.check(f"{name}, public key", identity.hex(), case["identity_public"])
            for purpose in ("memory", "chat"):
                key = hkdf(purpose.encode(), identity, b"PyAgent-UserData")
                part.check(f"{name}, key", key.hex(), case[f"key_{purpose}"])
            blob = unhex(case["content_field"].removeprefix("encrypted:"))
            part.check(f"{name}, blob", v.raw12_open(unhex(case["key_memory"]), blob).decode(), case["text"])


PARTS = {f.__name__: f for f in (raw12, evlt, evlt_valid, evlt_reseal, evlt_invalid)}


def parts_of(data, new_part):
    for name, check in PARTS.items():
        if name in data:
            part = new_part(name)
            try:
                check(part, data[name])
            except Exception:
                part.crash(name)
            yield part
