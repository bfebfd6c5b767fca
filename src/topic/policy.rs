//! Who may see what of a topic: a condition on its rows over somebody's claims, and columns by role. Here
//! they are carried; [`crate::policy`] says what they come to for an identity.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::Value as Json;

use super::{BadTopic, Push, Table, TopicSpec};

/// What stands before a claim's name.
const PREFIX: &str = "token.";

/// The claim that says who somebody is, where the topic names none.
const ROLE: &str = "role";

/// A topic's `policy`: which of its rows whom may see.
///
/// As configured it is nobody's, and holds for no row that it compares with a claim.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    text: Arc<str>,
    claims: Claims,
}

/// The claims of somebody that a policy asks for; of one that he does not have there is none.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Claims(Arc<[(Box<str>, Json)]>);

/// A topic's `columns_by_role`.
#[derive(Debug, Clone, PartialEq)]
pub struct Roles {
    /// The claim that names one role, or several.
    pub claim: String,
    /// Of each role the columns shown, with the key; all of the topic's where none are listed.
    pub columns: BTreeMap<String, Vec<String>>,
    /// All columns in the order in which they are shown.
    pub order: Vec<String>,
}

// === impl Policy ===

impl Policy {
    pub(super) fn of(spec: &TopicSpec) -> Result<Option<Self>, BadTopic> {
        let Some(text) = &spec.policy else {
            return Ok(None);
        };
        let bad = |reason: &str| {
            let reason = reason.to_owned();
            Err(BadTopic {
                field: "policy",
                reason,
            })
        };
        if spec.query.is_some() {
            return bad(
                "the rows of a `query` are not followed one by one, so that who may see which cannot be \
                 judged; name a `table`",
            );
        }
        if spec.push() == Push::Page {
            return bad("a page is pushed as it is to everybody; use push = \"row\"");
        }
        if text.trim().is_empty() {
            return bad("is empty; leave it out where everybody may see every row");
        }
        Ok(Some(Self {
            text: text.as_str().into(),
            claims: Claims::default(),
        }))
    }

    /// The condition, over columns and `token.NAME`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whose claims it is judged by.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The same condition, judged by somebody's claims.
    pub fn with(&self, claims: Claims) -> Self {
        Self {
            text: self.text.clone(),
            claims,
        }
    }
}

// === impl Claims ===

impl Claims {
    /// These claims.
    pub fn new(claims: Vec<(Box<str>, Json)>) -> Self {
        Self(claims.into())
    }

    /// The claim of that name.
    pub fn get(&self, name: &str) -> Option<&Json> {
        let found = self.0.iter().find(|(known, _)| **known == *name);
        found.map(|(_, value)| value)
    }
}

/// Claims are personal: only which there are is shown.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

// === impl Roles ===

impl Roles {
    pub(super) fn of(
        spec: &TopicSpec,
        table: &Table,
        shown: &[String],
    ) -> Result<Option<Self>, BadTopic> {
        let bad = |field, reason: String| Err(BadTopic { field, reason });
        if spec.columns_by_role.is_empty() {
            return match &spec.role {
                Some(_) => bad("role", "says who sees which `columns_by_role`".into()),
                None => Ok(None),
            };
        }
        if spec.push() == Push::Page {
            let reason = "a page is pushed as it is to everybody; use push = \"row\"";
            return bad("columns_by_role", reason.into());
        }
        let claim = match &spec.role {
            None => ROLE,
            Some(role) => match role.strip_prefix(PREFIX).filter(|name| !name.is_empty()) {
                Some(name) => name,
                None => return bad("role", "is a claim, such as \"token.role\"".into()),
            },
        };
        let key = match spec.key.is_empty() {
            true => &table.primary_key,
            false => &spec.key,
        };
        let mut columns = BTreeMap::new();
        for (role, listed) in &spec.columns_by_role {
            for column in listed.iter().filter(|column| *column != "*") {
                table
                    .column(column)
                    .ok_or_else(|| table.unknown("columns_by_role", column))?;
                if !shown.is_empty() && !shown.contains(column) {
                    let reason = format!("\"{column}\" of {role} must be among `columns`");
                    return bad("columns_by_role", reason);
                }
            }
            let sees = match listed.iter().any(|column| column == "*") {
                true => Vec::new(),
                false => key.iter().chain(listed).cloned().collect(),
            };
            columns.insert(role.clone(), sees);
        }
        let all = table.columns.iter().map(|column| column.name.to_string());
        Ok(Some(Self {
            claim: claim.to_owned(),
            columns,
            order: match shown.is_empty() {
                true => all.collect(),
                false => shown.to_vec(),
            },
        }))
    }
}
