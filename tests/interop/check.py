#!/usr/bin/env python3
"""Recomputes the published vectors with sprag1.py, those of the vault with evlt1.py, and those of the key log with memory1.py.

    pip install -r tests/interop/requirements.txt
    python3 tests/interop/check.py [files...]          default: all of tests/vectors/*.json

A line per part, ending with `N passed, N failed, N pending`; exit status 1 at any mismatch (or if nothing was checked). What the
files contain is Appendix D of docs/PROTOCOL.md, and the field `schema` of the others.
"""

import hashlib
import json
import pickle
import sys
import traceback
from pathlib import Path

import check_memory
import check_vault
import sprag1 as s

SUPPORTED_NEEDS = {"healing", "linking", "lists"}
VECTORS = Path(__file__).resolve().parent.parent / "vectors"


class Part:
    """Counts the checks of one part."""

    def __init__(self, name):
        self.name, self.passed, self.failed, self.pending = name, 0, 0, 0

    def check(self, what, ours, theirs):
        if ours == theirs:
            self.passed += 1
        else:
            self.failed += 1
            print(f"    MISMATCH {self.name}: {what}\n      ours   {short(ours)}\n      vector {short(theirs)}")

    def crash(self, what):
        self.failed += 1
        print(f"    FAILED {self.name}: {what}\n{traceback.format_exc()}")

    def counts(self):
        return f"{self.passed} passed, {self.failed} failed, {self.pending} pending"


def short(x):
    text = json.dumps(x, ensure_ascii=False) if not isinstance(x, str) else x
    return text if len(text) <= 400 else f"{text[:300]}… ({len(text)} characters)"


def unhex(x):
    return bytes.fromhex(x)


def to_hex(x):
    return x.hex() if isinstance(x, bytes) else x


# --- primitives ---------------------------------------------------------------------------------------------------------------


def xeddsa_sign(part, v):
    for i, c in enumerate(v):
        private, message = unhex(c["private"]), unhex(c["message"])
        part.check(f"sign {i}, public", s.public_key(private).hex(), c["public"])
        part.check(f"sign {i}", s.xeddsa_sign(private, message, unhex(c["z"])).hex(), c["signature"])
        e = s.point_encode(s.point_mul(s.to_int(s.clamp(private)), s.BASE))
        part.check(f"sign {i}, sign of kB", e[31] >> 7, c["edwards_sign_of_kB"])
        part.check(f"sign {i}, verifies", s.xeddsa_verify(unhex(c["public"]), message, unhex(c["signature"])), True)


def xeddsa_verify(part, v):
    for c in v:
        part.check(f"verify, {c['label']}", s.xeddsa_verify(unhex(c["public"]), unhex(c["message"]), unhex(c["signature"])), c["ok"])


def padme(part, v):
    for length, padded in v:
        part.check(f"padme {length}", s.padme(length), padded)


def signed_message(part, v):
    for c in v:
        part.check(f"signed message {c['kind']}", s.prekey_message(c["kind"], c["id"], c["features"], unhex(c["key"])).hex(), c["message"])


def kdf_rk(part, v):
    ours = [x.hex() for x in s.kdf_rk(unhex(v["rk"]), unhex(v["dh"]))]
    part.check("KDF_RK", ours, [v["new_rk"], v["ck"], v["nhk"]])


def chain(part, v):
    part.check("chain", [x.hex() for x in s.chain_step(unhex(v["ck"]))], [v["seed"], v["next_ck"]])


def message_key(part, v):
    for c in v:
        ours = s.message_key(unhex(c["seed"]), unhex(c["salt"]), unhex(c["pq_key"]))
        part.check("message key", [x.hex() for x in ours], [c["key"], c["nonce"]])


def kid(part, v):
    part.check("kid", s.kid(unhex(v["header_key"])).hex(), v["kid"])


