"""Verifies an evidence package of a Sallyport audit log with Python's standard library and openssl, offline.

    python3 verify.py PACKAGE.zip --key KEYFILE [--device NAME] [--node NAME ...]

Of a site each gateway's log lies in nodes/<gateway>/ and is proven by itself; grants are then asked of all of them, and where the
order of two events of different gateways matters, their clocks are taken to differ by no more than FLUX_MS.

Written apart from verify.mjs, from the formats alone: RFC 6962 (tree), c2sp.org/tlog-checkpoint and signed-note (heads),
PKWARE APPNOTE (ZIP). Keys come from whoever you trust for them, never from the package.
Exit: 0 proven, 1 violated, 2 not provable.
"""
import base64, hashlib, itertools, json, os, re, struct, subprocess, sys, tempfile, zlib
from datetime import datetime, timezone

SILENCE_MS = 90_000
FLUX_MS = 5_000
ENDINGS = ("grant.reject", "grant.revoke", "grant.expire", "grant.burn")


class Violated(Exception):
    pass


def need(ok, place, what):
    if not ok:
        raise Violated(f"{place}: {what}")


def sha256(data):
    return hashlib.sha256(data).digest()


# Means the same wherever it is unpacked: no way up, no root, no other way to write one.
PLAIN = re.compile("[A-Za-z0-9_-](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")


def unpack(packed, size, name):
    """No more than it says, and nothing behind its end."""
    stream = zlib.decompressobj(-15)
    try:
        content = stream.decompress(packed, size + 1)
    except zlib.error:
        raise Violated(f"{name}: cannot be unpacked")
    need(stream.eof and not stream.unused_data and len(content) == size, name, "cannot be unpacked")
    return content


def read_zip(data):
    """Every byte is accounted for: entries from the start, the directory behind them, the end record last."""
    need(len(data) >= 22, "zip", "too short")
    end = struct.unpack("<IHHHHIIH", data[-22:])
    count, size, start = end[3], end[5], end[6]
    need(end == (0x06054B50, 0, 0, count, count, size, start, 0), "zip end", "not as a package has it")
    need(start + size + 22 == len(data), "zip end", "the directory lies elsewhere")
    entries, lower, at, listing = {}, set(), 0, b""
    for _ in range(count):
        need(at + 30 <= start, "zip", "an entry is cut short")
        head = struct.unpack("<IHHHHHIIIHH", data[at : at + 30])
        method, crc, packed_size, full, name_size = head[3], head[6], head[7], head[8], head[9]
        body = at + 30 + name_size
        need(body + packed_size <= start, "zip", "an entry is cut short")
        raw = data[at + 30 : body]
        name = raw.decode("utf-8", "replace")
        packed = data[body : body + packed_size]
        need(method in (0, 8), name, "packed in an unknown way")
        content = packed if method == 0 else unpack(packed, full, name)
        need(all(PLAIN.fullmatch(part) for part in name.split("/")), name, "no file of a package has such a name")
        facts = (20, 0x0800, method, 0, 0x21, zlib.crc32(content), packed_size, len(content), name_size, 0)
        need(head == (0x04034B50, *facts) and full == len(content) and crc == zlib.crc32(content), name, "header")
        # Where capitals count for nothing one would be unpacked over the other.
        need(name.lower() not in lower, name, "stands twice")
        lower.add(name.lower())
        listing += struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, *facts, 0, 0, 0, 0, at) + raw
        entries[name] = (content, packed)
        at = body + packed_size
    need(at == start and data[start:-22] == listing, "zip directory", "not the entries that are there")
    return entries


def read_manifest(entries):
    for name in ("manifest.json", "manifest.sha256"):
        need(name in entries, name, "missing")
    own = entries["manifest.json"][0]
    need(entries["manifest.sha256"][0].decode() == sha256(own).hex() + "  manifest.json\n", "manifest.json", "its hash")
    manifest = json.loads(own)
    left = set(entries) - {"manifest.json", "manifest.sha256", "manifest.note"}
    for one in manifest["entries"]:
        name = one["name"]
        need(name in entries, name, "listed and not there")
        content, packed = entries[name]
        need(sha256(content).hex() == one["sha256"] and len(content) == one["size"], name, "its hash is another")
        need(sha256(packed).hex() == one["packed_sha256"], name, "packed otherwise")
        left.discard(name)
    need(not left, ", ".join(sorted(left)), "not listed")
    return manifest


def read_vkey(line):
    name, key_id, material = line.strip().split("+", 2)
    raw = base64.b64decode(material)
    need(hashlib.sha256(name.encode() + b"\n" + raw).hexdigest()[:8] == key_id, "key", "its id is not its own")
    return name, key_id, raw[0], raw[1:]


def openssl_verifies(public_der, message, signature):
    """One signature, by the openssl program."""
    with tempfile.TemporaryDirectory() as at:
        paths = {}
        for name, content in (("key", public_der), ("msg", message), ("sig", signature)):
            paths[name] = os.path.join(at, name)
            with open(paths[name], "wb") as file:
                file.write(content)
        done = subprocess.run(
            ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER",
             "-inkey", paths["key"], "-in", paths["msg"], "-sigfile", paths["sig"]],
            capture_output=True)
        return done.returncode == 0


