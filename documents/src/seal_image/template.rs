//! What a seal shows, and where.
//!
//! Proportions follow the seals of companies: a ring of 1.2 mm and a star of 14 mm in a circle of 42 mm, the name from
//! left to right on the arc, the kind of seal under the star, the code on the lower arc.

use tiny_skia::Path;

use super::draw::{Drawing, Figure};
use super::font::{Font, FontError};
use super::{layout, path};

/// The form of a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A circle with a star, of companies and their departments.
    Round {
        /// Millimetres.
        diameter_mm: u32,
    },
    /// An ellipse, of invoices and contracts.
    Oval {
        /// Millimetres.
        width_mm: u32,
        /// Millimetres.
        height_mm: u32,
    },
    /// A rectangle, of departments and dates.
    Rectangular {
        /// Millimetres.
        width_mm: u32,
        /// Millimetres.
        height_mm: u32,
    },
    /// A square with a person's name.
    Personal {
        /// Millimetres.
        side_mm: u32,
    },
}

/// What a seal shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its form and size.
    pub shape: Shape,
    /// Of the company, or of the person (two to four characters).
    pub name: String,
    /// Of what kind it is (合同专用章); personal seals have none.
    pub sub_title: Option<String>,
    /// Its code; personal seals have none.
    pub code: Option<String>,
    /// Red, green and blue.
    pub colour: [u8; 3],
}

/// Why a seal cannot be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrawError {
    /// Of the font, a missing character above all.
    #[error(transparent)]
    Font(#[from] FontError),
    /// A size that no seal has.
    #[error("a seal is 10 to 100 mm wide and high")]
    Size,
    /// A text that is empty or too long.
    #[error("{0}")]
    Text(&'static str),
    /// Numbers that give no figure.
    #[error("the seal is too small for its parts")]
    Degenerate,
}

const NAME_MAX: usize = 40;
const LINE_MAX: usize = 24;

/// Draws a seal.
pub fn draw(template: &Template, font: &Font) -> Result<Drawing, DrawError> {
    check(template)?;
    let (width_mm, height_mm) = match template.shape {
        Shape::Round { diameter_mm } => (diameter_mm, diameter_mm),
        Shape::Personal { side_mm } => (side_mm, side_mm),
        Shape::Oval { width_mm, height_mm } | Shape::Rectangular { width_mm, height_mm } => {
            (width_mm, height_mm)
        }
    };
    if !(10..=100).contains(&width_mm) || !(10..=100).contains(&height_mm) {
        return Err(DrawError::Size);
    }
    let size = (millimetres(width_mm), millimetres(height_mm));
    let mut parts = Parts {
        template,
        font,
        figures: Vec::new(),
    };
    match template.shape {
        Shape::Round { .. } => parts.round(size)?,
        Shape::Oval { .. } => parts.oval(size)?,
        Shape::Rectangular { .. } => parts.rectangular(size)?,
        Shape::Personal { .. } => parts.personal(size.0)?,
    }
    Ok(Drawing {
        width_mm,
        height_mm,
        colour: template.colour,
        title: template.name.clone(),
        figures: parts.figures,
    })
}

fn check(template: &Template) -> Result<(), DrawError> {
    let length = template.name.chars().count();
    let is_line = |text: &Option<String>| {
        text.as_ref()
            .is_none_or(|text| (1..=LINE_MAX).contains(&text.chars().count()))
    };
    let is_personal = matches!(template.shape, Shape::Personal { .. });
    let faults = [
        (
            !(1..=NAME_MAX).contains(&length),
            "the name has 1 to 40 characters",
        ),
        (
            !is_line(&template.sub_title),
            "the kind of seal has 1 to 24 characters",
        ),
        (!is_line(&template.code), "the code has 1 to 24 characters"),
        (
            is_personal && !(2..=4).contains(&length),
            "a personal seal has a name of 2 to 4 characters",
        ),
        (
            is_personal && (template.sub_title.is_some() || template.code.is_some()),
            "a personal seal shows a name and nothing else",
        ),
    ];
    match faults.iter().find(|(is_fault, _)| *is_fault) {
        Some((_, fault)) => Err(DrawError::Text(fault)),
        None => Ok(()),
    }
}

fn millimetres(number: u32) -> f32 {
    f32::from(u16::try_from(number).unwrap_or(u16::MAX))
}

struct Parts<'t> {
    template: &'t Template,
    font: &'t Font,
    figures: Vec<Figure>,
}

