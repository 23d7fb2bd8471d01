//! A script as its words say it.

use std::iter::Peekable;
use std::str::{FromStr, SplitWhitespace};
use std::time::Duration;

use crate::delay::Delay;
use crate::vocabulary::{Functions, Vocabulary};

/// A script that has been understood.
#[derive(Debug, Default)]
pub struct Script {
    pub(crate) faults: Vec<Clause<(Option<Delay>, Fault)>>,
    pub(crate) states: Vec<Clause<State>>,
    pub(crate) seed: Option<u64>,
}

/// What a call does after it has waited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fault {
    /// Goes through.
    #[default]
    Ok,
    /// Gives a signature with a flipped bit.
    Wrong,
    /// Answers this code and does nothing.
    Error(u64),
    /// Ends every session.
    Lost,
    /// Never returns.
    Hang,
    /// Ends the process.
    Crash(Crash),
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// By SIGABRT.
    Abort,
    /// By SIGSEGV.
    Segfault,
    /// As if it had wanted to, with this code.
    Exit(i32),
}

/// How slot ids are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renumber {
    /// Higher by this.
    Offset(u64),
    /// Each token has the id of the next one, and the last that of the first.
    Rotate,
}

/// What holds for every call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum State {
    Removed(u64),
    Sessions(u64),
    Renumber(Renumber),
}

/// One clause: for which calls, and what.
#[derive(Debug)]
pub(crate) struct Clause<T> {
    pub(crate) functions: Functions,
    pub(crate) when: When,
    pub(crate) then: T,
}

/// The conditions of a clause.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct When {
    pub(crate) percent: Option<f64>,
    pub(crate) after: u64,
    pub(crate) times: Option<u64>,
    pub(crate) lasts: Option<Duration>,
}

/// A script that has no meaning.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("in the clause `{clause}`: {cause}")]
pub struct ScriptError {
    clause: String,
    cause: Cause,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum Cause {
    #[error("there is no function `{0}`")]
    Function(String),
    #[error("there is no fault, state or setting `{0}`")]
    Word(String),
    #[error("there is no code `{0}`")]
    Code(String),
    #[error("`{0}` is not a number that fits here")]
    Number(String),
    #[error("something is missing at the end")]
    Short,
    #[error("`{0}` is one word too many")]
    Long(String),
    #[error("`{word}` does not go with {with}")]
    Together { word: &'static str, with: &'static str },
}

impl Script {
    /// Understands a script; the empty one lets every call through.
    pub fn parse(text: &str, vocabulary: &Vocabulary) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        let lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default());
        let clauses = lines.flat_map(|line| line.split(';')).map(str::trim);
        for clause in clauses.filter(|clause| !clause.is_empty()) {
            Reader::new(clause, vocabulary)
                .clause(&mut script)
                .map_err(|cause| ScriptError {
                    clause: clause.to_owned(),
                    cause,
                })?;
        }
        Ok(script)
    }
}

/// One clause, word by word.
struct Reader<'a> {
    vocabulary: &'a Vocabulary,
    names: Option<&'a str>,
    words: Peekable<SplitWhitespace<'a>>,
}

impl<'a> Reader<'a> {
    fn new(clause: &'a str, vocabulary: &'a Vocabulary) -> Self {
        let (names, rest) = match clause.split_once(':') {
            Some((names, rest)) => (Some(names), rest),
            None => (None, clause),
        };
        Self {
            vocabulary,
            names,
            words: rest.split_whitespace().peekable(),
        }
    }

