//! An operator's orders on a token: making, wrapping, unwrapping and destroying keys.
//!
//! Private keys leave a token only wrapped under a wrapping key (AES, never seen outside), and a wrapping key only for
//! the transport key of another device, by RSA-OAEP.

use aws_lc_rs::rand;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use protocol::algorithm::{Algorithm, KeyKind};

use super::mechanism::sign_with;
use super::public_key::{ec_spki, ed25519_spki, generation, key_type, rsa_parts, rsa_spki};
use super::{TokenError, TokenSession};
use crate::device::wire::{DeviceObject, Kek, Order, Ordered};
use crate::keys::WrappedKey;

/// CKA_LABEL of the key that probe signatures are made with, unless the configuration names another.
const PROBE: &str = "cinnabar-probe";
/// What the CKA_LABEL of a wrapping key begins with.
const KEK: &str = "cinnabar-kek ";
/// CKA_LABEL of a transport pair.
const TRANSPORT: &str = "cinnabar-transport";
const KEK_BYTES: u64 = 32;

/// SHA-1, because SoftHSM2 knows no other hash here; OAEP does not need it to resist collisions (RFC 8017 B.1).
fn oaep() -> Mechanism<'static> {
    Mechanism::RsaPkcsOaep(PkcsOaepParams::new(
        MechanismType::SHA1,
        PkcsMgfType::MGF1_SHA1,
        PkcsOaepSource::empty(),
    ))
}

/// A wrapped key, wherever it is kept.
pub(super) struct Wrapped<'a> {
    pub(super) mechanism: u64,
    pub(super) vendor: &'a str,
    pub(super) kek: &'a [u8],
    pub(super) blob: &'a [u8],
}

impl<'a> Wrapped<'a> {
    fn of(key: &'a WrappedKey) -> Self {
        Self {
            mechanism: key.mechanism,
            vendor: &key.vendor,
            kek: &key.kek,
            blob: &key.blob,
        }
    }
}

fn new_id() -> Result<Vec<u8>, TokenError> {
    let mut id = vec![0; 16];
    rand::fill(&mut id).map_err(|_| TokenError::Unreadable)?;
    Ok(id)
}

fn label(text: &str) -> Attribute {
    Attribute::Label(text.as_bytes().to_vec())
}

/// What an unwrapped private key may do: sign, and not leave.
fn signing_key(kind: KeyKind) -> Result<Vec<Attribute>, TokenError> {
    Ok(vec![
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(key_type(kind)?),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Sign(true),
    ])
}

/// The template of a key that is unwrapped on demand and goes with the process.
pub(super) fn session_key(kind: KeyKind) -> Result<Vec<Attribute>, TokenError> {
    let mut template = signing_key(kind)?;
    template.extend([Attribute::Token(false), Attribute::Extractable(false)]);
    Ok(template)
}

/// The template of a key that comes to stay; it may go on to further devices.
fn replica(kind: KeyKind, id: &[u8], name: &str) -> Result<Vec<Attribute>, TokenError> {
    let mut template = signing_key(kind)?;
    template.extend([
        Attribute::Token(true),
        Attribute::Extractable(true),
        Attribute::Id(id.to_vec()),
        label(name),
    ]);
    Ok(template)
}

fn parse_kind(name: &str) -> Result<KeyKind, TokenError> {
    name.parse().map_err(|_| TokenError::Unsupported)
}

impl TokenSession {
    pub(super) fn obey(&mut self, order: &Order) -> Result<Ordered, TokenError> {
        match order {
            Order::Generate {
                kind,
                label,
                keep,
                kek,
            } => self.generate(parse_kind(kind)?, label, *keep, kek.as_deref()),
            Order::Unwrap {
                key,
                kind,
                label,
                object,
            } => {
                let template = replica(parse_kind(kind)?, object, label)?;
                self.unwrap(&Wrapped::of(key), &template)?;
                Ok(Ordered::Done)
            }
            Order::Destroy(id) => self.destroy(id),
            Order::List => self.list(),
            Order::ProbeKey => self.probe_key(),
            Order::MakeKek(name) => self.make_kek(name),
            Order::MakeTransport => self.generate_transport(),
            Order::ExportKek { kek, transport } => self.export_kek(kek, transport),
            Order::Prove {
                object,
                wrapped,
                kind,
                algorithm,
                input,
            } => self.prove(object, wrapped.as_ref(), parse_kind(kind)?, *algorithm, input),
            Order::Find { name, kind } => self.find(name, parse_kind(kind)?),
            Order::ImportKek {
                kek,
                label,
                transport,
                blob,
            } => self.import_kek(kek, label, transport, blob),
        }
    }

