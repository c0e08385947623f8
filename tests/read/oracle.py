"""What a reader of audit directories must answer, worked out by another program: DuckDB.

    oracle.py [NAME=]PATH[@WORKSPACE]… < queries.json > answers.json

The queries are a JSON array, the answers one in the same order; queries.py documents both. Needs duckdb (PyPI).

It is written from the contract of the read side, not from our code. How the work is shared:

- Python finds the segments, cuts them at \\n, and judges which lines are damaged: DuckDB's text readers refuse bytes that
  are not UTF-8, and its JSON parser takes NaN, Infinity and members that are given twice.
- DuckDB has the good lines as text, takes them apart with its JSON functions (`json_tree`: a row for every value in
  `meta`, in the table `leaves`), filters, orders, counts.
- DuckDB is not exact where `meta` repeats a key (no row says which is the last) and with numbers that a 64-bit integer or a
  shortest double can't spell. The `meta` of such a record is taken apart by Python, into the same table (`by_hand`).
- Numbers are compared by exact value: as texts whose order is theirs (`number_key`, Python).

Where the contract leaves a choice, this is what is answered:

- An operator on a number is false where VALUE is not a number, and so are `~ !~ ^= $=` on any number.
- `= true` and `= false` match the same boolean, and a string of the same letters.
- `ts` is a string in filters, fields and facets: RFC 3339 with milliseconds and Z, for UCloud's numeric ones too.
- A job folder is the one that a segment lies in; a segment directly in its directory, or in `audit` in that, has none.
- A file with several paths is read once for each job and workspace that its lines may be of there.
- Of repeated keys the last counts at every level: of two `user`, the `name` in the second, if there is one.
- `--text` looks at strings in `meta`, not at its keys.
- Half a surrogate pair in a string makes the line damaged, as does any `ts` but our 24 bytes and UCloud's integer.
"""
import datetime
import fractions
import gzip
import json
import os
import pathlib
import re
import stat
import subprocess
import sys
import tempfile

import duckdb

LINE_BYTES_MAX = 2 << 20
MEMBERS = ["ts", "jobId", "workspaceId", "event", "message", "meta"]
NAME = re.compile(r"audit-(0|[1-9]\d*)(?:_(\d{8}T\d{6}\.\d{3})Z|-(\d{4}-\d{2}-\d{2}))\.jsonl(\.gz|\.zst)?", re.ASCII)
NUMBER = re.compile(r"(-?)(0|[1-9]\d*)(?:\.(\d+))?(?:[eE]([+-]?\d+))?", re.ASCII)
STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
# At most 15 digits and no exponent: a double holds it, and is written as it was.
NOT_EXACT = re.compile(r"[0-9.]{16}|[0-9][eE]")
OPERATORS = ["!=", "<=", ">=", "!~", "^=", "$=", "=", "<", ">", "~"]
STRINGS = {"ts": "ts_text", "jobId": "job", "workspaceId": "workspace", "event": "event", "message": "message", "segment": "segment"}
NUMBERS = {"index": "idx", "rank": "rank"}


def main():
    queries = json.load(sys.stdin)
    oracle = Oracle(sys.argv[1:])
    json.dump([oracle.answer(query) for query in queries], sys.stdout, ensure_ascii=False)


