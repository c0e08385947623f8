//! The file of tokens: who may read what.
//!
//! ```yaml
//! - name: ada                          # for the log
//!   sha256: 9f86d081884c7d65…          # of the token, in hexadecimal digits
//!   scope: all                         # or {workspaces: [651b3f72, …]}
//!   expires: 2027-01-01T00:00:00Z      # may be left out
//! ```
//!
//! Whatever is not understood is a fault: a limit that is silently ignored would open what it should close.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info};

use super::file::{FileError, bytes};
use super::reload::Settling;
use crate::api::tokens::{Digest, Token, Tokens};
use crate::reader::filter::Scope;
use crate::reader::when::{self, Zone};
use crate::record::{Identity, Timestamp};
use crate::yaml::{Document, Fault, Node, Place, Written};

/// How often the file is read.
const READ_EVERY: Duration = Duration::from_millis(500);

/// Reads tokens from a file's text.
///
/// # Errors
/// The first fault, with its place.
pub fn parse(file: &Path, text: &[u8]) -> Result<Tokens, FileError> {
    let text = std::str::from_utf8(text).map_err(|_| FileError::whole(file, "not UTF-8"))?;
    let reader = Reader { file, document: &Document::parse(text).map_err(|fault| FileError::new(file, None, fault))? };
    let Some(root) = reader.document.root.filter(|root| !reader.document.is_null(*root)) else {
        return Ok(Tokens::default());
    };
    let Written::Sequence(entries) = reader.document.written(root) else {
        return Err(reader.fault(root.place, "", "must be a list of tokens"));
    };
    let mut tokens: Vec<Token> = Vec::new();
    for entry in entries {
        let token = reader.token(*entry)?;
        for other in &tokens {
            if other.name == token.name {
                return Err(reader.fault(entry.place, "name", "another token has this name"));
            }
            if other.digest == token.digest {
                return Err(reader.fault(entry.place, "sha256", format!("it is the token of `{}`", other.name)));
            }
        }
        tokens.push(token);
    }
    Ok(Tokens(tokens))
}

/// Reads a file of tokens.
///
/// # Errors
/// It can't be read, or [`parse`] finds a fault.
pub fn read(file: &Path) -> Result<Tokens, FileError> {
    parse(file, &bytes(file)?)
}

/// What `name` in a token is: for the log, and for whoever looks for it in the file.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    Identity::check_id(name).map_err(|error| error.to_string())
}

struct Reader<'r> {
    file: &'r Path,
    document: &'r Document<'r>,
}

