//! Texts and numbers of a container's user, everywhere where the hook reads one; and documents that
//! are none.

use serde_json::{Value, json};

use crate::case::Case;
use crate::host::Host;

const ANY: &[i32] = &[0, 65, 66, 71, 77];

/// Where a text is said, as a JSON pointer into the config.
const PLACES: [&str; 13] = [
    "/process/args/0",
    "/process/args/1",
    "/process/cwd",
    "/process/env/0",
    "/root/path",
    "/annotations/oci-systemd-hook.mode",
    "/annotations/oci-systemd-hook.cgroup",
    "/annotations/oci-systemd-hook.machine-id",
    "/annotations/other",
    "/mounts/0/destination",
    "/mounts/0/options/0",
    "/linux/mountLabel",
    "/hostname",
];

fn texts() -> Vec<(&'static str, String)> {
    let texts = [
        ("nothing", ""),
        ("new lines", "a\nb\r\nc\u{85}d\u{2028}e"),
        (
            "colours and a bell",
            "\u{1b}[31m\u{7}\u{1b}]0;title\u{7}\u{9b}31m",
        ),
        ("a turn of direction", "\u{202e}dexif\u{2066}\u{200f}"),
        ("a zero byte", "/sbin\0/init"),
        ("formats", "%s%n%d{}{0}$(id)`id`;id"),
        ("upwards", "../../../../../../../../etc/systemd"),
        ("the host's file", "/etc/machine-id"),
        ("only slashes", "///////"),
        ("what is no character", "\u{ffff}\u{fffe}\u{10ffff}"),
    ];
    let long = [
        ("1 MiB", "a".repeat(1 << 20)),
        ("1 MiB of slashes", "/".repeat(1 << 20)),
        (
            "1 MiB of directories",
            format!("PATH={}", "a:".repeat(1 << 19)),
        ),
        ("1 MiB of colours", "\u{1b}[31m\n".repeat(1 << 17)),
        ("1 MiB of wide characters", "\u{1f4a9}".repeat(1 << 18)),
        (
            "a long way to init",
            format!("{}init", "x/".repeat(1 << 16)),
        ),
    ];
    let texts = texts.map(|(what, text)| (what, text.to_owned()));
    texts.into_iter().chain(long).collect()
}

/// A config that says this at one place, and is one that the hook looks at all the same.
fn saying(place: &str, text: &str) -> Value {
    let mut value = json!(text);
    for name in place.rsplit('/').filter(|name| !name.is_empty()) {
        value = match name {
            "0" => json!([value]),
            "1" => json!(["/sbin/init", value]),
            name => json!({ name: value }),
        };
    }
    if place == "/mounts/0/destination" {
        value["mounts"][0]["options"] = json!(["ro"]);
    }
    value
}

/// Numbers where a process is expected, and none of them is one of a container's.
const NUMBERS: [&str; 16] = [
    "-1",
    "-2",
    "1",
    "2147483647",
    "2147483648",
    "4294967296",
    "4294967297",
    "-2147483649",
    "9223372036854775807",
    "18446744073709551616",
    "1e3",
    "1.5",
    "\"1\"",
    "null",
    "true",
    "[1]",
];

fn limits(judge: &mut dyn FnMut(Case)) {
    let limits = [
        "1",
        "-1",
        "0",
        "4095",
        "9223372036854775807",
        "18446744073709551615",
        "1e300",
        "\"1\"",
    ];
    for limit in limits {
        let mut case = Case::new(format!("a memory limit of {limit}"), &[0]);
        let limit: Value = serde_json::from_str(limit).expect("JSON");
        case.config = json!({ "linux": { "resources": { "memory": { "limit": limit } } } });
        judge(case);
    }
}

/// What a shell makes of config.json.
const CONFIGS: [(&str, &str, &[i32]); 22] = [
    (
        "100 MB",
        "head -c 100000000 /dev/zero | tr '\\0' ' ' >>config.json",
        &[65],
    ),
    (
        "17 MiB of one text",
        "(printf '{\"x\":\"'; head -c 17825792 /dev/zero | tr '\\0' x; printf '\"}') >config.json",
        &[65],
    ),
    ("a hole of 1 TiB", "truncate -s 1T config.json", &[65]),
    (
        "100 000 lists deep",
        "(printf '{\"x\":'; head -c 100000 /dev/zero | tr '\\0' '[') >config.json",
        &[65],
    ),
    (
        "15 MiB deep",
        "(printf '{\"x\":'; yes '{\"x\":[' | head -c 15000000) >config.json",
        &[65],
    ),
    ("nothing", ": >config.json", &[65]),
    ("zero bytes", "head -c 4096 /dev/zero >config.json", &[65]),
    (
        "not UTF-8",
        "printf '{\"process\":{\"args\":[\"/sbin/\\377\\376init\"]}}' >config.json",
        &[65],
    ),
    (
        "a byte order mark",
        "(printf '\\357\\273\\277'; cat config.json) >new; mv new config.json",
        &[65],
    ),
    (
        "half a surrogate",
        "printf '{\"process\":{\"args\":[\"\\\\ud800init\"]}}' >config.json",
        &[65],
    ),
    (
        "a raw escape",
        "printf '{\"x\\033[31m\":1}' >config.json",
        &[65],
    ),
    (
        "two documents",
        "cat config.json config.json >new; mv new config.json",
        &[65],
    ),
    (
        "the first MiB only",
        "(printf '{\"x\":\"'; head -c 1048569 /dev/zero | tr '\\0' x) >config.json",
        &[65],
    ),
    (
        "a number of 1 MiB",
        "(printf '{\"x\":'; head -c 1048576 /dev/zero | tr '\\0' 9; printf '}') >config.json",
        &[0, 65],
    ),
    ("a FIFO", "rm config.json; mkfifo config.json", &[65]),
    ("a directory", "rm config.json; mkdir config.json", &[66]),
    (
        "a link to itself",
        "rm config.json; ln -s config.json config.json",
        &[66],
    ),
    ("a link to /dev/zero", "ln -sf /dev/zero config.json", &[65]),
    (
        "a link to a terminal",
        "ln -sf /dev/tty config.json",
        &[65, 66],
    ),
    ("not there", "rm config.json", &[66]),
    ("the host's secret", "ln -sf /etc/shadow config.json", &[65]),
    (
        "the hook's memory",
        "ln -sf /proc/self/mem config.json",
        &[66],
    ),
];