class Oracle:
    """The records of some directories, in DuckDB. Answers are those of queries.py."""

    def __init__(self, directories):
        self.db = duckdb.connect()
        self.db.execute("SET TimeZone = 'UTC'")
        self.damaged, self.segments, self.lines = [], 0, 0
        with tempfile.TemporaryDirectory() as temp:
            good, leaves = os.path.join(temp, "good.ndjson"), os.path.join(temp, "leaves.ndjson")
            with open(good, "w", encoding="utf-8") as good_out, open(leaves, "w", encoding="utf-8") as leaves_out:
                self._read(directories, good_out, leaves_out)
            self._load(good, leaves)

    def _read(self, directories, good, leaves):
        rid = 0
        sources = [source(text) for text in directories]
        for number, segment, path, rank, job in listing(sources):
            self.segments += 1
            for index, (line, torn) in enumerate(lines(path)):
                self.lines += 1
                if not line:
                    continue
                verdict = "torn" if torn else judge(line)
                if isinstance(verdict, str):
                    self.damaged.append([segment, index, verdict])
                    continue
                text, repeated = verdict
                by_hand = repeated or bool(NOT_EXACT.search(STRING.sub("", text)))
                row = dict(rid=rid, source=number, segment=segment, idx=index, rank=rank, folder=job,
                           belongs=sources[number][2], repeated=repeated, by_hand=by_hand, line=text)  # fmt: skip
                good.write(json.dumps(row) + "\n")
                if by_hand:
                    for path_in_meta, kind, value, last in taken_apart(text):
                        row = dict(rid=rid, path=path_in_meta, kind=kind, text=value, last=last)
                        leaves.write(json.dumps(row) + "\n")
                rid += 1

    def _load(self, good, leaves):
        execute = self.db.execute
        execute(f"""
            CREATE TABLE lines AS FROM read_json('{good}', format = 'newline_delimited', maximum_object_size = 33554432,
                columns = {{rid: 'BIGINT', source: 'INTEGER', segment: 'VARCHAR', idx: 'BIGINT', rank: 'BIGINT', folder: 'VARCHAR',
                            belongs: 'VARCHAR', repeated: 'BOOLEAN', by_hand: 'BOOLEAN', line: 'VARCHAR'}})""")
        execute(r"""
            CREATE TABLE parsed AS SELECT * EXCLUDE (line),
                CASE WHEN json_type(line, '$.ts') = 'VARCHAR'
                     THEN epoch_ms(CAST(json_extract_string(line, '$.ts') AS TIMESTAMP))
                     ELSE CAST(json_extract_string(line, '$.ts') AS BIGINT) END AS ts,
                json_extract_string(line, '$.jobId') AS job, json_extract_string(line, '$.workspaceId') AS workspace,
                json_extract_string(line, '$.event') AS event, json_extract_string(line, '$.message') AS message,
                json_extract(line, '$.meta') AS meta FROM lines""")
        execute("DROP TABLE lines")
        execute(f"""
            CREATE TABLE leaves AS SELECT rid, t.fullkey AS path,
                CASE t.type WHEN 'VARCHAR' THEN 's' WHEN 'BOOLEAN' THEN 'b' WHEN 'NULL' THEN 'z' WHEN 'OBJECT' THEN 'o'
                     WHEN 'ARRAY' THEN 'a' ELSE 'n' END AS kind,
                CASE t.type WHEN 'VARCHAR' THEN json_extract_string(t.atom, '$') ELSE CAST(t.atom AS VARCHAR) END AS text,
                true AS last
            FROM parsed, json_tree(parsed.meta) AS t WHERE NOT by_hand
            UNION ALL FROM read_json('{leaves}', format = 'newline_delimited', maximum_object_size = 33554432,
                columns = {{rid: 'BIGINT', path: 'VARCHAR', kind: 'VARCHAR', text: 'VARCHAR', last: 'BOOLEAN'}})""")
        texts = execute("""
            SELECT DISTINCT text FROM leaves WHERE kind = 'n' UNION SELECT CAST(idx AS VARCHAR) FROM parsed
            UNION SELECT CAST(rank AS VARCHAR) FROM parsed""").fetchall()  # fmt: skip
        execute("CREATE TABLE numbers (text VARCHAR, key VARCHAR, plain VARCHAR)")
        with tempfile.NamedTemporaryFile("w", suffix=".ndjson") as out:
            for (text,) in texts:
                out.write(json.dumps(dict(text=text, key=number_key(text), plain=plain(text))) + "\n")
            out.flush()
            execute(f"""INSERT INTO numbers FROM read_json('{out.name}', format = 'newline_delimited',
                        columns = {{text: 'VARCHAR', key: 'VARCHAR', plain: 'VARCHAR'}})""")
        execute("""CREATE TABLE values_of AS SELECT leaves.* EXCLUDE (text), CASE kind WHEN 'n' THEN plain ELSE leaves.text END AS text,
                   key FROM leaves LEFT JOIN numbers ON kind = 'n' AND leaves.text = numbers.text""")
        execute("DROP TABLE leaves")
        ascii_lower = "'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz'"
        execute(f"""
            CREATE TABLE records AS SELECT parsed.* EXCLUDE (meta), strftime(make_timestamp(ts * 1000), '%Y-%m-%dT%H:%M:%S.%gZ') AS ts_text,
                index_number.key AS idx_key, rank_number.key AS rank_key,
                (folder IS NOT NULL AND folder <> job) OR (belongs IS NOT NULL AND belongs <> workspace) AS is_foreign,
                translate(concat_ws(chr(10), event, message, strings), {ascii_lower}) AS haystack,
                row_number() OVER (ORDER BY ts, source, segment, idx) AS place
            FROM parsed
            LEFT JOIN (SELECT rid, string_agg(text, chr(10)) AS strings FROM values_of WHERE kind = 's' GROUP BY rid) USING (rid)
            JOIN numbers AS index_number ON index_number.text = CAST(idx AS VARCHAR)
            JOIN numbers AS rank_number ON rank_number.text = CAST(rank AS VARCHAR)""")
        execute("DROP TABLE parsed")

    def answer(self, query):
        """The answer to one query, as queries.py has it."""
        kind = query["kind"]
        if kind == "counts":
            return self._counts()
        where, parameters = condition(query.get("filters", {}))
        matching = f"(SELECT * FROM records WHERE {where})"
        if kind == "query":
            return self._rows(query, matching, parameters)
        if kind == "facets":
            return {field: self._facet(field, matching, parameters) for field in query["fields"]}
        if kind == "histogram":
            return self._histogram(query, matching, parameters)
        raise ValueError(f"unknown kind {kind}")

    def _rows(self, query, matching, parameters):
        order = {"asc": "ASC", "desc": "DESC"}[query.get("order", "desc")]
        limit = "" if query.get("limit") is None else f"LIMIT {int(query['limit'])}"
        sql = f"SELECT rid, segment, idx, place FROM {matching} ORDER BY place {order} {limit} OFFSET {int(query.get('offset', 0))}"
        if "fields" not in query:
            return [[segment, index] for _, segment, index, _ in self.db.execute(sql, parameters).fetchall()]
        rows = {rid: [segment, index, []] for rid, segment, index, _ in self.db.execute(sql, parameters).fetchall()}
        for field in query["fields"]:
            source, more = values(field)
            found = {}
            for rid, kind, text in self.db.execute(f"""
                SELECT rid, kind, text FROM ({sql}) JOIN {source} USING (rid)""", [*parameters, *more]).fetchall():  # fmt: skip
                found[rid] = value_of(kind, text)
            for rid, row in rows.items():
                row[2].append(found.get(rid, {"missing": True}))
        return list(rows.values())

    def _facet(self, field, matching, parameters):
        source, more = values(field)
        rows = self.db.execute(f"""
            SELECT kind, text, count(*) FROM {matching} JOIN {source} USING (rid) GROUP BY kind, text""",
            [*parameters, *more]).fetchall()  # fmt: skip
        found = [[value_of(kind, text), count] for kind, text, count in rows]
        return sorted(found, key=lambda row: (-row[1], json.dumps(row[0])))

    def _histogram(self, query, matching, parameters):
        width = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}[query["interval"]]
        if query.get("by") is None:
            rows = self.db.execute(f"SELECT ts // {width}, count(*) FROM {matching} GROUP BY ALL", parameters).fetchall()
            found = [[instant(start * width), None, count] for start, count in rows]
        else:
            source, more = values(query["by"])
            rows = self.db.execute(f"""
                SELECT ts // {width}, kind, text, count(*) FROM {matching} LEFT JOIN {source} USING (rid) GROUP BY ALL""",
                [*parameters, *more]).fetchall()  # fmt: skip
            found = [[instant(start * width), value_of(kind, text), count] for start, kind, text, count in rows]
        return sorted(found, key=lambda row: (row[0], json.dumps(row[1])))

    def _counts(self):
        foreign = self.db.execute("SELECT segment, idx FROM records WHERE is_foreign ORDER BY segment, idx").fetchall()
        records, ambiguous = self.db.execute(
            "SELECT count(*), count(*) FILTER (WHERE repeated) FROM records WHERE NOT is_foreign"
        ).fetchone()
        return dict(segments=self.segments, lines=self.lines, records=records, ambiguous=ambiguous,
                    damaged=sorted(self.damaged), foreign=[list(row) for row in foreign])  # fmt: skip


