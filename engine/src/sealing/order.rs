//! What an app orders for a document, as JSON, and what that means to `documents::sealing`. Pure.

use aws_lc_rs::digest;
use documents::ofd::Coverage;
use documents::pdf::{
    Anchor, Keyword, Origin, PageNumber, Paging, Permission, Placement, Position, Size, Unit, Which,
};
use documents::sealing::{Appearance, Form, Level, Octets, Order, SIGNERS_MAX, Signer};
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a document is to be sealed.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealOrder {
    /// `pdf` or `ofd`; told by its first bytes if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "pdf")]
    pub(crate) form: Option<Form>,
    /// Who signs, one after the other: one, or two for a document signed in two ways (RSA or P-256 first, then SM2).
    pub(crate) signers: Vec<WantedSigner>,
    /// `b-b`, `b-t` (time stamp), `b-lt` (revocation information) or `b-lta` (a time stamp over all of it); OFD: the first
    /// two.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "b-t")]
    pub(crate) level: Level,
    /// The picture, PNG, base64: at most 1 MiB. That of the electronic seal if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) picture: Option<Octets>,
    /// Where it is seen: a position, a word, the edges of the pages, or the field. Nothing is seen if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<Place>,
    /// The signature field: one that waits, or the name of a new one (PDF).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) field: Option<String>,
    /// What may be changed afterwards, if the signature certifies the document (PDF): `no-changes`, `form-filling` or
    /// `annotations`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) certify: Option<Permission>,
    /// Why it is signed (PDF).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Where it is signed (PDF).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<String>,
    /// Which document of the package, counted from 0 (OFD).
    #[serde(default)]
    pub(crate) document: usize,
    /// `continue`, so that others may sign after it, or `whole` (OFD).
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) coverage: Coverage,
}

/// Who signs.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedSigner {
    /// A credential of the app's tenant.
    pub(crate) credential: String,
    /// How; the credential's first algorithm if absent, `sm2-sm3-e` with an electronic seal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "ecdsa-p256-sha256")]
    pub(crate) algorithm: Option<Algorithm>,
    /// The electronic seal (GB/T 38540), DER, base64: OFD, and PDF as readers in China expect it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) electronic_seal: Option<Octets>,
}

/// Where a seal is seen. One of the four.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Place {
    /// At a position on a page.
    At(AtPosition),
    /// On a word of the text (PDF).
    Keyword(OnKeyword),
    /// Across the edges of the pages (骑缝章).
    Paging(AcrossPages),
    /// In the rectangle of the field that waits for the signature (PDF).
    Field(InField),
}

/// In the rectangle of the field that waits for the signature.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InField {}

/// A page: its number, counted from 1, or `last`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum WantedPage {
    Number(usize),
    Word(LastWord),
}

/// The last one.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LastWord {
    Last,
}

/// A position.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AtPosition {
    /// Counted from 1, or `last`.
    #[schema(value_type = Object, example = 1)]
    page: WantedPage,
    /// From the left edge.
    x: f64,
    /// From the edge of the origin.
    y: f64,
    /// How wide; 42 mm if neither width nor height is given. In an OFD seals have the size that they were made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    width: Option<f64>,
    /// How high.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    height: Option<f64>,
    /// `point`, `millimetre` or `fraction` (of the page's width or height).
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "millimetre")]
    unit: Unit,
    /// `top-left` or `bottom-left`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    origin: Origin,
    /// What lies there: the `corner` next to the origin, or the `centre`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    anchor: Anchor,
}

/// A word.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OnKeyword {
    /// The word; white space does not count.
    text: String,
    /// Which of its places: a number, counted from 1, `last` or `all`; the last if absent.
    #[serde(default)]
    #[schema(value_type = Option<Object>, example = "last")]
    which: WantedPlaces,
    /// How wide; 42 mm if neither width nor height is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    width: Option<f64>,
    /// How high.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    height: Option<f64>,
    /// As for positions.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    unit: Unit,
    /// How far to the right of the word's middle.
    #[serde(default)]
    right: f64,
    /// How far above it.
    #[serde(default)]
    up: f64,
}

/// Which places of a word.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum WantedPlaces {
    Nth(usize),
    Word(PlacesWord),
}

impl Default for WantedPlaces {
    fn default() -> Self {
        Self::Word(PlacesWord::Last)
    }
}

/// The last one, or all.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PlacesWord {
    Last,
    All,
}

/// Across the edges of the pages.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcrossPages {
    /// How wide the whole seal is; 42 mm if neither width nor height is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    width: Option<f64>,
    /// How high.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    height: Option<f64>,
    /// As for positions.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    unit: Unit,
    /// Height of the seal's middle over the bottom of each page, as a fraction of the page; the middle if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    middle: Option<f64>,
    /// Most pages that share one seal; 20 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pages_max: Option<usize>,
}

