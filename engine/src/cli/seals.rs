//! `cinnabar seals` and `cinnabar grants`: seals from draft to revocation, and who may use them.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use documents::seal_image::{self, Font, Shape, Template};
use protocol::error_code::{Code, Refusal};
use serde_json::Value;
use store::{SealKind, SealStep};

use super::operate::send;
use super::{print_json, print_line, read_file};
use crate::admin::operator::Order;
use crate::admin::seals::{NewGrant, NewSeal, SealOrder};
use crate::args::seals::{
    GrantsCommand, NewSealArguments, SealForm, SealName, SealOwner, SealPicture, SealReason, SealsCommand,
};
use crate::config::Config;

/// The red of seals.
const RED: [u8; 3] = [0xd9, 0x1f, 0x1f];
/// What a picture is drawn with: 42 mm are 661 pixels.
const DOTS_PER_INCH: u32 = 400;

fn ask(config: &Config, order: SealOrder) -> Result<Value, Refusal> {
    send(config, Order::Seal(order))
}

/// `cinnabar seals`.
pub(super) fn seals(config: &Config, command: SealsCommand) -> Result<(), Refusal> {
    match command {
        SealsCommand::Create(arguments) => create(config, *arguments),
        SealsCommand::Submit(seal) => step(config, seal, SealStep::Submit),
        SealsCommand::Return(seal) => step(config, seal, SealStep::Return),
        SealsCommand::Approve(seal) => step(config, seal, SealStep::Approve),
        SealsCommand::Freeze(seal) => step(config, seal, SealStep::Freeze),
        SealsCommand::Unfreeze(seal) => step(config, seal, SealStep::Unfreeze),
        SealsCommand::Revoke(seal) => step(config, seal, SealStep::Revoke),
        SealsCommand::Destroy(seal) => step(config, seal, SealStep::Destroy),
        SealsCommand::Remake { seal, to } => {
            let SealReason { name, reason } = seal;
            let text = format!("made seal {}/{} anew", name.tenant, name.id);
            let SealName { tenant, id } = name;
            let order = SealOrder::Remake {
                tenant,
                id,
                to,
                reason,
            };
            ask(config, order)?;
            print_line(&text)
        }
        SealsCommand::List { tenant, after } => print_json(&ask(config, SealOrder::List { tenant, after })?),
        SealsCommand::Show(SealName { tenant, id }) => {
            print_json(&ask(config, SealOrder::Show { tenant, id })?)
        }
        SealsCommand::Image { seal, out, ses } => files(config, seal, &out, ses.as_deref()),
        SealsCommand::Uses { seal, grant, after } => {
            let SealName { tenant, id } = seal;
            let order = SealOrder::Uses {
                tenant,
                id,
                grant,
                after,
            };
            print_json(&ask(config, order)?)
        }
    }
}

/// `cinnabar grants`.
pub(super) fn grants(config: &Config, command: GrantsCommand) -> Result<(), Refusal> {
    match command {
        GrantsCommand::Create {
            seal: SealName { tenant, id },
            app,
            agent,
            documents,
            from,
            to,
            uses,
            grant,
        } => {
            let new = NewGrant {
                id: grant,
                seal: id,
                app,
                agent,
                documents,
                from,
                to,
                uses_max: uses,
            };
            let made = ask(config, SealOrder::Grant { tenant, new })?;
            print_line(made["grant"].as_str().unwrap_or_default())
        }
        GrantsCommand::Revoke { tenant, id, reason } => {
            let text = format!("revoked grant {tenant}/{id}");
            ask(config, SealOrder::RevokeGrant { tenant, id, reason })?;
            print_line(&text)
        }
        GrantsCommand::List { tenant, seal } => print_json(&ask(config, SealOrder::Grants { tenant, seal })?),
    }
}