# Filters


def condition(filters):
    """SQL that says whether a row of `records` is asked for, and its parameters."""
    parts, parameters = ["NOT is_foreign"], []
    for name, value in filters.items():
        if name in ("since", "until"):
            parts.append("ts >= ?" if name == "since" else "ts < ?")
            parameters.append(millis(value))
        elif name in ("event", "job", "workspace", "rank"):
            parts.append(f"{name} IN ({', '.join('?' * len(value))})")
            parameters.extend(value)
        elif name == "where":
            for text in value:
                sql, more = where(text)
                parts.append(sql)
                parameters.extend(more)
        elif name == "text":
            for word in value.split():
                parts.append("contains(haystack, ?)")
                parameters.append("".join(c.lower() if c.isascii() else c for c in word))
        else:
            raise ValueError(f"unknown filter {name}")
    return " AND ".join(f"({part})" for part in parts), parameters


def where(text):
    """SQL and parameters of `FIELD OP VALUE`."""
    field, rest = take_field(text)
    rest = rest.lstrip(" ")
    if rest in ("exists", "missing"):
        negated = "" if rest == "exists" else "NOT"
        if isinstance(field, str):
            return f"{negated} true", []
        return f"rid {negated} IN (SELECT rid FROM values_of WHERE path = ?)", [path_text(field)]
    operator = next(operator for operator in OPERATORS if rest.startswith(operator))
    value = rest[len(operator) :].removeprefix(" ")
    if isinstance(field, str) and field in STRINGS:
        return test("s", STRINGS[field], "NULL", operator, value)
    if isinstance(field, str):
        return test("n", "NULL", f"{NUMBERS[field]}_key", operator, value)
    tests, parameters = [], [path_text(field)]
    for kind in "snb":
        sql, more = test(kind, "text", "key", operator, value)
        tests.append(f"kind = '{kind}' AND {sql}")
        parameters.extend(more)
    return f"rid IN (SELECT rid FROM values_of WHERE path = ? AND ({' OR '.join(tests)}))", parameters


