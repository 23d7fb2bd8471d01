//! What is asked for: classes of requests with weights, and the client profiles they use. Several profiles are several
//! tenants or apps; several classes are several algorithms, formats, credentials, batch sizes and transports.

use std::path::{Path, PathBuf};

use protocol::algorithm::{Algorithm, Format};
use protocol::client::{Profile, Transport};
use protocol::error_code::Refusal;
use serde::Deserialize;

use crate::args::{Common, TransportName};
use crate::files::{self, FileError};

/// Digests in one call, at most (SEMANTICS 2.1).
pub(crate) const BATCH_MAX: u16 = 64;

/// A mix file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MixFile {
    class: Vec<ClassLine>,
}

/// A class as a mix file tells it; what it leaves out is taken from the command line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassLine {
    credential: String,
    #[serde(default = "one")]
    weight: f64,
    profile: Option<PathBuf>,
    algorithm: Option<Algorithm>,
    format: Option<Format>,
    batch: Option<u16>,
    transport: Option<TransportName>,
    deadline_ms: Option<u32>,
}

const fn one() -> f64 {
    1.0
}

/// A kind of request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Class {
    pub(crate) weight: f64,
    /// Its place in [`Mix::profiles`].
    pub(crate) profile: usize,
    pub(crate) transport: Transport,
    pub(crate) credential: String,
    /// `None`: the credential's first.
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) format: Format,
    pub(crate) batch: u16,
    pub(crate) deadline_ms: Option<u32>,
}

pub(crate) const fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Quic => "quic",
        Transport::Https => "https",
    }
}

/// Every class of a run.
#[derive(Debug)]
pub(crate) struct Mix {
    pub(crate) profiles: Vec<Profile>,
    pub(crate) classes: Vec<Class>,
    files: Vec<PathBuf>,
}

impl Mix {
    /// Profiles without a class yet.
    pub(crate) fn of_profiles(files: &[PathBuf]) -> Result<Self, Refusal> {
        let mut mix = Self {
            profiles: Vec::new(),
            classes: Vec::new(),
            files: Vec::new(),
        };
        for file in files {
            mix.profile(file)?;
        }
        Ok(mix)
    }

    /// What the command line asks for: a mix file, or every credential of every profile.
    pub(crate) fn read(
        common: &Common,
        credentials: &[String],
        file: Option<&Path>,
    ) -> Result<Self, Refusal> {
        let mut mix = Self::of_profiles(&common.profile)?;
        match file {
            Some(file) => mix.add_file(common, file)?,
            None => {
                for profile in 0..mix.profiles.len() {
                    for credential in credentials {
                        mix.add(common.transport, plain_class(common, profile, credential));
                    }
                }
            }
        }
        Ok(mix)
    }

    fn add_file(&mut self, common: &Common, file: &Path) -> Result<(), Refusal> {
        let lines = files::read_toml::<MixFile>(file)?.class;
        let wrong = |message: String| FileError::Content {
            path: file.to_owned(),
            message,
        };
        if lines.is_empty() {
            return Err(wrong("no [[class]]".into()).into());
        }
        for line in lines {
            let batch = line.batch.unwrap_or(common.batch);
            check(line.weight, batch).map_err(|why| wrong(format!("class '{}': {why}", line.credential)))?;
            // A profile is named from where the mix file lies, so that both can be moved together.
            let profile = match &line.profile {
                Some(path) => self.profile(&file.parent().unwrap_or(Path::new("")).join(path))?,
                None => 0,
            };
            if self.profiles.is_empty() {
                return Err(wrong(format!(
                    "class '{}' has no profile, and no --profile is given",
                    line.credential
                ))
                .into());
            }
            let class = Class {
                weight: line.weight,
                algorithm: line.algorithm.or(common.algorithm),
                format: line.format.unwrap_or(common.format),
                batch,
                deadline_ms: line.deadline_ms.or(common.deadline_ms),
                ..plain_class(common, profile, &line.credential)
            };
            self.add(line.transport.unwrap_or(common.transport), class);
        }
        Ok(())
    }

