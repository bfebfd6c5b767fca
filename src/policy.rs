//! What somebody may see of a topic: the topic as it is for him, with the rows that its policy leaves him
//! and the columns of his roles; or none, and then it does not exist for him. Pure: nothing is asked.

use serde_json::Value as Json;

use crate::{
    identity::Identity,
    predicate,
    topic::{Claims, Roles, Topic, View},
};

/// The topic as an identity sees it; `None` where it does not exist for him. Only for a guarded topic
/// it is another one than before.
///
/// Its view shows the columns of his roles, and orders by those only: a continuation carries what it is
/// ordered by. Its policy has the claims that it asks for, so that two for whom they are the same have equal
/// topics.
pub fn seen_by(topic: &Topic, identity: &Identity) -> Option<Topic> {
    let mut topic = topic.clone();
    let Some(view) = &mut topic.view else {
        return Some(topic);
    };
    if let Some(roles) = view.roles.take() {
        narrow(view, columns(&roles, identity)?);
    }
    if let Some(policy) = &mut view.policy {
        let claims = predicate::claims(policy.text());
        let known = claims.into_iter().filter_map(|name| {
            let value = identity.claim(&name)?.clone();
            Some((name, value))
        });
        *policy = policy.with(Claims::new(known.collect()));
    }
    Some(topic)
}

/// The columns of all roles that somebody has, none where these are all of the topic's; `None` where he
/// has none of the roles.
fn columns(roles: &Roles, identity: &Identity) -> Option<Vec<String>> {
    let claim = identity.claim(&roles.claim)?;
    let named = match claim {
        Json::Array(several) => several.iter().collect(),
        one => vec![one],
    };
    let named = named.into_iter().filter_map(Json::as_str);
    let lists: Vec<&Vec<String>> = named.filter_map(|role| roles.columns.get(role)).collect();
    if lists.is_empty() || lists.iter().any(|list| list.is_empty()) {
        return (!lists.is_empty()).then(Vec::new);
    }
    let shown = |column: &&String| lists.iter().any(|list| list.contains(column));
    Some(roles.order.iter().filter(shown).cloned().collect())
}

/// Shows these columns only.
fn narrow(view: &mut View, columns: Vec<String>) {
    if !columns.is_empty() {
        view.order.retain(|by| columns.contains(&by.column));
        view.columns = columns;
    }
}
