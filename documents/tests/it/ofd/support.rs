//! Packages of a page or more, and how to take them apart.

use std::io::{Cursor, Read, Write};

use documents::ofd::{
    Coverage, Kind, Placement, Provider, SignRequest, SignatureKind, Standing, Verdict, prepare, verify,
};
use documents::ses::Policy;
use protocol::algorithm::Algorithm;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::seals::support::Parties;
use crate::support::{Holder, NOW};

pub(crate) type Files = Vec<(String, Vec<u8>)>;

const NAMESPACE: &str = "http://www.ofdspec.org/2016";

/// The files of a document with that many pages (GB/T 33190-2016), without signatures.
pub(crate) fn files(pages: usize) -> Files {
    let list: String = (0..pages)
        .map(|page| {
            format!(
                "<ofd:Page ID=\"{}\" BaseLoc=\"Pages/Page_{page}/Content.xml\"/>",
                page + 100
            )
        })
        .collect();
    let mut files = vec![
        ("OFD.xml", format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ofd:OFD xmlns:ofd=\"{NAMESPACE}\" Version=\"1.0\" DocType=\"OFD\"><ofd:DocBody><ofd:DocInfo><ofd:DocID>0123456789abcdef0123456789abcdef</ofd:DocID><ofd:CreationDate>2026-01-01</ofd:CreationDate></ofd:DocInfo><ofd:DocRoot>Doc_0/Document.xml</ofd:DocRoot></ofd:DocBody></ofd:OFD>")),
        ("Doc_0/Document.xml", format!("<ofd:Document xmlns:ofd=\"{NAMESPACE}\"><ofd:CommonData><ofd:MaxUnitID>4</ofd:MaxUnitID><ofd:PageArea><ofd:PhysicalBox>0 0 210 297</ofd:PhysicalBox></ofd:PageArea><ofd:PublicRes>PublicRes.xml</ofd:PublicRes></ofd:CommonData><ofd:Pages>{list}</ofd:Pages></ofd:Document>")),
        ("Doc_0/PublicRes.xml", format!("<ofd:Res xmlns:ofd=\"{NAMESPACE}\" BaseLoc=\"Res\"><ofd:Fonts><ofd:Font ID=\"3\" FontName=\"宋体\" FamilyName=\"宋体\"/></ofd:Fonts></ofd:Res>")),
    ]
    .into_iter()
    .map(|(name, text)| (name.to_owned(), text.into_bytes()))
    .collect::<Files>();
    for page in 0..pages {
        let text = format!(
            "<ofd:Page xmlns:ofd=\"{NAMESPACE}\"><ofd:Content><ofd:Layer ID=\"2\"><ofd:TextObject ID=\"4\" Boundary=\"31.7 25.4 40 5\" Font=\"3\" Size=\"3\"><ofd:TextCode X=\"0\" Y=\"3\" DeltaX=\"3 3 3\">你好世界{page}</ofd:TextCode></ofd:TextObject></ofd:Layer></ofd:Content></ofd:Page>"
        );
        files.push((format!("Doc_0/Pages/Page_{page}/Content.xml"), text.into_bytes()));
    }
    files
}

/// A package of files, stored and deflated by turns.
pub(crate) fn pack(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer
        .add_directory("Doc_0/", SimpleFileOptions::default())
        .unwrap();
    for (nth, (name, bytes)) in files.iter().enumerate() {
        let method = if nth % 2 == 0 {
            CompressionMethod::Stored
        } else {
            CompressionMethod::Deflated
        };
        writer
            .start_file(
                name.as_str(),
                SimpleFileOptions::default().compression_method(method),
            )
            .unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

pub(crate) fn unpack(package: &[u8]) -> Files {
    let mut archive = ZipArchive::new(Cursor::new(package)).unwrap();
    let mut files = Vec::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).unwrap();
        let name = file.name().unwrap().into_owned();
        if !name.ends_with('/') {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            files.push((name, bytes));
        }
    }
    files
}

/// A package with one file replaced, or taken away where there is nothing to replace it with.
pub(crate) fn with_file(package: &[u8], name: &str, bytes: Option<&[u8]>) -> Vec<u8> {
    let mut files = unpack(package);
    files.retain(|(found, _)| found != name);
    files.extend(bytes.map(|bytes| (name.to_owned(), bytes.to_vec())));
    pack(&files)
}

pub(crate) fn provider() -> Provider {
    Provider {
        name: "Cinnabar".into(),
        version: "0.1".into(),
        company: "朱砂 & <Co>".into(),
    }
}

/// On the first page.
pub(crate) const SOMEWHERE: &[Placement] = &[Placement::At {
    page: 1,
    x: 120.5,
    y: 200.0,
}];

pub(crate) fn sign(ofd: &[u8], request: &SignRequest<'_>, signer: &Holder) -> Vec<u8> {
    let prepared = prepare(ofd, request).unwrap();
    let signature = signer.key.sign(Algorithm::Sm2Sm3E, &prepared.e());
    prepared.assemble(&signature, None).unwrap()
}

impl Parties {
    pub(crate) fn ofd_request<'a>(&'a self, kind: Kind<'a>, provider: &'a Provider) -> SignRequest<'a> {
        SignRequest {
            document: 0,
            kind,
            certificate: &self.signer.certificate,
            coverage: Coverage::Continue,
            provider,
            at: NOW,
        }
    }

    /// A package sealed on its first page.
    pub(crate) fn sealed(&self, ofd: &[u8]) -> Vec<u8> {
        let (seal, provider) = (self.seal(), provider());
        let kind = Kind::Seal {
            seal: &seal,
            placements: SOMEWHERE,
        };
        sign(ofd, &self.ofd_request(kind, &provider), &self.signer)
    }

    #[track_caller]
    pub(crate) fn verdict(&self, ofd: &[u8]) -> Verdict {
        verify(ofd, &self.trust(), Policy::default(), NOW).unwrap()
    }
}

/// That the only signature is not valid, and for that reason.
#[track_caller]
pub(crate) fn assert_invalid(verdict: &Verdict, code: &str) {
    let found = verdict
        .signatures
        .iter()
        .flat_map(|signature| &signature.findings);
    let mut faults = found.filter(|finding| finding.standing == Standing::Invalid);
    assert_eq!(verdict.standing, Some(Standing::Invalid));
    assert!(
        faults.any(|finding| finding.code == code),
        "no {code}: {verdict:#?}"
    );
}

#[track_caller]
pub(crate) fn assert_valid(verdict: &Verdict, kinds: &[SignatureKind]) {
    assert_eq!(verdict.standing, Some(Standing::Valid), "{verdict:#?}");
    let found: Vec<_> = verdict
        .signatures
        .iter()
        .map(|signature| signature.kind)
        .collect();
    assert_eq!(found, kinds);
}
