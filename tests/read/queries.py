"""Random queries on audit directories: the same from the same seed.

    queries.py SEED COUNT [NAME=]PATH[@WORKSPACE]… > queries.json

What they ask for is drawn from lines of the directories, so most find something and few find all. Kinds of queries and the
answers' form:

    {"kind": "query", "filters": {…}, "order": "asc|desc", "limit": N, "offset": N, "fields": [FIELD…]}
        [[SEGMENT, INDEX], …], or with "fields" [[SEGMENT, INDEX, [VALUE, …]], …]
    {"kind": "facets", "filters": {…}, "fields": [FIELD…]}
        {FIELD: [[VALUE, count], …], …}: all values, the most frequent first, records without one left out
    {"kind": "histogram", "filters": {…}, "interval": "minute|hour|day", "by": FIELD}
        [[START, VALUE or null, count], …]: START in RFC 3339, UTC; no empty intervals; null where there is no "by"
    {"kind": "counts"}
        {"segments": N, "lines": N, "records": N, "ambiguous": N, "damaged": [[SEGMENT, INDEX, KIND], …], "foreign":
        [[SEGMENT, INDEX], …]}: `lines` are all, empty ones too; KIND is tooLong, nul, notUtf8, notJson, notARecord or torn

All but "kind" may be left out ("order" is then desc, "limit" none, "offset" 0, "by" none), but not "fields" of facets and "interval".

    filters: {"since": T, "until": T, "event": [E…], "job": [J…], "workspace": [W…], "rank": [N…], "where": ["FIELD OP VALUE"…],
              "text": WORDS}, each as on the command line. T is RFC 3339 or a date; without a zone it is UTC. There are no ages.
    FIELD: ts jobId workspaceId event message segment index rank meta, meta.user.name, meta.files[0], meta."a.b"
    VALUE: "a string", true, false, null, {"number": "12.5"} (by exact value, one spelling for all of them: no exponent for up to
           40 digits before or behind the point, no zeros that say nothing), {"structure": "object|array"}, {"missing": true}
"""
import json
import random
import re
import sys

import oracle

# Lines that are looked at, four of a segment.
SAMPLE = 400
PLAIN_KEY = re.compile("[A-Za-z0-9_]+", re.ASCII)
TOP = ["ts", "jobId", "workspaceId", "event", "message"]


def main():
    seed, count, *directories = sys.argv[1:]
    json.dump(queries(int(seed), int(count), directories), sys.stdout, ensure_ascii=False, indent=0)


def queries(seed, count, directories):
    """So many queries on these directories, the first of which is for the counts."""
    chance = random.Random(seed)
    return [{"kind": "counts"}, *Queries(chance, sample(chance, directories)).several(count - 1)]