def origin_key(part, v):
    a, b, id_a, id_b = (unhex(v[k]) for k in ("private_a", "private_b", "id_a", "id_b"))
    for name, private, public, frm, to in (
        ("a_to_b", a, b, id_a, id_b), ("a_to_b", b, a, id_a, id_b), ("b_to_a", a, b, id_b, id_a), ("b_to_a", b, a, id_b, id_a)
    ):
        part.check(f"origin key {name}", s.origin_key(private, s.public_key(public), frm, to).hex(), v[name])


def device_list(part, v):
    private = unhex(v["account_private"])
    entries = [{"device": d, "identity_key": unhex(k), "flags": f} for d, k, f in v["entries"]]
    frame = s.sign_list(private, v["user"], s.public_key(private), v["epoch"], unhex(v["previous"]), entries, unhex(v["z"]))
    part.check("device list", frame.hex(), v["list"])
    decoded = s.DeviceList(unhex(v["list"]))
    part.check("LH", decoded.lh.hex(), v["lh"])
    part.check("device list verifies", decoded.signature_holds(), True)


def link_proof(part, v):
    part.check("link proof", s.hmac(unhex(v["nonce"]), b"Sprag/1 link" + unhex(v["th"])).hex(), v["proof"])


def safety_number(part, v):
    prints = [s.fingerprint(5200, u.encode(), unhex(k)) for u, k in zip(v["users"], v["account_keys"])]
    part.check("fingerprints", [p.hex() for p in prints], v["fingerprints"])
    part.check("safety number", s.safety_number(*prints), v["number"])


PRIMITIVES = {f.__name__: f for f in (
    xeddsa_sign, xeddsa_verify, padme, signed_message, kdf_rk, chain, message_key, kid, origin_key, device_list, link_proof, safety_number
)}


def check_primitives(primitives):
    for name, v in primitives.items():
        part = Part(f"primitive {name}")
        try:
            if name in PRIMITIVES:
                PRIMITIVES[name](part, v)
            else:
                part.check("known to this runner", False, True)
        except Exception:
            part.crash(name)
        yield part


# --- decoding -----------------------------------------------------------------------------------------------------------------


def check_decoding(cases):
    part = Part("strict decoding")
    for c in cases:
        data = unhex(c["bytes"]) + bytes(c.get("zeros", 0)) + unhex(c.get("tail", ""))
        wanted = "ok" if c["ok"] else c.get("error", "Malformed")
        try:
            s.parse(c["as"], data)
            got = "ok"
        except s.Refused as error:
            got = str(error)
        except Exception:
            part.crash(f"{c['as']}: {c['note']}")
            continue
        part.check(f"{c['as']}: {c['note']}", got, wanted)
    yield part


# --- conversations ------------------------------------------------------------------------------------------------------------


def make_device(part, d):
    """The device; its public halves and signatures are recomputed on the way."""
    name, identity = d["name"], unhex(d["identity_private"])
    out = s.Device(d["user"], d["device"], d["features"], identity, unhex(d["account_public"]), [unhex(x) for x in d["lists"]])
    part.check(f"{name}: identity", out.identity.hex(), d["identity_public"])
    if "account_private" in d:
        part.check(f"{name}: account key", s.public_key(unhex(d["account_private"])).hex(), d["account_public"])
        out.account_private = unhex(d["account_private"])
    if "list_z" in d:
        first = s.DeviceList(unhex(d["lists"][0]))
        again = s.sign_list(
            unhex(d["account_private"]), d["user"], first.account_key, first.epoch, first.previous, first.entries, unhex(d["list_z"])
        )
        part.check(f"{name}: first list", again.hex(), d["lists"][0])
    out.account_root = unhex(d.get("account_root", ""))
    out.generations = {(epoch, number, unhex(key)) for epoch, number, key in d.get("generations", [])}
    out.nonce = unhex(d["nonce"]) if d.get("nonce") else None
    for k in d["signed_pre_keys"]:
        key = {"id": k["id"], "features": k["features"], "private": unhex(k["private"])}
        public = s.public_key(key["private"])
        message = s.prekey_message(1, k["id"], k["features"], public)
        part.check(f"{name}: signed prekey {k['id']}", public.hex(), k["public"])
        part.check(f"{name}: signature of signed prekey {k['id']}", s.xeddsa_sign(identity, message, unhex(k["z"])).hex(), k["signature"])
        out.signed[k["id"]], out.seen[k["id"]] = key, {}
    for k in d["one_time_pre_keys"]:
        part.check(f"{name}: one-time prekey {k['id']}", s.public_key(unhex(k["private"])).hex(), k["public"])
        out.one_time[k["id"]] = {"id": k["id"], "private": unhex(k["private"])}
    for k in d["kem_pre_keys"]:
        seed = unhex(k["seed"])
        public = s.kem_public(seed)
        if "public" in k:
            part.check(f"{name}: KEM prekey {k['id']}", public.hex(), k["public"])
        message = s.prekey_message(k["kind"], k["id"], 0, public)
        part.check(f"{name}: signature of KEM prekey {k['id']}", s.xeddsa_sign(identity, message, unhex(k["z"])).hex(), k["signature"])
        out.kem[k["id"]] = {"id": k["id"], "kind": k["kind"], "seed": seed}
    return out