# SubjectPublicKeyInfo up to the key itself: Ed25519 (RFC 8410) and ML-DSA-44 (RFC 9881).
SPKI = {1: bytes.fromhex("302a300506032b6570032100"), 6: bytes.fromhex("30820532300b06096086480165030403110382052100")}


def read_head(note, keys, place, skipped):
    text, _, rest = note.partition("\n\n")
    text += "\n"
    parts = text.split("\n")
    need(len(parts) == 4 and re.fullmatch(r"0|[1-9]\d{0,15}", parts[1]), place, "not a signed head")
    origin, size, root = parts[0], int(parts[1]), base64.b64decode(parts[2])
    need(len(root) == 32, place, "not a signed head")
    lines = [line.split(" ") for line in rest.split("\n")[:-1]]
    need(all(len(line) == 3 and line[0] == "\u2014" for line in lines), place, "a signature line is malformed")
    for name, key_id, kind, public in keys:
        found = [base64.b64decode(line[2]) for line in lines if line[1] == name]
        found = [sig[4:] for sig in found if sig[:4].hex() == key_id]
        need(len(found) == 1, place, f"not one signature of key {key_id}")
        message, signature = text.encode(), found[0]
        if kind == 6:
            vector = lambda value: bytes([len(value.encode())]) + value.encode()
            message = (b"subtree/v1\n\0" + vector(name) + signature[:8] + vector(origin)
                       + struct.pack(">QQ", 0, size) + root)
            signature = signature[8:]
            if not ml_dsa_known():
                skipped.add(key_id)
                continue
        need(openssl_verifies(SPKI[kind] + public, message, signature), place, f"the signature of key {key_id}")
    return origin, size, root


def ml_dsa_known():
    return b"ML-DSA-44" in subprocess.run(["openssl", "list", "-signature-algorithms"], capture_output=True).stdout


class Edge:
    """The right edge of an RFC 6962 tree: roots of its perfect subtrees, the largest first."""

    def __init__(self, size, hashes):
        self.size, self.hashes = size, list(hashes)

    def push(self, leaf):
        n, value = self.size, leaf
        while n % 2 == 1:
            value = sha256(b"\x01" + self.hashes.pop() + value)
            n //= 2
        self.hashes.append(value)
        self.size += 1

    def root(self):
        if not self.hashes:
            return sha256(b"")
        value = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            value = sha256(b"\x01" + left + value)
        return value


EPOCH = re.compile(r"(.*/)([1-9][0-9]{0,8})")


def stem_of(origin):
    """What all epochs of one log have in common."""
    found = EPOCH.fullmatch(origin)
    return found.group(1) if found else origin


def joint_in(line, name):
    """What an event says of the epoch next to its own; None: it is no such event."""
    event = json.loads(line) if line else {"metadata": {"event_code": ""}}
    return own(event) if code(event) == name else None


def read_part(entries, folder):
    """One epoch as it lies in the package, nothing of it proven yet."""
    for name in ("checkpoints", "left-edge.json", "events.ndjson", "leaves.txt"):
        need(folder + name in entries, folder + name, "missing")
    text = entries[folder + "checkpoints"][0].decode()
    notes, at = [], 0
    while at < len(text):
        middle = text.find("\n\n", at)
        stop = text.find("\n\n", middle + 2) if middle >= 0 else -1
        need(stop >= 0, folder + "checkpoints", "a head is cut short")
        notes.append(text[at : stop + 1])
        at = stop + 2
    need(notes, folder + "checkpoints", "there is no head")
    bodies = entries[folder + "events.ndjson"][0].split(b"\n")[:-1]
    origin = notes[0].split("\n")[0]
    number = re.search(r"(\d+)/$", folder)
    need(not number or origin.endswith("/" + number.group(1)), folder + "checkpoints", f"they are of {origin}")
    return {
        "folder": folder, "origin": origin, "notes": notes, "bodies": bodies, "shown": "/keys/" not in folder,
        "epoch": int(number.group(1)) if number else None,
        "proof": entries[folder + "consistency.json"][0] if folder + "consistency.json" in entries else None,
        "opening": joint_in(bodies[0] if bodies else b"", "log.epoch_begin"),
        "closing": joint_in(bodies[-1] if bodies else b"", "log.epoch_end"),
    }


def number_of(part):
    found = EPOCH.fullmatch(part["origin"])
    return int(found.group(2)) if found else 0


def parts_of(entries):
    """Every epoch, the first one first, none left out; and of those only shown for their keys, which."""
    found = [name[: -len("checkpoints")] for name in entries if re.fullmatch(r"log/((keys/)?[1-9][0-9]{0,8}/)?checkpoints", name)]
    if "log/" in found:
        need(not any(re.fullmatch(r"log/\d+/", one) for one in found), "log/checkpoints", "the epochs stand beside it")
    parts = sorted((read_part(entries, one) for one in found), key=number_of)
    shown = [part for part in parts if part["shown"]]
    need(shown, "log/checkpoints", "missing")
    for older, newer in zip(parts, parts[1:]):
        need(number_of(newer) == number_of(older) + 1, newer["folder"], "the epoch before it is left out")
    # Of one between two that are shown the keys alone would leave its events out.
    for older, newer in zip(shown, shown[1:]):
        left_out = f"log/{number_of(older) + 1}/"
        need(number_of(newer) == number_of(older) + 1, left_out, "this epoch is left out")
    return parts


