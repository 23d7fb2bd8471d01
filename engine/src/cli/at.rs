//! `--at`: where a seal goes, in one argument.

use std::str::FromStr;

use documents::pdf::{Anchor, Origin, PageNumber, Position, Unit};

/// A position on a page, as `page=1,x=100,y=50,unit=mm` says it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct At {
    pub(crate) page: PageNumber,
    pub(crate) position: Position,
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Parts::read(text)?;
        let page = match parts.take("page") {
            None | Some("1") => PageNumber::Nth(1),
            Some("last") => PageNumber::Last,
            Some(number) => match number.parse() {
                Ok(number) if number > 0 => PageNumber::Nth(number),
                _ => return Err(format!("page={number}: a number from 1 on, or last")),
            },
        };
        let mut position = Position {
            x: parts.number("x")?.ok_or("x is missing")?,
            y: parts.number("y")?.ok_or("y is missing")?,
            ..Position::default()
        };
        position.size.width = parts.length("w")?;
        position.size.height = parts.length("h")?;
        position.unit = parts.word(
            "unit",
            &[
                ("pt", Unit::Point),
                ("mm", Unit::Millimetre),
                ("fraction", Unit::Fraction),
            ],
        )?;
        position.origin = parts.word(
            "origin",
            &[("top-left", Origin::TopLeft), ("bottom-left", Origin::BottomLeft)],
        )?;
        position.anchor = parts.word(
            "anchor",
            &[("corner", Anchor::Corner), ("centre", Anchor::Centre)],
        )?;
        parts.finish()?;
        Ok(Self { page, position })
    }
}

/// `KEY=VALUE,…`, each key once.
struct Parts<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Parts<'t> {
    fn read(text: &'t str) -> Result<Self, String> {
        let mut parts: Vec<(&str, &str)> = Vec::new();
        for part in text.split(',') {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("'{part}' is no KEY=VALUE"))?;
            if parts.iter().any(|(seen, _)| *seen == key) {
                return Err(format!("{key} is there twice"));
            }
            parts.push((key, value));
        }
        Ok(Self(parts))
    }

    fn take(&mut self, key: &str) -> Option<&'t str> {
        let at = self.0.iter().position(|(found, _)| *found == key)?;
        Some(self.0.remove(at).1)
    }

    fn number(&mut self, key: &str) -> Result<Option<f64>, String> {
        let Some(text) = self.take(key) else {
            return Ok(None);
        };
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(format!("{key}={text}: a number is needed")),
        }
    }

    fn length(&mut self, key: &str) -> Result<Option<f64>, String> {
        match self.number(key)? {
            Some(length) if length <= 0.0 => Err(format!("{key}={length}: a length above 0 is needed")),
            length => Ok(length),
        }
    }

    fn word<T: Copy + Default>(&mut self, key: &str, words: &[(&str, T)]) -> Result<T, String> {
        let Some(text) = self.take(key) else {
            return Ok(T::default());
        };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                Err(format!("{key}={text}: one of {} is needed", known.join(", ")))
            }
        }
    }

    fn finish(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(format!("'{key}' is not known")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_read() {
        let at: At = "page=last,x=1.5,y=-2,w=42,unit=mm,origin=bottom-left,anchor=centre"
            .parse()
            .unwrap();
        assert_eq!(at.page, PageNumber::Last);
        assert_eq!((at.position.x, at.position.y), (1.5, -2.0));
        assert_eq!(
            (at.position.size.width, at.position.size.height),
            (Some(42.0), None)
        );
        assert_eq!(at.position.unit, Unit::Millimetre);
        assert_eq!(at.position.origin, Origin::BottomLeft);
        assert_eq!(at.position.anchor, Anchor::Centre);
        let short: At = "x=0,y=0".parse().unwrap();
        assert_eq!(
            (short.page, short.position),
            (PageNumber::Nth(1), Position::default())
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("x=1", "y is missing"),
            ("x=1,y=2,x=3", "x is there twice"),
            ("x=1,y=2,z=3", "'z' is not known"),
            ("x=1,y=2,unit=inch", "pt, mm, fraction"),
            ("x=1,y=nan", "y=nan"),
            ("x=1,y=2,w=0", "above 0"),
            ("page=0,x=1,y=2", "page=0"),
            ("", "KEY=VALUE"),
        ] {
            let error = text.parse::<At>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