def test(kind, text, key, operator, value):
    """SQL and parameters of the operator on a value of a kind: string, number, boolean."""
    compare = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}.get(operator)
    if kind == "s":
        if compare:
            return f"{text} {compare} ?", [value]
        return {"~": f"contains({text}, ?)", "!~": f"NOT contains({text}, ?)", "^=": f"starts_with({text}, ?)",
                "$=": f"suffix({text}, ?)"}[operator], [value]  # fmt: skip
    if kind == "n" and compare and NUMBER.fullmatch(value):
        return f"{key} {compare} ?", [number_key(value)]
    if kind == "b" and operator == "=":
        return f"{text} = ?", [value]
    return "false", []


def take_field(text):
    """A member's name, or the steps of a path into `meta` (keys and indices); and the rest of the text."""
    name = re.match(r"[A-Za-z]+", text).group()
    rest = text[len(name) :]
    if name in STRINGS or name in NUMBERS:
        return name, rest
    assert name == "meta", text
    steps = []
    while rest and rest[0] in ".[":
        if found := re.match(r"\[(\d+)\]", rest):
            steps.append(int(found.group(1)))
        elif found := re.match(r'\.("(?:[^"\\]|\\.)*")', rest):
            steps.append(json.loads(found.group(1)))
        else:
            found = re.match(r"\.([^\s.\[\"=!<>~^$]+)", rest)
            steps.append(found.group(1))
        rest = rest[found.end() :]
    return steps, rest


def values(field):
    """A relation (rid, kind, text) of a field's value in each record, and its parameters."""
    field, rest = take_field(field)
    assert not rest, rest
    if isinstance(field, list):
        return "(SELECT rid, kind, text FROM values_of WHERE path = ? AND last)", [path_text(field)]
    if field in STRINGS:
        return f"(SELECT rid, 's' AS kind, {STRINGS[field]} AS text FROM records)", []
    return f"(SELECT rid, 'n' AS kind, CAST({NUMBERS[field]} AS VARCHAR) AS text FROM records)", []


