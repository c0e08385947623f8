//! Shell completions and manual pages: made from the command line itself, so that they know every command and flag.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{BINARY, binary, tool};

/// Every command that is no secret, with its flags.
fn commands() -> Vec<(String, Vec<String>)> {
    let mut cli = audit_log::cli::command();
    cli.build();
    let shown = cli.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help");
    shown
        .map(|command| {
            let flags = command.get_arguments().filter_map(|flag| flag.get_long()).map(str::to_owned).collect();
            (command.get_name().to_owned(), flags)
        })
        .collect()
}

fn completions(shell: &str) -> String {
    let output = binary().args(["completions", shell]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn completions_know_every_command_and_flag() {
    let commands = commands();
    assert!(
        commands.iter().any(|(name, flags)| name == "query" && flags.contains(&"where".to_owned())),
        "{commands:?}"
    );
    for shell in ["bash", "zsh", "fish"] {
        let script = completions(shell);
        for (name, flags) in &commands {
            assert!(script.contains(name.as_str()), "{shell}: {name}");
            let missing: Vec<_> = flags.iter().filter(|flag| !script.contains(flag.as_str())).collect();
            assert!(missing.is_empty(), "{shell}: {name}: {missing:?}");
        }
    }
    let output = binary().args(["completions", "tcsh"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "audit-log: SHELL: must be `bash`, `zsh` or `fish`\n");
}

/// As bash itself asks: the words so far, and which of them is being written.
#[test]
fn bash_completes_commands_and_flags() {
    if !tool("bash") {
        return;
    }
    let ask = "\
        source <(\"$1\" completions bash) && made=$(complete -p audit-log) && [[ $made =~ -F\\ ([^ ]+) ]]
        COMP_WORDS=(\"${@:2}\") COMP_CWORD=$(($# - 2))
        \"${BASH_REMATCH[1]}\" audit-log \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"
        echo \"${COMPREPLY[@]}\"";
    for (words, expected) in [(&["audit-log", "hist"][..], "histogram"), (&["audit-log", "export", "--o"], "--out")] {
        let output = Command::new("bash").args(["-c", ask, "bash", BINARY]).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), expected, "{words:?}");
    }
}

#[test]
fn the_manual_has_a_page_for_every_command_with_every_flag() {
    let temp = tempfile::tempdir().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--locked", "--example", "manual", "--"]).arg(temp.path());
    assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    for (name, flags) in commands() {
        let page = fs::read_to_string(temp.path().join(format!("audit-log-{name}.1"))).unwrap();
        // What stands for a hyphen there is escaped.
        let page = page.replace("\\-", "-");
        let missing: Vec<_> = flags.iter().filter(|flag| !page.contains(&format!("--{flag}"))).collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
    }
    assert!(temp.path().join("audit-log.1").is_file());
    is_rendered(temp.path());
}

/// `man` shows each page, and groff has nothing to say against it.
fn is_rendered(dir: &Path) {
    if !tool("man") {
        return;
    }
    for page in fs::read_dir(dir).unwrap() {
        let path = page.unwrap().path();
        let output = Command::new("man").args(["--warnings", "-l"]).arg(&path).env("MANWIDTH", "80").output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.is_empty(), "{}: {told}", path.display());
        assert!(String::from_utf8_lossy(&output.stdout).contains("NAME"), "{}", path.display());
    }
}

/// What is copied from an example must not be refused.
#[test]
fn every_command_of_readers_shows_examples_that_can_be_run() {
    let temp = tempfile::tempdir().unwrap();
    let line = r#"{"ts":"2026-01-28T09:12:44.381Z","jobId":"1","workspaceId":"w","event":"E","message":"","meta":{"user":{"name":"ada"}}}"#;
    fs::write(temp.path().join("audit-0_20260128T000000.000Z.jsonl"), format!("{line}\n")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    for name in ["query", "tail", "export", "facets", "histogram"] {
        let help = binary().args([name, "--help"]).output().unwrap().stdout;
        let help = String::from_utf8(help).unwrap();
        let (_, examples) = help.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{name}: {help}"));
        let examples: Vec<_> = examples.lines().map(str::trim).collect();
        assert!(examples.len() >= 2, "{name}: {examples:?}");
        // What is followed has no end.
        for example in examples.into_iter().filter(|example| !example.contains(" -f ")) {
            assert!(example.starts_with(&format!("audit-log {name} ")), "{example}");
            let command = example.replacen(&format!("audit-log {name} "), &format!("\"$1\" {name} --dir \"$2\" "), 1);
            let script = format!("set -e -o pipefail\n{command}");
            let mut bash = Command::new("bash");
            bash.args(["-c", &script, "bash", BINARY]).arg(temp.path()).current_dir(elsewhere.path());
            let output = bash.output().unwrap();
            assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
