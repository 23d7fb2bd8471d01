//! Statements and reports as signed PDFs, in both languages, judged by strangers: qpdf, poppler, and our own verifier.

use std::path::Path;
use std::process::Command;

use protocol::client::Transport;

use crate::support::{Engine, Ran, block_on, request, run, sign_one};

/// AR PL SungtiL GB, from the Debian package fonts-arphic-gbsn00lp.
const FONT: &str = "/usr/share/fonts/truetype/arphic-gbsn00lp/gbsn00lp.ttf";
const SIGNED: &str = "--profile var/dev/app.toml --credential demo-p256";

fn this_month() -> String {
    let month = store::month_of(protocol::clock::wall());
    format!("{}-{:02}", month / 100, month % 100)
}

fn folder(engine: &Engine) -> &Path {
    engine.folder.as_ref().unwrap().path()
}

fn judge(engine: &Engine, program: &str, arguments: &[&str]) -> Ran {
    run(Command::new(program).current_dir(folder(engine)).args(arguments))
}

/// The words of a signed PDF, after everybody has judged it.
fn words(engine: &Engine, file: &str) -> String {
    judge(engine, "qpdf", &["--check", file]).ok();
    let said = judge(engine, "pdfsig", &[file]).stdout;
    assert!(said.contains("Signature is Valid"), "{said}");
    assert!(said.contains("Total document signed"), "{said}");
    let ca = engine.dev("ca.pem").display().to_string();
    engine.cli(&["verify", "--pdf", file, "--ca", &ca]).ok();
    let fonts = judge(engine, "pdffonts", &[file]).ok();
    assert!(fonts.contains("CNBRPT+Report"), "{fonts}");
    judge(engine, "pdftotext", &["-layout", file, "-"]).ok()
}

fn sign_some(engine: &Engine, count: usize) {
    block_on(async {
        let client = engine.client(Transport::Quic).await;
        for number in 0..count {
            let key = format!("key-{number}");
            sign_one(&client, &request(&key, &key)).await.unwrap();
        }
    });
}

#[test]
fn a_statement_on_paper_says_what_the_journal_says_in_both_languages() {
    let engine = Engine::start();
    sign_some(&engine, 7);
    let month = this_month();
    let statement = |more: &str| {
        engine.operate(&format!(
            "--set report_font={FONT} statement --tenant demo --month {month} {SIGNED} {more}"
        ))
    };
    statement("--pdf zh.pdf");
    let text = words(&engine, "zh.pdf");
    for word in ["签名服务对账单", "计费签名", "demo-p256", "sign.raw", &month] {
        assert!(text.contains(word), "{word}: {text}");
    }
    // The first one's own signature is the eighth.
    statement("--pdf en.pdf --english");
    let text = words(&engine, "en.pdf");
    let charged = text
        .lines()
        .find(|line| line.contains("Signatures charged"))
        .unwrap();
    assert!(charged.trim_end().ends_with(" 8"), "{charged}");
    assert!(text.contains("not final: the month is not over"), "{text}");
}

#[test]
fn a_report_of_the_agreement_on_paper_has_its_figures_and_its_strip() {
    let engine = Engine::start();
    let month = this_month();
    engine.operate(&format!("tenant activate demo --at {month}-01"));
    for (language, word) in [("", "服务等级月报"), (" --english", "Service level report")] {
        engine.operate(&format!(
            "--set report_font={FONT} sla report --tenant demo --month {month} --pdf sla.pdf {SIGNED}{language}"
        ));
        let text = words(&engine, "sla.pdf");
        assert!(text.contains(word) && text.contains("demo"), "{text}");
    }
}

#[test]
fn paper_needs_a_font_and_a_signer() {
    let engine = Engine::start();
    let month = this_month();
    let words = [
        "statement",
        "--tenant",
        "demo",
        "--month",
        &month,
        "--pdf",
        "x.pdf",
    ];
    assert_eq!(engine.cli(&words).code, 2);
    let listen = engine.listen.to_string();
    let signed: Vec<&str> = words
        .into_iter()
        .chain(SIGNED.split(' '))
        .chain(["--listen", &listen])
        .collect();
    let run = engine.cli(&signed);
    run.refused(2, "usage");
    assert!(run.stderr.contains("report_font"), "{run:?}");
    let run = engine.cli(&[&["--set", "report_font=var/dev/ca.pem"][..], &signed].concat());
    run.refused(2, "usage");
    assert!(run.stderr.contains("not a font"), "{run:?}");
    let run = engine.cli(&[&["--set", "report_font=missing.ttf"][..], &signed].concat());
    run.refused(2, "file");
    assert!(!folder(&engine).join("x.pdf").exists());
}