    fn generate(
        &mut self,
        kind: KeyKind,
        name: &str,
        keep: bool,
        kek: Option<&[u8]>,
    ) -> Result<Ordered, TokenError> {
        let id = new_id()?;
        let (mechanism, kind_attributes) = generation(kind)?;
        let common = [Attribute::Token(keep), Attribute::Id(id.clone()), label(name)];
        let mut public = common.to_vec();
        public.push(Attribute::Verify(true));
        public.extend(kind_attributes);
        let mut private = common.to_vec();
        private.extend([
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(kek.is_some()),
            Attribute::Sign(true),
        ]);
        let (public, private) = self.session.generate_key_pair(&mechanism, &public, &private)?;
        let wrapped = kek.map(|kek| self.wrap(kek, private)).transpose()?;
        let public_key = self.read_public(public, kind)?;
        if !keep {
            self.session.destroy_object(private)?;
            self.session.destroy_object(public)?;
        }
        let object = if keep { id } else { Vec::new() };
        Ok(Ordered::Made {
            object,
            public_key,
            wrapped,
        })
    }

    fn wrap(&mut self, kek: &[u8], key: ObjectHandle) -> Result<WrappedKey, TokenError> {
        let wrapping = self.token.wrapping.ok_or(TokenError::Unsupported)?;
        let handle = self.handle(ObjectClass::SECRET_KEY, kek)?;
        Ok(WrappedKey {
            mechanism: wrapping.number,
            vendor: self.token.vendor.clone(),
            kek: kek.to_vec(),
            check: self.check_value(handle),
            blob: self.session.wrap_key(&wrapping.mechanism(), handle, key)?,
        })
    }

    pub(super) fn unwrap(
        &mut self,
        key: &Wrapped<'_>,
        template: &[Attribute],
    ) -> Result<ObjectHandle, TokenError> {
        let wrapping = self.token.wrapping.ok_or(TokenError::Unsupported)?;
        let wrapping = wrapping.unwraps(key.mechanism, key.vendor, &self.token.vendor)?;
        let kek = self.handle(ObjectClass::SECRET_KEY, key.kek)?;
        Ok(self
            .session
            .unwrap_key(&wrapping.mechanism(), kek, key.blob, template)?)
    }

    fn prove(
        &mut self,
        object: &[u8],
        wrapped: Option<&WrappedKey>,
        kind: KeyKind,
        algorithm: u8,
        input: &[u8],
    ) -> Result<Ordered, TokenError> {
        let algorithm = Algorithm::from_wire(algorithm).ok_or(TokenError::Unsupported)?;
        let handle = match wrapped {
            Some(key) => self.unwrap(&Wrapped::of(key), &session_key(kind)?)?,
            None => self.handle(ObjectClass::PRIVATE_KEY, object)?,
        };
        let signature = sign_with(&self.session, handle, algorithm, input);
        if wrapped.is_some() {
            self.session.destroy_object(handle)?;
        }
        Ok(Ordered::Blob(signature?))
    }

    fn find(&mut self, name: &str, kind: KeyKind) -> Result<Ordered, TokenError> {
        let template = [Attribute::Class(ObjectClass::PUBLIC_KEY), label(name)];
        let found = self.session.find_objects(&template)?;
        let public = *found.first().ok_or(TokenError::NoObject("public key"))?;
        self.describe_pair(public, kind)
    }

    fn destroy(&mut self, id: &[u8]) -> Result<Ordered, TokenError> {
        self.handles.remove(id);
        let objects = self.session.find_objects(&[Attribute::Id(id.to_vec())])?;
        for object in objects {
            self.session.destroy_object(object)?;
        }
        Ok(Ordered::Done)
    }