    fn clause(mut self, script: &mut Script) -> Result<(), Cause> {
        let functions = self.functions()?;
        let when = self.when()?;
        let plain = functions.is_none() && when == When::default();
        match self.words.peek().copied().ok_or(Cause::Short)? {
            "seed" if plain => {
                self.words.next();
                script.seed = Some(self.number()?);
            }
            "seed" => {
                return Err(Cause::Together {
                    word: "seed",
                    with: "functions or conditions",
                });
            }
            word if self.vocabulary.states.contains(&word) => {
                let then = self.state()?;
                let clause = self.state_clause(functions, when, then)?;
                script.states.push(clause);
            }
            _ => {
                let then = self.fault()?;
                let clause = self.fault_clause(functions, when, then)?;
                script.faults.push(clause);
            }
        }
        self.words
            .next()
            .map_or(Ok(()), |word| Err(Cause::Long(word.to_owned())))
    }

    fn functions(&self) -> Result<Option<Functions>, Cause> {
        let Some(names) = self.names else { return Ok(None) };
        let mut set = Functions::default();
        for name in names.split(',').map(str::trim) {
            let named = self
                .vocabulary
                .named(name)
                .ok_or_else(|| Cause::Function(name.to_owned()))?;
            set = set.union(named);
        }
        Ok(Some(set))
    }

    fn when(&mut self) -> Result<When, Cause> {
        let mut when = When::default();
        while let Some(word) = self.words.peek().copied() {
            if let Some(percent) = word.strip_suffix('%') {
                self.words.next();
                when.percent = Some(amount(percent, 100.0)?);
                continue;
            }
            match word {
                "after" => when.after = self.after_word()?,
                "times" => when.times = Some(self.after_word()?),
                "for" => when.lasts = Some(Duration::from_millis(self.after_word()?)),
                _ => break,
            }
        }
        Ok(when)
    }

    fn state(&mut self) -> Result<State, Cause> {
        Ok(match self.word()? {
            "sessions" => State::Sessions(self.number()?),
            "removed" if self.words.peek().is_none() => State::Removed(self.vocabulary.removed),
            "removed" => State::Removed(self.code()?),
            _ => match self.word()? {
                "rotate" => State::Renumber(Renumber::Rotate),
                offset => State::Renumber(Renumber::Offset(number(offset)?)),
            },
        })
    }

    /// States hold for every call, so that only `after` and `for` make sense with them.
    fn state_clause(
        &self,
        functions: Option<Functions>,
        when: When,
        then: State,
    ) -> Result<Clause<State>, Cause> {
        let word = match then {
            State::Removed(_) => "removed",
            State::Sessions(_) => "sessions",
            State::Renumber(_) => "renumber",
        };
        if functions.is_some() || when.percent.is_some() || when.times.is_some() {
            return Err(Cause::Together {
                word,
                with: "functions, a percentage or `times`",
            });
        }
        let functions = self.vocabulary.all_of(self.vocabulary.functions);
        Ok(Clause {
            functions,
            when,
            then,
        })
    }

    fn fault(&mut self) -> Result<(Option<Delay>, Fault), Cause> {
        let mut delay = None;
        if self.words.next_if_eq(&"slow").is_some() {
            delay = Some(self.delay()?);
            if self.words.peek().is_none() {
                return Ok((delay, Fault::Ok));
            }
        }
        let fault = match self.word()? {
            "ok" => Fault::Ok,
            "wrong" => Fault::Wrong,
            "error" => Fault::Error(self.code()?),
            "lost" => Fault::Lost,
            "hang" => Fault::Hang,
            "crash" => Fault::Crash(self.crash()?),
            other => return Err(Cause::Word(other.to_owned())),
        };
        Ok((delay, fault))
    }

    fn fault_clause(
        &self,
        functions: Option<Functions>,
        mut when: When,
        then: (Option<Delay>, Fault),
    ) -> Result<Clause<(Option<Delay>, Fault)>, Cause> {
        let signing = self.vocabulary.all_of(&[self.vocabulary.signing]);
        if then.1 == Fault::Wrong && functions.is_some_and(|functions| functions != signing) {
            return Err(Cause::Together {
                word: "wrong",
                with: "a function that does not sign",
            });
        }
        let mut usual = signing;
        if then.1 == Fault::Lost {
            usual = self.vocabulary.all_of(self.vocabulary.sessions);
            // A device that lost its sessions at every call could never be got back.
            let told = when.percent.is_some() || when.times.is_some();
            when.times = if told { when.times } else { Some(1) };
        }
        Ok(Clause {
            functions: functions.unwrap_or(usual),
            when,
            then,
        })
    }

