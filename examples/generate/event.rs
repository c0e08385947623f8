//! Events as a compute platform has them: who did what to which object, and what a job reports of itself.

use std::fmt::Write as _;

use crate::random::Random;

/// The raw JSON values of a line's members, but for `ts`.
pub(crate) struct Parts {
    pub(crate) job: String,
    pub(crate) workspace: String,
    pub(crate) event: String,
    pub(crate) message: String,
    pub(crate) meta: String,
}

/// Who may do something: the few are seen often, as in life.
pub(crate) const USERS: &[(&str, u32)] = &[
    ("alice.hansen", 1001),
    ("bob", 1002),
    ("Zoë Ångström", 1003),
    ("李小龙", 1004),
    ("José Núñez", 1005),
    ("system", 0),
    ("mørk \\ \"lys\"", 1007),
    ("ALICE.HANSEN", 1008),
    ("crab 🦀", 1009),
    ("o'brien, p.", 1010),
];

/// Operations by category.
const CATALOGUE: &[(&str, &[&str])] = &[
    (
        "cluster",
        &[
            "CREATE_CLUSTER",
            "RELEASE_CLUSTER",
            "DELETE_CLUSTER",
            "CREATE_PARTITION",
            "EDIT_PARTITION",
            "RELEASE_PARTITION",
            "ADD_NODES",
            "EDIT_NODE",
            "RELEASE_NODE",
            "CREATE_CLUSTER_WEBSSH_SESSION",
            "DISCONNECT_CLUSTER_WEBSSH_SESSION",
            "CREATE_CLUSTER_WEBVNC_SESSION",
            "DISCONNECT_CLUSTER_WEBVNC_SESSION",
            "CONVERT_GLOBAL_MOUNT",
            "CREATE_GLOBAL_MOUNT",
            "UNBIND_GLOBAL_MOUNT",
            "CREATE_PARTITION_MOUNT",
            "UNBIND_PARTITION_MOUNT",
        ],
    ),
    (
        "desktop",
        &[
            "CREATE_DESKTOP",
            "RELEASE_DESKTOP",
            "DELETE_DESKTOP",
            "CREATE_DESKTOP_WEBRDP_SESSION",
            "DISCONNECT_DESKTOP_WEBRDP_SESSION",
        ],
    ),
    (
        "user",
        &[
            "CREATE_USER",
            "EDIT_USER",
            "ADD_USER_TO_GROUP",
            "REMOVE_USER_FROM_GROUP",
            "ADD_USER_PERMISSION",
            "DELETE_USER_PERMISSION",
            "DELETE_USER",
            "CREATE_GROUP",
            "EDIT_GROUP",
            "ADD_GROUP_MEMBER",
            "USER_LOGIN",
            "CHANGE_PASSWORD",
            "EDIT_ACCOUNT",
        ],
    ),
    (
        "data",
        &[
            "DOWNLOAD_FOLDER",
            "CREATE_FOLDER",
            "COPY_FILE",
            "DELETE_FILE",
            "UPLOAD_FILE",
            "DOWNLOAD_FILE",
            "MOVE_FILE",
            "DATA_EXPORT",
        ],
    ),
    ("approval", &["INITIATE_APPROVAL", "APPROVE", "REJECT", "EDIT_APPROVAL_FLOW", "DELETE_EXPIRED_DATA"]),
    ("billing", &["EXPORT_LICENSE_USAGE", "DOWNLOAD_RESOURCE_USAGE", "IMPORT_LICENSE"]),
    ("process", &["PROCESS_START", "PROCESS_EXIT", "søgning.færdig", "模型训练"]),
];

const FOLDERS: &[&str] = &["results", "raw", "models/v2", "tmp", "Fælles mappe", "数据"];
const FILES: &[&str] = &["output.csv", "weights.safetensors", "run 1.log", "a.b.c", "résumé.pdf", "🦀.rs"];
/// Numbers of every kind, big ones that no floating-point type holds among them.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-0.0",
    "1",
    "1.0",
    "1.50",
    "-17",
    "0.1",
    "0.10000000000000001",
    "1e3",
    "1E+3",
    "1000",
    "2.5e-7",
    "1e400",
    "9007199254740992",
    "9007199254740993",
    "18446744073709551615",
    "123456789012345678901234567890",
    "-1e-400",
];

/// Writes a JSON string as the format spells it, where `value` has none of the characters that it writes as `\u`.
pub(crate) fn string(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            _ => out.push(c),
        }
    }
    out.push('"');
}

pub(crate) fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    string(&mut out, value);
    out
}

