//! `rowcast publish`: one event of an application, onto the bus.

use anyhow::{Context, anyhow, bail};
use serde_json::{Value as Json, json};

use super::{Exit, NATS_REMEDY, Publish, gateway_token, gateway_url, shown};
use crate::{
    app,
    bus::Bus,
    clock::now_ms,
    config::{BusUrl, Config},
    event::{Batch, Event},
};

/// Publishes straight to NATS, or where the bus is embedded through the gateway that runs, and
/// prints `{"code":202,"cursor":…}` once the bus holds the event.
pub async fn run(config: &Config, asked: &Publish) -> anyhow::Result<Exit> {
    let mut event = json!({ "type": asked.topic, "data": asked.data });
    if let Some(id) = &asked.id {
        event["id"] = id.as_str().into();
    }
    let answer = match (&config.bus.url, &asked.url) {
        (BusUrl::Nats(servers), None) => {
            let bus = app::bus_of_command(config, servers).await;
            let bus = bus.context(NATS_REMEDY)?;
            let id = format!("cli-{}-{}", std::process::id(), now_ms());
            let event = Event::from_application(&event.to_string(), id, now_ms())?;
            let batch = Batch {
                events: vec![event],
                ..Batch::default()
            };
            let published = bus.publish(batch).await.map_err(|err| anyhow!("{err}"))?;
            json!({ "code": 202, "cursor": published.position.to_string() })
        }
        (_, url) => post(&gateway_url(config, url.as_deref()), &event).await?,
    };
    println!("{answer}");
    Ok(Exit::Fine)
}

async fn post(url: &str, event: &Json) -> anyhow::Result<Json> {
    let mut request = reqwest::Client::new().post(format!("{url}/api/events"));
    if let Some(token) = gateway_token() {
        request = request.bearer_auth(token);
    }
    let sent = request.json(event).send().await;
    let sent = sent.map_err(reqwest::Error::without_url).with_context(|| {
        let url = shown(url);
        format!("no gateway answers at {url}; start `rowcast`, or name it with --url")
    })?;
    let status = sent.status();
    let answer: Json = sent
        .json()
        .await
        .map_err(reqwest::Error::without_url)
        .context("the gateway's answer is no JSON")?;
    if !status.is_success() {
        bail!("refused: {answer}");
    }
    Ok(answer)
}
