"""What examples/generate makes, counted by the oracle: it keeps its promises, and so do its counts."""
import filecmp
import json
import pathlib
import subprocess
import tempfile
import unittest

import oracle

ROOT = pathlib.Path(__file__).parents[2]
DAMAGED = ["torn", "notJson", "nul", "notUtf8", "notARecord", "tooLong"]


def generate(path, **flags):
    """Runs it, and returns its counts."""
    command = ["cargo", "run", "--quiet", "--locked", "--example", "generate", "--", "--dir", str(path)]
    command += [part for flag, value in flags.items() for part in (f"--{flag.replace('_', '-')}", str(value))]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


class Generate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temp = tempfile.TemporaryDirectory()
        cls.dir = pathlib.Path(cls.temp.name)

    @classmethod
    def tearDownClass(cls):
        cls.temp.cleanup()

    def same(self, one, other):
        compared = filecmp.dircmp(self.dir / one, self.dir / other)
        if compared.left_only or compared.right_only:
            return False
        _, mismatch, errors = filecmp.cmpfiles(self.dir / one, self.dir / other, compared.common_files, shallow=False)
        folders = all(self.same(f"{one}/{name}", f"{other}/{name}") for name in compared.common_dirs)
        return not mismatch and not errors and folders

    def test_the_same_seed_makes_the_same_bytes(self):
        flags = dict(lines=1000, jobs=9, ranks=2, odd=0.1)
        for name, seed in (("a", 3), ("b", 3), ("c", 4)):
            generate(self.dir / name, seed=seed, **flags)
        self.assertTrue(self.same("a", "b"))
        self.assertFalse(self.same("a", "c"))

    def test_its_counts_are_what_another_program_finds(self):
        made = generate(self.dir / "odd", lines=20_000, jobs=24, ranks=3, odd=0.1, seed=5, segments_lines=100)
        known = oracle.Oracle([str(self.dir / "odd")])
        found = known.answer({"kind": "counts"})
        self.assertEqual((made["lines"], made["segments"]), (20_000, found["segments"]))
        self.assertEqual(found["lines"], 20_000)
        for kind in DAMAGED:
            self.assertEqual(made["odd"][kind], sum(each == kind for *_, each in found["damaged"]), kind)
        self.assertEqual(made["odd"]["foreign"], len(found["foreign"]))
        self.assertEqual(made["odd"]["repeated"], found["ambiguous"])
        self.assertEqual(found["records"], 20_000 - made["odd"]["empty"] - len(found["damaged"]) - len(found["foreign"]))
        self.assertTrue(all(count for kind, count in made["odd"].items() if kind != "tooLong"), made)
        self.assertGreater(made["ucloud"], 0)
        ours = known.db.execute("SELECT max(idx) FROM records WHERE segment NOT SIMILAR TO '.*-\\d{4}-.*'").fetchone()
        self.assertEqual(ours, (99,))

    def test_without_odd_lines_every_line_is_as_the_format_has_it(self):
        made = generate(self.dir / "plain", lines=5000, jobs=20, ranks=4)
        self.assertEqual((made["ucloud"], sum(made["odd"].values())), (0, 0))
        known = oracle.Oracle([str(self.dir / "plain")])
        found = known.answer({"kind": "counts"})
        self.assertEqual((found["records"], found["ambiguous"]), (5000, 0))
        for name, path in ((path.name, path) for path in (self.dir / "plain").rglob("*.jsonl")):
            stamps = []
            for line, torn in oracle.lines(str(path)):
                self.assertFalse(torn)
                self.assertEqual([key for key, _ in oracle.parsed(line.decode())], oracle.MEMBERS)
                self.assertNotRegex(oracle.STRING.sub("", line.decode()), r"\s")
                stamps.append(line[7:31].decode())
            self.assertEqual(stamps, sorted(stamps))
            opened = name[name.index("_") + 1 :].removesuffix(".jsonl")
            self.assertEqual(opened, stamps[0].replace("-", "").replace(":", ""))
            self.assertEqual(stamps[0][:10], stamps[-1][:10])
        size, lines = made["bytes"], made["lines"]
        self.assertTrue(250 < size / lines < 400, size / lines)
        ties = known.db.execute("SELECT count(*) - count(DISTINCT (ts, segment)), count(*) - count(DISTINCT ts) FROM records").fetchone()
        self.assertTrue(0 < ties[0] < ties[1], ties)