/// A config as large as it may be, of one thing over and over. What is between the parts is a
/// comma.
const FULL: [(&str, &str, &str, &str); 9] = [
    (
        "read-only mounts",
        "\"mounts\":[",
        "{\"destination\":\"/r\",\"options\":[\"ro\"]}",
        "]",
    ),
    (
        "mounts on nothing",
        "\"mounts\":[",
        "{\"options\":[\"ro\"]}",
        "]",
    ),
    ("empty mounts", "\"mounts\":[", "{}", "]"),
    (
        "arguments",
        "\"process\":{\"args\":[\"/sbin/init\",",
        "\"\"",
        "]}",
    ),
    (
        "variables",
        "\"process\":{\"args\":[\"/sbin/init\"],\"env\":[",
        "\"PATH=/x\"",
        "]}",
    ),
    ("annotations", "\"annotations\":{", "\"a\":\"\"", "}"),
    (
        "our annotation",
        "\"annotations\":{",
        "\"oci-systemd-hook.mode\":\"auto\"",
        "}",
    ),
    ("numbers", "\"x\":[", "1", "]"),
    (
        "capabilities",
        "\"process\":{\"args\":[\"/sbin/init\"],\"capabilities\":{\"bounding\":[",
        "\"CAP_SYS_ADMIN\"",
        "]}}",
    ),
];

fn states(judge: &mut dyn FnMut(Case)) {
    let with = |what: &str, input: Vec<u8>| {
        let mut case = Case::new(format!("a state with {what}"), &[65]);
        case.input = Some(input);
        case
    };
    let nested = |open: &str| format!("{{\"id\":\"box\",\"x\":{}", open.repeat(100_000)).into();
    for case in [
        with("nothing", Vec::new()),
        with("a list", b"[]".to_vec()),
        with("100 000 lists", nested("[")),
        with("100 000 objects", nested("{\"x\":")),
        with(
            "bytes that are no text",
            b"{\"id\":\"\xff\xfe\x80\"}".to_vec(),
        ),
        with(
            "a text of 2 MiB",
            format!("{{\"id\":\"{}\"}}", "x".repeat(2 << 20)).into(),
        ),
        with(
            "2 MiB after it",
            format!("{{\"id\":\"box\"}}{}", " ".repeat(2 << 20)).into(),
        ),
        with("half a name", b"{\"id\":\"bo".to_vec()),
        with(
            "two ids",
            b"{\"id\":\"a\",\"id\":\"b\",\"status\":\"stopped\"}".to_vec(),
        ),
    ] {
        judge(case);
    }
    for number in NUMBERS {
        let mut case = Case::new(format!("the pid {number}"), &[65]);
        case.state = json!({ "pid": serde_json::from_str::<Value>(number).expect("JSON") });
        judge(case);
    }
    for (what, text) in texts() {
        // A place by this id is needed only where the runtime gave none.
        for unshare in [
            "--mount --cgroup --propagation private",
            "--mount --propagation private",
        ] {
            let mut case = Case::new(format!("an id of {what}, {unshare}"), &[0, 65]);
            case.state = json!({ "id": text });
            case.unshare = unshare;
            judge(case);
        }
        for name in ["bundle", "status", "ociVersion"] {
            let mut case = Case::new(format!("the {name} {what}"), &[0, 65, 66]);
            case.state = json!({ name: text });
            judge(case);
        }
    }
    let mut case = Case::new("a state that never ends", &[65]);
    case.caller = "exec </dev/zero".into();
    judge(case);
}

pub(crate) fn cases(_: &Host, judge: &mut dyn FnMut(Case)) {
    states(judge);
    limits(judge);
    for place in PLACES {
        for (what, text) in texts() {
            let mut case = Case::new(format!("{place} says {what}"), ANY);
            case.config = saying(place, &text);
            judge(case);
        }
    }
    for (what, text) in texts() {
        let mut case = Case::new(format!("container_uuid says {what}"), &[0]);
        case.config = json!({ "process": { "env": [format!("container_uuid={text}")] } });
        judge(case);
    }
    for (what, shell, statuses) in CONFIGS {
        let mut case = Case::new(format!("config.json is {what}"), statuses);
        case.bundle = shell.into();
        judge(case);
    }
    for (what, begin, part, end) in FULL {
        let mut case = Case::new(format!("15 MiB of {what}"), ANY);
        // The last part is there twice, and has no comma behind it.
        let count = (15 << 20) / (part.len() + 1);
        case.bundle = format!(
            "(printf '%s' '{{\"root\":{{\"path\":\"rootfs\"}},{begin}'; yes '{part},' | head -n {count} | tr -d '\\n'; \
             printf '%s' '{part}{end}}}') >config.json"
        );
        if !begin.contains("process") {
            case.bundle = case.bundle.replace(
                "\"rootfs\"}",
                "\"rootfs\"},\"process\":{\"args\":[\"/sbin/init\"]}",
            );
        }
        judge(case);
    }
}