impl Reader<'_> {
    fn fault(&self, place: Place, key: &str, reason: impl Into<String>) -> FileError {
        let key = Some(key).filter(|key| !key.is_empty());
        FileError::new(self.file, key, Fault { place, reason: reason.into() })
    }

    fn entries(&self, node: Node, key: &str) -> Result<Vec<(Node, Node)>, FileError> {
        self.document.entries(node).map_err(|fault| self.fault(fault.place, key, fault.reason))
    }

    fn token(&self, node: Node) -> Result<Token, FileError> {
        let (mut name, mut digest, mut scope, mut expires) = (None, None, None, None);
        for (key, value) in self.entries(node, "")? {
            let fault = |reason: &str| self.fault(value.place, self.document.text(key), reason);
            let is_new = match self.document.text(key) {
                "name" => {
                    let text = self.text(value).ok_or_else(|| fault("must be a text"))?;
                    check_name(text).map_err(|reason| fault(&reason))?;
                    name.replace(text.to_owned()).is_none()
                }
                "sha256" => {
                    let parsed = self.text(value).and_then(Digest::parse);
                    digest.replace(parsed.ok_or_else(|| fault("must be 64 hexadecimal digits"))?).is_none()
                }
                "scope" => scope.replace(self.scope(value)?).is_none(),
                "expires" => {
                    let expected = "must be a time of RFC 3339, such as 2027-01-01T00:00:00Z";
                    let text =
                        self.text(value).filter(|text| text.contains(['T', 't'])).ok_or_else(|| fault(expected))?;
                    let at = when::parse(text, &Zone::UTC, Timestamp::from_millis(0)).map_err(|_| fault(expected))?;
                    expires.replace(at).is_none()
                }
                unknown => {
                    let reason = "unknown key; there are name, sha256, scope and expires";
                    return Err(self.fault(key.place, unknown, reason));
                }
            };
            if !is_new {
                return Err(self.fault(key.place, self.document.text(key), "given twice"));
            }
        }
        let missing = |key| self.fault(node.place, key, "it must be given");
        Ok(Token {
            name: name.ok_or_else(|| missing("name"))?,
            digest: digest.ok_or_else(|| missing("sha256"))?,
            scope: scope.ok_or_else(|| missing("scope"))?,
            expires,
        })
    }

    fn scope(&self, node: Node) -> Result<Scope, FileError> {
        let expected = || self.fault(node.place, "scope", "must be `all`, or `workspaces: [ID, …]`");
        if let Some(text) = self.text(node) {
            return if text == "all" { Ok(Scope::All) } else { Err(expected()) };
        }
        let entries = self.entries(node, "scope")?;
        let [(key, list)] = entries[..] else { return Err(expected()) };
        let Written::Sequence(ids) = self.document.written(list) else { return Err(expected()) };
        if self.document.text(key) != "workspaces" {
            return Err(expected());
        }
        let id = |node: &Node| {
            let fault = |reason: String| self.fault(node.place, "scope.workspaces", reason);
            let text = self.text(*node).ok_or_else(|| fault("must be a text".to_owned()))?;
            Identity::check_id(text).map_err(|error| fault(error.to_string()))?;
            Ok(text.to_owned())
        };
        let ids: Vec<String> = ids.iter().map(id).collect::<Result<_, _>>()?;
        if ids.is_empty() {
            return Err(self.fault(list.place, "scope.workspaces", "names no workspace"));
        }
        Ok(Scope::Workspaces(ids))
    }

    /// A scalar that is no null.
    fn text(&self, node: Node) -> Option<&str> {
        match self.document.written(node) {
            Written::Scalar { value, .. } if !self.document.is_null(node) => Some(value),
            _ => None,
        }
    }
}

/// Watches a file of tokens.
#[derive(Debug)]
pub struct Watch {
    file: PathBuf,
    content: Settling<Result<Vec<u8>, FileError>>,
    publish: watch::Sender<Arc<Tokens>>,
}

impl Watch {
    /// Reads the file for the first time, and makes a watcher of it.
    ///
    /// # Errors
    /// Those of [`read`].
    pub fn new(file: &Path) -> Result<(Self, watch::Receiver<Arc<Tokens>>), FileError> {
        let content = bytes(file)?;
        let (publish, tokens) = watch::channel(Arc::new(parse(file, &content)?));
        Ok((Self { file: file.to_owned(), content: Settling::of(Ok(content)), publish }, tokens))
    }