impl Parts<'_> {
    fn fill(&mut self, path: Option<Path>) -> Result<(), DrawError> {
        self.add(path, None)
    }

    fn add(&mut self, path: Option<Path>, stroke: Option<f32>) -> Result<(), DrawError> {
        let path = path.ok_or(DrawError::Degenerate)?;
        self.figures.push(Figure { path, stroke });
        Ok(())
    }

    /// The ring, and name and code inside it. `unit` is the 42nd part of a usual seal.
    fn ring(&mut self, (width, height): (f32, f32), unit: f32, name: f32) -> Result<(), DrawError> {
        let (centre, ring) = ((width / 2.0, height / 2.0), 1.2 * unit);
        let inset = |by: f32| (width / 2.0 - by, height / 2.0 - by);
        self.add(path::ellipse(centre, inset(ring / 2.0)), Some(ring))?;
        let walk = path::Walk::new(centre, inset(ring + 0.9 * unit + name / 2.0));
        self.fill(layout::upper_arc(self.font, &self.template.name, &walk, name)?)?;
        if let Some(code) = &self.template.code {
            let height = 1.7 * unit;
            let walk = path::Walk::new(centre, inset(ring + 0.6 * unit + height / 2.0));
            self.fill(layout::lower_arc(self.font, code, &walk, height)?)?;
        }
        Ok(())
    }

    fn round(&mut self, size: (f32, f32)) -> Result<(), DrawError> {
        let (unit, centre) = (size.0 / 42.0, (size.0 / 2.0, size.1 / 2.0));
        self.ring(size, unit, 6.0 * unit)?;
        self.fill(path::star(centre, 7.0 * unit))?;
        if let Some(text) = &self.template.sub_title {
            let below = (centre.0, centre.1 + 11.0 * unit);
            self.fill(layout::line(self.font, text, below, 22.0 * unit, 4.2 * unit)?)?;
        }
        Ok(())
    }

    fn oval(&mut self, size: (f32, f32)) -> Result<(), DrawError> {
        let unit = size.0.min(size.1) / 30.0;
        self.ring(size, unit, 4.6 * unit)?;
        if let Some(text) = &self.template.sub_title {
            let centre = (size.0 / 2.0, size.1 / 2.0 + 4.5 * unit);
            self.fill(layout::line(self.font, text, centre, size.0 * 0.55, 4.0 * unit)?)?;
        }
        Ok(())
    }

    fn rectangular(&mut self, (width, height): (f32, f32)) -> Result<(), DrawError> {
        let border = width.min(height) / 24.0;
        self.add(
            path::rectangle(border / 2.0, border / 2.0, width - border, height - border),
            Some(border),
        )?;
        let template = self.template;
        let texts = [
            Some(&template.name),
            template.sub_title.as_ref(),
            template.code.as_ref(),
        ];
        let lines: Vec<&String> = texts.into_iter().flatten().collect();
        let share = (height - 4.0 * border) / layout::as_number(lines.len());
        for (index, text) in lines.into_iter().enumerate() {
            let y = 2.0 * border + share * (layout::as_number(index) + 0.5);
            self.fill(layout::line(
                self.font,
                text,
                (width / 2.0, y),
                width - 6.0 * border,
                share * 0.8,
            )?)?;
        }
        Ok(())
    }

    /// Two columns, filled up with 之印 or 印 as is the custom.
    fn personal(&mut self, side: f32) -> Result<(), DrawError> {
        let border = side / 18.0;
        self.add(
            path::rectangle(border / 2.0, border / 2.0, side - border, side - border),
            Some(border),
        )?;
        let filling = match self.template.name.chars().count() {
            2 => "之印",
            3 => "印",
            _ => "",
        };
        let text = format!("{}{filling}", self.template.name);
        self.fill(layout::square(
            self.font,
            &text,
            1.5 * border,
            side - 3.0 * border,
        )?)
    }
}
