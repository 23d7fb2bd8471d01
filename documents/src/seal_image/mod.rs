//! Pictures of seals: drawn from a template, or uploaded and written anew.
//!
//! - [`Template`] and [`draw`]: a round seal with a star, an oval, a rectangular or a personal one. A [`Drawing`]
//!   becomes SVG or PNG. Characters are drawn as outlines, so that a seal looks the same where its font is missing.
//! - [`Font`]: where the outlines come from. Which font is a matter of configuration; a character that it lacks is an
//!   error, never an empty box.
//! - [`accept`]: an uploaded PNG or JPEG, within limits, its background taken away on request.
//!
//! Sizes are in millimetres, as seals have them.

mod draw;
mod font;
mod layout;
mod path;
mod template;
mod upload;

pub use draw::{Drawing, RenderError};
pub use font::{Font, FontError};
pub use template::{DrawError, Shape, Template, draw};
pub use upload::{Accepted, UploadError, accept};