    /// Watches for ever. A bad file changes nothing.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(READ_EVERY).await;
            let file = self.file.clone();
            if let Ok(read) = tokio::task::spawn_blocking(move || bytes(&file)).await {
                self.consider(read);
            }
        }
    }

    fn consider(&mut self, content: Result<Vec<u8>, FileError>) {
        let Some(content) = self.content.consider(content, false) else { return };
        match content.as_ref().map_err(Clone::clone).and_then(|bytes| parse(&self.file, bytes)) {
            Ok(tokens) => {
                info!(tokens = tokens.0.len(), "tokens read");
                self.publish.send_replace(Arc::new(tokens));
            }
            Err(error) => error!(%error, "bad file of tokens: those before stay in force"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn read(text: &str) -> Result<Vec<Token>, String> {
        let text = text.replace("HEX", HEX);
        parse(Path::new("t.yaml"), text.as_bytes()).map(|tokens| tokens.0).map_err(|error| error.to_string())
    }

    #[test]
    fn tokens_are_read_as_they_are_documented() {
        for none in ["", "# none yet\n", "[]", "null"] {
            assert_eq!(read(none), Ok(vec![]), "{none}");
        }
        let text = "\
- name: ada
  sha256: HEX # of test
  scope: all
- {name: \"eu auditors\", sha256: HEX0, scope: {workspaces: [w-1, \"2\"]}, expires: 2027-01-01T00:00:00+01:00}
";
        let other = HEX.replace('9', "8");
        let tokens = read(&text.replace("HEX0", &other)).unwrap();
        let workspaces = Scope::Workspaces(vec!["w-1".to_owned(), "2".to_owned()]);
        assert_eq!(
            tokens,
            [
                Token { name: "ada".to_owned(), digest: Digest::of(b"test"), scope: Scope::All, expires: None },
                Token {
                    name: "eu auditors".to_owned(),
                    digest: Digest::parse(&other).unwrap(),
                    scope: workspaces,
                    expires: Some(Timestamp::parse_rfc3339("2026-12-31T23:00:00Z").unwrap()),
                },
            ]
        );
    }

    #[test]
    fn a_bad_file_is_told_with_its_place_and_key() {
        for (text, expected) in [
            ("a: b", "t.yaml:1:1: must be a list of tokens"),
            ("- a", "t.yaml:1:3: must be a mapping"),
            ("- name: [a]", "t.yaml:1:9: name: must be a text"),
            ("- name: ''", "t.yaml:1:9: name: is empty"),
            ("- name: a", "t.yaml:1:3: sha256: it must be given"),
            ("- sha256: HEX\n  scope: all", "t.yaml:1:3: name: it must be given"),
            ("- {name: a, sha256: HEX}", "t.yaml:1:3: scope: it must be given"),
            ("- sha256: abc", "t.yaml:1:11: sha256: must be 64 hexadecimal digits"),
            ("- name: a\n  name: b", "t.yaml:2:3: name: given twice"),
            ("- name: a\n  scopes: all", "t.yaml:2:3: scopes: unknown key; there are name, sha256, scope and expires"),
            ("- scope: al", "t.yaml:1:10: scope: must be `all`, or `workspaces: [ID, …]`"),
            ("- scope: {workspaces: w}", "t.yaml:1:10: scope: must be `all`, or `workspaces: [ID, …]`"),
            ("- scope: {workspace: [w]}", "t.yaml:1:10: scope: must be `all`, or `workspaces: [ID, …]`"),
            ("- scope: {workspaces: [w], all: true}", "t.yaml:1:10: scope: must be `all`, or `workspaces: [ID, …]`"),
            ("- scope: {workspaces: []}", "t.yaml:1:23: scope.workspaces: names no workspace"),
            ("- scope: {workspaces: [[]]}", "t.yaml:1:24: scope.workspaces: must be a text"),
            ("- expires: 7d", "t.yaml:1:12: expires: must be a time of RFC 3339, such as 2027-01-01T00:00:00Z"),
            (
                "- {name: a, sha256: HEX, scope: all}\n- {name: a, sha256: HEX, scope: all}",
                "t.yaml:2:3: name: another token has this name",
            ),
            (
                "- {name: a, sha256: HEX, scope: all}\n- {name: b, sha256: HEX, scope: all}",
                "t.yaml:2:3: sha256: it is the token of `a`",
            ),
        ] {
            assert_eq!(read(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_bad_file_changes_nothing_and_a_good_one_does_once_it_stands_still() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let (mut watch, tokens) = Watch::new(temp.path()).unwrap();
        let count = || tokens.borrow().0.len();
        let good = format!("- {{name: a, sha256: {HEX}, scope: all}}").into_bytes();
        for (content, expected) in
            [(&good[..], 0), (&good, 1), (b"[", 1), (b"[", 1), (b"[]", 1), (&good, 1), (b"[]", 1), (b"[]", 0)]
        {
            watch.consider(Ok(content.to_vec()));
            assert_eq!(count(), expected, "{}", String::from_utf8_lossy(content));
        }
    }
}
