//! Pages that code can contradict, held against it.

use std::path::Path;

use audit_log::config::file;
use audit_log::record::{SegmentName, Timestamp};
use serde_json::Value;

use crate::support::{Request, Setup, binary};

pub(crate) fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The fenced block of a page that contains a text.
pub(crate) fn block(page: &str, containing: &str) -> String {
    let page = read(page);
    let blocks = page.split("\n```").skip(1).step_by(2);
    let found =
        blocks.filter_map(|block| block.split_once('\n')).map(|(_, text)| text).find(|text| text.contains(containing));
    found.unwrap_or_else(|| panic!("no block with {containing}")).to_owned()
}

#[test]
fn the_example_configuration_is_good_and_holds_every_key() {
    let example = read("config.example.yaml");
    let settings = file::parse(Path::new("config.example.yaml"), example.as_bytes(), 1).unwrap();
    assert_eq!(settings.retention_days, Some(180));
    assert!(
        binary()
            .arg("check-config")
            .arg(format!("{}/config.example.yaml", env!("CARGO_MANIFEST_DIR")))
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn the_call_of_the_readme_leaves_the_line_of_the_readme() {
    // The very text: curl's arguments as bash reads them, sent to a sidecar on another port.
    let call = block("README.md", "curl -X POST");
    let serve = block("README.md", "cargo run --release -- serve");
    assert!(serve.contains("--dir ./audit --create-dir") && serve.contains("--job-id 5003592"));
    let sidecar = Setup::new().start();
    let call = call.replace("127.0.0.1:48291", &sidecar.address.to_string());
    let output = std::process::Command::new("bash").args(["-c", &format!("set -e\n{call}")]).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(answer["index"], 0);
    let line = String::from_utf8(sidecar.segments().into_values().next().unwrap()).unwrap();
    let documented = block("README.md", "\"ts\":\"2026-01-28T09:12:44.381Z\"");
    assert_eq!(line[32..].trim_end(), documented[32..].trim_end());
    assert!(block("docs/FORMAT.md", "\"ts\":\"2026-01-28T09:12:44.381Z\"").contains(documented.trim()));
}

#[test]
fn the_settings_table_of_the_readme_is_that_of_the_help() {
    let help = String::from_utf8(binary().args(["serve", "--help"]).output().unwrap().stdout).unwrap();
    let readme = read("README.md");
    for flag in help.split_whitespace().filter(|word| word.starts_with("--") && *word != "--help") {
        assert!(readme.contains(&format!("`{flag}")), "{flag} is not in the README");
    }
    for word in help
        .split(|c: char| !(c.is_ascii_uppercase() || c == '_'))
        .filter(|word| word.starts_with("AUDIT_LOG_") || word.starts_with("UCLOUD_"))
    {
        assert!(readme.contains(word), "{word} is not in the README");
    }
}

/// Each recipe, as it stands on the page, over what a sidecar wrote.
#[test]
fn the_recipes_in_reading_md_can_be_run() {
    let mut sidecar = Setup::new().start();
    sidecar.append(r#"{"event":"DATA_EXPORT","message":"results","meta":{"path":"/work/output/results.csv","user":{"name":"ada"}}}"#);
    assert!(sidecar.stop().success());
    let page = block("docs/READING.md", "audit-log query --dir");
    let recipes: Vec<_> = page.lines().filter(|line| line.starts_with("audit-log ")).collect();
    assert!(recipes.len() >= 8, "{recipes:?}");
    for recipe in recipes {
        let own = format!("--dir {} ", sidecar.dir.display());
        let named = ["--dir /audit ", "--dir /mnt/volume/audit "].iter().find(|dir| recipe.contains(**dir));
        let command = match named {
            Some(dir) => recipe.replace(dir, &own),
            None => recipe.replacen(" --", &format!(" {own}--"), 1),
        };
        let command = command.replacen("audit-log", crate::support::BINARY, 1);
        let output =
            std::process::Command::new("bash").args(["-c", &command]).current_dir(&sidecar.dir).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.contains("searched "), "{command}: {told}");
    }
}

/// What the page of troubles quotes is what the program, or the policy, says; or else Kubernetes does.
#[test]
fn the_symptoms_in_kubernetes_md_are_those_that_users_see() {
    const OF_KUBERNETES: [&str; 8] = [
        "Init:CrashLoopBackOff",
        "CreateContainerConfigError",
        "failed to prepare subPath",
        "Pending",
        "persistentvolumeclaim \"audit-log\" not found",
        "ValidatingAdmissionPolicy",
        "Connection refused",
        "containers",
    ];
    let page = read("docs/KUBERNETES.md");
    let (_, table) = page.split_once("| What you see |").unwrap();
    let symptoms: Vec<_> = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    assert!(symptoms.len() >= 15, "{symptoms:?}");
    let folders = ["src", "src/config", "src/http"].map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|file| file.unwrap().path());
    let sources: String =
        files.filter(|file| file.is_file()).map(|file| std::fs::read_to_string(file).unwrap()).collect();
    // Messages are written with what they name left open.
    let sources = sources.replace("{}", "UCLOUD_JOB_ID");
    for quoted in symptoms.iter().flat_map(|symptom| symptom.split('`').skip(1).step_by(2)) {
        assert!(OF_KUBERNETES.contains(&quoted) || sources.contains(quoted), "`{quoted}` is said nowhere");
    }
}

#[test]
fn every_code_is_explained_in_semantics() {
    let page = read("docs/SEMANTICS.md");
    for code in audit_log::http::Code::REFUSALS {
        assert!(page.contains(&format!("`{}`", code.name())), "{}", code.name());
    }
}

/// That each test has its row is seen by the test itself.
#[test]
fn every_row_of_the_reliability_page_is_of_a_test() {
    let page = read("docs/RELIABILITY.md");
    let (_, rows) = page.split_once("<!-- rows -->").unwrap();
    let (rows, _) = rows.split_once("<!-- end of rows -->").unwrap();
    let tests: Vec<_> = rows.lines().filter_map(|line| line.strip_suffix("` |")?.rsplit_once("| `")).collect();
    assert!(tests.len() > 20, "{} rows", tests.len());
    for (_, test) in tests {
        let (module, function) = test.rsplit_once("::").expect("module::function");
        let module = module.replace("::", "/");
        let sources = ["tests/faults", "src/writer"].map(|folder| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            let files = [root.join(format!("{module}.rs")), root.join(&module).join("mod.rs")];
            files.map(|file| std::fs::read_to_string(file).unwrap_or_default()).concat()
        });
        assert!(sources.concat().contains(&format!("fn {function}()")), "no test {test}");
    }
}

