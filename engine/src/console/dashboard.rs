//! The dashboard: one page, its parts, and a stream of server-sent events that fills it once a second. Everything comes from
//! this listener; nothing is fetched from elsewhere, and no script or style stands in the page itself.
//!
//! Its chapters: [`frame`] says what a second shows, [`live`] keeps and hands out the seconds, [`month`] judges the month.

mod frame;
pub(super) mod live;
mod month;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{Html, IntoResponse, Response, Sse};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use http::header;
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use serde_json::json;
use store::OperatorRole;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use self::live::{Live, News};
use super::guard::{Anybody, Asker, Standing};
use super::{Console, Shared, refuse};

/// Where a browser goes once it is logged in.
pub(super) const PATH: &str = "/dashboard";

/// What is not sent for so long is a comment: it keeps the connection open, and the right to it is looked at again.
const SILENCE_MAX: Duration = Duration::from_secs(5);

const PAGE: &str = include_str!("dashboard/assets/page.html");
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// What the page is made of, for everybody: nothing of the engine is in it.
const PARTS: [(&str, &str, &str); 7] = [
    (
        "/dashboard/dashboard.js",
        SCRIPT,
        include_str!("dashboard/assets/dashboard.js"),
    ),
    (
        "/dashboard/charts.js",
        SCRIPT,
        include_str!("dashboard/assets/charts.js"),
    ),
    (
        "/dashboard/words.js",
        SCRIPT,
        include_str!("dashboard/assets/words.js"),
    ),
    (
        "/dashboard/uplot.js",
        SCRIPT,
        include_str!("dashboard/assets/uplot.js"),
    ),
    (
        "/dashboard/dashboard.css",
        STYLE,
        include_str!("dashboard/assets/dashboard.css"),
    ),
    (
        "/dashboard/uplot.css",
        STYLE,
        include_str!("dashboard/assets/uplot.css"),
    ),
    (
        "/dashboard/icon.svg",
        "image/svg+xml",
        include_str!("dashboard/assets/icon.svg"),
    ),
];

pub(super) fn routes() -> Router<Arc<Console>> {
    let page = get(|_: Anybody| async { Html(PAGE) });
    let routes = Router::new()
        .route(PATH, page)
        .route("/operator/v1/live", get(watch));
    PARTS.into_iter().fold(routes, |routes, (path, kind, text)| {
        let part = get(move || async move { ([(header::CONTENT_TYPE, kind)], text) });
        routes.route(path, part)
    })
}

/// Somebody who looks.
struct Viewer {
    console: Arc<Console>,
    live: Arc<Live>,
    standing: Standing,
    sees_tenants: bool,
    /// What is sent before anything new.
    first: std::vec::IntoIter<Event>,
    news: Receiver<News>,
    over: bool,
    _place: OwnedSemaphorePermit,
}

/// What the dashboard shows, as server-sent events.
#[utoipa::path(
    get, path = "/operator/v1/live", tag = "service",
    responses((status = 200, content_type = "text/event-stream", description = "Events of JSON: `hello` (who one is), \
        `history` (the last five minutes, a point a second), `now` once a second, `month` once a minute, `end` with a reason. \
        Tenants are in it for the roles manage and audit. Who reads too slowly misses some of them."))
)]
pub(super) async fn watch(State(console): Shared, standing: Standing, Anybody(asker): Anybody) -> Response {
    let Some(live) = console.live.clone() else {
        return refuse(&Refusal::new(
            Code::Usage,
            "there is a dashboard in a running engine only",
        ));
    };
    match viewer(&console, live, standing, &asker) {
        Ok(viewer) => Sse::new(events(viewer)).into_response(),
        Err(refusal) => refuse(&refusal),
    }
}

fn viewer(
    console: &Arc<Console>,
    live: Arc<Live>,
    standing: Standing,
    asker: &Asker,
) -> Result<Viewer, Refusal> {
    let place = live.place()?;
    let news = live.subscribe();
    let sees_tenants = asker.roles.has(OperatorRole::Manage) || asker.roles.has(OperatorRole::Audit);
    let hello = json!({
        "name": asker.name,
        "roles": asker.roles.names(),
        "tenants": sees_tenants,
        "version": env!("CARGO_PKG_VERSION"),
    });
    let mut first = vec![
        event("hello", &hello.to_string()),
        event("history", &live.history()?),
    ];
    first.extend(live.month().map(|month| event("month", &month)));
    Ok(Viewer {
        console: Arc::clone(console),
        live,
        standing,
        sees_tenants,
        first: first.into_iter(),
        news,
        over: false,
        _place: place,
    })
}

fn event(name: &str, data: &str) -> Event {
    Event::default().event(name).data(data)
}

fn events(viewer: Viewer) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(viewer, |mut viewer| async move {
        let event = viewer.next().await?;
        Some((Ok(event), viewer))
    })
}

impl Viewer {
    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.first.next() {
            return Some(event);
        }
        loop {
            if self.over {
                return None;
            }
            let news = match tokio::time::timeout(SILENCE_MAX, self.news.recv()).await {
                Ok(Ok(news)) => Some(news),
                Ok(Err(RecvError::Lagged(_))) => continue,
                Ok(Err(RecvError::Closed)) => return None,
                Err(_) => None,
            };
            if let Some(reason) = self.reason_to_end() {
                self.over = true;
                return Some(event("end", reason));
            }
            return Some(news.map_or_else(|| Event::default().comment(""), |news| self.show(&news)));
        }
    }

    fn show(&self, news: &News) -> Event {
        match news {
            News::Second(second) if self.sees_tenants => event("now", &second.whole),
            News::Second(second) => event("now", &second.without_tenants),
            News::Month(month) => event("month", month),
        }
    }

    fn reason_to_end(&self) -> Option<&'static str> {
        if self.live.is_stopping() {
            return Some("stopping");
        }
        let lasts = self.standing.lasts(&self.console, clock::wall());
        (!lasts).then_some("session")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_holds_no_script_or_style_of_its_own() {
        let style_or_handler =
            |word: &str| word.starts_with("style=") || word.starts_with("on") && word.contains("=\"");
        assert!(!PAGE.split_whitespace().any(style_or_handler));
        for tag in PAGE
            .split('<')
            .filter(|tag| tag.starts_with("script") || tag.starts_with("link"))
        {
            let path = tag.split('"').find(|part| part.starts_with("/dashboard/"));
            let path = path.unwrap_or_else(|| panic!("<{tag}"));
            assert!(PARTS.iter().any(|(known, _, _)| *known == path), "{path}");
        }
        for (path, kind, text) in PARTS {
            let elsewhere = text.contains("https://") && !path.starts_with("/dashboard/uplot.");
            assert!(!elsewhere && !text.is_empty(), "{path}: {kind}");
        }
    }

    #[test]
    fn every_word_of_the_page_is_in_the_table_in_both_languages() {
        let table = PARTS.iter().find(|(path, _, _)| path.ends_with("words.js"));
        let entry = |line: &'static str| line.trim().strip_suffix("],")?.split_once(": [");
        let entries: std::collections::BTreeMap<_, _> = table.unwrap().2.lines().filter_map(entry).collect();
        assert!(entries.len() > 60, "{} words", entries.len());
        for (name, both) in &entries {
            assert!(
                both.contains("\", \""),
                "{name} needs English and Chinese: {both}"
            );
        }
        let uses = PAGE
            .split("data-word=\"")
            .skip(1)
            .chain(PAGE.split("data-label=\"").skip(1));
        for name in uses.map(|rest| rest.split('"').next().unwrap()) {
            assert!(entries.contains_key(name), "{name}");
        }
    }
}
