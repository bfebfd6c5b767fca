//! The API: topics, queries, events, refreshes, and how the process is.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, RawQuery, Request, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use serde_json::{Value as Json, json};

use super::{Edge, answer, owed::Place, who::Whence};
use crate::{
    callers::Asker,
    clock::now_ms,
    event::{BadEvent, Event},
    identity::Identity,
    predicate,
    protocol::{self, ErrorCode, Failure},
    topic::{Base, Table, Topic, View},
};

/// `GET /api/topics`
pub async fn topics(
    State(edge): State<Arc<Edge>>,
    Extension(identity): Extension<Identity>,
) -> Response {
    let mut topics = Vec::new();
    for topic in edge.gateway.topics_of(&identity).iter() {
        let table = match topic.view {
            Some(_) => edge.gateway.queries.described(topic).await.ok(),
            None => None,
        };
        topics.push(describe(topic, table.as_deref()));
    }
    let mut body = json!({ "topics": topics });
    if let Some(demo) = &edge.demo {
        body["hint"] = demo.hint.as_str().into();
    }
    // Where nobody is judged there is no signing in.
    if edge.gateway.auth.judges() {
        body["signed_in"] = (!identity.is_anonymous()).into();
    }
    answer::ok(body.to_string())
}

fn describe(topic: &Topic, table: Option<&Table>) -> Json {
    let mut described = json!({ "type": &*topic.name, "push": topic.push.as_str(), "table": null });
    let Some(view) = &topic.view else {
        return described;
    };
    match &view.base {
        Base::Table(table) => described["table"] = table.as_str().into(),
        Base::Query { .. } => described["watch"] = view.tables().collect(),
    }
    described["key"] = json!(view.key);
    described["where"] = json!(told_condition(view, table));
    described["order"] = json!(view.spelled_order());
    described["page_size"] = view.page_size.into();
    described["max_page_size"] = view.max_page_size.into();
    described["max_rows"] = view.max_rows.into();
    if let Some(table) = table {
        let columns = view.shown(table);
        described["columns"] = columns.map(|column| json!(&*column.name)).collect();
        described["schema"] = topic.schema(table);
    }
    described
}

/// The condition of a view as its client may read it: it names columns, and what stands in them.
fn told_condition<'a>(view: &'a View, table: Option<&Table>) -> Option<&'a str> {
    let text = view.condition.as_deref()?;
    if view.columns.is_empty() {
        return Some(text);
    }
    let condition = predicate::parse(text, table?).ok()?;
    let shown = condition.columns().all(|column| view.shows(column));
    shown.then_some(text)
}

/// A topic's name in the path; one that is no UTF-8 is no topic's.
type Name = Result<Path<String>, PathRejection>;

/// `GET /api/query/{type}`
pub async fn query(
    State(edge): State<Arc<Edge>>,
    Extension(identity): Extension<Identity>,
    whence: Option<Extension<Whence>>,
    name: Name,
    RawQuery(query): RawQuery,
) -> Response {
    let topic = name
        .ok()
        .and_then(|Path(name)| edge.gateway.topic(&name, &identity));
    let Some(topic) = topic else {
        return edge.refuse(ErrorCode::UnknownType).into_response();
    };
    let select = match protocol::query_string(query.as_deref().unwrap_or("")) {
        Ok(select) => select,
        Err(failure) => return edge.refuse(failure).into_response(),
    };
    let asker = Asker::of(&identity, whence.map(|Extension(from)| from.0));
    let place = edge.gateway.queries.admit(&topic, &select);
    let share = edge.gateway.share(asker.as_ref());
    let place = match place.and_then(|place| Ok((place, share?))) {
        Ok(place) => place,
        Err(failure) => return edge.refuse(failure).into_response(),
    };
    match edge.gateway.frame(asker, &topic, &select).await {
        Ok(frame) => {
            let mut response = answer::ok(frame);
            // Rows that nobody takes are memory.
            Place::keep(&mut response, place);
            response
        }
        Err(failure) => edge.refuse(failure).into_response(),
    }
}

/// `POST /api/events`
pub async fn publish(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    match edge.publish(request).await {
        Ok(body) => answer::with_status(202, body),
        Err(failure) => edge.refuse(failure).into_response(),
    }
}

impl Edge {
    /// Refuses who may not have all others told something.
    fn may_tell(&self, identity: &Identity) -> Result<(), Failure> {
        match self.gateway.auth.may_publish(identity) {
            true => Ok(()),
            false => Err(Failure {
                detail: Some("token: one with the claims of auth.publish"),
                ..ErrorCode::Forbidden.into()
            }),
        }
    }

    async fn publish(&self, request: Request) -> Result<String, Failure> {
        let identity = request.extensions().get::<Identity>().cloned();
        let identity = identity.unwrap_or_else(Identity::anonymous);
        self.may_tell(&identity)?;
        let text = answer::json_text(request, self.body_timeout)
            .await?
            .ok_or(ErrorCode::BadJson)?;
        let limits = &self.gateway.config.json;
        protocol::check_event(&text, limits).inspect_err(|failure| self.limited(failure))?;
        let event =
            Event::from_application(&text, fresh_id(), now_ms()).map_err(|err| match err {
                BadEvent::NotAnObject => Failure::from(ErrorCode::BadJson),
                BadEvent::Member(member) => Failure::param(member),
            })?;
        if self.gateway.topic(&event.topic, &identity).is_none() {
            return Err(ErrorCode::UnknownType.into());
        }
        let id = event.id.clone();
        let place = self.publisher.admit()?;
        let cursor = self.publisher.publish(event, place).await?;
        Ok(json!({ "code": 202, "id": id, "cursor": cursor.to_string() }).to_string())
    }
}

/// `POST /api/topics/{type}/refresh`. It has the database read for everybody, so it is for those who may publish.
pub async fn refresh(
    State(edge): State<Arc<Edge>>,
    Extension(identity): Extension<Identity>,
    name: Name,
) -> Response {
    if let Err(failure) = edge.may_tell(&identity) {
        return edge.refuse(failure).into_response();
    }
    let topic = name
        .ok()
        .and_then(|Path(name)| edge.gateway.topic(&name, &identity));
    let Some(topic) = topic else {
        return edge.refuse(ErrorCode::UnknownType).into_response();
    };
    if !edge.pages.refresh(&topic.name) {
        let failure = Failure::param("type: only a page topic can be refreshed");
        return edge.refuse(failure).into_response();
    }
    answer::with_status(202, json!({ "code": 202 }).to_string())
}

/// An id for an event that came without one.
fn fresh_id() -> String {
    let mut bytes = [0_u8; 16];
    // Without randomness the same id twice would only mean that one event is taken for the other.
    let _ = getrandom::fill(&mut bytes);
    crate::row::hex(&bytes)[2..].to_owned()
}