def keys_of(parts, given):
    """By origin, the reader's keys and those that the epochs next to it name."""
    known = {part["origin"]: [] for part in parts}
    for key in given:
        need(stem_of(key[0]) == stem_of(parts[0]["origin"]), "log/checkpoints", f"the key is for {key[0]}")
        if key not in known.setdefault(key[0], []):
            known[key[0]].append(key)
    need(not given or any(key[0] == part["origin"] for key in given for part in parts), "log/checkpoints", "no key is for it")
    for i, part in enumerate(parts):
        before = parts[i - 1]["closing"] if i > 0 else None
        after = parts[i + 1]["opening"] if i + 1 < len(parts) else None
        for joint in (before, after):
            for key in (read_vkey(line) for line in (joint or {}).get("keys", [])):
                need(key[0] == part["origin"], part["folder"], "the epoch next to it names keys of another")
                if key not in known[part["origin"]]:
                    known[part["origin"]].append(key)
    return known


def same_keys(lines, keys):
    return sorted(read_vkey(line) for line in lines) == sorted(keys)


def check_joint(older, newer, known):
    """What the last event of one epoch and the first of the next say, each proven under its own keys."""
    was, now, place = older["origin"], newer["origin"], newer["folder"] + "events.ndjson"
    opening, closing = newer["opening"], older["closing"]
    whole = older["shown"] and newer["shown"]
    need(not whole or (opening is not None and closing is not None), place, f"{was} was not ended for {now}, or it does not say so")
    if opening is not None:
        need(opening["predecessor"] == was, place, f"{now} goes on from {opening['predecessor']}")
        need(same_keys(opening["keys"], known[was]), place, f"{now} names other keys of {was}")
    if closing is not None:
        need(closing["successor"] == now, place, f"{was} was ended for {closing['successor']}")
        need(same_keys(closing["keys"], known[now]), place, f"{was} was ended for other keys of {now}")
    if opening is not None:
        origin, size, root = opening["note"].split("\n")[:3]
        need(re.fullmatch(r"0|[1-9]\d{0,15}", size), place, f"{now} goes on from what is no head")
        held = (origin, int(size), base64.b64decode(root))
        begun = closing is None and origin == was and held[1] > older["end"][0]
        need(begun or held == (was, *older["end"]), place, f"{now} goes on from a head of {size} events that is not the last of {was}")
        need(begun or closing is not None, place, f"{was} was not ended, and {now} is there")
        if begun and older["proof"] is not None:
            check_beginning(older, held[1], held[2])


def check_beginning(part, size, root):
    """What the next epoch holds of one, a head of that size and root, begins with what is here of it. RFC 9162 2.1.4.2."""
    place = part["folder"] + "consistency.json"
    (first, old_root), hashes = part["end"], json.loads(part["proof"])["hashes"]
    hexes = all(isinstance(one, str) and re.fullmatch("[0-9a-f]{64}", one) for one in hashes)
    text = json.dumps({"from": first, "size": size, "hashes": hashes}, separators=(",", ":")) + "\n"
    need(hexes and text.encode() == part["proof"], place, f"it is no proof from {first} to {size} events")
    path = [bytes.fromhex(one) for one in hashes]
    # A tree that is one perfect subtree is the first hash itself.
    path = path if first & (first - 1) else [old_root, *path]
    need(path, place, "it is empty")
    at, last, old, whole = first - 1, size - 1, path[0], path[0]
    while at % 2 == 1:
        at, last = at // 2, last // 2
    for one in path[1:]:
        need(last > 0, place, "it is too long")
        if at % 2 == 1 or at == last:
            old, whole = sha256(b"\x01" + one + old), sha256(b"\x01" + one + whole)
            while at % 2 == 0 and at != 0:
                at, last = at // 2, last // 2
        else:
            whole = sha256(b"\x01" + whole + one)
        at, last = at // 2, last // 2
    need((last, old, whole) == (0, old_root, root), place, f"what {part['origin']} ended with does not begin with what is here")


def held_beyond(older, newer):
    """Whether the next epoch holds a head of this one that is not here: consistency.json joins the two."""
    return older["closing"] is None and newer["opening"] is not None


def later_given(parts, given):
    """Epochs later than all that is here, of which the reader brought keys."""
    return list(dict.fromkeys(key[0] for key in given if number_of({"origin": key[0]}) > number_of(parts[-1])))


def newest_given(parts, given, skipped):
    """The newest epoch of which the reader brought keys that can be checked with, where it is here."""
    if later_given(parts, given):
        return None
    found = [one["origin"] for one in parts if any(key[0] == one["origin"] and key[1] not in skipped for key in given)]
    return found[-1] if found else None


def doubts_of(parts, trusted, given, skipped):
    """Why it is not proven with these keys: the newest ones vouch for what is before them, older ones may be somebody's by now."""
    doubts = [f"keys of {one} were given, and nothing here leads to it" for one in later_given(parts, given)]
    for older, newer in zip(parts, parts[1:]):
        if held_beyond(older, newer) and older["proof"] is None:
            doubts.append(f"nothing here shows that {newer['origin']} goes on from what is here of {older['origin']}")
    newest = newest_given(parts, given, skipped)
    for part in parts:
        if newest is not None and part["shown"] and part["origin"] not in trusted:
            doubts.append(f"keys of {newest} were given, and nothing here leads from it to {part['origin']}")
    return doubts


