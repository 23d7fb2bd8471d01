//! A prepaid balance ends with exactly as many signatures, however many ask for them at once.

use std::sync::Arc;

use protocol::client::{Client, Transport};
use protocol::error_code::{Code, Refusal};
use tokio::task::JoinSet;

use crate::support::{Engine, Setup, block_on, request, sign_one};

/// Less than two cores' leases: the cores take units away from one another from the first call on.
const UNITS: usize = 300;
const CONNECTIONS: usize = 8;

/// Calls for one signature each, all at once, over connections to every core. Returns the refusals.
async fn ask_at_once(engine: &Engine, calls: usize) -> Vec<Refusal> {
    let profile = engine.prepaid_profile();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = Client::connect(&profile, Transport::Quic, 1).await;
        clients.push(Arc::new(client.unwrap()));
    }
    let mut asking = JoinSet::new();
    for (number, client) in clients.iter().cycle().take(calls).enumerate() {
        let client = Arc::clone(client);
        let mut wanted = request(&format!("call-{number}"), "text");
        wanted.credential = "seal".into();
        asking.spawn(async move { sign_one(&client, &wanted).await });
    }
    let answers = asking.join_all().await;
    answers.into_iter().filter_map(Result::err).collect()
}

#[test]
fn a_balance_serves_as_many_calls_as_it_has_units_and_no_more() {
    let engine = Setup::default().set("cores", 2).start();
    engine.make_prepaid(UNITS);
    block_on(async {
        assert_eq!(ask_at_once(&engine, UNITS).await, []);
        // The first of these have been paid for; what is beyond has not.
        let refusals = ask_at_once(&engine, UNITS + 10).await;
        let codes: Vec<Code> = refusals.iter().map(|refusal| refusal.code).collect();
        assert_eq!(codes, [Code::QuotaExhausted; 10]);
    });
}