def value_of(kind, text):
    """A value as answers have it."""
    if kind == "s":
        return text
    if kind == "n":
        return {"number": text}
    if kind == "b":
        return text == "true"
    return {"z": None, "o": {"structure": "object"}, "a": {"structure": "array"}, None: {"missing": True}}[kind]


def path_text(steps):
    """A path as `json_tree` spells it."""
    out = "$"
    for step in steps:
        if isinstance(step, int):
            out += f"[{step}]"
        elif re.fullmatch("[A-Za-z][A-Za-z0-9]*", step):
            out += f".{step}"
        else:
            out += '."' + step.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return out


# Times


def millis(text):
    """The first whole millisecond since the epoch that is not before this time; without a zone it is UTC."""
    found = re.fullmatch(r"(\d+)-(\d+)-(\d+)(?:[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))?)?", text)
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    whole = datetime.datetime(year, month, day, hour, minute, tzinfo=datetime.timezone.utc) + datetime.timedelta(seconds=second)
    if found[9]:
        offset = datetime.timedelta(hours=int(found[10]), minutes=int(found[11]))
        whole += offset if found[9] == "-" else -offset
    since_epoch = whole - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    exact = (since_epoch.days * 86_400 + since_epoch.seconds) * 1000
    return -(-(exact + fractions.Fraction(int(found[7] or 0) * 1000, 10 ** len(found[7] or ""))) // 1)


def instant(at):
    """RFC 3339 of milliseconds since the epoch."""
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=at)
    return at.isoformat(timespec="milliseconds") + "Z"


# Numbers


def parts_of(text):
    """Sign, digits without zeros around them, and the exponent of 0.DIGITS × 10^exponent; no digits for zero."""
    sign, whole, fraction, exponent = NUMBER.fullmatch(text).groups()
    digits = whole + (fraction or "")
    exponent = int(exponent or 0) + len(whole) - (len(digits) - len(digits.lstrip("0")))
    return sign, digits.strip("0"), exponent


def number_key(text):
    """A text for a JSON number; the order of such texts, byte by byte, is that of the exact values."""
    sign, digits, exponent = parts_of(text)
    if not digits:
        return "1"
    size = str(abs(exponent))
    size = f"{len(size):04}{size}"
    key = (f"1{size}" if exponent >= 0 else f"0{complement(size)}") + digits
    return f"0{complement(key)}~" if sign else f"2{key}"


def complement(digits):
    return digits.translate(str.maketrans("0123456789", "9876543210"))


def plain(text):
    """One spelling for all of a value: no exponent for up to 40 digits, no zeros that say nothing."""
    sign, digits, exponent = parts_of(text)
    if not digits:
        return "0"
    if 0 < exponent <= 40:
        whole, fraction = digits[:exponent].ljust(exponent, "0"), digits[exponent:]
        return sign + whole + ("." + fraction if fraction else "")
    if -40 <= exponent <= 0:
        return f"{sign}0.{'0' * -exponent}{digits}"
    return sign + digits[0] + ("." + digits[1:] if digits[1:] else "") + f"e{exponent - 1}"


# Files and lines


def source(text):
    """Name, path, workspace of `[NAME=]PATH[@WORKSPACE]`."""
    name, path, workspace = re.fullmatch(r"(?:([^=/]+)=)?(.*?)(?:@([^/@]+))?", text).groups()
    return name, path, workspace