class Draws:
    def __init__(self, given):
        self.left = [(kind, unhex(value)) for kind, value in given]

    def __call__(self, kind):
        if not self.left or self.left[0][0] != kind:
            raise RuntimeError(f"a draw of {kind}, but the vector has {self.left[:1]}")
        return self.left.pop(0)[1]


class Conversation:
    def __init__(self, part, conversation):
        self.part, self.events = part, conversation["events"]
        self.devices = {d["name"]: make_device(part, d) for d in conversation["devices"]}
        for n in range(len(self.events)):
            self.event(n)
        for name, wanted in conversation["final"].items():
            self.final(name, wanted)

    def address(self, x):
        return self.devices[x].address if isinstance(x, str) else tuple(x)

    def given(self, e, name):
        """The bytes in field `name`, or of the event that `name`_of says."""
        if name in e:
            return unhex(e[name])
        data = bytearray.fromhex(self.events[e[f"{name}_of"]][name])
        if "flip" in e:
            data[e["flip"]] ^= 1
        return bytes(data)

    def event(self, n):
        e = self.events[n]
        what = f"event {n} ({e['op']})"
        before = self.devices[e["by"]]
        after, draws, values = before.copy(), Draws(e.get("random", [])), {}
        untouched = pickle.dumps(before)
        results, error = {}, None
        try:
            results, error, commit = getattr(self, "do_" + e["op"])(after, e, draws, values)
        except s.Refused as refused:
            error, commit = str(refused), False
            if "heal" in e:
                met, after, commit = after.met, before.copy(), True
                results = {"heal": after.heal(met, error)}
        except s.Unsupported:
            raise
        except Exception:
            self.part.crash(what)
            return
        self.part.check(f"{what}: error", error, e.get("error"))
        self.part.check(f"{what}: draws left", draws.left, [])
        if commit:
            self.devices[e["by"]] = after
        else:
            self.part.check(f"{what}: the device is as before", pickle.dumps(before) == untouched, True)
        for name, value in results.items():
            self.part.check(f"{what}: {name}", to_hex(value), e.get(name))
        for name, value in e.get("values", {}).items():
            self.part.check(f"{what}: {name}", to_hex(values.get(name)), value)

    def do_open(self, device, e, draws, values):
        to, reset = self.address(e["to"]), e.get("reset", False)
        sid, replaced = device.open(to, self.given(e, "bundle"), e["mode"], e["now"], draws, values, reset)
        results = {"sid": sid, "replaced": replaced or None}
        if reset:
            results["resets"] = [x.hex() for x in device.records[to].reset]
        return results, None, True

    def do_send(self, device, e, draws, values):
        content = unhex(e["content"]) + bytes(e.get("zeros", 0))
        return {"frame": device.send(self.address(e["to"]), content, e["padding"], e["now"], draws, values)}, None, True

    def do_receive(self, device, e, draws, values):
        sender, frame = self.address(e["from"]), self.given(e, "frame")
        out = device.receive(sender, frame, draws, values, e.get("again", False))
        results = {"list_error": out["list_error"], "aside": out["aside"] or None}
        if not out["error"]:
            wanted = unhex(e.get("content", "")) + bytes(e.get("zeros", 0))
            results["content"] = e.get("content") if out["content"] == wanted else out["content"]
        return results, out["error"], True

    def do_resend(self, device, e, draws, values):
        contents = device.resend(self.address(e["to"]), [unhex(x) for x in e["salts"]])
        return {"contents": [x.hex() for x in contents]}, None, True

    def do_may_ack(self, device, e, draws, values):
        return {"ok": device.may_ack(self.address(e["to"]), e["now"], e["quiet"])}, None, True

    def do_link_accept(self, device, e, draws, values):
        return {"list": device.link_accept(unhex(e["request"]), e["text"], e["holder"], e["number"], draws)}, None, True

    def do_learn(self, device, e, draws, values):
        return {"replaced": device.learn(e["user"], self.given(e, "list"), e.get("old", False)) or None}, None, True

    def do_accept(self, device, e, draws, values):
        if "list" in e:
            return {}, device.accept_list(e["user"], unhex(e["list"])), True
        return {}, device.accept(e["user"]), True

    def do_own_list(self, device, e, draws, values):
        return {}, device.settle_fork(unhex(e["list"])), True

    def do_next_list(self, device, e, draws, values):
        put = [(number, unhex(key), flags) for number, key, flags in e["set"]]
        return {"list": device.next_list(put, e["drop"], draws)}, None, True

    def do_restart(self, device, e, draws, values):
        again = pickle.loads(pickle.dumps(device))
        device.__dict__ = again.__dict__
        return {}, None, True

    def do_forget(self, device, e, draws, values):
        return {}, device.forget(self.address(e["peer"])), True

    def do_drop_spk(self, device, e, draws, values):
        return {}, device.drop_signed(e["id"]), True

    def do_fill_seen(self, device, e, draws, values):
        return {}, device.fill_seen(e["id"], e["count"]), True

    def final(self, name, wanted):
        device = self.devices[name]
        self.part.check(f"final {name}: one_time_left", sorted(device.one_time), sorted(wanted["one_time_left"]))
        self.part.check(f"final {name}: kem_left", sorted(device.kem), sorted(wanted["kem_left"]))
        self.part.check(f"final {name}: users", {u: export_user(device, u) for u in device.users}, wanted["users"])
        self.part.check(f"final {name}: account_public", device.own.account_key.hex(), wanted["account_public"])
        writes = device.writes()
        for field, ours in (
            ("account_root", device.account_root.hex()), ("generations", [[e, n, k.hex()] for e, n, k in sorted(device.generations)]),
            ("writes", [writes[0], writes[1], writes[2].hex()] if writes else None), ("waiting", device.nonce is not None),
            ("aside", len(device.aside)),
        ):
            self.part.check(f"final {name}: {field}", ours, wanted[field])
        ours = {address: export_record(r) for address, r in device.records.items()}
        theirs = {tuple(p["address"]): p for p in wanted["peers"]}
        self.part.check(f"final {name}: peers", sorted(ours), sorted(theirs))
        for address, p in theirs.items():
            for field in ("ledger", "reset"):
                self.part.check(f"final {name}: {field} of {address}", ours.get(address, {}).get(field), p[field])
            mine = ours.get(address, {}).get("sessions", [])
            self.part.check(f"final {name}: sessions with {address}", len(mine), len(p["sessions"]))
            for i, (a, b) in enumerate(zip(mine, p["sessions"])):
                if a is None or b is None:
                    self.part.check(f"final {name}: session {i} with {address}", a, b)
                    continue
                for field in sorted(a.keys() | b.keys()):
                    self.part.check(f"final {name}: session {i} with {address}: {field}", a.get(field), b.get(field))


