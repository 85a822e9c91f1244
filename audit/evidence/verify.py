"""Verifies an evidence package of a Sallyport audit log with Python's standard library and openssl, offline.

    python3 verify.py PACKAGE.zip --key KEYFILE [--device NAME]

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


def read_zip(data):
    """Every byte is accounted for: entries from the start, the directory behind them, the end record last."""
    need(len(data) >= 22, "zip", "too short")
    end = struct.unpack("<IHHHHIIH", data[-22:])
    count, size, start = end[3], end[5], end[6]
    need(end == (0x06054B50, 0, 0, count, count, size, start, 0), "zip end", "not as a package has it")
    need(start + size + 22 == len(data), "zip end", "the directory lies elsewhere")
    entries, at, listing = {}, 0, b""
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
        try:
            content = packed if method == 0 else zlib.decompress(packed, -15)
        except zlib.error:
            raise Violated(f"{name}: cannot be unpacked")
        facts = (20, 0x0800, method, 0, 0x21, zlib.crc32(content), packed_size, len(content), name_size, 0)
        need(head == (0x04034B50, *facts) and full == len(content) and crc == zlib.crc32(content), name, "header")
        need(name not in entries, name, "stands twice")
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


def prove_events(entries, keys, skipped):
    for name in ("log/checkpoints", "log/left-edge.json", "log/events.ndjson", "log/leaves.txt"):
        need(name in entries, name, "missing")
    text = entries["log/checkpoints"][0].decode()
    notes, at = [], 0
    while at < len(text):
        middle = text.find("\n\n", at)
        stop = text.find("\n\n", middle + 2) if middle >= 0 else -1
        need(stop >= 0, "log/checkpoints", "a head is cut short")
        notes.append(text[at : stop + 1])
        at = stop + 2
    heads = [read_head(note, keys, f"log/checkpoints, head {i + 1}", skipped) for i, note in enumerate(notes)]
    left = json.loads(entries["log/left-edge.json"][0])
    edge = Edge(left["size"], [bytes.fromhex(value) for value in left["hashes"]])
    need(len(edge.hashes) == bin(edge.size).count("1"), "log/left-edge.json", "not the edge of a tree")
    # A head of the edge itself need not be there: the next one commits to the edge with the events that follow it.
    at_edge = edge.size > 0 and bool(heads) and heads[0][1] == edge.size
    need(not at_edge or heads[0][2] == edge.root(), "log/left-edge.json", "its root is not the one signed")
    awaited = {size: root for _, size, root in heads if size > edge.size}
    need(awaited and len(heads) == len(awaited) + at_edge, "log/checkpoints", "heads that do not grow")
    origin = heads[0][0]
    need(all(head[0] == origin for head in heads), "log/checkpoints", "heads of more than one log")
    need(all(key[0] == origin for key in keys), "log/checkpoints", "the key is for another log")
    events, matched = [], edge.size
    leaves = entries["log/leaves.txt"][0].decode().split("\n")[:-1]
    for i, body in enumerate(entries["log/events.ndjson"][0].split(b"\n")[:-1]):
        leaf = sha256(b"\x00" + body)
        idx = edge.size
        need(i < len(leaves) and leaves[i] == leaf.hex(), f"log/events.ndjson, event {idx}", "its leaf hash")
        edge.push(leaf)
        event = json.loads(body)
        need(event["metadata"]["sequence"] == idx and event["metadata"]["log_name"] == origin,
             f"log/events.ndjson, event {idx}", "it says that it stands elsewhere")
        events.append(event)
        if edge.size in awaited:
            need(awaited.pop(edge.size) == edge.root(), f"log/events.ndjson, event {matched} to {idx}", "not those signed")
            matched = edge.size
    need(not awaited and matched == edge.size and len(leaves) == len(events), "log/events.ndjson", "not all that was signed")
    return origin, left["size"], events


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
            found.append((start, time, "before", idx_of(event)))
        if last is not None and time - last[0] > SILENCE_MS:
            near = what == "log.heartbeat" and own(event).get("elapsed_ms", SILENCE_MS + 1) <= SILENCE_MS
            found.append((last[0], time, "clock" if near else since, idx_of(event)))
        if last is not None and time < last[0] - FLUX_MS:
            found.append((time, last[0], "clock", idx_of(event)))
        last, since = (time, idx_of(event)), "silent"
    quiet = last[0] if last else start
    if stop - quiet > SILENCE_MS:
        found.append((quiet, stop, "after", last[1] if last else 0))
    return [gap for gap in found if gap[1] >= start and gap[0] <= stop]


def sessions_of(events):
    sessions = {}
    for event in events:
        if code(event) == "session.start":
            sessions[own(event)["session"]] = [event, None]
        if code(event) == "session.end":
            sessions.setdefault(own(event)["session"], [None, None])[1] = event
    return sessions


def active_root(starts):
    lines = sorted(
        "|".join(str(own(s).get(f)) for f in ("session", "grant", "device", "process", "party", "kind")).encode()
        + b"|" + str(idx_of(s)).encode() for s in starts)
    edge = Edge(0, [])
    for line in lines:
        edge.push(sha256(b"\x00" + line))
    return edge.root().hex()


def check_beats(events, first):
    untold, wrong = [], []
    sessions = list(sessions_of(events).values())
    for beat in (event for event in events if code(event) == "log.heartbeat"):
        idx, time = idx_of(beat), beat["time"]
        near = lambda event: event is not None and abs(event["time"] - time) <= FLUX_MS
        begun = [s for s in sessions if s[0] is not None and idx_of(s[0]) < idx]
        flux = [s for s in begun if near(s[0]) or near(s[1])][:12]
        sure = [s for s in begun if s not in flux and (s[1] is None or idx_of(s[1]) > idx)]
        missing = own(beat)["active"] - len(sure)
        chosen = itertools.combinations(flux, missing) if 0 <= missing <= len(flux) else []
        if any(active_root([s[0] for s in (*sure, *some)]) == own(beat)["active_root"] for some in chosen):
            continue
        early = any(s[0] is None and s[1] is not None and idx_of(s[1]) > idx for s in sessions)
        (untold if first > 0 and (early or missing > len(flux)) else wrong).append(idx)
    return untold, wrong


def check_grants(events, first):
    grants, exceptions, untold = {}, [], []
    for event in events:
        name = own(event).get("grant")
        good = event["status_id"] == 1
        who = event.get("actor", {}).get("user", {}).get("uid", "")
        if code(event) == "grant.request" and good:
            asked = own(event)
            grants[name] = {"by": who, "request": event, "approvals": [], "until": asked.get("not_after"), "ended": None,
                            "seconds": asked.get("max_seconds"), "used": None, "begun": 0, "earlier": []}
        elif name in grants and good:
            grant = grants[name]
            if code(event) == "grant.approve":
                grant["approvals"].append((idx_of(event), who))
            if code(event) == "grant.use" and grant["used"] is None:
                grant["used"] = event["time"]
            if code(event) == "grant.extend":
                grant["earlier"].append((idx_of(event), grant["until"], grant["seconds"]))
                grant["until"] = own(event).get("not_after", grant["until"])
                grant["seconds"] = own(event).get("max_seconds", grant["seconds"])
            if code(event) in ENDINGS and grant["ended"] is None:
                grant["ended"] = idx_of(event)
    for session, (start, _) in sessions_of(events).items():
        if start is None:
            if first == 0:
                exceptions.append(f"session {session} ended and never began")
            continue
        idx, grant = idx_of(start), grants.get(own(start).get("grant"))
        if grant is None:
            (untold if first > 0 else exceptions).append(f"event {idx}: the grant of session {session} was never requested")
            continue
        asked = own(grant["request"])
        approvers = {who for at, who in grant["approvals"] if at < idx}
        now = (idx, grant["until"], grant["seconds"])
        _, until, seconds = next((then for then in grant["earlier"] if idx < then[0]), now)
        ends = [] if until is None else [until * 1000]
        if grant["used"] is not None and seconds is not None:
            ends.append(grant["used"] + seconds * 1000)
        grant["begun"] += 1
        faults = {
            "approved by who requested it": grant["by"] in approvers,
            "too few approvals": len(approvers) < asked.get("approvals_needed", 0),
            "another device": own(start)["device"] not in asked.get("devices", [asked.get("device")]),
            "another process": own(start)["process"] not in asked.get("processes", [asked.get("process")]),
            "another person": start.get("actor", {}).get("user", {}).get("uid", "") != grant["by"],
            "outside its time": start["time"] < asked.get("not_before", 0) * 1000 - FLUX_MS
            or any(start["time"] > end + FLUX_MS for end in ends),
            "more sessions than it was for": grant["begun"] > asked.get("max_uses", grant["begun"]),
            "its grant had ended": grant["ended"] is not None and grant["ended"] < idx,
        }
        exceptions += [f"event {idx}: session {session}: {what}" for what, bad in faults.items() if bad]
    return exceptions, untold


# What a screen would obey: controls, and marks that turn the order of writing round.
OBEYED = re.compile("[\\0-\\x1f\\x7f-\\x9f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff]")


def say(line):
    print(OBEYED.sub(lambda one: f"<U+{ord(one.group()):04X}>", line))


def text_of(ms):
    return datetime.fromtimestamp(ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def check_signature(entries, origin, keys, skipped):
    """manifest.note: a head of a tree whose only leaf is the manifest; signed by every key given."""
    if "manifest.note" not in entries:
        print("NOT SIGNED as a package: anybody with a copy of the log may have chosen its time and catalogue")
    elif keys:
        name, size, root = read_head(entries["manifest.note"][0].decode(), keys, "manifest.note", skipped)
        leaf = sha256(b"\0" + entries["manifest.json"][0])
        need((name, size, root) == (origin + "/evidence", 1, leaf), "manifest.note", "it signs another package")


def epoch_ms(text):
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def print_standings(entries, pinned):
    """What each file is worth. Reports and tables are made anew by verify.mjs alone; here nothing is said of them."""
    counts = {}
    for name in sorted(entries):
        shown = "controls/*" if name.startswith("controls/") else name
        if name.startswith("log/"):
            line = f"PROVEN: {shown}" if pinned else f"NOT PROVEN: {shown} (no key was given or could be used)"
        elif name == "manifest.note" and pinned:
            line = f"SIGNED BY THE LOG'S KEYS: {shown}"
        elif name in ("catalogue.json", "verify.mjs", "verify.py"):
            line = f"NOT PROVEN HERE: {shown} (the choice of who made the package)"
        else:
            line = f"NOT PROVEN HERE: {shown} (not recomputed by this program; verify.mjs does)"
        counts[line] = counts.get(line, 0) + 1
    for line, count in counts.items():
        say(line if count == 1 else f"{line}, {count} files")


def main(args):
    keys, device, names = [], None, []
    while args:
        arg = args.pop(0)
        if arg == "--key":
            with open(args.pop(0), encoding="utf-8") as file:
                keys += [read_vkey(line) for line in file if line.strip() and not line.startswith("#")]
        elif arg == "--device":
            device = args.pop(0)
        else:
            names.append(arg)
    if len(names) != 1:
        print(__doc__)
        return 2
    with open(names[0], "rb") as file:
        entries = read_zip(file.read())
    manifest, skipped = read_manifest(entries), set()
    origin, first, events = prove_events(entries, keys, skipped)
    check_signature(entries, origin, keys, skipped)
    start, stop = epoch_ms(manifest["from"]), epoch_ms(manifest["to"])
    gaps = gaps_of(events, start, stop)
    untold_beats, wrong_beats = check_beats(events, first)
    exceptions, untold = check_grants(events, first)
    if first > 0 and (not events or events[0]["time"] >= start):
        untold.append(f"the package begins at event {first}; what came before is not in it")
    exceptions += [f"event {idx}: this heartbeat commits to other sessions" for idx in wrong_beats]
    silent = [gap for gap in gaps if gap[2] not in ("stopped", "crashed", "clock")]
    recovered = [e for e in events if code(e) in ("log.recovered", "log.prune") and start <= e["time"] <= stop]
    provable = not silent and not untold and not untold_beats
    words = ("complete with listed recoveries" if gaps or recovered else "complete") if provable else "not provable"
    need(manifest["verdict"]["words"] == words, "manifest.json", f"it says {manifest['verdict']['words']}, not {words}")
    if not keys:
        print("INTACT, ORIGIN NOT PINNED: no --key was given, so this may be anybody's log")
    print(("PROVEN: " if provable else "NOT PROVABLE: ") + words)
    print(f"log {origin}, events {first} to {first + len(events) - 1}")
    for one in skipped:
        print(f"this openssl knows no ML-DSA-44: the signatures of key {one} were not checked, those of the others were")
    for a, b, kind, idx in gaps:
        print(f"no heartbeat from {text_of(a)} to {text_of(b)} ({kind}, event {idx})")
    for what in untold:
        say(f"cannot be told: {what}")
    for what in exceptions:
        say(f"EXCEPTION: {what}")
    for session, (begun, ended) in sessions_of(events).items():
        some = begun or ended
        if (begun and begun["time"] > stop) or (ended and ended["time"] < start):
            continue
        if device in (None, own(some).get("device")):
            who = some.get("actor", {}).get("user", {}).get("name", "?")
            until = "open" if ended is None else text_of(ended["time"])
            say(f"  {who} on {own(some).get('device')}/{own(some).get('process')} {text_of(some['time'])} to {until} ({session})")
    print_standings(entries, bool(keys) and len(skipped) < len(keys))
    if exceptions:
        return 1
    return 0 if provable and keys and len(skipped) < len(keys) else 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Violated as found:
        say(f"VIOLATED at {found}")
        sys.exit(1)
    except (ValueError, KeyError, TypeError, IndexError, struct.error) as found:
        say(f"VIOLATED: the package cannot be read: {found!r}")
        sys.exit(1)