    fn list(&mut self) -> Result<Ordered, TokenError> {
        let handles = self
            .session
            .find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)])?;
        let objects = handles.into_iter().map(|handle| self.describe(handle));
        Ok(Ordered::Objects(objects.collect::<Result<_, _>>()?))
    }

    fn describe(&self, handle: ObjectHandle) -> Result<DeviceObject, TokenError> {
        let mut object = DeviceObject {
            id: Vec::new(),
            label: String::new(),
        };
        let wanted = [AttributeType::Id, AttributeType::Label];
        for attribute in self.session.get_attributes(handle, &wanted)? {
            match attribute {
                Attribute::Id(id) => object.id = id,
                Attribute::Label(label) => object.label = String::from_utf8_lossy(&label).into_owned(),
                _ => {}
            }
        }
        Ok(object)
    }

    fn probe_key(&mut self) -> Result<Ordered, TokenError> {
        let name = self.token.probe.clone();
        let template = [
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            label(name.as_deref().unwrap_or(PROBE)),
        ];
        match (self.session.find_objects(&template)?.first().copied(), name) {
            (Some(public), _) => self.describe_pair(public, KeyKind::P256),
            (None, None) => self.generate(KeyKind::P256, PROBE, true, None),
            (None, Some(_)) => Err(TokenError::NoObject("probe key")),
        }
    }

    fn describe_pair(&self, public: ObjectHandle, kind: KeyKind) -> Result<Ordered, TokenError> {
        let DeviceObject { id: object, .. } = self.describe(public)?;
        let public_key = self.read_public(public, kind)?;
        Ok(Ordered::Made {
            object,
            public_key,
            wrapped: None,
        })
    }

    pub(super) fn list_keks(&mut self) -> Result<Vec<Kek>, TokenError> {
        let handles = self
            .session
            .find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY)])?;
        let mut keks = Vec::new();
        for handle in handles {
            let DeviceObject { id, label } = self.describe(handle)?;
            if let Some(name) = label.strip_prefix(KEK) {
                let check = self.check_value(handle);
                keks.push(Kek {
                    id,
                    label: name.to_owned(),
                    check,
                });
            }
        }
        Ok(keks)
    }

    /// CKA_CHECK_VALUE, which a token need not have.
    fn check_value(&self, key: ObjectHandle) -> Vec<u8> {
        match self
            .session
            .get_attributes(key, &[AttributeType::CheckValue])
            .as_deref()
        {
            Ok([Attribute::CheckValue(value)]) => value.clone(),
            _ => Vec::new(),
        }
    }

    fn kek_template(id: &[u8], name: &str) -> Vec<Attribute> {
        vec![
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            // It must be able to go to the other devices of the pool, for their transport keys only.
            Attribute::Extractable(true),
            Attribute::Wrap(true),
            Attribute::Unwrap(true),
            // A wrapping key that also decrypts would give away what it wraps.
            Attribute::Encrypt(false),
            Attribute::Decrypt(false),
            Attribute::Id(id.to_vec()),
            label(&format!("{KEK}{name}")),
        ]
    }

    fn make_kek(&mut self, name: &str) -> Result<Ordered, TokenError> {
        let id = new_id()?;
        let mut template = Self::kek_template(&id, name);
        template.push(Attribute::ValueLen(KEK_BYTES.into()));
        let handle = self.session.generate_key(&Mechanism::AesKeyGen, &template)?;
        let check = self.check_value(handle);
        Ok(Ordered::Kek(Kek {
            id,
            label: name.to_owned(),
            check,
        }))
    }

    fn generate_transport(&mut self) -> Result<Ordered, TokenError> {
        let id = new_id()?;
        let (mechanism, kind_attributes) = generation(KeyKind::Rsa3072)?;
        let common = [
            Attribute::Token(true),
            Attribute::Id(id.clone()),
            label(TRANSPORT),
        ];
        let mut public = common.to_vec();
        public.push(Attribute::Wrap(true));
        public.extend(kind_attributes);
        let mut private = common.to_vec();
        private.extend([
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Unwrap(true),
        ]);
        let (public, _) = self.session.generate_key_pair(&mechanism, &public, &private)?;
        let public_key = self.read_public(public, KeyKind::Rsa3072)?;
        Ok(Ordered::Made {
            object: id,
            public_key,
            wrapped: None,
        })
    }

    fn export_kek(&mut self, kek: &[u8], transport: &[u8]) -> Result<Ordered, TokenError> {
        let (modulus, exponent) = rsa_parts(transport)?;
        let public = self.session.create_object(&[
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::KeyType(KeyType::RSA),
            Attribute::Token(false),
            Attribute::Wrap(true),
            Attribute::Modulus(modulus),
            Attribute::PublicExponent(exponent),
        ])?;
        let kek = self.handle(ObjectClass::SECRET_KEY, kek)?;
        let blob = self.session.wrap_key(&oaep(), public, kek);
        self.session.destroy_object(public)?;
        Ok(Ordered::Blob(blob?))
    }

    fn import_kek(
        &mut self,
        id: &[u8],
        name: &str,
        transport: &[u8],
        blob: &[u8],
    ) -> Result<Ordered, TokenError> {
        let private = self.handle(ObjectClass::PRIVATE_KEY, transport)?;
        let mut template = Self::kek_template(id, name);
        template.extend([
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
        ]);
        let handle = self.session.unwrap_key(&oaep(), private, blob, &template)?;
        let check = self.check_value(handle);
        self.destroy(transport)?;
        Ok(Ordered::Kek(Kek {
            id: id.to_vec(),
            label: name.to_owned(),
            check,
        }))
    }

    fn read_public(&self, handle: ObjectHandle, kind: KeyKind) -> Result<Vec<u8>, TokenError> {
        let wanted: &[AttributeType] = match kind.rsa_bits() {
            Some(_) => &[AttributeType::Modulus, AttributeType::PublicExponent],
            None => &[AttributeType::EcPoint],
        };
        let attributes = self.session.get_attributes(handle, wanted)?;
        match (kind, &attributes[..]) {
            (_, [Attribute::Modulus(n), Attribute::PublicExponent(e)]) => rsa_spki(n, e),
            (KeyKind::Ed25519, [Attribute::EcPoint(point)]) => ed25519_spki(point),
            (_, [Attribute::EcPoint(point)]) => ec_spki(kind, point),
            _ => Err(TokenError::Unreadable),
        }
    }
}