def sample(chance, directories):
    """Values by field of some good lines."""
    segments = list(oracle.listing([oracle.source(text) for text in directories]))
    records = []
    for _ in range(SAMPLE // 4):
        _, segment, path, rank, _ = chance.choice(segments)
        good = [(index, line) for index, (line, torn) in enumerate(oracle.lines(path)) if line and not torn]
        for index, line in chance.sample(good, min(4, len(good))):
            if not isinstance(verdict := oracle.judge(line), str):
                records.append((segment, index, rank, verdict[0]))
    return records


class Queries:
    """Makes queries of what is in a sample of records."""

    def __init__(self, chance, records):
        self.chance = chance
        self.records = []
        for segment, index, rank, line in records:
            top = dict(oracle.parsed(line))
            top["ts"] = oracle.instant(int(top["ts"])) if isinstance(top["ts"], oracle.Number) else top["ts"]
            values = [*((name, top[name]) for name in TOP), ("segment", segment), ("index", str(index)), ("rank", str(rank))]
            values += [(field(steps), value) for steps, value in leaves(top["meta"])]
            self.records.append((top, values))
        names = {name for _, values in self.records for name, _ in values}
        self.fields = sorted(names | {"meta.nothing", "meta.user", "meta.files", "meta.files[9]"})

    def several(self, count):
        return [self.one() for _ in range(count)]

    def one(self):
        chance = self.chance
        kind = chance.choices(["query", "facets", "histogram"], [8, 1, 1])[0]
        query = {"kind": kind, "filters": self.filters()}
        if kind == "facets":
            query["fields"] = chance.sample(self.fields, chance.randint(1, 3))
        elif kind == "histogram":
            query["interval"] = chance.choice(["minute", "hour", "day"])
            if chance.random() < 0.5:
                query["by"] = chance.choice(["event", "rank", "meta.success", "meta.category", *self.fields])
        else:
            query["order"] = chance.choice(["asc", "desc"])
            if chance.random() < 0.8:
                query["limit"] = chance.choice([0, 1, 2, 40, 40, 1000, 1000])
            if chance.random() < 0.3:
                query["offset"] = chance.choice([0, 1, 7, 500])
            if chance.random() < 0.1:
                query["fields"] = chance.sample(self.fields, chance.randint(1, 4))
        return query

    def filters(self):
        """Filters that one record passes, mostly: those of several would find nothing."""
        chance, found = self.chance, {}
        if chance.random() < 0.3:
            anchor = self.record()[0]["ts"]
            times = sorted([self.time(anchor), self.time(), self.time()], key=oracle.millis)
            found.update(zip(("since", "until"), chance.choice([times[:2], times[1:], times[::2]])))
            for name in ("since", "until"):
                if chance.random() < 0.4:
                    del found[name]
        record = self.record()
        for name, member in (("event", "event"), ("job", "jobId"), ("workspace", "workspaceId")):
            if chance.random() < 0.12:
                others = [self.record()[0][member] for _ in range(chance.randint(0, 2))]
                found[name] = [record[0][member], *others]
        if chance.random() < 0.1:
            found["rank"] = [chance.randint(0, 4) for _ in range(chance.randint(1, 2))]
        if chance.random() < 0.6:
            found["where"] = [self.where(record) for _ in range(chance.choice([1, 1, 1, 2]))]
        if chance.random() < 0.15:
            if words := self.words(record):
                found["text"] = words
        return found

    def record(self):
        return self.chance.choice(self.records)

    def time(self, ts=None):
        ts = ts or self.record()[0]["ts"]
        year, month, day = ts[:4], ts[5:7], ts[8:10]
        return self.chance.choice([
            ts, ts[:-1], ts[:19] + "Z", ts[:23] + "5Z", f"{ts[:23]}+02:00", f"{ts[:19]}-05:30",
            ts[:10], f"{year}-{int(month)}-{int(day)}",
        ])  # fmt: skip

    def where(self, record):
        chance = self.chance
        name, value = chance.choice(record[1])
        operator = chance.choice([*oracle.OPERATORS, "exists", "missing", "=", "="])
        if chance.random() < 0.1:
            name = chance.choice(self.fields)
        if operator in ("exists", "missing"):
            return f"{name} {operator}"
        text = self.value(value)
        if operator in ("~", "!~", "^=", "$=") and len(text) > 1:
            cut = chance.randint(1, len(text))
            text = text[:cut] if operator == "^=" else text[-cut:]
        # What stands on a command line is one line, and white space at its ends is no part of it.
        text = text.split("\n")[0].strip() or "x"
        return f"{name} {operator} {text}"

    def value(self, value):
        """Text for a value, or a near miss."""
        text = {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else value
        if oracle.NUMBER.fullmatch(text) and self.chance.random() < 0.4:
            digits = text + ("0" if "." in text else ".0")
            return text + "1" if "." in text else self.chance.choice([text + "e0", text + "00e-2", digits, digits + "01"])
        return self.chance.choice(["true", "false", "null", "x", "0", "-1e500", "1e500"]) if self.chance.random() < 0.1 else text

    def words(self, record):
        top, _ = record
        strings = [top["event"], top["message"], *(value for _, value in leaves(top["meta"]) if type(value) is str)]
        words = [word for text in strings for word in re.split(r"\s+", text) if word]
        chosen = self.chance.sample(words, min(len(words), self.chance.randint(1, 3)))
        return " ".join(self.chance.choice([word, word.swapcase() if word.isascii() else word, word[1:-1] or word]) for word in chosen)


def leaves(value, steps=()):
    """The steps to each value in `meta` that has none in it, and the value."""
    if isinstance(value, oracle.Object):
        for key, member in value:
            yield from leaves(member, (*steps, key))
    elif isinstance(value, list):
        for number, member in enumerate(value):
            yield from leaves(member, (*steps, number))
    else:
        yield steps, value


def field(steps):
    """A path into `meta` as people write it."""
    out = "meta"
    for step in steps:
        if isinstance(step, int):
            out += f"[{step}]"
        else:
            out += f".{step}" if PLAIN_KEY.fullmatch(step) else "." + json.dumps(step, ensure_ascii=False)
    return out


if __name__ == "__main__":
    main()