def trusted_in(parts, given, known, skipped):
    """Epochs proven under the newest keys that the reader brought, or that one so proven names, and holds."""
    usable = lambda keys: any(key[1] not in skipped for key in keys)
    trusted = {newest_given(parts, given, skipped)} - {None}
    steps = [(a, b, "closing") for a, b in zip(parts, parts[1:])]
    joined = [(a, b) for a, b in zip(parts, parts[1:]) if not held_beyond(a, b) or a["proof"] is not None]
    steps += [(b, a, "opening") for a, b in reversed(joined)]
    for part, other, joint in steps:
        if part["origin"] in trusted and part[joint] is not None and usable(known[other["origin"]]):
            trusted.add(other["origin"])
    return trusted


def prove_events(entries, given, skipped):
    """The epochs, which of them are proven under the reader's keys, what speaks against that, those keys, and all events of all that is shown, in order."""
    parts = parts_of(entries)
    stem = stem_of(parts[0]["origin"])
    others = list(dict.fromkeys(stem_of(key[0]) for key in given if stem_of(key[0]) != stem))
    # Who has the keys of a whole site has those of other logs too: what these would prove is not here.
    given = [key for key in given if stem_of(key[0]) == stem] or given
    known = keys_of(parts, given)
    events, base = [], 0
    for i, part in enumerate(parts):
        first, own_events, part["end"] = prove_part(entries, part, known[part["origin"]], skipped)
        part["first"] = first
        if i > 0:
            check_joint(parts[i - 1], part, known)
        if part["shown"]:
            for at, event in enumerate(own_events):
                event["at"], event["epoch"] = base + first + at, part["epoch"]
            events += own_events
            base += part["end"][0]
    mark_undone(events)
    trusted = trusted_in(parts, given, known, skipped)
    brought = {key[0] for key in given}
    doubts = doubts_of(parts, trusted, given, skipped)
    doubts += [f"keys of {one} were given, and that log is not in the package" for one in others]
    return parts, trusted, doubts, {name: keys for name, keys in known.items() if name in trusted | brought}, events


# As a gateway may be named in its settings: no path, and nothing that only looks like another.
NODE = "[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"


def node_of(origin):
    """What the logs of one site have in common, and which gateway's it is."""
    found = re.fullmatch(f"(.+/)({NODE})/", stem_of(origin))
    return (found.group(1), found.group(2)) if found else ("", "")


def log_of(node, proven):
    parts, trusted, doubts, known, events = proven
    shown = [part for part in parts if part["shown"]]
    return {"node": node, "parts": parts, "shown": shown, "trusted": trusted, "doubts": doubts, "known": known, "events": events,
            "early": shown[0]["first"] > 0 or shown[0]["opening"] is not None,
            "pinned": all(part["origin"] in trusted for part in shown), "folder": f"nodes/{node}/" if node else ""}


def prove_node(entries, node, given, skipped):
    """One gateway's log, as the package of it alone would have it."""
    folder = f"nodes/{node}/"
    own_entries = {name[len(folder) :]: entry for name, entry in entries.items() if name.startswith(folder)}
    try:
        origin = parts_of(own_entries)[0]["origin"]
        need(node_of(origin)[1] == node, "", f"it holds the log {origin}")
        keys = [key for key in given if stem_of(key[0]) == stem_of(origin)]
        log = log_of(node, prove_events(own_entries, keys, skipped))
    except Violated as found:
        raise Violated(folder + str(found))
    if given and not log["pinned"] and not log["doubts"]:
        log["doubts"].append(f"no key was given of the log of {node}: it may be anybody's")
    for event in log["events"]:
        event["node"] = node
    return log


def prove_logs(entries, manifest, given, skipped):
    """The log; or of a site each gateway's by itself, and the gateways that are named and not here."""
    if "nodes" not in manifest:
        return [log_of(None, prove_events(entries, given, skipped))], []
    here = sorted({name.split("/")[1] for name in entries if re.match("nodes/[^/]+/", name)})
    need(here, "nodes/", "there is no log")
    need(all(re.fullmatch(NODE, node) for node in manifest["nodes"]), "manifest.json", "it does not name the gateways of the site")
    need(manifest["nodes"] == sorted({*manifest["nodes"], *here}), "manifest.json", "it does not name the gateways that are here")
    logs = [prove_node(entries, node, given, skipped) for node in here]
    sites = {node_of(log["parts"][0]["origin"])[0] for log in logs}
    need(len(sites) == 1, "nodes/", f"logs of more than one site: {', '.join(sorted(sites))}")
    stems = {stem_of(log["parts"][0]["origin"]) for log in logs}
    for other in dict.fromkeys(stem_of(key[0]) for key in given):
        if other not in stems:
            logs[0]["doubts"].insert(0, f"keys of {other} were given, and that log is not in the package")
    return logs, [node for node in manifest["nodes"] if node not in here]


