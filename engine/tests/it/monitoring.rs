//! What an SRE sees: latencies by series and stage, slow requests, metrics in the form that is asked for, logs. Judged by
//! promtool, by a real Prometheus and by the Python implementation of HdrHistogram.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use protocol::client::{Client, Profile, Transport};
use protocol::stages::Stage;
use serde_json::Value;

use crate::devices_support::{Site, json, order, sign};
use crate::strangers::{python, workspace};
use crate::support::{BOTH, Engine, Setup, block_on, key, request, run, sign_one, wait_until};

const SIGNED: &str =
    "operation=\"sign\",transport=\"TRANSPORT\",algorithm=\"ecdsa-p256-sha256\",outcome=\"ok\"";

fn signed_by(transport: Transport) -> String {
    SIGNED.replace("TRANSPORT", name(transport))
}

fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Quic => "quic",
        Transport::Https => "https",
    }
}

/// A number from /metrics; 0 while there is no such sample.
fn metric(engine: &Engine, sample: &str) -> f64 {
    let (_, text) = engine.admin_get("/metrics");
    let line = text.lines().find(|line| line.starts_with(&format!("{sample} ")));
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

fn duration(engine: &Engine, part: &str, labels: &str) -> f64 {
    metric(
        engine,
        &format!("cinnabar_request_duration_seconds_{part}{{{labels}}}"),
    )
}

/// Ten signatures over each transport, a look-up, and a request that is refused.
fn ask_some(engine: &Engine) {
    block_on(async {
        for transport in BOTH {
            let client = engine.client(transport).await;
            for number in 0..10 {
                let wanted = request(&format!("{transport:?}-{number}"), "x");
                sign_one(&client, &wanted).await.unwrap();
            }
            let mut wrong = request(&format!("{transport:?}-wrong"), "x");
            wrong.credential = "nobody".into();
            client.sign(&wrong).await.unwrap_err();
            client.look_up(&key(&format!("{transport:?}-0"))).await.unwrap();
        }
    });
    wait_until("all of it is collected", || {
        BOTH.iter().all(|transport| {
            let transport = name(*transport);
            let lookup =
                format!("operation=\"lookup\",transport=\"{transport}\",algorithm=\"none\",outcome=\"ok\"");
            duration(engine, "count", &lookup) > 0.5
        })
    });
}

#[test]
fn where_the_time_of_requests_goes_is_told_by_series_and_by_stage() {
    let engine = Engine::start();
    ask_some(&engine);
    let mut signing_seconds = 0.0;
    for transport in BOTH {
        assert_eq!(duration(&engine, "count", &signed_by(transport)), 10.0);
        signing_seconds += duration(&engine, "sum", &signed_by(transport));
        let transport = name(transport);
        let refused =
            format!("operation=\"sign\",transport=\"{transport}\",algorithm=\"none\",outcome=\"caller\"");
        assert_eq!(duration(&engine, "count", &refused), 1.0);
    }
    let mut stage_seconds = 0.0;
    for stage in Stage::ALL {
        let of = |part: &str| {
            format!(
                "cinnabar_stage_duration_seconds_{part}{{stage=\"{}\"}}",
                stage.name()
            )
        };
        assert_eq!(metric(&engine, &of("count")), 20.0, "{}", stage.name());
        stage_seconds += metric(&engine, &of("sum"));
    }
    assert!(
        (stage_seconds - signing_seconds).abs() < 1e-6,
        "{stage_seconds} and {signing_seconds}"
    );
    assert!(metric(&engine, "cinnabar_request_duration_max_seconds") > 0.0);

    let told = json(&engine, "latency stages --json");
    assert_eq!(told["since_start"]["stages"]["all"]["commit"]["count"], 20);
    assert_eq!(
        told["since_start"]["stages"]["ecdsa-p256-sha256"]["commit"]["count"],
        20
    );
    let table = engine.cli(&["latency", "stages"]).ok();
    for words in ["COUNT", "sign quic ecdsa-p256-sha256 ok", "all: queue"] {
        assert!(table.contains(words), "{table}");
    }
    let folder = engine.stop();
    crate::support::run_in(folder.path(), &["latency", "slow"]).refused(2, "usage");
}

#[test]
fn a_slow_request_is_kept_with_the_time_it_spent_in_each_stage() {
    let engine = Site::new().faulty("hsm-1").start();
    engine
        .cli(
            &"key create --tenant demo --kind p256 --device hsm-1 seal"
                .split(' ')
                .collect::<Vec<_>>(),
        )
        .ok();
    order(engine.folder.as_ref().unwrap().path(), "hsm-1", "slow 150");
    sign(&engine, "seal", "--idempotency-key slow-one").ok();
    let mut slow = Value::Null;
    wait_until("the slow request is shown", || {
        slow = json(&engine, "latency slow --json");
        slow.as_array().is_some_and(|all| !all.is_empty())
    });
    let one = &slow[0];
    assert_eq!(
        (&one["app"], &one["algorithm"], &one["ending"]),
        (
            &Value::from("demo-app"),
            &Value::from("ecdsa-p256-sha256"),
            &Value::from("ok")
        ),
    );
    let stages: u64 = Stage::ALL
        .iter()
        .map(|stage| one["stages_us"][stage.name()].as_u64().unwrap())
        .sum();
    let (sign, total) = (
        one["stages_us"]["sign"].as_u64().unwrap(),
        one["total_us"].as_u64().unwrap(),
    );
    assert!(sign >= 150_000 && total >= sign, "{one}");
    // Each is rounded to microseconds, and is one at least.
    assert!(stages.abs_diff(total) <= 12, "{one}");
    assert!(!slow.to_string().contains("slow-one"), "{slow}");
    let table = engine.cli(&["latency", "slow"]).ok();
    assert!(table.lines().next().unwrap().contains("TOTAL MS"), "{table}");
}

#[test]
fn a_stranger_reads_the_latency_log() {
    let engine = Engine::start();
    ask_some(&engine);
    let folder = engine.stop();
    let logs = std::fs::read_dir(folder.path().join("var/latency")).unwrap();
    let logs: Vec<PathBuf> = logs.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(logs.len(), 1);
    let script = workspace().join("engine/tests/strangers/read_latency.py");
    let read = run(Command::new(python())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .arg(&logs[0]))
    .ok();
    let read: Value = serde_json::from_str(&read).unwrap();
    // Two of each ten are a look-up and a refusal.
    assert_eq!(read["tags"]["all"]["count"], 24, "{read}");
    for tag in [
        "sign.quic.ecdsa-p256-sha256.ok",
        "sign.https.ecdsa-p256-sha256.ok",
    ] {
        assert_eq!(read["tags"][tag]["count"], 10, "{read}");
    }
    assert_eq!(read["tags"]["sign.quic.none.caller"]["count"], 1, "{read}");
    for stage in Stage::ALL {
        assert_eq!(
            read["tags"][format!("stage.{}", stage.name())]["count"],
            20,
            "{read}"
        );
    }
    // Midnight in Shanghai is four in the afternoon of UTC.
    assert_eq!(read["base_time"].as_f64().unwrap() % 86_400.0, 57_600.0, "{read}");
}

/// A GET of /metrics: its media type, and its body.
fn scrape(engine: &Engine, accept: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(engine.admin).unwrap();
    write!(
        stream,
        "GET /metrics HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"
    )
    .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let kind = head
        .lines()
        .find_map(|line| line.strip_prefix("content-type: "))
        .unwrap();
    (kind.to_owned(), bytes[end + 4..].to_vec())
}

fn promtool(arguments: &[&str]) -> Command {
    let mut command = Command::new("promtool");
    command
        .current_dir(workspace().join("deploy/prometheus"))
        .args(arguments);
    command
}

#[test]
fn metrics_are_given_in_the_form_that_is_asked_for() {
    let engine = Engine::start();
    ask_some(&engine);
    let (kind, open) = scrape(&engine, "application/openmetrics-text");
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    assert!(open.ends_with(b"# EOF\n"));
    let (kind, older) = scrape(&engine, "text/plain;version=0.0.4");
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let text = String::from_utf8(older).unwrap();
    for bound in ["0.1", "3.0"] {
        let sample = format!(
            "cinnabar_request_duration_seconds_bucket{{le=\"{bound}\",{}}} 10",
            signed_by(Transport::Quic)
        );
        let turned = format!("{{{},le=\"{bound}\"}} 10", signed_by(Transport::Quic));
        assert!(text.contains(&sample) || text.contains(&turned), "{text}");
    }
    let mut check = promtool(&["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

/// A Prometheus of the test's own, which asks for native histograms and evaluates our rules; killed when dropped.
struct Prometheus {
    process: Child,
    port: u16,
}

impl Prometheus {
    fn start(engine: &Engine, folder: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let rules = workspace().join("deploy/prometheus/rules.yml");
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{}]\nscrape_configs:\n- job_name: cinnabar\n  static_configs: [{{ targets: [\"{}\"] }}]\n",
            rules.display(),
            engine.admin
        );
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--enable-feature=native-histograms")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, port }
    }

    /// What its API answers; null while it does not.
    fn get(&self, path: &str) -> Value {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = ask().unwrap_or_default();
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or_default()
    }

    /// The value of an expression, if it has one.
    fn value(&self, expression: &str) -> Option<f64> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}"));
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_real_prometheus_reads_native_histograms_and_evaluates_the_rules() {
    let engine = Engine::start();
    ask_some(&engine);
    let folder = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(&engine, folder.path());
    let count = "histogram_count(sum(cinnabar_request_duration_seconds{operation=\"sign\",outcome=\"ok\"}))";
    wait_until("the native histograms are there", || {
        prometheus.value(count) == Some(20.0)
    });
    let median = "histogram_quantile(0.5, cinnabar_request_duration_seconds{operation=\"sign\",transport=\"quic\",outcome=\"ok\"})";
    let median = prometheus.value(median).unwrap();
    assert!(median > 1e-6 && median < 3.0, "{median}");
    wait_until("every rule has been evaluated", || {
        let rules = prometheus.get("/api/v1/rules");
        let groups = rules["data"]["groups"].as_array();
        let all = groups.into_iter().flatten();
        let mut states = all
            .flat_map(|group| group["rules"].as_array().unwrap().clone())
            .peekable();
        states.peek().is_some() && states.all(|rule| rule["health"] == "ok")
    });
}

#[test]
fn the_rules_pass_their_tests() {
    run(&mut promtool(&["check", "rules", "rules.yml"])).ok();
    run(&mut promtool(&["check", "config", "prometheus.yml"])).ok();
    run(&mut promtool(&["test", "rules", "rules.test.yml"])).ok();
}

fn deployed(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap()
}

/// Names of ours in an expression, but for those that the rules record themselves.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_name(c));
    let ours = |word: &&str| word.starts_with("cinnabar_") || word.starts_with("process_");
    words.filter(ours).map(str::to_owned).collect()
}

/// Sample names of every family, whether it has samples now or not.
fn served(engine: &Engine) -> BTreeSet<String> {
    let (_, text) = engine.admin_get("/metrics");
    let families = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let samples = families.flat_map(|(name, kind)| {
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_count", "_sum"],
            _ => &[""],
        };
        suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
    });
    samples.collect()
}

#[test]
fn every_metric_of_the_rules_and_the_dashboard_is_served() {
    let engine = Engine::start();
    let served = served(&engine);
    let rules = deployed("deploy/prometheus/rules.yml");
    let expressions = rules.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut wanted = names(&expressions.collect::<Vec<_>>().join("\n"));
    let dashboard: Value = serde_json::from_str(&deployed("deploy/grafana/cinnabar.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    for target in targets {
        wanted.extend(names(target["expr"].as_str().unwrap()));
    }
    assert!(wanted.len() > 30, "{wanted:?}");
    let missing: Vec<_> = wanted.difference(&served).collect();
    assert!(missing.is_empty(), "{missing:?} are not served");
}

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let rules = deployed("deploy/prometheus/rules.yml");
    let after = |mark: &str| -> BTreeSet<String> {
        let found = rules
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix(mark));
        found.map(|name| name.trim().to_owned()).collect()
    };
    let alerts = after("- alert: ");
    let page = deployed("docs/sre.md");
    let sections: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter(|title| !title.contains(' '))
        .map(str::to_owned)
        .collect();
    assert_eq!(alerts, sections);
    let links: BTreeSet<String> = alerts
        .iter()
        .map(|name| format!("docs/sre.md#{}", name.to_lowercase()))
        .collect();
    assert_eq!(after("runbook: "), links);
}

#[test]
fn a_log_of_json_is_json_and_holds_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::default().set("log_format", "json").set("log", "trace");
    let mut process = setup.spawn(folder.path());
    let mut first = String::new();
    // It goes on writing to it, so it stays open.
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    let mut stderr = process.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let profile = Profile::read(&folder.path().join("var/dev/app.toml")).unwrap();
    let wanted = request("a-key-of-the-caller", "the digest of this");
    block_on(async {
        let client = Client::connect(&profile, Transport::Https, 1).await.unwrap();
        sign_one(&client, &wanted).await.unwrap();
    });
    crate::support::run_in(folder.path(), &["rehearse", "shard"]).ok();
    run(Command::new("kill").arg(process.id().to_string())).ok();
    assert!(process.wait().unwrap().success());
    let log = reader.join().unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    for words in ["rehearsal: the shard panics", "\"stopped\""] {
        assert!(log.contains(words), "{log}");
    }
    assert!(
        lines
            .iter()
            .all(|line| line["timestamp"].is_string() && line["level"].is_string())
    );
    let hex: String = wanted.inputs[0]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for secret in [profile.secret.as_str(), &hex] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn growing_is_shown_as_an_extension_while_it_lasts() {
    let engine = Setup::default().set("lanes", 2).start();
    let shown = || metric(&engine, "cinnabar_capacity_extending");
    assert_eq!(shown(), 0.0, "what it begins with is no extension");
    engine.cli(&["device", "lanes", "5"]).ok();
    wait_until("it is shown", || shown() > 0.5);
    wait_until("it is over", || shown() < 0.5);
    engine.cli(&["device", "lanes", "2"]).ok();
    assert_eq!(shown(), 0.0, "shrinking is none");
}

/// A collector of traces; killed when dropped.
struct Collector {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    port: u16,
}

impl Collector {
    fn start() -> Self {
        let script = workspace().join("engine/tests/strangers/otlp_receiver.py");
        let mut process = Command::new(python())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(script)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.next().unwrap().unwrap().parse().unwrap();
        Self { process, lines, port }
    }

    /// The next span that it was sent.
    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_collector_is_sent_a_trace_of_each_request_that_is_sampled() {
    let mut collector = Collector::start();
    let url = format!("http://127.0.0.1:{}/v1/traces", collector.port);
    let engine = Setup::default()
        .config(&format!("traces = \"{url}\"\ntraces_every = 1\n"))
        .start();
    block_on(async {
        let client = engine.client(Transport::Https).await;
        sign_one(&client, &request("traced", "x")).await.unwrap();
    });
    let whole = collector.next();
    assert_eq!(
        (&whole["name"], &whole["kind"]),
        (&Value::from("sign"), &Value::from(2)),
        "{whole}"
    );
    assert_eq!(whole["resource"]["service.name"], "cinnabar");
    let attributes = &whole["attributes"];
    assert_eq!(attributes["cinnabar.app"], "demo-app");
    assert_eq!(attributes["cinnabar.transport"], "https");
    assert_eq!(attributes["cinnabar.algorithm"], "ecdsa-p256-sha256");
    assert_eq!(attributes["cinnabar.outcome"], "ok");
    assert!(!whole.to_string().contains("traced"), "{whole}");
    for stage in Stage::ALL {
        let span = collector.next();
        assert_eq!(span["name"], stage.name());
        assert_eq!(
            (&span["trace"], &span["parent"]),
            (&whole["trace"], &whole["span"])
        );
        assert!(span["ns"].as_u64() <= whole["ns"].as_u64(), "{span}");
    }
}
