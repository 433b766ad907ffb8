"""Recomputes the vectors of the key log with memory1.py: names and keys, segments and heads byte for byte in both directions, what becomes
of each that is none, and which of two entries counts. Called by check.py."""

import memory1 as m
import sprag1 as s


def unhex(x):
    return bytes.fromhex(x) if x is not None else None


def entry_of(e):
    return {**e, "id": unhex(e["id"]), "key": unhex(e["key"]), "blob": unhex(e["blob"])}


def outcome(judge):
    try:
        judge()
    except m.Refused as error:
        return str(error)
    return "ok"


def parts_of(data, Part):
    spaces = data["spaces"]
    generations = [{**g, "key": unhex(g["key"])} for g in data["generations"]]
    lists = [s.DeviceList(unhex(frame)) for frame in data["lists"]]

    part = Part("names and keys")
    root = unhex(data["names"]["account_root"])
    part.check("name of the root", m.root_name(root).hex(), data["names"]["root"])
    for space, head in zip(spaces, data["names"]["heads"]):
        part.check(f"head of {space}", m.head_name(root, space).hex(), head)
    for g in generations:
        part.check("id of a generation", m.generation_id(g["key"]).hex(), g["id"])
    for c in data["space_keys"]:
        ours = m.space_key(generations[c["generation"]], spaces[c["space"]])
        part.check(f"key of space {c['space']}", ours.hex(), c["key"])
    for device in data["devices"]:
        part.check("public key", s.public_key(unhex(device["private"])).hex(), device["public"])
    for one in lists:
        part.check("list", one.signature_holds(), True)
    yield part

    part = Part("segments")
    for c in data["segments"]:
        space, generation, name = spaces[c["space"]], generations[c["generation"]], unhex(c["head"])
        entries = [entry_of(e) for e in c["entries"]]
        try:
            plaintext = m.encode_segment(entries)
            part.check(f"{c['name']}: plaintext", plaintext.hex(), c["plaintext"])
            sealed = m.seal(generation, space, b"Sprag/1 segment", name, plaintext, unhex(c["salt"]))
            part.check(f"{c['name']}: sealed", sealed.hex(), c["sealed"])
            part.check(f"{c['name']}: name of the blob", s.sha256(sealed).hex(), c["sha256"])
            part.check(f"{c['name']}: opens", m.open_segment([generation], space, name, unhex(c["sealed"])), entries)
        except Exception:
            part.crash(c["name"])
    yield part

    part = Part("segments that are judged")
    for c in data["segments_invalid"]:
        held = [generations[at] for at in c["held"]]
        try:
            ours = outcome(lambda: m.open_segment(held, spaces[c["space"]], unhex(c["head"]), unhex(c["sealed"])))
            part.check(c["name"], ours, c["outcome"])
        except Exception:
            part.crash(c["name"])
    yield part

    part, seen = Part("heads"), []
    for c in data["heads"]:
        space, generation, name = spaces[c["space"]], generations[c["generation"]], unhex(c["head"])
        head = {
            "list_epoch": c["list_epoch"], "restarts": c["restarts"], "writers": c["writers"], "previous": unhex(c["previous"]),
            "segments": [[unhex(blob), records, size] for blob, records, size in c["segments"]], "signer": c["signer"],
        }
        try:
            private, z, salt = unhex(c["identity_private"]), unhex(c["z"]), unhex(c["salt"])
            sealed = m.seal_head(generation, space, name, head, private, z, salt)
            part.check(f"{c['name']}: sealed", sealed.hex(), c["sealed"])
            part.check(f"{c['name']}: hash", s.sha256(sealed).hex(), c["sha256"])
            opened = m.opened([generation], space, b"Sprag/1 head", name, unhex(c["sealed"]))
            part.check(f"{c['name']}: opens", m.decode_head(opened[:-64]), head)
            key = s.public_key(private)
            part.check(f"{c['name']}: signature", s.xeddsa_verify(key, m.signed(name, opened[:-64]), opened[-64:]), True)
        except Exception:
            part.crash(c["name"])
        seen.append(m.seen_of(head, unhex(c["sealed"])))
    yield part

    part = Part("heads that are judged")
    for c in data["heads_judged"]:
        held = [generations[at] for at in c["held"]]
        before = seen[c["seen"]] if c["seen"] is not None else None
        if "of" in c:
            sealed = unhex(data["heads"][c["of"]]["sealed"])
        else:
            sealed = bytes(c["zeros"]) if "zeros" in c else unhex(c["sealed"])
        try:
            ours = outcome(lambda: m.judge_head(held, spaces[c["space"]], unhex(c["head"]), lists[c["list"]], before, sealed))
            part.check(c["name"], ours, c["outcome"])
        except Exception:
            part.crash(c["name"])
    yield part

    part = Part("entries that meet")
    for c in data["merges"]:
        entries = [entry_of(e) for e in c["entries"]]
        part.check(c["name"], entries.index(max(entries, key=m.rank)), c["counts"])
    yield part