def in_order_of_time(logs):
    """The events of several logs as one: by their time, those of one log in that log's order, whatever its clock did."""
    lanes = []
    for lane, log in enumerate(logs):
        times = itertools.accumulate((event["time"] for event in log["events"]), max)
        lanes += [(time, lane, i, event) for i, (time, event) in enumerate(zip(times, log["events"]))]
    events = [event for _, _, _, event in sorted(lanes, key=lambda one: one[:3])]
    for at, event in enumerate(events):
        event["at"] = at
    return events


def may_precede(event, other):
    """Whether it came before the other: of two gateways, whose clocks may differ, whether it may have."""
    if event.get("node") == other.get("node"):
        return event["at"] < other["at"]
    return event["time"] <= other["time"] + FLUX_MS


def did_precede(event, other):
    """Whether it did, whatever the clocks."""
    if event.get("node") == other.get("node"):
        return event["at"] < other["at"]
    return event["time"] < other["time"] - FLUX_MS


def prove_part(entries, part, keys, skipped):
    folder, origin = part["folder"], part["origin"]
    place = folder + "checkpoints"
    heads = [read_head(note, keys, f"{place}, head {i + 1}", skipped) for i, note in enumerate(part["notes"])]
    left = json.loads(entries[folder + "left-edge.json"][0])
    edge = Edge(left["size"], [bytes.fromhex(value) for value in left["hashes"]])
    need(len(edge.hashes) == bin(edge.size).count("1"), folder + "left-edge.json", "not the edge of a tree")
    # A head of the edge itself need not be there: the next one commits to the edge with the events that follow it.
    at_edge = edge.size > 0 and heads[0][1] == edge.size
    need(not at_edge or heads[0][2] == edge.root(), folder + "left-edge.json", "its root is not the one signed")
    awaited = {size: root for _, size, root in heads if size > edge.size}
    need(awaited and len(heads) == len(awaited) + at_edge, place, "heads that do not grow")
    need(all(head[0] == origin for head in heads), place, "heads of more than one log")
    events, matched = [], edge.size
    leaves = entries[folder + "leaves.txt"][0].decode().split("\n")[:-1]
    place = folder + "events.ndjson"
    for i, body in enumerate(part["bodies"]):
        leaf = sha256(b"\x00" + body)
        idx = edge.size
        need(i < len(leaves) and leaves[i] == leaf.hex(), f"{place}, event {idx}", "its leaf hash")
        edge.push(leaf)
        event = json.loads(body)
        need(event["metadata"]["sequence"] == idx and event["metadata"]["log_name"] == origin,
             f"{place}, event {idx}", "it says that it stands elsewhere")
        need(idx == 0 or code(event) != "log.epoch_begin", f"{place}, event {idx}", "the log begins a second time")
        need(i == len(part["bodies"]) - 1 or code(event) != "log.epoch_end", f"{place}, event {idx + 1}", "it goes on behind its end")
        events.append(event)
        if edge.size in awaited:
            need(awaited.pop(edge.size) == edge.root(), f"{place}, event {matched} to {idx}", "not those signed")
            matched = edge.size
    need(not awaited and matched == edge.size and len(leaves) == len(events), place, "not all that was signed")
    return left["size"], events, (edge.size, edge.root())


NOT_DONE = re.compile("(?:without effect|not known whether this took effect): ")
TAKEN_BACK = ("grant.approve", "grant.reject", "grant.revoke", "grant.burn", "session.lock", "session.unlock",
              "device.quarantine", "device.resume", "device.retire")


def mark_undone(events):
    """An act is recorded before it is done: a failure behind it says that it was not, or that nobody knows."""
    told = {}
    for event in events:
        facts, done = own(event), event["status_id"] == 1
        whose = facts.get("device" if code(event).startswith("device.") else "target")
        key = (code(event), facts.get("grant"), facts.get("scope"), whose, lock_of(event), uid_of(event))
        if code(event) == "admin.call" and (done or NOT_DONE.match(event["message"])):
            words = event["message"] if done else NOT_DONE.sub("", event["message"], count=1)
            key = (words, facts.get("operation"), facts.get("entity"), uid_of(event))
        elif code(event) not in TAKEN_BACK:
            continue
        if event["status_id"] == 1:
            told[key] = event
            continue
        before = told.get(key)
        if before is None or (code(event) == "grant.approve" and facts.get("approvals") != own(before)["approvals"] - 1):
            continue
        del told[key]
        effect = facts.get("effect")
        if effect not in ("held", "none", "unknown"):
            effect = "unknown" if event.get("status_code") == "store.unavailable" else "none"
        if effect != "held":
            before["undone"] = effect


def lock_of(event):
    """Which lock it is: what was done has it for its reason, what failed among its words."""
    if not code(event).startswith("session."):
        return None
    if event["status_id"] == 1:
        return event.get("status_code")
    found = re.search(r"\((l_\w+)\)", event["message"], re.ASCII)
    return found.group(1) if found else None


def uid_of(event):
    return event.get("actor", {}).get("user", {}).get("uid", "")


def name_of(event):
    epoch = "" if event["epoch"] is None else f" of epoch {event['epoch']}"
    return f"event {idx_of(event)}{epoch}" + (f" of {event['node']}" if "node" in event else "")


def code(event):
    return event["metadata"]["event_code"]


def own(event):
    return event["unmapped"]["sallyport"]


def idx_of(event):
    return event["metadata"]["sequence"]