    /// The place of a profile, read when it is new.
    fn profile(&mut self, file: &Path) -> Result<usize, Refusal> {
        if let Some(at) = self.files.iter().position(|known| known == file) {
            return Ok(at);
        }
        self.profiles.push(Profile::read(file)?);
        self.files.push(file.to_owned());
        Ok(self.files.len() - 1)
    }

    /// Adds a class; over both transports it becomes two of half the weight.
    pub(crate) fn add(&mut self, transport: TransportName, class: Class) {
        let transports = transport.each();
        let weight = class.weight / transports.len() as f64;
        for &transport in transports {
            self.classes.push(Class {
                weight,
                transport,
                ..class.clone()
            });
        }
    }

    /// The place of a class that equals this one but for its weight, added when it is new.
    pub(crate) fn intern(&mut self, class: Class) -> usize {
        let same = |known: &Class| {
            Class {
                weight: class.weight,
                ..known.clone()
            } == class
        };
        self.classes.iter().position(same).unwrap_or_else(|| {
            self.classes.push(class);
            self.classes.len() - 1
        })
    }

    /// What a class is called in a report.
    pub(crate) fn label(&self, class: &Class, algorithm: Algorithm) -> String {
        let mut label = format!(
            "{} {algorithm} {}",
            class.credential,
            transport_name(class.transport)
        );
        if class.format != Format::Raw {
            label += &format!(" {}", class.format);
        }
        if class.batch > 1 {
            label += &format!(" ×{}", class.batch);
        }
        if self.profiles.len() > 1 {
            label = format!("{} {label}", self.profiles[class.profile].app_id);
        }
        label
    }
}

pub(crate) fn plain_class(common: &Common, profile: usize, credential: &str) -> Class {
    Class {
        weight: 1.0,
        profile,
        transport: Transport::Quic,
        credential: credential.to_owned(),
        algorithm: common.algorithm,
        format: common.format,
        batch: common.batch,
        deadline_ms: common.deadline_ms,
    }
}

fn check(weight: f64, batch: u16) -> Result<(), String> {
    if !(weight > 0.0 && weight.is_finite()) {
        return Err(format!("weight {weight} is not a number above 0"));
    }
    if !(1..=BATCH_MAX).contains(&batch) {
        return Err(format!("batch {batch} is not between 1 and {BATCH_MAX}"));
    }
    Ok(())
}

/// Chooses among classes by weight.
#[derive(Debug)]
pub(crate) struct Weights(Vec<f64>);

impl Weights {
    pub(crate) fn new(weights: impl Iterator<Item = f64>) -> Self {
        let mut sum = 0.0;
        let add = |weight| {
            sum += weight;
            sum
        };
        Self(weights.map(add).collect())
    }

    /// The class for a uniformly random number.
    pub(crate) fn pick(&self, random: u64) -> usize {
        let Some(sum) = self.0.last() else { return 0 };
        let place = (random >> 11) as f64 / (1u64 << 53) as f64 * sum;
        self.0
            .partition_point(|bound| *bound <= place)
            .min(self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::splitmix;

    #[test]
    fn classes_are_chosen_by_their_weights() {
        let weights = Weights::new([3.0, 1.0, 4.0].into_iter());
        let mut seed = 11;
        let mut counts = [0u32; 3];
        for _ in 0..80_000 {
            counts[weights.pick(splitmix(&mut seed))] += 1;
        }
        // Five standard deviations of a binomial with n = 80,000.
        for (count, expected) in counts.iter().zip([30_000.0, 10_000.0, 40_000.0]) {
            assert!((f64::from(*count) - expected).abs() < 710.0, "{counts:?}");
        }
        assert_eq!((weights.pick(0), weights.pick(u64::MAX)), (0, 2));
    }

    #[test]
    fn a_weight_and_a_batch_must_make_sense() {
        assert!(check(1.0, 64).is_ok());
        for (weight, batch) in [(0.0, 1), (-1.0, 1), (f64::NAN, 1), (1.0, 0), (1.0, 65)] {
            assert!(check(weight, batch).is_err(), "{weight} {batch}");
        }
    }
}