impl Place {
    fn placement(&self) -> Placement {
        match self {
            Self::At(at) => Placement::At(at.page.into(), at.position()),
            Self::Keyword(on) => Placement::On(Keyword {
                text: on.text.clone(),
                which: match on.which {
                    WantedPlaces::Nth(nth) => Which::Nth(nth),
                    WantedPlaces::Word(PlacesWord::Last) => Which::Last,
                    WantedPlaces::Word(PlacesWord::All) => Which::All,
                },
                size: size(on.width, on.height),
                unit: on.unit,
                offset: (on.right, on.up),
            }),
            Self::Paging(paging) => {
                let usual = Paging::default();
                Placement::Paging(Paging {
                    size: size(paging.width, paging.height),
                    unit: paging.unit,
                    middle: paging.middle.unwrap_or(usual.middle),
                    pages_max: paging.pages_max.unwrap_or(usual.pages_max),
                })
            }
            Self::Field(InField {}) => Placement::InField,
        }
    }
}

const fn size(width: Option<f64>, height: Option<f64>) -> Size {
    Size { width, height }
}

impl AtPosition {
    const fn position(&self) -> Position {
        Position {
            x: self.x,
            y: self.y,
            size: size(self.width, self.height),
            unit: self.unit,
            origin: self.origin,
            anchor: self.anchor,
        }
    }
}

impl From<WantedPage> for PageNumber {
    fn from(page: WantedPage) -> Self {
        match page {
            WantedPage::Number(number) => Self::Nth(number),
            WantedPage::Word(LastWord::Last) => Self::Last,
        }
    }
}

/// Largest picture in an order, in bytes.
const PICTURE_BYTES_MAX: usize = 1024 * 1024;

impl SealOrder {
    /// Reads and checks what does not depend on the document.
    pub(crate) fn read(json: &[u8]) -> Result<Self, Refusal> {
        let order: Self = serde_json::from_slice(json)
            .map_err(|error| Refusal::new(Code::MalformedRequest, format!("the order: {error}")))?;
        order.check()?;
        Ok(order)
    }

    /// Checks what does not depend on the document.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.signers.is_empty() || self.signers.len() > SIGNERS_MAX {
            let text = format!("the order: a document is signed by one signer, or by {SIGNERS_MAX}");
            return Err(Refusal::new(Code::MalformedRequest, text));
        }
        if self
            .picture
            .as_ref()
            .is_some_and(|picture| picture.0.len() > PICTURE_BYTES_MAX)
        {
            let text = format!("the order: a picture has at most {PICTURE_BYTES_MAX} bytes");
            return Err(Refusal::new(Code::TooLarge, text));
        }
        if self.picture.is_some() && self.place.is_none() {
            let text = "the order: a picture needs a place where it is seen";
            return Err(Refusal::new(Code::MalformedRequest, text));
        }
        Ok(())
    }

    /// How many signatures a document gets.
    pub(crate) fn signatures(&self) -> u16 {
        self.signers.len() as u16
    }

    /// The form of a document: as ordered, or as its first bytes say.
    pub(crate) fn form_of(&self, document: &[u8]) -> Result<Form, Refusal> {
        match self.form.or_else(|| form_of(document)) {
            Some(form) => Ok(form),
            None => Err(Refusal::new(
                Code::DocumentUnreadable,
                "neither a PDF nor an OFD file",
            )),
        }
    }

    /// What makes a request the same request: the order, and the document where there is one.
    pub(crate) fn digest(&self, document: Option<&[u8; 32]>, items: u32) -> [u8; 32] {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&(json.len() as u64).to_be_bytes());
        hash.update(&json);
        hash.update(&items.to_be_bytes());
        hash.update(document.map_or(&[][..], |document| &document[..]));
        let hash = hash.finish();
        std::array::from_fn(|at| hash.as_ref()[at])
    }

    /// The order as it is carried out: for these certificates, at this time.
    pub(crate) fn complete(
        &self,
        form: Form,
        at: UnixMillis,
        signers: impl IntoIterator<Item = (KeyKind, Vec<Vec<u8>>)>,
    ) -> Result<Order, Refusal> {
        let signers: Vec<Signer> = self
            .signers
            .iter()
            .zip(signers)
            .map(|(wanted, (kind, chain))| Signer {
                algorithm: wanted.algorithm.unwrap_or(wanted.usual_algorithm(form, kind)),
                chain: chain.into_iter().map(Octets).collect(),
                seal: wanted.electronic_seal.clone(),
            })
            .collect();
        let first = signers.first().cloned();
        let first = first.ok_or_else(|| Refusal::new(Code::MalformedRequest, "the order has no signer"))?;
        let mut order = Order::new(form, first, at);
        order.signers = signers;
        order.level = self.level;
        order.appearance = self.place.as_ref().map(|place| Appearance {
            picture: self.picture.clone(),
            placement: place.placement(),
        });
        order.field.clone_from(&self.field);
        order.certify = self.certify;
        order.reason.clone_from(&self.reason);
        order.location.clone_from(&self.location);
        order.document = self.document;
        order.coverage = self.coverage;
        Ok(order)
    }
}