def gaps_of(events, start, stop):
    found, last, since = [], None, "silent"
    for event in events:
        what = code(event)
        if what == "log.close":
            since = "stopped"
        if what == "log.open" and last is not None and since == "silent":
            since = "crashed"
        if what not in ("log.heartbeat", "log.open"):
            continue
        time = event["time"]
        if last is None and time > start + SILENCE_MS:
            found.append((start, time, "before", name_of(event)))
        if last is not None and time - last[0] > SILENCE_MS:
            near = what == "log.heartbeat" and own(event).get("elapsed_ms", SILENCE_MS + 1) <= SILENCE_MS
            found.append((last[0], time, "clock" if near else since, name_of(event)))
        if last is not None and time < last[0] - FLUX_MS:
            found.append((time, last[0], "clock", name_of(event)))
        last, since = (time, name_of(event)), "silent"
    quiet = last[0] if last else start
    if stop - quiet > SILENCE_MS:
        found.append((quiet, stop, "after", last[1] if last else "event 0"))
    return [gap for gap in found if gap[1] >= start and gap[0] <= stop]


def sessions_of(events):
    """By gateway and name: what another says of one so named is about another."""
    sessions = {}
    for event in events:
        if code(event) == "session.start":
            sessions[event.get("node"), own(event)["session"]] = [event, None]
        if code(event) == "session.end":
            sessions.setdefault((event.get("node"), own(event)["session"]), [None, None])[1] = event
    return sessions


def active_root(starts):
    lines = sorted(
        "|".join(str(own(s).get(f)) for f in ("session", "grant", "device", "process", "party", "kind")).encode()
        + b"|" + str(idx_of(s)).encode() for s in starts)
    edge = Edge(0, [])
    for line in lines:
        edge.push(sha256(b"\x00" + line))
    return edge.root().hex()


def check_beats(events, early):
    untold, wrong = [], []
    sessions = list(sessions_of(events).values())
    for beat in (event for event in events if code(event) == "log.heartbeat"):
        at, time = beat["at"], beat["time"]
        near = lambda event: event is not None and abs(event["time"] - time) <= FLUX_MS
        begun = [s for s in sessions if s[0] is not None and s[0]["at"] < at]
        flux = [s for s in begun if near(s[0]) or near(s[1])][:12]
        sure = [s for s in begun if s not in flux and (s[1] is None or s[1]["at"] > at)]
        missing = own(beat)["active"] - len(sure)
        chosen = itertools.combinations(flux, missing) if 0 <= missing <= len(flux) else []
        if any(active_root([s[0] for s in (*sure, *some)]) == own(beat)["active_root"] for some in chosen):
            continue
        before = any(s[0] is None and s[1] is not None and s[1]["at"] > at for s in sessions)
        (untold if early and (before or missing > len(flux)) else wrong).append(name_of(beat))
    return untold, wrong


def check_grants(events, early, early_nodes, absent):
    grants, exceptions, untold = {}, [], []
    requested = lambda event: code(event) == "grant.request" and event["status_id"] == 1
    # Another gateway's clock may put what became of a grant in front of its request.
    several = any("node" in event for event in events)
    for event in sorted(events, key=lambda event: not requested(event)) if several else events:
        name = own(event).get("grant")
        good = event["status_id"] == 1
        who = uid_of(event)
        if code(event) == "grant.request" and good:
            asked = own(event)
            # What one gateway says of a grant is not put in place of what another said: neither may hide the other's.
            if name in grants and grants[name]["request"].get("node") != event.get("node"):
                exceptions.append(f"{name_of(event)}: the grant {name} was requested at another gateway too")
                continue
            grants[name] = {"by": who, "request": event, "approvals": [], "until": asked.get("not_after"), "ends": [],
                            "seconds": asked.get("max_seconds"), "used": None, "begun": 0, "earlier": []}
        elif name in grants and good and may_precede(grants[name]["request"], event):
            grant = grants[name]
            if code(event) == "grant.approve" and event.get("undone") != "none":
                grant["approvals"].append((event, who))
            if code(event) == "grant.use" and grant["used"] is None:
                grant["used"] = event["time"]
            if code(event) == "grant.extend":
                grant["earlier"].append((event, grant["until"], grant["seconds"]))
                grant["until"] = own(event).get("not_after", grant["until"])
                grant["seconds"] = own(event).get("max_seconds", grant["seconds"])
            if code(event) in ENDINGS and "undone" not in event:
                grant["ends"].append(event)
    for (_, session), (start, ended) in sessions_of(events).items():
        if start is None:
            if ended.get("node") not in early_nodes:
                exceptions.append(f"session {session} ended and never began")
            continue
        place, grant = name_of(start), grants.get(own(start).get("grant"))
        if grant is None:
            (untold if early or absent else exceptions).append(f"{place}: the grant of session {session} was never requested")
            continue
        asked = own(grant["request"])
        approvers = {who for event, who in grant["approvals"] if may_precede(event, start)}
        now = (start, grant["until"], grant["seconds"])
        _, until, seconds = next((then for then in grant["earlier"] if did_precede(start, then[0])), now)
        ends = [] if until is None else [until * 1000]
        if grant["used"] is not None and seconds is not None:
            ends.append(grant["used"] + seconds * 1000)
        grant["begun"] += 1
        faults = {
            "approved by who requested it": grant["by"] in approvers,
            "too few approvals": not absent and len(approvers) < asked.get("approvals_needed", 0),
            "another device": own(start)["device"] not in asked.get("devices", [asked.get("device")]),
            "another process": own(start)["process"] not in asked.get("processes", [asked.get("process")]),
            "another person": uid_of(start) != grant["by"],
            "outside its time": start["time"] < asked.get("not_before", 0) * 1000 - FLUX_MS
            or any(start["time"] > end + FLUX_MS for end in ends),
            "more sessions than it was for": grant["begun"] > asked.get("max_uses", grant["begun"]),
            "its grant had ended": any(did_precede(end, start) for end in grant["ends"]),
        }
        # It may have been given at a gateway that is left out.
        if absent and len(approvers) < asked.get("approvals_needed", 0):
            untold.append(f"{place}: session {session}: too few approvals at the gateways that are here")
        exceptions += [f"{place}: session {session}: {what}" for what, bad in faults.items() if bad]
    return exceptions, untold