fn create(config: &Config, arguments: NewSealArguments) -> Result<(), Refusal> {
    let picture = match (&arguments.picture.picture, arguments.picture.template) {
        (Some(path), _) => read_file(path)?,
        (None, Some(form)) => draw(config, &arguments, form)?,
        (None, None) => return Err(Refusal::new(Code::Usage, "give --picture or --template")),
    };
    let SealName { tenant, id } = arguments.seal;
    let text = format!("made a draft of seal {tenant}/{id}");
    let new = NewSeal {
        id,
        name: arguments.name,
        kind: match arguments.kind {
            SealOwner::Organisation => SealKind::Organisation,
            SealOwner::Personal => SealKind::Personal,
        },
        credential: arguments.credential,
        maker: arguments.maker,
        picture: STANDARD.encode(picture),
        remove_background: arguments.picture.remove_background,
        width_mm: arguments.width,
        height_mm: arguments.height,
        from: arguments.from,
        to: arguments.to,
        shared: arguments.shared,
    };
    ask(config, SealOrder::Create { tenant, new })?;
    print_line(&text)
}

/// Draws the picture here, so that the engine needs no font.
fn draw(config: &Config, arguments: &NewSealArguments, form: SealForm) -> Result<Vec<u8>, Refusal> {
    let unusable = |error: &dyn std::fmt::Display| Refusal::new(Code::ImageUnusable, error.to_string());
    let (width_mm, height_mm) = (
        arguments.width,
        arguments.height.unwrap_or(arguments.width * 2 / 3),
    );
    let template = Template {
        shape: match form {
            SealForm::Round => Shape::Round {
                diameter_mm: width_mm,
            },
            SealForm::Oval => Shape::Oval { width_mm, height_mm },
            SealForm::Rectangular => Shape::Rectangular { width_mm, height_mm },
            SealForm::Personal => Shape::Personal { side_mm: width_mm },
        },
        name: arguments.name.clone(),
        sub_title: arguments.picture.sub_title.clone(),
        code: arguments.picture.code.clone(),
        colour: RED,
    };
    let font = font(config, &arguments.picture)?;
    let drawing = seal_image::draw(&template, &font).map_err(|error| unusable(&error))?;
    drawing.png(DOTS_PER_INCH).map_err(|error| unusable(&error))
}

fn font(config: &Config, picture: &SealPicture) -> Result<Font, Refusal> {
    let none = || {
        let text = "a seal is drawn with a font that has its characters: give --font, or the setting report_font, \
                    such as gbsn00lp.ttf of Debian's fonts-arphic-gbsn00lp";
        Refusal::new(Code::Usage, text)
    };
    let path = picture.font.as_ref().or(config.report_font.as_ref());
    let path = path.ok_or_else(none)?;
    Font::new(read_file(path)?, picture.font_index)
        .map_err(|error| Refusal::new(Code::Usage, format!("{}: {error}", path.display())))
}

fn step(config: &Config, seal: SealReason, step: SealStep) -> Result<(), Refusal> {
    let SealReason {
        name: SealName { tenant, id },
        reason,
    } = seal;
    let done = match step {
        SealStep::Submit => "submitted",
        SealStep::Return => "returned",
        SealStep::Approve => "approved",
        SealStep::Freeze => "froze",
        SealStep::Unfreeze => "unfroze",
        SealStep::Revoke => "revoked",
        SealStep::Destroy => "destroyed",
    };
    let text = format!("{done} seal {tenant}/{id}");
    let order = SealOrder::Step {
        tenant,
        id,
        step,
        reason,
    };
    ask(config, order)?;
    print_line(&text)
}

fn files(config: &Config, seal: SealName, out: &Path, ses: Option<&Path>) -> Result<(), Refusal> {
    let SealName { tenant, id } = seal;
    let none = format!("seal {tenant}/{id} has no maker: there is its picture only");
    let found = ask(config, SealOrder::Files { tenant, id })?;
    write(&found["picture"], out)?;
    match ses {
        Some(_) if found["ses"].is_null() => Err(Refusal::new(Code::NotFound, none)),
        Some(path) => write(&found["ses"], path),
        None => Ok(()),
    }
}

fn write(value: &Value, path: &Path) -> Result<(), Refusal> {
    let bad = |_| Refusal::new(Code::BadAnswer, "a file of the seal is not base64");
    let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).map_err(bad)?;
    std::fs::write(path, bytes)
        .map_err(|error| Refusal::new(Code::File, format!("{}: {error}", path.display())))?;
    print_line(&format!("wrote {}", path.display()))
}
