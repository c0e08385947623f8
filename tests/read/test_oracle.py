"""The oracle, held against a small directory whose answers were worked out by hand.

    python3 -m unittest discover -s tests/read
"""
import gzip
import json
import os
import pathlib
import tempfile
import unittest

import oracle
import queries

ONE = "one/audit-0_20260101T000000.000Z.jsonl"
TWO = "one/audit-1-2026-01-01.jsonl"
TOP = "audit-0_20260101T000002.000Z.jsonl"


def line(second, meta, event="E", job="one", workspace="w", message=""):
    """A line as we write it; meta is raw JSON."""
    ts = f"2026-01-01T00:00:{second:06.3f}Z"
    top = json.dumps(dict(ts=ts, jobId=job, workspaceId=workspace, event=event, message=message), ensure_ascii=False)
    return (top[:-1].replace('", "', '","').replace('": ', '":') + f',"meta":{meta}}}').encode()


def made(root, files):
    """Writes files of lines under the root; bytes are written as they are, lists with a newline after each line."""
    for name, content in files.items():
        path = pathlib.Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else b"".join(each + b"\n" for each in content))


class Values(unittest.TestCase):
    """Every operator on every kind of value: the numbers are those of the lines."""

    @classmethod
    def setUpClass(cls):
        metas = [
            '{"v":12500}',  # 0
            '{"v":12500.0}',  # 1: the same number
            '{"v":"12500"}',  # 2
            '{"v":"abc"}',  # 3
            '{"v":""}',  # 4
            '{"v":true}',  # 5
            '{"v":false}',  # 6
            '{"v":null}',  # 7
            '{"v":{"v":12500}}',  # 8
            '{"v":[12500]}',  # 9
            "{}",  # 10
            "null",  # 11
            '{"v":"\\u0061\\u00e9\\ud83e\\udd80\\n"}',  # 12: aé🦀 and a newline
            '{"v":9007199254740993}',  # 13: 2^53 + 1
            '{"v":9007199254740992}',  # 14
            '{"v":-0.0}',  # 15
            '{"v":1,"v":"abc","v":2}',  # 16
            '{"v":"true"}',  # 17
            '{"v":1e400}',  # 18
            '{"\\u0076":-3}',  # 19: v
            '{"v":0.10000000000000001}',  # 20: no double
        ]
        cls.temp = tempfile.TemporaryDirectory()
        made(cls.temp.name, {ONE: [line(number, meta) for number, meta in enumerate(metas)]})
        cls.oracle = oracle.Oracle([cls.temp.name])

    @classmethod
    def tearDownClass(cls):
        cls.temp.cleanup()

    def matches(self, *where):
        rows = self.oracle.answer({"kind": "query", "filters": {"where": list(where)}, "order": "asc"})
        return [index for _, index in rows]

    def test_a_number_matches_numbers_by_value_and_strings_by_their_text(self):
        self.assertEqual(self.matches("meta.v = 12500"), [0, 1, 2])
        self.assertEqual(self.matches("meta.v = 12500.0"), [0, 1])
        self.assertEqual(self.matches("meta.v = 125e2"), [0, 1])
        self.assertEqual(self.matches("meta.v != 12500"), [3, 4, 12, 13, 14, 15, 16, 17, 18, 19, 20])
        self.assertEqual(self.matches("meta.v != 12500.0"), [2, 3, 4, 12, 13, 14, 15, 16, 17, 18, 19, 20])
        # As texts "" < "12500" < "2" < "abc" < "aé🦀" < "true".
        self.assertEqual(self.matches("meta.v < 2"), [2, 4, 15, 16, 19, 20])
        self.assertEqual(self.matches("meta.v <= 2"), [2, 4, 15, 16, 19, 20])
        self.assertEqual(self.matches("meta.v > 2"), [0, 1, 3, 12, 13, 14, 16, 17, 18])
        self.assertEqual(self.matches("meta.v >= 2"), [0, 1, 3, 12, 13, 14, 16, 17, 18])
        self.assertEqual(self.matches("meta.v = 0"), [15])
        self.assertEqual(self.matches("meta.v < -2.5"), [4, 19])

    def test_numbers_are_exact(self):
        self.assertEqual(self.matches("meta.v = 9007199254740993"), [13])
        self.assertEqual(self.matches("meta.v > 9007199254740992", "meta.v < 1e399"), [13, 16])
        self.assertEqual(self.matches("meta.v = 9007199254740992.0"), [14])
        self.assertEqual(self.matches("meta.v = 0.1"), [])
        self.assertEqual(self.matches("meta.v = 0.10000000000000001"), [20])
        # As texts "12500" < "1e400".
        self.assertEqual(self.matches("meta.v >= 1e400"), [3, 12, 16, 17, 18])

    def test_anything_else_matches_strings_byte_by_byte(self):
        self.assertEqual(self.matches("meta.v = abc"), [3, 16])
        self.assertEqual(self.matches("meta.v != abc"), [2, 4, 12, 17])
        self.assertEqual(self.matches("meta.v < abc"), [2, 4])
        self.assertEqual(self.matches("meta.v <= abc"), [2, 3, 4, 16])
        self.assertEqual(self.matches("meta.v > abc"), [12, 17])
        self.assertEqual(self.matches("meta.v >= abc"), [3, 12, 16, 17])
        # U+FF5E comes before U+1F980 in UTF-8, and behind it in UTF-16.
        self.assertEqual(self.matches("meta.v < aé～"), [2, 3, 4, 16])
        self.assertEqual(self.matches("meta.v = ABC"), [])
        self.assertEqual(self.matches("meta.v = 012500"), [])

    def test_parts_of_strings(self):
        self.assertEqual(self.matches("meta.v ~ b"), [3, 16])
        self.assertEqual(self.matches("meta.v ~ 250"), [2])
        self.assertEqual(self.matches("meta.v !~ b"), [2, 4, 12, 17])
        self.assertEqual(self.matches("meta.v !~ 250"), [3, 4, 12, 16, 17])
        self.assertEqual(self.matches("meta.v ^= a"), [3, 12, 16])
        self.assertEqual(self.matches("meta.v ^= 125"), [2])
        self.assertEqual(self.matches("meta.v $= c"), [3, 16])
        self.assertEqual(self.matches("meta.v $= 00"), [2])
        self.assertEqual(self.matches("meta.v ~ é🦀"), [12])
        self.assertEqual(self.matches("meta.v ~ %"), [])

    def test_booleans_nulls_and_structures(self):
        self.assertEqual(self.matches("meta.v = true"), [5, 17])
        self.assertEqual(self.matches("meta.v = false"), [6])
        self.assertEqual(self.matches("meta.v != true"), [2, 3, 4, 12, 16])
        self.assertEqual(self.matches("meta.v = null"), [])
        self.assertEqual(self.matches("meta.v exists"), [*range(10), *range(12, 21)])
        self.assertEqual(self.matches("meta.v missing"), [10, 11])
        self.assertEqual(self.matches("meta exists"), [*range(21)])
        self.assertEqual(self.matches("meta.v.v = 12500"), [8])
        self.assertEqual(self.matches("meta.v[0] = 12500"), [9])
        self.assertEqual(self.matches("meta.v[1] missing", "meta.v[0] exists"), [9])

    def test_repeated_keys_match_if_any_does_and_show_the_last(self):
        self.assertEqual(self.matches("meta.v = 1"), [16])
        self.assertEqual(self.matches("meta.v = 1", "meta.v = abc", "meta.v = 2"), [16])
        rows = self.oracle.answer({"kind": "query", "filters": {"where": ["index = 16"]}, "fields": ["meta.v", "event"]})
        self.assertEqual(rows, [[ONE, 16, [{"number": "2"}, "E"]]])
        self.assertEqual(self.oracle.answer({"kind": "counts"})["ambiguous"], 1)

    def test_members_and_virtual_fields(self):
        self.assertEqual(self.matches("index >= 18"), [18, 19, 20])
        self.assertEqual(self.matches("index = 18.0"), [18])
        self.assertEqual(self.matches("index ~ 1"), [])
        self.assertEqual(self.matches("rank != 0"), [])
        self.assertEqual(self.matches("ts ^= 2026-01-01T00:00:1", "index > 17"), [18, 19])
        self.assertEqual(self.matches("segment $= .jsonl", "jobId = one", "workspaceId = w", "event = E", "index = 3"), [3])
        self.assertEqual(self.matches("message missing"), [])

    def test_facets_group_by_value_and_leave_out_what_is_missing(self):
        facets = self.oracle.answer({"kind": "facets", "fields": ["meta.v"]})["meta.v"]
        self.assertEqual(facets[0], [{"number": "12500"}, 2])
        self.assertEqual(
            sorted(json.dumps(value) for value, count in facets if count == 1),
            sorted(json.dumps(value) for value in [
                "12500", "abc", "", True, False, None, {"structure": "object"}, {"structure": "array"}, "aé🦀\n",
                {"number": "9007199254740993"}, {"number": "9007199254740992"}, {"number": "0"}, {"number": "2"}, "true",
                {"number": "1e400"}, {"number": "-3"}, {"number": "0.10000000000000001"},
            ]),
        )  # fmt: skip