# What a screen would obey: controls, and marks that turn the order of writing round.
OBEYED = re.compile("[\\0-\\x1f\\x7f-\\x9f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff]")


def say(line):
    print(OBEYED.sub(lambda one: f"<U+{ord(one.group()):04X}>", line))


def text_of(ms):
    return datetime.fromtimestamp(ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def check_signature(entries, stems, known, skipped):
    """manifest.note: a head of a tree whose only leaf is the manifest; signed by every key of one of the epochs."""
    if "manifest.note" not in entries:
        print("NOT SIGNED as a package: anybody with a copy of the log may have chosen its time and catalogue")
        return False
    note = entries["manifest.note"][0].decode()
    signer = note.split("\n")[0].removesuffix("/evidence")
    need(signer != note.split("\n")[0] and stem_of(signer) in stems, "manifest.note", "it signs another package")
    if not known.get(signer):
        return False
    name, size, root = read_head(note, known[signer], "manifest.note", skipped)
    leaf = sha256(b"\0" + entries["manifest.json"][0])
    need((name, size, root) == (signer + "/evidence", 1, leaf), "manifest.note", "it signs another package")
    return any(key[1] not in skipped for key in known[signer])


def epoch_ms(text):
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def outside_of(log, start, stop):
    """What of that time no event of this log is about."""
    events, closing, of = log["events"], log["shown"][-1]["closing"], f" of {log['node']}" if log["node"] else ""
    untold = []
    if log["early"] and (not events or events[0]["time"] >= start):
        untold.append(f"the package begins at {name_of(events[0])}; what came before is not in it")
    # Events behind the last one may have been left out with the heads over them.
    if events[-1]["time"] < stop and closing is None:
        untold.append(f"the last event{of} in the package is of {text_of(events[-1]['time'])}: of what came behind it nothing is shown")
    if events[-1]["time"] < stop and closing is not None:
        untold.append(f"the log goes on as {closing['successor']}, which is not in the package")
    return untold


def check_files(entries, manifest):
    """Just the files that a package so written has; what another release puts into one is not known here."""
    if manifest["rendering"] not in (6, 7):
        return
    clauses = [one["id"] for one in json.loads(entries["catalogue.json"][0])]
    due = {f"controls/{one}.{kind}" for one in clauses for kind in ("csv", "json")}
    due |= {"report.html", "README.txt", "sessions.csv", "grants.csv", "recordings.csv", "catalogue.json", "manifest.json", "manifest.sha256"}
    for name in sorted(due - set(entries)):
        raise Violated(f"{name}: it is missing")
    for name in sorted(set(entries) - due - {"manifest.note", "verify.mjs", "verify.py"}):
        need(name.startswith(("log/", "nodes/")), name, "no package has such a file")


def print_standings(entries, proven, signed):
    """What each file is worth. Reports and tables are made anew by verify.mjs alone; here nothing is said of them."""
    counts = {}
    for name in sorted(entries):
        shown = "controls/*" if name.startswith("controls/") else name
        if name.startswith(("log/", "nodes/")):
            is_proven = name in proven
            line = f"PROVEN: {shown}" if is_proven else f"NOT PROVEN: {shown} (no key that was given proves it)"
        elif name == "manifest.note" and signed:
            line = f"SIGNED BY THE LOG'S KEYS: {shown}"
        elif name in ("catalogue.json", "verify.mjs", "verify.py"):
            line = f"NOT PROVEN HERE: {shown} (the choice of who made the package)"
        else:
            line = f"NOT PROVEN HERE: {shown} (not recomputed by this program; verify.mjs does)"
        counts[line] = counts.get(line, 0) + 1
    for line, count in counts.items():
        say(line if count == 1 else f"{line}, {count} files")


def main(args):
    keys, device, names, nodes = [], None, [], []
    while args:
        arg = args.pop(0)
        if arg == "--key":
            with open(args.pop(0), encoding="utf-8-sig") as file:
                keys += [read_vkey(line) for line in file if line.strip() and not line.startswith("#")]
        elif arg == "--device":
            device = args.pop(0)
        elif arg == "--node":
            nodes.append(args.pop(0))
        else:
            names.append(arg)
    if len(names) != 1:
        print(__doc__)
        return 2
    with open(names[0], "rb") as file:
        entries = read_zip(file.read())
    manifest, skipped = read_manifest(entries), set()
    logs, absent = prove_logs(entries, manifest, keys, skipped)
    files = ("checkpoints", "left-edge.json", "events.ndjson", "leaves.txt")
    read = {}
    for log in logs:
        parts, folder = log["parts"], log["folder"]
        read |= {folder + part["folder"] + name: part["origin"] in log["trusted"] for part in parts for name in files}
        read |= {folder + a["folder"] + "consistency.json": a["origin"] in log["trusted"] for a, b in zip(parts, parts[1:])
                 if held_beyond(a, b) and a["proof"] is not None}
    for name in entries:
        need(not name.startswith(("log/", "nodes/")) or name in read, name, "no epoch of the package has such a file")
    known = {origin: own_keys for log in logs for origin, own_keys in log["known"].items()}
    check_files(entries, manifest)
    signed = check_signature(entries, {stem_of(log["parts"][0]["origin"]) for log in logs}, known, skipped)
    events = logs[0]["events"] if logs[0]["node"] is None else in_order_of_time(logs)
    shown = [part for log in logs for part in log["shown"]]
    doubts = [doubt for log in logs for doubt in log["doubts"]]
    here = {node_of(log["parts"][0]["origin"])[1] for log in logs}
    doubts += [f"the log of {node}, which you named, is not in the package" for node in nodes if node not in here]
    pinned = all(log["pinned"] for log in logs)
    start, stop = epoch_ms(manifest["from"]), epoch_ms(manifest["to"])
    # Of such a time every log is complete.
    need(start <= stop, "manifest.json", "its time ends before it begins")
    gaps, untold_beats, wrong_beats = [], [], []
    exceptions, untold = check_grants(events, any(log["early"] for log in logs), {log["node"] for log in logs if log["early"]}, absent)
    untold += [f"the log of {node} is not in the package: of what went through that gateway nothing is shown" for node in absent]
    for log in logs:
        gaps += gaps_of(log["events"], start, stop)
        some, wrong = check_beats(log["events"], log["early"])
        untold_beats, wrong_beats = untold_beats + some, wrong_beats + wrong
        untold += outside_of(log, start, stop)
    exceptions += [f"{place}: this heartbeat commits to other sessions" for place in wrong_beats]
    silent = [gap for gap in gaps if gap[2] not in ("stopped", "crashed", "clock")]
    recovered = [e for e in events if code(e) in ("log.recovered", "log.prune") and start <= e["time"] <= stop]
    provable = not silent and not untold and not untold_beats
    words = ("complete with listed recoveries" if gaps or recovered else "complete") if provable else "not provable"
    need(manifest["verdict"]["words"] == words, "manifest.json", f"it says {manifest['verdict']['words']}, not {words}")
    for doubt in doubts:
        say(f"NOT PROVABLE: {doubt}")
    if not pinned and not doubts:
        print("INTACT, ORIGIN NOT PINNED: no --key was given, so this may be anybody's log")
    if not doubts:
        print(("PROVEN: " if provable else "NOT PROVABLE: ") + words)
    if "nodes" in manifest:
        say(f"gateways of the site, as who made the package named them: {', '.join(manifest['nodes'])}")
    for node in absent:
        say(f"LEFT OUT: the log of {node} is not in the package")
    for part in shown:
        print(f"log {part['origin']}, events {part['first']} to {part['end'][0] - 1}")
    for log in logs:
        if len(log["shown"]) < 2:
            continue
        print(f"{len(log['shown'])} epochs, joined: each names the keys of the next, which holds its last head")
    for one in skipped:
        print(f"this openssl knows no ML-DSA-44: the signatures of key {one} were not checked, those of the others were")
    for a, b, kind, place in gaps:
        print(f"no heartbeat from {text_of(a)} to {text_of(b)} ({kind}, {place})")
    for event in events:
        if "undone" in event and start <= event["time"] <= stop:
            words = "WITHOUT EFFECT" if event["undone"] == "none" else "NOT CONFIRMED"
            say(f"recorded, but not done or not confirmed: {name_of(event)}: {words}: {event['message']}")
    for what in untold:
        say(f"cannot be told: {what}")
    for what in exceptions:
        say(f"EXCEPTION: {what}")
    for (_, session), (begun, ended) in sessions_of(events).items():
        some = begun or ended
        if (begun and begun["time"] > stop) or (ended and ended["time"] < start):
            continue
        if device in (None, own(some).get("device")):
            who = some.get("actor", {}).get("user", {}).get("name", "?")
            until = "open" if ended is None else text_of(ended["time"])
            through = f", through {some['node']}" if "node" in some else ""
            say(f"  {who} on {own(some).get('device')}/{own(some).get('process')} {text_of(some['time'])} to {until} ({session}{through})")
    print_standings(entries, {name for name, is_proven in read.items() if is_proven}, signed)
    if exceptions:
        return 1
    return 0 if provable and pinned and not doubts else 2


if __name__ == "__main__":
    # A name that this screen cannot write is no fault of the package.
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        sys.exit(main(sys.argv[1:]))
    except Violated as found:
        say(f"VIOLATED at {found}")
        sys.exit(1)
    except (ValueError, KeyError, TypeError, IndexError, struct.error) as found:
        say(f"VIOLATED: the package cannot be read: {found!r}")
        sys.exit(1)
