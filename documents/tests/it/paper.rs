//! Reports as PDF files, judged by qpdf and poppler.

use std::process::Command;

use documents::paper::{Bars, Block, Column, Paper, PaperFont, Table, make};

fn say(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {text}{error}");
    text
}

fn paper() -> Paper {
    let row = |number: usize| vec![format!("credential-{number}"), format!("{}", number * 1_000)];
    Paper {
        title: "对账单 Statement 2026-10".into(),
        language: "zh-CN",
        blocks: vec![
            Block::Text(
                "每一次签名均可追溯。Every unit is traceable to its request, (even \\ with marks).".into(),
            ),
            Block::Heading("明细".into()),
            Block::Table(Table {
                columns: vec![Column::words("证书", 3.0), Column::numbers("次数", 1.0)],
                rows: (0..80).map(row).collect(),
            }),
            Block::Bars(Bars {
                units: 1_440,
                rows: vec![("1".into(), vec![([10, 200, 10], 1_000), ([200, 10, 10], 440)])],
                legend: vec![([10, 200, 10], "可用".into()), ([200, 10, 10], "不可用".into())],
            }),
        ],
        foot: "Cinnabar".into(),
    }
}

#[test]
fn strangers_read_a_report_and_find_its_words() {
    let font = std::fs::read("/usr/share/fonts/truetype/arphic-gbsn00lp/gbsn00lp.ttf").unwrap();
    let whole = font.len();
    let bytes = make(&paper(), &PaperFont::new(font).unwrap()).unwrap();
    assert!(
        bytes.len() < whole / 10,
        "{} bytes: only what is used is embedded",
        bytes.len()
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.pdf");
    std::fs::write(&path, &bytes).unwrap();
    let path = path.to_str().unwrap();
    say("qpdf", &["--check", path]);
    let text = say("pdftotext", &["-layout", path, "-"]);
    for word in [
        "对账单",
        "每一次签名均可追溯",
        "(even \\ with marks)",
        "credential-79",
        "79000",
        "不可用",
        "2/2",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let fonts = say("pdffonts", &[path]);
    let line = fonts.lines().last().unwrap();
    assert!(
        line.contains("CID TrueType") && line.contains("yes yes yes"),
        "{fonts}"
    );
    assert!(say("pdfinfo", &[path]).contains("Pages:           2"));
    // The same input gives the same bytes.
    let again = std::fs::read("/usr/share/fonts/truetype/arphic-gbsn00lp/gbsn00lp.ttf").unwrap();
    assert_eq!(make(&paper(), &PaperFont::new(again).unwrap()).unwrap(), bytes);
}
