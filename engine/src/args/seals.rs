//! Commands about seals and grants.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use protocol::ids::{AppId, CredentialId, GrantId, SealId, SubjectId, TenantName};
use protocol::seal::DocumentKind;
use sla::calendar::MinuteIndex;

/// A seal.
#[derive(Debug, Args)]
pub(crate) struct SealName {
    /// Whose.
    #[arg(long)]
    pub(crate) tenant: TenantName,
    /// Which.
    pub(crate) id: SealId,
}

/// A seal, and why something is done with it.
#[derive(Debug, Args)]
pub(crate) struct SealReason {
    #[command(flatten)]
    pub(crate) name: SealName,
    /// Why; the journal keeps it.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

/// Whose seal it is.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SealOwner {
    /// An organisation's (单位印章).
    Organisation,
    /// A person's (个人印章).
    Personal,
}

/// The form of a seal that is drawn.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SealForm {
    /// A circle with a star.
    Round,
    /// An ellipse.
    Oval,
    /// A rectangle.
    Rectangular,
    /// A square with a person's name.
    Personal,
}

/// Where the picture of a new seal comes from.
#[derive(Debug, Args)]
pub(crate) struct SealPicture {
    /// The picture: a PNG or JPEG.
    #[arg(long, value_name = "FILE", required_unless_present = "template")]
    pub(crate) picture: Option<PathBuf>,
    /// Make the picture's background transparent.
    #[arg(long, requires = "picture")]
    pub(crate) remove_background: bool,
    /// Draw the picture in this form, with the name on it.
    #[arg(long, value_enum, conflicts_with = "picture")]
    pub(crate) template: Option<SealForm>,
    /// The kind of seal that is drawn below the star, such as 合同专用章.
    #[arg(long, requires = "template")]
    pub(crate) sub_title: Option<String>,
    /// The code that is drawn on the lower arc.
    #[arg(long, requires = "template")]
    pub(crate) code: Option<String>,
    /// The font of what is drawn [default: the setting report_font].
    #[arg(long, value_name = "FILE", requires = "template")]
    pub(crate) font: Option<PathBuf>,
    /// Which font of a collection.
    #[arg(long, value_name = "N", requires = "font", default_value_t = 0)]
    pub(crate) font_index: u32,
}

/// A new seal.
#[derive(Debug, Args)]
pub(crate) struct NewSealArguments {
    #[command(flatten)]
    pub(crate) seal: SealName,
    /// What it is called.
    #[arg(long)]
    pub(crate) name: String,
    /// Whose seal it is.
    #[arg(long, value_enum, default_value = "organisation")]
    pub(crate) kind: SealOwner,
    /// The credential that signs under it.
    #[arg(long)]
    pub(crate) credential: CredentialId,
    /// The credential of its maker, who signs the seal itself when it is approved (GB/T 38540, SM2).
    #[arg(long, value_name = "CREDENTIAL")]
    pub(crate) maker: Option<CredentialId>,
    #[command(flatten)]
    pub(crate) picture: SealPicture,
    /// Displayed width in millimetres; of a round or personal seal its height as well.
    #[arg(long, value_name = "MM", default_value_t = 42)]
    pub(crate) width: u32,
    /// Displayed height in millimetres [default: as the picture has it].
    #[arg(long, value_name = "MM")]
    pub(crate) height: Option<u32>,
    /// From when on it may be used, YYYY-MM-DDThh:mm+08:00 [default: now].
    #[arg(long)]
    pub(crate) from: Option<MinuteIndex>,
    /// Until when [default: as long as its certificate is valid].
    #[arg(long)]
    pub(crate) to: Option<MinuteIndex>,
    /// Leave its credential as it is: without this it signs only under seals from now on.
    #[arg(long)]
    pub(crate) shared: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SealsCommand {
    /// Makes a draft of a seal.
    Create(Box<NewSealArguments>),
    /// Has a draft looked at.
    Submit(SealReason),
    /// Gives a seal in review back to be changed: it is a draft again.
    Return(SealReason),
    /// Approves a seal in review: its maker signs it, and it is active.
    Approve(SealReason),
    /// Freezes an active seal: what is in flight under it is not released either.
    Freeze(SealReason),
    /// Lets a frozen seal be used again.
    Unfreeze(SealReason),
    /// Revokes a seal for good.
    Revoke(SealReason),
    /// Destroys a seal that was never used, and its picture.
    Destroy(SealReason),
    /// Makes a seal anew that is in use: for its credential's new certificate, or a longer time.
    Remake {
        #[command(flatten)]
        seal: SealReason,
        /// Until when it may be used [default: as long as its certificate is valid].
        #[arg(long)]
        to: Option<MinuteIndex>,
    },
    /// Lists a tenant's seals.
    List {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// Those after this id.
        #[arg(long)]
        after: Option<SealId>,
    },
    /// Shows a seal, its grants, and what was done with both.
    Show(SealName),
    /// Writes a seal's picture, and the seal as its maker has signed it.
    Image {
        #[command(flatten)]
        seal: SealName,
        /// Where to write the picture, a PNG.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Where to write the electronic seal (SESeal, DER).
        #[arg(long, value_name = "FILE")]
        ses: Option<PathBuf>,
    },
    /// Lists the signatures under a seal, with the grant of each: at most 1,000.
    Uses {
        #[command(flatten)]
        seal: SealName,
        /// Those by this grant only.
        #[arg(long)]
        grant: Option<GrantId>,
        /// Those after this journal entry.
        #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
        after: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GrantsCommand {
    /// Grants a seal to an app, or to an agent who acts through it.
    Create {
        #[command(flatten)]
        seal: SealName,
        /// To which app.
        #[arg(long)]
        app: AppId,
        /// To which agent: a subject whose identity is approved [default: the app itself].
        #[arg(long, value_name = "SUBJECT")]
        agent: Option<SubjectId>,
        /// On what kind of document; may be given several times [default: all].
        #[arg(long = "document", value_name = "KIND")]
        documents: Vec<DocumentKind>,
        /// From when on, YYYY-MM-DDThh:mm+08:00 [default: now].
        #[arg(long)]
        from: Option<MinuteIndex>,
        /// Until when [default: as long as the seal].
        #[arg(long)]
        to: Option<MinuteIndex>,
        /// How often at most [default: no limit].
        #[arg(long, value_name = "N")]
        uses: Option<u64>,
        /// The grant's id [default: a fresh one].
        #[arg(long, value_name = "ID")]
        grant: Option<GrantId>,
    },
    /// Revokes a grant: what is in flight by it is not released either.
    Revoke {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// Which.
        id: GrantId,
        /// Why; the journal keeps it.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Lists the grants of a tenant's seals.
    List {
        /// Whose.
        #[arg(long)]
        tenant: TenantName,
        /// Of this seal only.
        #[arg(long)]
        seal: Option<SealId>,
    },
}
