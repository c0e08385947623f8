//! The benchmark: that it still runs, and writes the page that is in `docs`. How fast anything is, is not asked here.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{BINARY, tool};

/// What a page is like without its figures: the first cells of its tables' heads, and the goals.
fn shape(page: &str) -> Vec<String> {
    let (_, rest) = page.split_once("<!-- begin generated -->").expect("a beginning");
    let (generated, _) = rest.split_once("<!-- end generated -->").expect("an end");
    let lines: Vec<_> = generated.lines().collect();
    let heads = lines.windows(2).filter(|pair| pair[1].starts_with("| :--")).map(|pair| pair[0].to_owned());
    let (_, goals) = generated.split_once("| figure |").expect("a table of goals");
    let goals = goals.lines().skip(2).take_while(|line| line.starts_with('|'));
    heads.chain(goals.map(|line| line.split('|').take(3).collect())).collect()
}

fn array<'a>(results: &'a Value, name: &str) -> &'a [Value] {
    results[name].as_array().unwrap_or_else(|| panic!("no {name}"))
}

/// What a benchmark has left.
struct Ran {
    temp: TempDir,
    /// The page as it is in `docs`, and as the benchmark has written it.
    committed: String,
    page: String,
    results: Value,
    /// On stderr.
    told: String,
}

/// Runs a benchmark, quickly, with examples that are built for it.
fn run(script: &str, examples: &[&str]) -> Ran {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["build", "--quiet", "--locked"]).args(examples);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success());
    let temp = tempfile::tempdir().unwrap();
    let (page, json) = (temp.path().join("PERFORMANCE.md"), temp.path().join("results.json"));
    let committed = std::fs::read_to_string(root.join("docs/PERFORMANCE.md")).unwrap();
    std::fs::write(&page, &committed).unwrap();
    let output = Command::new(root.join(script))
        .args(["--quick", "--binary", BINARY, "--examples"])
        .arg(Path::new(BINARY).with_file_name("examples"))
        .args(["--data".as_ref(), temp.path()])
        .args(["--page".as_ref(), page.as_path(), "--json".as_ref(), json.as_path()])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let results = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    Ran { committed, page: std::fs::read_to_string(&page).unwrap(), results, told, temp }
}

#[test]
fn the_benchmark_measures_everything_and_writes_the_page() {
    if !["python3", "wrk", "nginx"].iter().all(|name| tool(name)) {
        return;
    }
    let Ran { temp, committed, page, results, .. } = run("bench/append.py", &["--examples"]);
    let (servers, connections) = (array(&results, "servers"), array(&results, "connections"));
    assert_eq!(array(&results, "load").len(), servers.len() * connections.len());
    let growth = [array(&results["growth"], "connections"), array(&results["growth"], "events")].concat();
    for row in array(&results, "load").iter().chain(array(&results, "quota")).chain(&growth) {
        assert!(row["answers"].as_u64() > Some(0) && row["refused"] == 0 && row["broken"] == 0, "{row}");
        assert!(row["server"] != "audit-log" || row["lines_match"] == true, "{row}");
    }
    assert!(
        array(&results, "batches").iter().all(|row| row["refused"] == 0 && row["lines_match"] == true),
        "{results}"
    );
    let ours: Vec<_> = array(&results, "kills").iter().filter(|row| row["server"] == "audit-log").collect();
    assert!(!ours.is_empty() && ours.iter().all(|row| row["answered"].as_u64() > Some(0) && row["lost"] == 0));

    assert_eq!(shape(&page), shape(&committed), "run bench/append.py again");
    let plot = std::fs::read_to_string(temp.path().join("performance.svg")).unwrap();
    assert!(plot.starts_with("<svg ") && plot.ends_with("</svg>\n"), "{plot}");
    assert!(servers.iter().all(|name| plot.contains(&format!(">{}<", name.as_str().unwrap()))), "{plot}");
    let left: Vec<_> = std::fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "only the page, the plot and the results are left: {left:?}");
}

/// Its programs give the same answers, or it fails. A program that is missing is left out, and said to be.
#[test]
fn the_benchmark_of_reading_holds_answers_against_one_another_and_writes_its_section() {
    if !tool("python3") {
        return;
    }
    let Ran { committed, page, results, told, .. } = run("bench/read.py", &["--example", "generate"]);
    for row in array(&results, "runs") {
        assert!(row["ours"]["answer"].as_u64() > Some(0), "{row}");
        assert!(
            !row["DuckDB"].is_null() || row["question"] == "the newest 40" || told.contains("SKIPPED: DuckDB"),
            "{row}"
        );
    }
    assert!(results["recent"]["opened"].as_u64() < results["recent"]["segments"].as_u64(), "{}", results["recent"]);
    let (before, rest) = committed.split_once("<!-- begin reading -->").unwrap();
    let (section, after) = rest.split_once("<!-- end reading -->").unwrap();
    let new = page.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).expect("the rest is as it was");
    let heads = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("| "))
            .map(|line| line.split('|').nth(1).unwrap().to_owned())
            .take(12)
            .collect::<Vec<_>>()
    };
    assert_eq!(heads(new), heads(section), "run bench/read.py again");
}

#[test]
fn the_benchmark_says_which_tool_is_missing() {
    if !tool("python3") {
        return;
    }
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    let output = Command::new(String::from_utf8(python.stdout).unwrap().trim())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/append.py"))
        .env("PATH", "/nonexistent")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.starts_with("missing: wrk") && told.contains("apt-get install"), "{told}");
}