class Directories(unittest.TestCase):
    """Segments, times, order, damage, foreign lines."""

    @classmethod
    def setUpClass(cls):
        cls.temp = tempfile.TemporaryDirectory()
        root = cls.temp.name
        spaced = b' { "meta" : { "a.b" : "dotted", "q\\"" : 1 } ,\t"ts":"2026-01-01T00:00:04.000Z","jobId":"one","workspaceId":"w",'
        spaced += b'"\\u0065vent":"L\\u004fGIN","message":"by \\u007a\\u00d8"}\r'
        made(root, {
            ONE: [
                line(1, '{"user":{"name":"Ann"}}', "LOGIN", message="Two Words"),  # 0
                line(2, "null", "LOGOUT"),  # 1
                b"",  # 2: empty, not damaged
                b"{not json",  # 3
                b"\0\0\0",  # 4
                line(3, '"\xff"').decode().encode("latin-1"),  # 5
                line(3, "NaN"),  # 6
                b'{"ts":"2026-01-01T00:00:03.000Z"}',  # 7
                line(3, "1", job="two"),  # 8: foreign
                spaced,  # 9
                line(5, '"' + "x" * (2 << 20) + '"'),  # 10
                line(5, "1,\"event\":\"F\""),  # 11: a member twice
                line(6, '"\\ud83d"'),  # 12: half a pair
            ],
            TWO: b'{"ts":1767225602000,"jobId":"one","workspaceId":"v","event":"LOGIN","message":"","meta":{"files":["x Two","y"]}}\n'
            + line(2, "[]", workspace="v") + b"\n" + line(2, "{}", workspace="v")[:-1],
            TOP: [line(2, '{"v":1}', job="anyone")],
            "one/" + "audit-2_20260230T000000.000Z.jsonl": [line(1, "1")],  # no such day
            "one/notes.jsonl": [line(1, "1")],
        })  # fmt: skip
        packed = pathlib.Path(root, "two", "audit-0_20260101T000059.999Z.jsonl.gz")
        made(root, {str(packed.relative_to(root)): gzip.compress(line(59.999, "1", job="two") + b"\n")})
        made(root, {ONE + ".gz": gzip.compress(line(1, "1") + b"\n")})  # beside the plain one, which is read alone
        pathlib.Path(root, "one/audit-7_20260101T000000.000Z.jsonl").symlink_to(pathlib.Path(root, "one/notes.jsonl"))
        os.link(pathlib.Path(root, ONE), pathlib.Path(root, "one/audit-8_20260101T000000.000Z.jsonl"))
        os.mkfifo(pathlib.Path(root, "one/audit-9_20260101T000000.000Z.jsonl"))
        cls.oracle = oracle.Oracle([root])

    @classmethod
    def tearDownClass(cls):
        cls.temp.cleanup()

    def rows(self, order="asc", limit=None, offset=0, **filters):
        return self.oracle.answer(dict(kind="query", filters=filters, order=order, limit=limit, offset=offset))

    ALL = [[ONE, 0], [TOP, 0], [ONE, 1], [TWO, 0], [TWO, 1], [ONE, 9], ["two/audit-0_20260101T000059.999Z.jsonl", 0]]

    def test_order_is_time_then_segment_then_index_and_desc_its_reverse(self):
        self.assertEqual(self.rows(), self.ALL)
        self.assertEqual(self.rows("desc"), self.ALL[::-1])
        self.assertEqual(self.rows("desc", limit=2, offset=1), self.ALL[::-1][1:3])
        self.assertEqual(self.rows(limit=0), [])

    def test_what_is_damaged_or_foreign_is_counted_and_not_shown(self):
        kinds = {3: "notJson", 4: "nul", 5: "notUtf8", 6: "notJson", 7: "notARecord", 10: "tooLong", 11: "notARecord", 12: "notJson"}
        self.assertEqual(self.oracle.answer({"kind": "counts"}), {
            "segments": 4, "lines": 18, "records": 7, "ambiguous": 0, "foreign": [[ONE, 8]],
            "damaged": sorted([*([ONE, index, kind] for index, kind in kinds.items()), [TWO, 2, "torn"]]),
        })  # fmt: skip

    def test_times(self):
        for since in ("2026-01-01T00:00:02Z", "2026-1-1T00:00:02", "2026-01-01T02:00:01.9995+02:00", "2025-12-31T23:00:02-01:00"):
            self.assertEqual(self.rows(since=since), self.ALL[1:], since)
            self.assertEqual(self.rows(until=since), self.ALL[:1], since)
        self.assertEqual(self.rows(since="2026-01-01T00:00:02.0001Z"), self.ALL[5:])
        self.assertEqual(self.rows(since="2026-1-1", until="2026-01-02"), self.ALL)

    def test_equals_filters_are_any_of_them(self):
        self.assertEqual(self.rows(event=["LOGIN"]), [self.ALL[0], self.ALL[3], self.ALL[5]])
        self.assertEqual(self.rows(event=["LOGOUT", "LOGIN"], workspace=["w"]), [self.ALL[0], self.ALL[2], self.ALL[5]])
        self.assertEqual(self.rows(job=["anyone", "two"]), [self.ALL[1], self.ALL[6]])
        self.assertEqual(self.rows(rank=[1, 5]), self.ALL[3:5])

    def test_paths_with_odd_keys(self):
        self.assertEqual(self.rows(where=['meta."a.b" = dotted']), [self.ALL[5]])
        self.assertEqual(self.rows(where=['meta."q\\"" = 1']), [self.ALL[5]])
        self.assertEqual(self.rows(where=["meta.a.b exists"]), [])
        self.assertEqual(self.rows(where=["meta.files[1] = y"]), [self.ALL[3]])

    def test_text_finds_every_word_somewhere_ignoring_ascii_case(self):
        self.assertEqual(self.rows(text="login"), [self.ALL[0], self.ALL[3], self.ALL[5]])
        self.assertEqual(self.rows(text="two LOG"), [self.ALL[0], self.ALL[3]])
        self.assertEqual(self.rows(text="words ann wo"), [self.ALL[0]])
        self.assertEqual(self.rows(text="user"), [])  # a key
        self.assertEqual(self.rows(text="1"), [])  # a number
        self.assertEqual(self.rows(text="ZØ"), [self.ALL[5]])
        self.assertEqual(self.rows(text="zø"), [])

    def test_histogram(self):
        def answer(**query):
            return self.oracle.answer({"kind": "histogram", **query})

        start = "2026-01-01T00:00:00.000Z"
        self.assertEqual(answer(interval="day"), [[start, None, 7]])
        self.assertEqual(answer(interval="minute", by="rank"), [[start, {"number": "0"}, 5], [start, {"number": "1"}, 2]])
        self.assertEqual(
            answer(interval="hour", by="meta.files[0]", filters={"rank": [1]}), [[start, "x Two", 1], [start, {"missing": True}, 1]]
        )

    def test_of_one_time_the_directory_comes_before_the_segment(self):
        with tempfile.TemporaryDirectory() as root:
            made(root, {f"{folder}/{TOP}": [line(2, "1")] for folder in "ab"})
            rows = oracle.Oracle([f"b={root}/b", f"a={root}/a"]).answer({"kind": "query", "order": "asc"})
        self.assertEqual(rows, [[f"b/{TOP}", 0], [f"a/{TOP}", 0]])

    def test_a_segment_directly_in_audit_is_in_no_jobs_folder(self):
        with tempfile.TemporaryDirectory() as root:
            made(root, {f"{folder}{TOP}": [line(2, "1", job="two")] for folder in ("", "audit/", "audit/two/", "audit/three/", "two/audit/")})
            known = oracle.Oracle([root])
        expected = sorted([f"{folder}{TOP}", 0] for folder in ("", "audit/", "audit/two/"))
        self.assertEqual(known.answer({"kind": "query", "order": "asc"}), expected)
        self.assertEqual(known.answer({"kind": "counts"})["foreign"], [[f"audit/three/{TOP}", 0], [f"two/audit/{TOP}", 0]])

    def test_several_directories_have_names_and_a_workspace(self):
        root = self.temp.name
        several = oracle.Oracle([f"b={root}/one@v", f"a={root}/two"])
        rows = several.answer({"kind": "query", "order": "asc"})
        one, two = (f"b/{name.removeprefix('one/')}" for name in (ONE, TWO))
        # A segment directly in its directory is in no job's folder, so line 8 is foreign by its workspace alone.
        self.assertEqual(rows, [[two, 0], [two, 1], ["a/audit-0_20260101T000059.999Z.jsonl", 0]])
        self.assertEqual(several.answer({"kind": "counts"})["foreign"], [[one, index] for index in (0, 1, 8, 9)])