    fn delay(&mut self) -> Result<Delay, Cause> {
        Ok(match self.word()? {
            "exp" => Delay::Exponential(self.milliseconds()?),
            "lognormal" => Delay::LogNormal(self.milliseconds()?, self.milliseconds()?),
            word => match word.split_once("..") {
                Some((low, high)) => {
                    let (low, high) = (amount(low, f64::MAX)?, amount(high, f64::MAX)?);
                    (low <= high)
                        .then_some(())
                        .ok_or_else(|| Cause::Number(word.to_owned()))?;
                    Delay::Uniform(low, high)
                }
                None => Delay::Fixed(amount(word, f64::MAX)?),
            },
        })
    }

    fn crash(&mut self) -> Result<Crash, Cause> {
        match self.words.next() {
            None | Some("abort") => Ok(Crash::Abort),
            Some("segfault") => Ok(Crash::Segfault),
            Some("exit") => Ok(Crash::Exit(self.words.next().map_or(Ok(1), number)?)),
            Some(other) => Err(Cause::Word(other.to_owned())),
        }
    }

    fn word(&mut self) -> Result<&'a str, Cause> {
        self.words.next().ok_or(Cause::Short)
    }

    fn code(&mut self) -> Result<u64, Cause> {
        let word = self.word()?;
        self.vocabulary
            .code(word)
            .ok_or_else(|| Cause::Code(word.to_owned()))
    }

    fn number(&mut self) -> Result<u64, Cause> {
        number(self.word()?)
    }

    /// The number behind the word that comes next.
    fn after_word(&mut self) -> Result<u64, Cause> {
        self.words.next();
        self.number()
    }

    fn milliseconds(&mut self) -> Result<f64, Cause> {
        amount(self.word()?, f64::MAX)
    }
}

fn number<N: FromStr>(word: &str) -> Result<N, Cause> {
    word.parse().map_err(|_| Cause::Number(word.to_owned()))
}