/// A reader in another language, written from docs/FORMAT.md alone: it is in Python, and reads what a sidecar wrote.
#[test]
fn the_reader_in_format_md_reads_what_a_sidecar_writes() {
    if !crate::support::tool("python3") {
        return;
    }
    let program = block("docs/FORMAT.md", "def records(");
    let mut sidecar = Setup::new().start();
    sidecar.append("{\"event\":\"a\u{2028}b\",\"message\":\"\u{7f}\",\"meta\":{\"n\":1.10,\"n\":2}}");
    assert_eq!(sidecar.send(&Request::batch("{\"event\":\"c\"}\n{\"event\":\"d\"}")).status, 200);
    assert!(sidecar.stop().success());
    // A daily file of UCloud's server, a torn tail, and files that are none of ours.
    std::fs::write(sidecar.dir.join("audit-0-2020-01-02.jsonl"), "{\"ts\":1577923200000,\"jobId\":\"1\",\"workspaceId\":\"w\",\"event\":\"old\",\"message\":\"\",\"meta\":null}\n").unwrap();
    let torn = SegmentName::new(1, Timestamp::from_millis(1_769_591_564_381)).to_string();
    std::fs::write(sidecar.dir.join(torn), "{\"ts\":\"2026-01-28T09:12:44.381Z\",\"jobId\":\"5003592\",\"workspaceId\":\"w\",\"event\":\"e\",\"message\":\"\",\"meta\":null}\n{\"ts\":\"20").unwrap();
    std::fs::write(sidecar.dir.join("audit-0.jsonl"), "x\n").unwrap();
    let script = format!(
        "{program}\nimport sys\nfor segment, index, record in records(sys.argv[1]):\n    print(json.dumps([segment[:7], index, record and record['event']]))\n"
    );
    let output = std::process::Command::new("python3").args(["-c", &script]).arg(&sidecar.dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut events: Vec<_> = rows.iter().map(|row| row[2].as_str().unwrap_or("damaged").to_owned()).collect();
    events.sort();
    assert_eq!(events, ["a\u{2028}b", "c", "d", "damaged", "e", "old"]);
}