def export_user(device, user):
    u = device.users[user]
    history = [[e, lh.hex()] for e, lh in sorted(u.history.items())]
    return [u.account_key.hex(), u.newest.epoch, u.newest.lh.hex(), u.accepted, history, device.may_be_written_to(user)]


def export_record(record):
    return {
        "ledger": [[sid.hex(), closed, [x.hex() for x in salts]] for sid, (closed, salts) in record.ledger.items()],
        "reset": [sid.hex() for sid in record.reset],
        "sessions": [export_session(x) if x else None for x in [record.current] + record.archive],
    }


def export_session(x):
    out = {name: getattr(x, name).hex() for name in ("sid", "th", "rk", "cks", "hks", "ckr", "hkr", "nhks", "nhkr")}
    out.update({name: getattr(x, name) for name in ("role", "mode", "features", "ns", "nr", "pn", "i_s", "c", "retired")})
    out["pending"] = x.pending is not None
    out["ratchet_private"] = x.dhs.hex()
    out["old"] = [[i, k.hex()] for i, k in sorted(x.old.items())]
    if len(x.skipped) <= 64:
        out["skipped"] = [[name.hex(), n, seed.hex()] for (name, n), seed in x.skipped.items()]
    else:
        rows = b"".join(name + s.u32be(n) + seed for (name, n), seed in x.skipped.items())
        out["skipped"] = {"count": len(x.skipped), "sha256": hashlib.sha256(rows).hexdigest()}
    return out