class Parts(unittest.TestCase):
    """What Python adds to DuckDB."""

    def test_the_order_of_number_keys_is_that_of_the_values(self):
        ascending = ["-1e1000000000000", "-1e400", "-12500", "-12.51", "-12.5", "-1", "-0.5", "-1e-400", "0", "1e-400", "0.001", "0.1",
                     "0.10000000000000001", "0.5", "1", "9", "10", "12.5", "12.51", "99", "9007199254740992", "9007199254740993",
                     "1e400", "1.1e400", "1e1000000000000"]  # fmt: skip
        self.assertEqual(sorted(ascending[::-1], key=oracle.number_key), ascending)
        self.assertEqual(len(set(map(oracle.number_key, ascending))), len(ascending))
        for same in (["0", "-0", "0.00", "0e9"], ["12500", "12500.0", "1.25e4", "125E+2"], ["-0.5", "-5e-1", "-0.0500e1"]):
            self.assertEqual(len(set(map(oracle.number_key, same))), 1, same)
            self.assertEqual(len(set(map(oracle.plain, same))), 1, same)

    def test_duckdb_and_python_take_a_line_apart_alike(self):
        keys = ["a", "A1", "1", "_", "a.b", "", 'q"', "\\", "é", "a b", "[0]", "*", "$", "\n"]
        meta = json.dumps([dict.fromkeys(keys, value) for value in ("s", 1, 1.5, True, None, [], {})])
        with tempfile.TemporaryDirectory() as root:
            made(root, {ONE: [line(1, meta)]})
            rows = oracle.Oracle([root]).db.execute("SELECT path, kind, text FROM values_of").fetchall()
        by_hand = [(path, kind, text) for path, kind, text, _ in oracle.taken_apart(line(1, meta).decode())]
        self.assertEqual(sorted(rows, key=repr), sorted(by_hand, key=repr))
        self.assertEqual(len(rows), 1 + 7 * (1 + len(keys)))

    def test_a_line_has_2_mib_with_its_newline_at_most(self):
        room = (2 << 20) - 1 - len(line(1, '""'))
        self.assertEqual(oracle.judge(line(1, f'"{"x" * room}"'))[1], False)
        self.assertEqual(oracle.judge(line(1, f'"{"x" * (room + 1)}"')), "tooLong")

    def test_random_queries_are_the_same_from_the_same_seed_and_have_answers(self):
        with tempfile.TemporaryDirectory() as root:
            metas = ['{"n":1.5,"s":"x y"}', '{"n":null,"a":[true,"z"]}', '"only"', "-7e3", '{"a.b":{"c":"\\n"}}', "[]"]
            made(root, {ONE: [line(second, meta, message="Words here") for second, meta in enumerate(metas)]})
            made(root, {TWO: [b"damaged", line(7, "{}")]})
            asked = queries.queries(7, 200, [root])
            self.assertEqual(asked, queries.queries(7, 200, [root]))
            self.assertNotEqual(asked, queries.queries(8, 200, [root]))
            self.assertEqual({query["kind"] for query in asked}, {"counts", "query", "facets", "histogram"})
            known = oracle.Oracle([root])
            found = sum(bool(known.answer(query)) for query in asked)
            self.assertGreater(found, 50)