impl Parts {
    /// Makes an event of the job; what it says is chance, and its spelling canonical.
    pub(crate) fn any(random: &mut Random, job: &str, workspace: &str) -> Self {
        let (category, operations) = random.pick(CATALOGUE);
        let event = random.pick(operations);
        let user = USERS[usize::try_from(random.below(10) * random.below(10) / 10).expect("below 9")];
        let mut meta = String::with_capacity(256);
        let message = match random.below(256) {
            0..4 => {
                meta.push_str("null");
                String::new()
            }
            4 => {
                string(&mut meta, "only a text");
                "meta is a string".to_owned()
            }
            5 => {
                meta.push_str(random.pick(NUMBERS));
                "meta is a number".to_owned()
            }
            6 => {
                meta.push_str(r#"[{"user":{"name":"in an array"}},[],true]"#);
                "meta is an array".to_owned()
            }
            _ => write_meta(random, &mut meta, category, event, user),
        };
        Self { job: quoted(job), workspace: quoted(workspace), event: quoted(event), message: quoted(&message), meta }
    }

    /// The members in their order.
    pub(crate) fn members(&self, ts: &str) -> [(&'static str, String); 6] {
        [
            ("ts", ts.to_owned()),
            ("jobId", self.job.clone()),
            ("workspaceId", self.workspace.clone()),
            ("event", self.event.clone()),
            ("message", self.message.clone()),
            ("meta", self.meta.clone()),
        ]
    }

    /// The line without its newline; `ts` is raw JSON.
    pub(crate) fn write(&self, ts: &str, out: &mut String) {
        let Self { job, workspace, event, message, meta } = self;
        for piece in [
            "{\"ts\":",
            ts,
            ",\"jobId\":",
            job,
            ",\"workspaceId\":",
            workspace,
            ",\"event\":",
            event,
            ",\"message\":",
            message,
            ",\"meta\":",
            meta,
            "}",
        ] {
            out.push_str(piece);
        }
    }
}

/// Writes what a platform tells of an operation, and returns the message.
fn write_meta(random: &mut Random, meta: &mut String, category: &str, event: &str, (name, id): (&str, u32)) -> String {
    const INFALLIBLE: &str = "a String takes everything";
    meta.push_str("{\"user\":{\"name\":");
    string(meta, name);
    let address = random.next();
    let [a, b, ..] = address.to_le_bytes();
    write!(meta, ",\"id\":{id}}},\"source\":{{\"ip\":\"10.{}.{a}.{b}\"}}", a % 4).expect(INFALLIBLE);
    write!(meta, ",\"category\":\"{category}\"").expect(INFALLIBLE);
    let object = address >> 40;
    let message = match category {
        "data" => {
            let folder = random.pick(FOLDERS);
            meta.push_str(",\"files\":[");
            let files = 1 + random.below(3);
            let mut last = "";
            for number in 0..files {
                last = random.pick(FILES);
                if number > 0 {
                    meta.push(',');
                }
                string(meta, &format!("/work/{folder}/{last}"));
            }
            write!(meta, "],\"bytes\":{},\"rows\":{}", object * 37, random.below(20_000)).expect(INFALLIBLE);
            format!("{files} of /work/{folder}, {last} the last")
        }
        "cluster" | "desktop" => {
            let nodes = 1 + random.below(64);
            write!(
                meta,
                ",\"object\":{{\"id\":\"{object:06x}\",\"name\":\"{category}-{}\"}},\"request\":{{\"nodes\":{nodes},\"gpu\":{},\"labels\":{{\"app.kubernetes.io/name\":\"{category}\"}}}}",
                object % 40,
                random.once_in(3)
            )
            .expect(INFALLIBLE);
            format!("{category}-{} has {nodes} nodes", object % 40)
        }
        "billing" => {
            let cost = random.below(100_000);
            write!(meta, ",\"cost\":{}.{:02},\"currency\":\"DKK\"", cost / 100, cost % 100).expect(INFALLIBLE);
            format!("Usage of {} months", 1 + object % 12)
        }
        "process" => {
            let status = if random.once_in(4) { 1 + random.below(254) } else { 0 };
            write!(meta, ",\"status\":{status},\"seconds\":{}.{},\"measure\":", object % 9_000, object % 10)
                .expect(INFALLIBLE);
            meta.push_str(random.pick(NUMBERS));
            format!("Ended with {status}\nafter a \"while\"")
        }
        _ => {
            write!(meta, ",\"target\":{{\"id\":\"{}\",\"type\":\"{category}\"}}", object % 500).expect(INFALLIBLE);
            if random.once_in(3) {
                String::new()
            } else {
                format!("{} by {name}", event.to_lowercase().replace('_', " "))
            }
        }
    };
    let failed = random.once_in(8);
    write!(meta, ",\"success\":{},\"error\":", !failed).expect(INFALLIBLE);
    match failed {
        true if random.once_in(2) => string(meta, "permission denied\tby policy"),
        true => meta.push_str("{\"code\":403}"),
        false => meta.push_str("null"),
    }
    if random.once_in(16) {
        let trace = random.next();
        write!(meta, ",\"trace.id\":\"{trace:016x}\",\"count\":\"{}\"", trace % 100).expect(INFALLIBLE);
    }
    meta.push('}');
    message
}