def check_conversations(conversations):
    for c in conversations:
        part = Part(f"conversation “{c['label']}”")
        missing = sorted(set(c["needs"]) - SUPPORTED_NEEDS)
        if missing:
            part.pending = 1
            part.name += f" (needs {', '.join(missing)})"
        else:
            try:
                Conversation(part, c)
            except Exception:
                part.crash("ended early")
        yield part


# --- fingerprints -------------------------------------------------------------------------------------------------------------


def check_fingerprints(cases):
    part = Part("fingerprints")
    for i, c in enumerate(cases):
        try:
            local, remote = (s.fingerprint(c["iterations"], unhex(c[f"{w}_id"]), unhex(c[f"{w}_key"])) for w in ("local", "remote"))
            part.check(f"{i}: local", local.hex(), c["local_fingerprint"])
            part.check(f"{i}: remote", remote.hex(), c["remote_fingerprint"])
            part.check(f"{i}: local digits", s.digits(local), c["local_digits"])
            part.check(f"{i}: remote digits", s.digits(remote), c["remote_digits"])
            part.check(f"{i}: display", s.safety_number(local, remote), c["display"])
            part.check(f"{i}: scannable", s.scannable(c["version"], local, remote).hex(), c["scannable"])
            part.check(f"{i}: peer's scannable", s.scannable(c["version"], remote, local).hex(), c["peer_scannable"])
        except Exception:
            part.crash(f"case {i}")
    for iterations in (1, 1_000_001):
        try:
            s.fingerprint(iterations, b"", b"")
            part.check(f"{iterations} iterations", "accepted", "refused")
        except ValueError:
            part.passed += 1
    yield part


def parts_of(data):
    """The parts of a file of a schema that we know; none of another file."""
    if "conversations" in data and "primitives" in data:
        yield from check_primitives(data["primitives"])
        yield from check_decoding(data["decoding"])
        yield from check_conversations(data["conversations"])
    elif any("local_fingerprint" in c for c in data.get("cases", [])):
        yield from check_fingerprints(data["cases"])
    elif "evlt_valid" in data:
        yield from check_vault.parts_of(data, Part)
    elif "heads_judged" in data:
        yield from check_memory.parts_of(data, Part)


def main(arguments):
    total = Part("total")
    for path in map(Path, arguments or sorted(VECTORS.glob("*.json"))):
        known = False
        for part in parts_of(json.loads(path.read_text(encoding="utf-8"))):
            known = True
            print(f"{path.name}: {part.name}: {part.counts()}", flush=True)
            total.passed += part.passed
            total.failed += part.failed
            total.pending += part.pending
        if not known:
            print(f"{path.name}: another schema, skipped")
            if arguments:
                total.failed += 1
    print(f"total: {total.counts()}")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