def listing(sources):
    """Directory's number, segment, path, rank and job folder of every file that is read."""
    paths = []
    for number, (name, root, workspace) in enumerate(sources):
        prefix = f"{name}/" if len(sources) > 1 else ""
        found = {}
        for folder, folders, files in os.walk(root):
            folders.sort()
            for file in files:
                path = os.path.join(folder, file)
                match = NAME.fullmatch(file)
                if match and is_time(match) and int(match[1]) < 1 << 32 and stat.S_ISREG(os.lstat(path).st_mode):
                    plain_path = path.removesuffix(match[4] or "")
                    found.setdefault(plain_path, {})[match[4] or ""] = (path, int(match[1]))
        for plain_path, forms in sorted(found.items()):
            path, rank = forms[min(forms)]
            relative = pathlib.PurePath(os.path.relpath(plain_path, root))
            job = None if relative.parent.as_posix() in (".", "audit") else relative.parent.name
            paths.append((number, prefix + relative.as_posix(), path, rank, job, workspace))
    # Of one file's paths that may hold the same line, the one that leaves most open is read: nobody hides another's file by a link.
    read = {}
    for at in sorted(range(len(paths)), key=lambda at: [(one is not None, one or "") for one in paths[at][4:]]):
        facts = os.stat(paths[at][2])
        others = read.setdefault((facts.st_dev, facts.st_ino), [])
        if not any(may_be_same(paths[at], paths[other]) for other in others):
            others.append(at)
    for at in sorted(at for ats in read.values() for at in ats):
        yield paths[at][:5]


def may_be_same(one, other):
    """Whether one line may be of both paths' jobs and workspaces."""
    return all(a is None or b is None or a == b for a, b in zip(one[4:], other[4:]))


def is_time(match):
    try:
        return datetime.datetime.strptime(match[2] or match[3], "%Y%m%dT%H%M%S.%f" if match[2] else "%Y-%m-%d").year >= 1970
    except ValueError:
        return False


def lines(path):
    """Each line without its newline, and whether it had none."""
    if path.endswith(".zst"):
        content = subprocess.run(["zstd", "-dcq", path], check=True, capture_output=True).stdout
    else:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            content = file.read()
    *whole, tail = content.split(b"\n")
    yield from ((line, False) for line in whole)
    if tail:
        yield tail, True


class Number(str):
    """A JSON number's own text."""


class Object(list):
    """A JSON object's pairs, repeated ones too."""


def no_constant(text):
    raise ValueError(text)


def parsed(text):
    return json.loads(text, object_pairs_hook=Object, parse_int=Number, parse_float=Number, parse_constant=no_constant)


def judge(line):
    """What is wrong with a line, or its text and whether `meta` repeats keys."""
    if len(line) + 1 > LINE_BYTES_MAX:
        return "tooLong"
    if b"\0" in line:
        return "nul"
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return "notUtf8"
    try:
        record = parsed(text)
        if "\\u" in text:
            json.dumps(record, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return "notJson"
    if not isinstance(record, Object) or sorted(key for key, _ in record) != sorted(MEMBERS):
        return "notARecord"
    record = dict(record)
    ids = [record[member] for member in MEMBERS[1:5]]
    if not all(isinstance(value, str) and not isinstance(value, Number) for value in ids) or not is_instant(record["ts"]):
        return "notARecord"
    return text, repeats(record["meta"])


def is_instant(ts):
    if isinstance(ts, Number):
        return bool(re.fullmatch(r"0|[1-9]\d{0,14}", ts, re.ASCII)) and int(ts) <= 253_402_300_799_999
    try:
        return re.fullmatch(r"(19[7-9]|[2-9]\d\d)\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", ts, re.ASCII) is not None and (
            datetime.datetime.strptime(ts, "%Y-%m-%dT%H:%M:%S.%fZ").second < 60
        )
    except (TypeError, ValueError):
        return False


def repeats(value):
    if isinstance(value, Object):
        return len(dict(value)) < len(value) or any(repeats(member) for _, member in value)
    return isinstance(value, list) and any(map(repeats, value))


def taken_apart(line):
    """Path, kind, text of every value in `meta`, and whether it is the last of its path."""
    pending = [("$", dict(parsed(line))["meta"], True)]
    while pending:
        path, value, last = pending.pop()
        if isinstance(value, Object):
            yield path, "o", None, last
            final = {key: number for number, (key, _) in enumerate(value)}
            for number, (key, member) in enumerate(value):
                pending.append((path + path_text([key])[1:], member, last and final[key] == number))
        elif isinstance(value, list):
            yield path, "a", None, last
            pending.extend((f"{path}[{number}]", member, last) for number, member in enumerate(value))
        elif isinstance(value, bool):
            yield path, "b", "true" if value else "false", last
        elif value is None:
            yield path, "z", None, last
        else:
            yield path, "n" if isinstance(value, Number) else "s", str(value), last


if __name__ == "__main__":
    main()