impl WantedSigner {
    fn usual_algorithm(&self, form: Form, kind: KeyKind) -> Algorithm {
        if self.electronic_seal.is_some() || form == Form::Ofd {
            Algorithm::Sm2Sm3E
        } else {
            kind.algorithms()[0]
        }
    }
}

/// The form that the first bytes of a document say.
pub(crate) fn form_of(document: &[u8]) -> Option<Form> {
    // A PDF may have up to 1024 bytes of something else before its header (ISO 32000-2 7.5.2, in readers' practice).
    let head = &document[..document.len().min(1024)];
    if document.starts_with(b"PK\x03\x04") {
        Some(Form::Ofd)
    } else if head.windows(5).any(|window| window == b"%PDF-") {
        Some(Form::Pdf)
    } else {
        None
    }
}

/// The media type of a form. OFD has none that is registered; this one is in use.
pub(crate) const fn media_type(form: Form) -> &'static str {
    match form {
        Form::Pdf => "application/pdf",
        Form::Ofd => "application/ofd",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<SealOrder, Refusal> {
        SealOrder::read(json.as_bytes())
    }

    fn placement(place: &str) -> Placement {
        let order = read(&format!(
            r#"{{"signers":[{{"credential":"c"}}],"place":{place}}}"#
        ))
        .unwrap();
        order.place.unwrap().placement()
    }

    #[test]
    fn places_are_read_as_people_write_them() {
        let at = placement(r#"{"at":{"page":2,"x":10,"y":20.5,"width":42,"unit":"millimetre"}}"#);
        let position = Position {
            x: 10.0,
            y: 20.5,
            size: size(Some(42.0), None),
            unit: Unit::Millimetre,
            ..Position::default()
        };
        assert_eq!(at, Placement::At(PageNumber::Nth(2), position));
        let last = placement(r#"{"at":{"page":"last","x":0,"y":0}}"#);
        assert_eq!(last, Placement::At(PageNumber::Last, Position::default()));
        let Placement::On(word) = placement(r#"{"keyword":{"text":"盖章","which":3}}"#) else {
            panic!("a word")
        };
        assert_eq!((&*word.text, word.which), ("盖章", Which::Nth(3)));
        let Placement::On(word) = placement(r#"{"keyword":{"text":"盖章","which":"all"}}"#) else {
            panic!("a word")
        };
        assert_eq!(word.which, Which::All);
        assert_eq!(
            placement(r#"{"paging":{}}"#),
            Placement::Paging(Paging::default())
        );
        assert_eq!(placement(r#"{"field":{}}"#), Placement::InField);
    }

    #[test]
    fn an_order_says_what_is_wrong_with_it() {
        for (json, code, word) in [
            ("{", Code::MalformedRequest, "the order"),
            (r#"{"signers":[]}"#, Code::MalformedRequest, "one signer"),
            (
                r#"{"signers":[{"credential":"c"}],"colour":1}"#,
                Code::MalformedRequest,
                "colour",
            ),
            (
                r#"{"signers":[{"credential":"c"}],"picture":"AA=="}"#,
                Code::MalformedRequest,
                "place",
            ),
            (
                r#"{"signers":[{"credential":"c"}],"level":"b-x"}"#,
                Code::MalformedRequest,
                "b-x",
            ),
        ] {
            let refused = read(json).unwrap_err();
            assert_eq!(refused.code, code, "{json}");
            assert!(refused.message.contains(word), "{json}: {refused}");
        }
    }

    #[test]
    fn requests_are_the_same_only_with_the_same_order_and_document() {
        let digest =
            |json: &str, document: &[u8; 32], items| read(json).unwrap().digest(Some(document), items);
        let (one, two) = (
            r#"{"signers":[{"credential":"c"}]}"#,
            r#"{"signers":[{"credential":"d"}]}"#,
        );
        let base = digest(one, &[1; 32], 1);
        assert_eq!(
            base,
            digest(r#"{ "signers": [ {"credential":"c"} ] }"#, &[1; 32], 1)
        );
        assert_ne!(base, digest(two, &[1; 32], 1));
        assert_ne!(base, digest(one, &[2; 32], 1));
        assert_ne!(base, digest(one, &[1; 32], 2));
    }

    #[test]
    fn the_form_of_a_document_is_in_its_first_bytes() {
        assert_eq!(form_of(b"%PDF-1.7\n"), Some(Form::Pdf));
        assert_eq!(form_of(b"\xef\xbb\xbf%PDF-1.4\n"), Some(Form::Pdf));
        assert_eq!(form_of(b"PK\x03\x04rest"), Some(Form::Ofd));
        assert_eq!(form_of(b"GIF89a"), None);
        assert_eq!(form_of(b""), None);
    }
}
