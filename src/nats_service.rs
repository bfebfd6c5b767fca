//! Direct queries over NATS: `<prefix>.query.<type>`, request and reply, through the NATS service
//! API, so that `nats micro` finds it. One of all gateways answers. They are bounded together with
//! those over HTTP. They come over a connection of their own: who asks can end it.

use std::{sync::Arc, time::Duration};

use async_nats::{
    HeaderMap,
    service::{Request as Asked, ServiceExt},
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Map, Value as Json};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::Presented,
    bus::jetstream::{Apart, JetStreamBus},
    callers::Asker,
    identity::Identity,
    protocol::{self, ErrorCode, Failure, Request},
    session::Gateway,
};

/// The header of a request in which a token may stand.
const TOKEN: &str = "Rowcast-Token";

/// The pause before a lost subscription is made again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Answers queries until `stop` is cancelled; subscribes anew whenever that ends.
pub async fn run(bus: JetStreamBus, gateway: Arc<Gateway>, stop: CancellationToken) {
    let mut line = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            ended = serve(&bus, &mut line, &gateway) => {
                if let Err(err) = ended {
                    tracing::debug!(error = %err, "queries over NATS cannot be answered");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY_PAUSE) => {}
        }
    }
}

async fn serve(
    bus: &JetStreamBus,
    line: &mut Option<Apart>,
    gateway: &Arc<Gateway>,
) -> Result<(), Failed> {
    let line = match line {
        Some(line) => line,
        None => line.insert(bus.apart("queries").await?),
    };
    let service = line
        .client()
        .await?
        .service_builder()
        .description("direct queries of Rowcast's topics")
        .start("rowcast", env!("CARGO_PKG_VERSION"))
        .await?;
    let subject = bus.query_subject();
    let mut asked = service
        .endpoint_builder()
        .name("query")
        .add(subject)
        .await?;
    while let Some(request) = asked.next().await {
        let inbox = request.message.reply.as_deref().unwrap_or_default();
        if !bus.may_answer(inbox) {
            tracing::warn!("a query was not answered: its reply subject is one of our own");
            continue;
        }
        let unread = match gateway.queries.admit_unread() {
            Ok(place) => place,
            Err(failure) => {
                // Here and not beside the others, so that refusals cannot pile up either.
                respond(gateway, request, Err(failure)).await;
                continue;
            }
        };
        let gateway = gateway.clone();
        tokio::spawn(async move {
            let topic = request.message.subject.rsplit('.').next().unwrap_or("");
            let asker = asker(&gateway, request.message.headers.as_ref()).await;
            // The address of who asks is not known here, and nobody in particular is who may ask at all.
            let share = asker.and_then(|asker| {
                gateway.keep_pace(&asker, None)?;
                Ok((gateway.share(Asker::of(&asker, None).as_ref())?, asker))
            });
            let answered = match share {
                Ok((_share, asker)) => {
                    let body = &request.message.payload;
                    answer(&gateway, topic, (&asker, body), unread).await
                }
                Err(failure) => Err(failure),
            };
            respond(&gateway, request, answered).await;
        });
    }
    Ok(())
}

async fn respond(gateway: &Gateway, request: Asked, answered: Result<String, Failure>) {
    let mut headers = HeaderMap::new();
    let body = answered.unwrap_or_else(|failure| {
        gateway.metrics.error(failure.code.slug());
        headers.insert("Nats-Service-Error", failure.code.slug());
        headers.insert(
            "Nats-Service-Error-Code",
            failure.code.status().to_string().as_str(),
        );
        protocol::error(&failure, gateway.config.language)
    });
    // Who asked may have gone.
    let _ = request
        .respond_with_headers(Ok(Bytes::from(body)), headers)
        .await;
}

/// Who asks: nobody in particular, unless a token says who.
async fn asker(gateway: &Gateway, headers: Option<&HeaderMap>) -> Result<Identity, Failure> {
    let token = headers.and_then(|headers| headers.get(TOKEN));
    match token.filter(|_| gateway.auth.judges()) {
        None => Ok(Identity::anonymous()),
        Some(token) => {
            let presented = Presented::token(token.as_str().to_owned(), None);
            let admission = gateway.auth.judge(&presented).await;
            admission.map_err(|refused| {
                gateway.metrics.auth.refused(refused.reason());
                refused.failure()
            })
        }
    }
}

/// The reply frame to a body such as `{"id":1}` or `{"params":{…}}`; an empty one asks for the
/// default page.
async fn answer(
    gateway: &Gateway,
    topic: &str,
    (asker, body): (&Identity, &[u8]),
    unread: OwnedSemaphorePermit,
) -> Result<String, Failure> {
    let config = &gateway.config;
    if body.len() > config.max_message_bytes {
        return Err(ErrorCode::PayloadTooLarge.into());
    }
    let text = std::str::from_utf8(body).map_err(|_| ErrorCode::BadJson)?;
    let mut asked = match text.trim() {
        "" => Map::new(),
        text => protocol::object(text, &config.json).inspect_err(|failure| {
            if failure.code.is_limit() {
                gateway.metrics.limited("json");
            }
        })?,
    };
    let topic = gateway.topic(topic, asker);
    let topic = topic.ok_or(ErrorCode::UnknownType)?;
    asked.insert("type".into(), Json::from(&*topic.name));
    match Request::of(&asked, &config.json)? {
        Request::Query { select, .. } => {
            let _place = gateway.queries.admit(&topic, &select)?;
            drop(unread);
            gateway.frame(Asker::of(asker, None), &topic, &select).await
        }
        _ => Err(ErrorCode::BadParam.into()),
    }
}
