//! Devices and the keys in them by command: what an operator types, what comes of it, and what a mistake is answered.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hsm_pool::device::{DeviceConfig, DeviceKey, Kind};
use hsm_pool::elastic::Bounds;
use hsm_pool::job::{Finished, Home, Sink, Work};
use hsm_pool::keys::{KeyMaterial, KeySource};
use hsm_pool::lanes::Verify;
use hsm_pool::pool::{Pool, PoolConfig};
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::ids::{KeyRow, TenantRow};
use protocol::message::ItemOutcome;
use protocol::verify::PublicKey;
use serde_json::{Value, json};

use crate::devices_support::{
    PIN, PROFILE, SOFTHSM, Site, cinnabar, device, devices, json, sign, wait_until_active,
};
use crate::support::{BINARY, BOTH, Engine, Setup, block_on, request, run, run_in, sign_one, wait_until};

fn folder(engine: &Engine) -> &std::path::Path {
    engine.folder.as_ref().unwrap().path()
}

fn wait_for_state(engine: &Engine, name: &str, state: &str) {
    wait_until(&format!("{name} is {state}"), || {
        device(engine, name)["state"] == state
    });
}

#[test]
fn a_device_is_drained_resumed_scaled_added_and_removed_by_command() {
    let site = Site::new().softhsm("hsm-1");
    let second = site.softhsm_text("hsm-2", std::path::Path::new(SOFTHSM));
    let engine = site.start();
    cinnabar(
        &engine,
        "key create --tenant demo --kind p256 --device hsm-1 seal",
    )
    .ok();
    sign(&engine, "seal", "").ok();

    let table = cinnabar(&engine, "device list").ok();
    assert!(table.lines().next().unwrap().starts_with("software: "), "{table}");
    assert!(
        table.contains("DEVICE  STATE") && table.contains("hsm-1   active"),
        "{table}"
    );

    cinnabar(&engine, "device drain hsm-1").ok();
    assert_eq!(device(&engine, "hsm-1")["state"], "draining");
    sign(&engine, "seal", "").refused(4, "device_unavailable");
    cinnabar(&engine, "device resume hsm-1").ok();
    wait_for_state(&engine, "hsm-1", "active");
    sign(&engine, "seal", "").ok();

    cinnabar(&engine, "device scale hsm-1 --processes 3").ok();
    wait_until("three processes", || {
        device(&engine, "hsm-1")["processes_up"] == 3
    });
    cinnabar(&engine, "device lanes 3").ok();
    assert_eq!(json(&engine, "device list --json")["lanes"]["size"], 3);

    let file = folder(&engine).join("cinnabar.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + &second).unwrap();
    cinnabar(&engine, "device add hsm-2").ok();
    wait_for_state(&engine, "hsm-2", "active");
    cinnabar(
        &engine,
        "key create --tenant demo --kind rsa2048 --device hsm-2 other",
    )
    .ok();
    sign(&engine, "other", "").ok();

    cinnabar(&engine, "device remove hsm-2").refused(2, "usage");
    cinnabar(&engine, "device drain hsm-2").ok();
    cinnabar(&engine, "device remove hsm-2").ok();
    assert_eq!(devices(&engine).len(), 1);
    sign(&engine, "other", "").refused(4, "device_unavailable");

    assert_refusals(&engine);
    assert_metrics(&engine);
}

/// Orders that name what is not there, or what cannot be.
fn assert_refusals(engine: &Engine) {
    for (line, code) in [
        ("device drain nowhere", "not_found"),
        ("device resume nowhere", "not_found"),
        ("device remove nowhere", "not_found"),
        ("device scale nowhere --processes 2", "not_found"),
        ("device calibrate nowhere", "not_found"),
        ("device objects nowhere", "not_found"),
        ("device add nowhere", "not_found"),
        ("device add hsm-1", "already_exists"),
        ("device scale hsm-1 --processes 0", "usage"),
        ("device lanes 0", "usage"),
        (
            "key create --tenant demo --kind p256 --device nowhere lost",
            "not_found",
        ),
        (
            "key attach --tenant demo --kind p256 --device nowhere --name x lost",
            "not_found",
        ),
    ] {
        cinnabar(engine, line).refused(2, code);
    }
    cinnabar(
        engine,
        "key attach --tenant demo --kind p256 --device hsm-1 --name x lost",
    )
    .refused(4, "device_failed");
}

/// Every family that a device has, by its name.
fn assert_metrics(engine: &Engine) {
    let (status, text) = engine.admin_get("/metrics");
    assert_eq!(status, 200);
    let families = [
        "signatures_total",
        "refused_total",
        "faults_total",
        "rejected_total",
        "expired_total",
        "failovers_total",
        "kills_total",
        "starts_total",
        "probes_total",
        "probes_failed_total",
        "unwrap_hits_total",
        "unwrap_misses_total",
        "workers",
        "queue",
        "in_flight",
        "in_flight_limit",
        "share_percent",
        "pin_latched",
        "call_seconds_count",
    ];
    for family in families {
        let sample = format!("cinnabar_device_{family}{{device=\"hsm-1\"}} ");
        assert!(text.contains(&sample), "no {sample}in {text}");
    }
    let active = "cinnabar_device_state{device=\"hsm-1\",state=\"active\"} 1";
    assert!(text.contains(active), "{text}");
    let sample = |family: &str| engine.metric(&format!("cinnabar_device_{family}{{device=\"hsm-1\"}}"));
    assert!(sample("signatures_total") >= 2.0);
    assert!(sample("probes_total") >= 2.0);
    assert!((sample("workers") - 3.0).abs() < 0.5);
}

#[test]
fn what_calibration_finds_is_kept_to_from_then_on_and_after_a_restart() {
    let site = Site::new().softhsm("hsm-1").config("sessions = 8\n");
    let engine = site.start();
    assert_eq!(device(&engine, "hsm-1")["in_flight_limit"], 16);
    let found = json(&engine, "device calibrate hsm-1 --json");
    let depths: Vec<_> = found["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["in_flight"].clone())
        .collect();
    assert_eq!(depths, [1, 2, 4, 8, 16, 32, 64]);
    let knee = found["knee"].as_u64().unwrap();
    assert!(found["promise_per_second"].as_f64() > Some(0.0), "{found}");
    let limit = |engine: &Engine| device(engine, "hsm-1")["in_flight_limit"].as_u64();
    assert_eq!(limit(&engine), Some(knee));

    cinnabar(&engine, "device drain hsm-1").ok();
    cinnabar(&engine, "device remove hsm-1").ok();
    cinnabar(&engine, "device add hsm-1").ok();
    wait_for_state(&engine, "hsm-1", "active");
    assert_eq!(limit(&engine), Some(knee), "a device that comes back keeps it");

    let engine = Setup::default().start_in(engine.stop());
    wait_until_active(&engine);
    assert_eq!(limit(&engine), Some(knee));
    let table = cinnabar(&engine, "device calibrate hsm-1").ok();
    assert!(
        table.contains("IN FLIGHT") && table.contains("it can promise "),
        "{table}"
    );
}

fn place_of(engine: &Engine, id: &str) -> Value {
    let keys = json(engine, "key list --tenant demo");
    let found = keys.as_array().unwrap().iter().find(|key| key["id"] == id);
    found.unwrap_or_else(|| panic!("no {id}")).clone()
}

fn labels(engine: &Engine, device: &str) -> Vec<String> {
    let objects = json(engine, &format!("device objects {device}"));
    let label = |object: &Value| object["label"].as_str().unwrap().to_owned();
    objects.as_array().unwrap().iter().map(label).collect()
}

/// hsm-1 makes the wrapping key `group`, and hsm-2 gets it.
fn share_a_wrapping_key(engine: &Engine) {
    let kek = json(engine, "device kek hsm-1 --label group");
    assert_eq!(kek["label"], "group");
    cinnabar(engine, "device kek hsm-1 --label group").refused(2, "already_exists");
    let shared = json(engine, "device share-kek --label group --from hsm-1 --to hsm-2");
    assert_eq!((&shared["id"], &shared["label"]), (&kek["id"], &kek["label"]));
    cinnabar(engine, "device share-kek --label group --from hsm-1 --to hsm-2").refused(2, "already_exists");
    cinnabar(engine, "device share-kek --label other --from hsm-1 --to hsm-2").refused(2, "not_found");
    cinnabar(engine, "device share-kek --label group --from hsm-1 --to nowhere").refused(2, "not_found");
}

#[test]
fn a_key_on_several_devices_signs_while_one_of_them_does_and_is_destroyed_on_all() {
    let engine = Site::new()
        .softhsm("hsm-1")
        .softhsm("hsm-2")
        .kryoptic("hsm-3")
        .start();
    let create = |devices: &str, id: &str| {
        cinnabar(
            &engine,
            &format!("key create --tenant demo --kind p256 {devices} {id}"),
        )
    };
    create("--device hsm-1 --device hsm-2", "pair").refused(2, "usage");

    share_a_wrapping_key(&engine);
    create("--device hsm-1 --device hsm-2", "pair").ok();
    assert_eq!(place_of(&engine, "pair")["devices"], json!(["hsm-1", "hsm-2"]));
    for name in ["hsm-1", "hsm-2"] {
        assert!(labels(&engine, name).contains(&"demo/pair".to_owned()));
        cinnabar(&engine, &format!("device drain {name}")).ok();
        sign(&engine, "pair", "").ok();
        cinnabar(&engine, &format!("device resume {name}")).ok();
        wait_for_state(&engine, name, "active");
    }

    let replicate = "key replicate --tenant demo --device hsm-3 pair";
    cinnabar(&engine, replicate).refused(4, "device_failed");
    json(&engine, "device share-kek --label group --from hsm-2 --to hsm-3");
    cinnabar(&engine, replicate).ok();
    assert_eq!(
        place_of(&engine, "pair")["devices"],
        json!(["hsm-1", "hsm-2", "hsm-3"])
    );
    for name in ["hsm-1", "hsm-2"] {
        cinnabar(&engine, &format!("device drain {name}")).ok();
    }
    sign(&engine, "pair", "").ok();
    assert_eq!(
        device(&engine, "hsm-3")["signed"],
        1,
        "Kryoptic signs with a key that SoftHSM2 made"
    );
    for name in ["hsm-1", "hsm-2"] {
        cinnabar(&engine, &format!("device resume {name}")).ok();
        wait_for_state(&engine, name, "active");
    }

    cinnabar(&engine, "key destroy --tenant demo pair --confirm other").refused(2, "usage");
    sign(&engine, "pair", "").ok();
    cinnabar(&engine, "key destroy --tenant demo pair --confirm pair").ok();
    for name in ["hsm-1", "hsm-2", "hsm-3"] {
        assert!(!labels(&engine, name).contains(&"demo/pair".to_owned()), "{name}");
    }
    let gone = sign(&engine, "pair", "");
    assert_ne!(gone.code, 0, "{gone:?}");
    assert_eq!(place_of(&engine, "pair")["place"], "destroyed");
    // Who does not know whether it was done may ask again.
    cinnabar(&engine, "key destroy --tenant demo pair --confirm pair").ok();
    cinnabar(&engine, "key destroy --tenant demo none --confirm none").refused(2, "not_found");
}

#[test]
fn a_key_that_exists_only_wrapped_signs_on_any_device_that_has_its_wrapping_key() {
    let engine = Site::new().softhsm("hsm-1").softhsm("hsm-2").start();
    let create = "key create --tenant demo --kind rsa2048 --wrapped";
    cinnabar(&engine, &format!("{create} none lost")).refused(2, "usage");
    cinnabar(&engine, &format!("{create} group --device hsm-1 lost")).refused(2, "usage");
    json(&engine, "device kek hsm-1 --label group");
    json(&engine, "device share-kek --label group --from hsm-1 --to hsm-2");
    cinnabar(&engine, &format!("{create} group seal")).ok();
    assert_eq!(place_of(&engine, "seal")["place"], "wrapped");
    for name in ["hsm-1", "hsm-2"] {
        assert!(labels(&engine, name).iter().all(|label| !label.contains("seal")));
        cinnabar(&engine, &format!("device drain {name}")).ok();
        for _ in 0..3 {
            sign(&engine, "seal", "").ok();
        }
        cinnabar(&engine, &format!("device resume {name}")).ok();
        wait_for_state(&engine, name, "active");
    }
    for name in ["hsm-1", "hsm-2"] {
        let view = device(&engine, name);
        let count = |what: &str| view[what].as_u64().unwrap();
        assert_eq!(count("cache_hits") + count("cache_misses"), 3, "{view}");
        assert!(
            (1..=2).contains(&count("cache_misses")),
            "once for each process: {view}"
        );
    }
    cinnabar(&engine, "key destroy --tenant demo seal --confirm seal").ok();
    assert_ne!(sign(&engine, "seal", "").code, 0);
}

/// The pool of somebody else, who makes wrapped keys on the same token.
struct NoWork;

impl Work for NoWork {
    fn key(&self) -> KeyRow {
        KeyRow(0)
    }
    fn kind(&self) -> KeyKind {
        KeyKind::P256
    }
    fn algorithm(&self) -> Algorithm {
        Algorithm::EcdsaP256Sha256
    }
    fn input(&self) -> &[u8] {
        &[]
    }
    fn user_id(&self) -> &[u8] {
        &[]
    }
    fn home(&self) -> Home<'_> {
        Home::Software
    }
    fn tenant(&self) -> TenantRow {
        TenantRow(0)
    }
    fn deadline(&self) -> Instant {
        crate::support::now()
    }
}

struct Nowhere;

impl Sink<NoWork> for Nowhere {
    fn finished(&self, _: Vec<Finished<NoWork>>) {}
}

impl KeySource for Nowhere {
    fn load(&self, _: KeyRow) -> Result<KeyMaterial, String> {
        Err("there are none".into())
    }
}

/// Keys made elsewhere, wrapped under a wrapping key that the device of the engine has.
fn made_elsewhere(folder: &std::path::Path, kek: &[u8], kinds: &[KeyKind]) -> Vec<DeviceKey> {
    let device = DeviceConfig {
        name: "elsewhere".into(),
        kind: Kind::Pkcs11,
        module: SOFTHSM.into(),
        token_label: Some("hsm-1".into()),
        token_serial: None,
        pin: PIN.into(),
        processes: 1,
        processes_max: 1,
        sessions: 1,
        in_flight_max: None,
        unwrapped_max: 1,
        probe_key: None,
        writable: None,
        environment: vec![(
            "SOFTHSM2_CONF".into(),
            folder.join("hsm-1.conf").display().to_string(),
        )],
        program: BINARY.into(),
    };
    let config = PoolConfig {
        lanes: Bounds { min: 1, max: 1 },
        queue: 1,
        queue_ms_max: 1,
        verify: Verify::All,
        multi: None,
        key_cache: 1,
        devices: vec![device],
    };
    let sink: Arc<dyn Sink<NoWork>> = Arc::new(Nowhere);
    let pool = Pool::start(config, Arc::new(Nowhere), &sink).unwrap();
    wait_until("it works", || pool.devices()[0].state.workers_up() > 0);
    let make = |kind: &KeyKind| pool.generate_wrapped("elsewhere", *kind, kek).unwrap();
    kinds.iter().map(make).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line of the file that `key import` reads.
fn line_of(id: &str, key: &DeviceKey) -> Value {
    let wrapped = key.wrapped.as_ref().unwrap();
    json!({
        "id": id,
        "public_key": STANDARD.encode(&key.public_key),
        "blob": STANDARD.encode(&wrapped.blob),
        "kek": hex(&wrapped.kek),
        "check_value": hex(&wrapped.check),
        "mechanism": wrapped.mechanism,
        "vendor": wrapped.vendor,
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn wrapped_keys_made_elsewhere_are_brought_in_by_the_thousand() {
    let engine = Site::new().softhsm("hsm-1").start();
    let kek = json(&engine, "device kek hsm-1 --label group");
    let kek = unhex(kek["id"].as_str().unwrap());
    let keys = made_elsewhere(folder(&engine), &kek, &[KeyKind::P256, KeyKind::Rsa2048]);
    let import = |name: &str, lines: &[Value], more: &str| {
        let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
        std::fs::write(folder(&engine).join(name), text.join("\n") + "\n").unwrap();
        cinnabar(&engine, &format!("key import --tenant demo {name} {more}"))
    };
    import("two", &[line_of("one", &keys[0]), line_of("other", &keys[1])], "").ok();
    signs(&engine, "one", &keys[0]);
    signs(&engine, "other", &keys[1]);

    // More than one commit takes, and far more than one frame would. The same key under many names is enough for that.
    let many: Vec<Value> = (0..2_500)
        .map(|number| line_of(&format!("seal-{number}"), &keys[0]))
        .collect();
    import("many", &many, "--sample").ok();
    signs(&engine, "seal-0", &keys[0]);
    signs(&engine, "seal-2499", &keys[0]);

    import(
        "again",
        &[line_of("fresh", &keys[0]), line_of("one", &keys[0])],
        "",
    )
    .refused(2, "already_exists");
    let mut damaged = line_of("damaged", &keys[0]);
    let mut blob = keys[0].wrapped.as_ref().unwrap().blob.clone();
    blob[20] ^= 1;
    damaged["blob"] = STANDARD.encode(blob).into();
    import("damaged", &[line_of("fresh", &keys[0]), damaged], "").refused(4, "device_failed");
    let mut another = line_of("fresh", &keys[0]);
    another["public_key"] = STANDARD.encode(&keys[1].public_key).into();
    let swapped = import("swapped", &[another], "");
    assert_eq!(swapped.code, 4, "not its public key: {swapped:?}");
    let mut unknown = line_of("fresh", &keys[0]);
    unknown["kek"] = "00ff".into();
    import("unknown", &[unknown], "").refused(2, "usage");
    let mut crooked = line_of("fresh", &keys[0]);
    crooked["kek"] = "0".into();
    import("crooked", &[crooked], "").refused(2, "malformed_request");
    let mut more = line_of("fresh", &keys[0]);
    more["pkcs8"] = "".into();
    let refused = import("more", &[line_of("one", &keys[0]), more], "");
    assert!(refused.stderr.contains("more, line 2: "), "{refused:?}");
    refused.refused(2, "malformed_request");
    cinnabar(&engine, "key import --tenant demo nothing").refused(2, "file");
    // All of a file's commit or nothing of it.
    let keys = json(&engine, "key list --tenant demo");
    assert!(keys.as_array().unwrap().iter().all(|key| key["id"] != "fresh"));
}

/// A credential signs over both transports with this key.
fn signs(engine: &Engine, credential: &str, key: &DeviceKey) {
    let public_key = PublicKey::from_spki(&key.public_key).unwrap();
    let algorithm = public_key.kind().algorithms()[0];
    block_on(async {
        for transport in BOTH {
            let mut wanted = request(&format!("{credential}-{transport:?}"), "text");
            (wanted.credential, wanted.algorithm) = (credential.into(), algorithm);
            let client = engine.client(transport).await;
            let outcome = sign_one(&client, &wanted).await.unwrap();
            let ItemOutcome::Done { signature, .. } = outcome else {
                panic!("{credential}: {outcome:?}")
            };
            public_key
                .verify(algorithm, &wanted.inputs[0], &signature)
                .unwrap();
        }
    });
}

#[test]
fn a_key_that_is_in_the_token_already_is_attached_by_its_label() {
    let site = Site::new().softhsm("hsm-1");
    let settings = site.path("hsm-1.conf");
    let line = format!(
        "--token-label hsm-1 --login --pin {PIN} --keypairgen --key-type EC:prime256v1 --label old --id 0a"
    );
    let mut tool = Command::new("pkcs11-tool");
    tool.env("SOFTHSM2_CONF", settings).args(["--module", SOFTHSM]);
    run(tool.args(line.split(' '))).ok();
    let engine = site.start();
    let attach = "key attach --tenant demo --device hsm-1 --name old";
    cinnabar(&engine, &format!("{attach} --kind p256 seal")).ok();
    sign(&engine, "seal", "--format cms").ok();
    let verify = "cms -verify -binary -inform DER -in signature -content cinnabar.toml -CAfile var/dev/ca.pem -out /dev/null";
    openssl(&engine, verify).ok();
    cinnabar(&engine, &format!("{attach} --kind rsa2048 crooked")).refused(4, "device_failed");
    cinnabar(&engine, &format!("{attach} --kind p256 seal")).refused(2, "already_exists");
    assert_eq!(
        labels(&engine, "hsm-1")
            .iter()
            .filter(|label| *label == "old")
            .count(),
        1
    );
    cinnabar(&engine, "key replicate --tenant demo --device hsm-1 seal").refused(2, "usage");
}

fn openssl(engine: &Engine, line: &str) -> crate::support::Ran {
    run(Command::new("openssl")
        .current_dir(folder(engine))
        .args(line.split_whitespace()))
}

#[test]
fn key_pools_are_filled_used_and_filled_again() {
    let pool = "[[key_pool]]\nkind = \"rsa2048\"\ndevice = \"hsm-1\"\nlow = 1\nhigh = 2\n\
                [[key_pool]]\nkind = \"p384\"\nlow = 1\nhigh = 3\n";
    let engine = Site::new().softhsm("hsm-1").config(pool).start();
    let made = || {
        labels(&engine, "hsm-1")
            .iter()
            .filter(|label| *label == "cinnabar-spare")
            .count()
    };
    wait_until("the pool is full", || made() == 2);
    let create = |id: &str| {
        cinnabar(
            &engine,
            &format!("key create --tenant demo --kind rsa2048 --device hsm-1 {id}"),
        )
        .ok();
        sign(&engine, id, "").ok();
    };
    create("first");
    assert_eq!(made(), 2, "it was there already, and one more is enough");
    assert!(!labels(&engine, "hsm-1").contains(&"demo/first".to_owned()));
    create("second");
    wait_until("the pool is full again", || made() == 4);
    cinnabar(&engine, "key create --tenant demo --kind p384 soft").ok();
    sign(&engine, "soft", "").ok();
}

#[test]
fn an_sdf_card_signs_sm2_and_openssl_agrees() {
    let engine = Site::new().sdf("card").start();
    let attach = |name: &str, kind: &str, id: &str| {
        let line = format!("key attach --tenant demo --kind {kind} --device card --name {name} {id}");
        cinnabar(&engine, &line)
    };
    attach("1", "sm2", "seal").ok();
    let listed = json(&engine, &format!("credentials --profile {PROFILE} --json"));
    let entries = listed["credentials"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["id"] == "seal").unwrap();
    std::fs::write(
        folder(&engine).join("seal.pub"),
        entry["public_key"].as_str().unwrap(),
    )
    .unwrap();
    for algorithm in ["sm2-sm3", "sm2-sm3-e"] {
        for transport in ["quic", "https"] {
            sign(
                &engine,
                "seal",
                &format!("--algorithm {algorithm} --transport {transport}"),
            )
            .ok();
            let options = "-sm3 -sigopt distid:1234567812345678 -verify seal.pub -signature signature";
            openssl(&engine, &format!("dgst {options} cinnabar.toml")).ok();
            let other = openssl(&engine, &format!("dgst {options} seal.pub"));
            assert_ne!(other.code, 0, "another text: {other:?}");
        }
    }
    assert!(device(&engine, "card")["signed"].as_u64() >= Some(4));
    attach("2", "sm2", "none").refused(4, "device_failed");
    attach("1", "p256", "none").refused(4, "device_failed");
    attach("first", "sm2", "none").refused(4, "device_failed");
    cinnabar(&engine, "key create --tenant demo --kind sm2 --device card none").refused(4, "device_failed");
    cinnabar(&engine, "device kek card --label group").refused(4, "device_failed");
}

/// An engine that a shell has started, in a process group of its own; killed with the shell when dropped.
struct ByHand(Child);

impl Drop for ByHand {
    fn drop(&mut self) {
        // It may have ended by itself.
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

#[test]
fn a_pin_comes_by_descriptor_or_credential_and_is_seen_nowhere() {
    let site = Site::new().softhsm("hsm-1");
    let (folder, config) = site.into_parts();
    let config = config.replace("pin_file = \"hsm-1.pin\"", "pin_fd = 3");
    std::fs::write(folder.path().join("cinnabar.toml"), config).unwrap();
    // A pipe, as a secret store gives it: nothing on disk.
    let script = format!(
        "printf '{PIN}\\n' | {{ exec 3<&0 </dev/null; exec {BINARY} --home var --listen 127.0.0.1:0 --admin 127.0.0.1:0 --pki 127.0.0.1:0 --console 127.0.0.1:0 serve --dev; }}"
    );
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &script])
        .current_dir(folder.path())
        .process_group(0);
    let engine = ByHand(shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_until("it works", || {
        let listed = run_in(folder.path(), &["device", "list", "--json"]);
        let listed: Option<Value> = serde_json::from_str(&listed.stdout).ok();
        listed.is_some_and(|listed| listed["devices"][0]["processes_up"] == 2)
    });
    drop(engine);

    let site = Site::new().softhsm("hsm-1");
    std::fs::create_dir(site.path("credentials")).unwrap();
    std::fs::write(site.path("credentials/token"), PIN).unwrap();
    let credentials = site.path("credentials");
    let (folder, config) = site.into_parts();
    let config = config.replace("pin_file = \"hsm-1.pin\"", "pin_credential = \"token\"");
    let setup = Setup::default()
        .environment("CREDENTIALS_DIRECTORY", credentials)
        .config(&config);
    let engine = setup.start_in(folder);
    wait_until_active(&engine);
    assert_pin_unseen(&engine);
}

/// Neither the engine nor a worker has the PIN in its arguments or its environment.
fn assert_pin_unseen(engine: &Engine) {
    let mut workers = 0;
    let own = std::fs::read_link(format!("/proc/{}/exe", engine.process.id())).unwrap();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let is_ours = std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == own);
        if !is_ours {
            continue;
        }
        workers += usize::from(read("cmdline").ends_with(b"hsm-worker\0"));
        for part in ["cmdline", "environ"] {
            let text = String::from_utf8_lossy(&read(part)).into_owned();
            assert!(!text.contains(PIN), "{part}: {text}");
        }
    }
    assert!(workers >= 2, "{workers} worker processes");
}

#[test]
fn a_pin_that_is_missing_is_told_at_the_start_and_a_wrong_one_latches() {
    let site = Site::new().softhsm("hsm-1");
    std::fs::write(site.path("hsm-1.pin"), "1111\n").unwrap();
    let (folder, config) = site.into_parts();
    let serve = |config: &str| {
        std::fs::write(folder.path().join("cinnabar.toml"), config).unwrap();
        let words = [
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--pki",
            "127.0.0.1:0",
            "--console",
            "127.0.0.1:0",
            "serve",
            "--dev",
        ];
        run_in(folder.path(), &words)
    };
    let pin = "pin_file = \"hsm-1.pin\"";
    serve(&config.replace(pin, "pin_file = \"none\"")).refused(2, "file");
    serve(&config.replace(pin, "pin_fd = 99")).refused(2, "file");
    serve(&config.replace(pin, "pin_credential = \"token\"")).refused(2, "usage");
    serve(&config.replace(pin, "")).refused(2, "usage");
    serve(&config.replace(pin, &format!("{pin}\npin_fd = 3"))).refused(2, "usage");

    let engine = Setup::default().config(&config).start_in(folder);
    let folder = engine.folder.as_ref().unwrap().path();
    wait_until("it latches", || device(&engine, "hsm-1")["pin_latched"] == true);
    let view = device(&engine, "hsm-1");
    assert_eq!(
        (&view["state"], &view["reason"]),
        (&json!("quarantined"), &json!("the PIN was refused"))
    );
    assert_eq!(view["starts"], 1, "tried once");
    cinnabar(
        &engine,
        "key create --tenant demo --kind p256 --device hsm-1 seal",
    )
    .refused(4, "device_failed");
    assert_eq!(device(&engine, "hsm-1")["starts"], 1);
    // The PIN is read again when the device is added.
    std::fs::write(folder.join("hsm-1.pin"), PIN).unwrap();
    cinnabar(&engine, "device remove hsm-1").ok();
    cinnabar(&engine, "device add hsm-1").ok();
    wait_for_state(&engine, "hsm-1", "active");
    cinnabar(
        &engine,
        "key create --tenant demo --kind p256 --device hsm-1 seal",
    )
    .ok();
    sign(&engine, "seal", "").ok();
}

#[test]
fn devices_need_a_running_engine_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    run_in(folder.path(), &["init"]).ok();
    run_in(folder.path(), &["device", "list"]).refused(2, "usage");
    run_in(folder.path(), &["tenant", "create", "acme"]).ok();
    let line = "key create --tenant acme --kind p256 --device hsm-1 seal";
    run_in(folder.path(), &line.split(' ').collect::<Vec<_>>()).refused(2, "usage");
}

#[test]
fn keys_of_a_destroyed_tenant_are_certified_as_left_until_they_are_out_of_their_devices() {
    let engine = Site::new().softhsm("hsm-1").softhsm("hsm-2").start();
    for (name, id) in [("hsm-1", "one"), ("hsm-2", "other")] {
        let create = format!("key create --tenant demo --kind p256 --device {name} {id}");
        cinnabar(&engine, &create).ok();
        assert!(labels(&engine, name).contains(&format!("demo/{id}")));
    }
    cinnabar(&engine, "device drain hsm-2").ok();
    cinnabar(&engine, "device remove hsm-2").ok();
    cinnabar(&engine, "tenant close demo --confirm demo").ok();
    let destroy = |file: &str| format!("tenant destroy demo --order letter-1 --certificate {file}");
    let certified = |file: &str| {
        cinnabar(&engine, &destroy(file)).ok();
        let text = std::fs::read_to_string(folder(&engine).join(file)).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let first = certified("first.json");
    assert_eq!(first["still_in_devices"], json!(["hsm-2"]), "{first}");
    assert!(!labels(&engine, "hsm-1").contains(&"demo/one".to_owned()));
    cinnabar(&engine, "device add hsm-2").ok();
    wait_for_state(&engine, "hsm-2", "active");
    assert!(labels(&engine, "hsm-2").contains(&"demo/other".to_owned()));
    let second = certified("second.json");
    assert_eq!(second["still_in_devices"], json!([]), "{second}");
    assert_eq!(second["completes_an_earlier_one"], true);
    assert!(!labels(&engine, "hsm-2").contains(&"demo/other".to_owned()));
    cinnabar(&engine, &destroy("third.json")).refused(2, "already_exists");
}