/// A number from zero to this.
fn amount(word: &str, most: f64) -> Result<f64, Cause> {
    let value: f64 = number(word)?;
    (0.0..=most)
        .contains(&value)
        .then_some(value)
        .ok_or_else(|| Cause::Number(word.to_owned()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A small device.
    pub(crate) static VOCABULARY: Vocabulary = Vocabulary {
        functions: &["C_Login", "C_Sign", "C_SignInit", "C_OpenSession"],
        signing: "C_Sign",
        sessions: &["C_Login", "C_Sign", "C_SignInit"],
        codes: &[("CKR_DEVICE_ERROR", 0x30), ("CKR_PIN_LOCKED", 0xa4)],
        removed: 0xe0,
        states: &["removed", "sessions", "renumber"],
    };
    pub(crate) const LOGIN: usize = 0;
    pub(crate) const SIGN: usize = 1;

    fn parse(text: &str) -> Script {
        Script::parse(text, &VOCABULARY).unwrap_or_else(|error| panic!("{error}"))
    }

    fn one(text: &str) -> (Option<Delay>, Fault) {
        let script = parse(text);
        assert_eq!((script.faults.len(), script.states.len()), (1, 0), "{text}");
        script.faults[0].then
    }

    fn refusal(text: &str) -> String {
        Script::parse(text, &VOCABULARY).unwrap_err().to_string()
    }

    #[test]
    fn every_fault_has_its_word() {
        for (text, fault) in [
            ("ok", Fault::Ok),
            ("wrong", Fault::Wrong),
            ("error CKR_DEVICE_ERROR", Fault::Error(0x30)),
            ("error 0x30", Fault::Error(0x30)),
            ("error 21", Fault::Error(0x21)),
            ("lost", Fault::Lost),
            ("hang", Fault::Hang),
            ("crash", Fault::Crash(Crash::Abort)),
            ("crash abort", Fault::Crash(Crash::Abort)),
            ("crash segfault", Fault::Crash(Crash::Segfault)),
            ("crash exit", Fault::Crash(Crash::Exit(1))),
            ("crash exit 3", Fault::Crash(Crash::Exit(3))),
        ] {
            assert_eq!(one(text), (None, fault), "{text}");
        }
    }

    #[test]
    fn every_delay_has_its_words() {
        for (text, delay) in [
            ("slow 5", Delay::Fixed(5.0)),
            ("slow 0.5", Delay::Fixed(0.5)),
            ("slow 5..20", Delay::Uniform(5.0, 20.0)),
            ("slow 0.5..1.5", Delay::Uniform(0.5, 1.5)),
            ("slow exp 10", Delay::Exponential(10.0)),
            ("slow lognormal 10 1.5", Delay::LogNormal(10.0, 1.5)),
        ] {
            assert_eq!(one(text), (Some(delay), Fault::Ok), "{text}");
        }
        assert_eq!(one("slow 5 hang"), (Some(Delay::Fixed(5.0)), Fault::Hang));
    }

    #[test]
    fn clauses_stand_between_semicolons_and_lines() {
        let script = parse("# a rehearsal\n5% error 0x30; 1% hang ; slow 2..4 # the rest\n\nseed 9");
        assert_eq!(script.faults.len(), 3);
        assert_eq!(script.seed, Some(9));
        assert_eq!(parse(" \n ;; # nothing").faults.len(), 0);
    }

    #[test]
    fn conditions_stand_before_the_fault_in_any_order() {
        let script = parse("for 50 2.5% times 3 after 7 hang");
        let when = When {
            percent: Some(2.5),
            after: 7,
            times: Some(3),
            lasts: Some(Duration::from_millis(50)),
        };
        assert_eq!(script.faults[0].when, when);
    }

    #[test]
    fn functions_are_named_listed_or_begun() {
        let places = |text: &str| {
            let functions = parse(text).faults[0].functions;
            (0..4)
                .filter(|place| functions.contains(*place))
                .collect::<Vec<_>>()
        };
        assert_eq!(places("hang"), [1]);
        assert_eq!(places("C_Login: hang"), [0]);
        assert_eq!(places("C_Login, C_OpenSession: hang"), [0, 3]);
        assert_eq!(places("C_Sign*: hang"), [1, 2]);
        assert_eq!(places("lost"), [0, 1, 2]);
    }

    #[test]
    fn states_are_read() {
        let script = parse("removed; removed 0x32; sessions 4; renumber 100; renumber rotate");
        let states: Vec<State> = script.states.iter().map(|clause| clause.then).collect();
        let wanted = [
            State::Removed(0xe0),
            State::Removed(0x32),
            State::Sessions(4),
            State::Renumber(Renumber::Offset(100)),
            State::Renumber(Renumber::Rotate),
        ];
        assert_eq!(states, wanted);
    }

    #[test]
    fn what_has_no_meaning_is_named() {
        for (text, words) in [
            ("worng", "`worng`"),
            (
                "ok; C_Sing: hang",
                "in the clause `C_Sing: hang`: there is no function `C_Sing`",
            ),
            ("error CKR_NONSENSE", "there is no code `CKR_NONSENSE`"),
            ("error", "missing"),
            ("5%", "missing"),
            ("101% hang", "`101`"),
            ("slow fast", "`fast`"),
            ("slow -1", "`-1`"),
            ("slow NaN", "`NaN`"),
            ("slow 9..3", "`9..3`"),
            ("after x hang", "`x`"),
            ("hang now", "`now` is one word too many"),
            ("C_Login: wrong", "does not go with a function that does not sign"),
            ("5% removed", "`removed` does not go with"),
            ("C_Sign: seed 3", "`seed` does not go with"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(words), "{text}: {refusal}");
        }
    }
}
