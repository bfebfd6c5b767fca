//! The tables that everybody writes and follows, and what a query of them must answer.
//!
//! Every transaction has a number. It inserts it into `log`, and every row that it writes carries
//! it in `v`: so each image tells whose it is.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value as Json, json};

/// The keys of `t` lie from 1 to this.
pub const KEYS: i64 = 90;

/// The topics; `low` is a view of `t`, and `page` pushes its first page. Clients ask more often than a
/// person would.
pub const TOPICS: &str = "
[limits]
messages_per_second = 1000
messages_burst = 1000
[[topics]]
type = \"t\"
table = \"t\"
push = \"row\"
[[topics]]
type = \"low\"
table = \"t\"
where = \"grp < 3\"
push = \"row\"
[[topics]]
type = \"u\"
table = \"u\"
push = \"row\"
[[topics]]
type = \"log\"
table = \"log\"
push = \"row\"
[[topics]]
type = \"page\"
table = \"t\"
order_by = [\"v desc\"]
page_size = 20
push = \"page\"
";

/// One more on PostgreSQL, of which nobody may see a row. Where there is such a topic, lanes look up whom a
/// change concerns, and who cannot be written to straight waits in them, too.
pub const HIDDEN: &str = "
[[topics]]
type = \"hidden\"
table = \"u\"
policy = \"grp = token.grp\"
";

/// Topics that clients hold, row by row.
pub const HELD: [&str; 3] = ["t", "low", "u"];

/// One row: all tables have these columns, `log` has no `slot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// A unique column, by which other rows are displaced.
    pub slot: Option<i64>,
    /// What the view and filters look at.
    pub grp: Option<i64>,
    /// The transaction that wrote it.
    pub v: i64,
}

/// Rows by key.
pub type Rows = BTreeMap<i64, Row>;

/// Rows in an order.
pub type List = Vec<(i64, Row)>;

/// Both tables at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tables {
    /// `t`
    pub t: Arc<Rows>,
    /// `u`
    pub u: Arc<Rows>,
}

/// What a query asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Select {
    /// The whole view.
    All,
    /// One row.
    Id(i64),
    /// The rows of some groups.
    Groups(Vec<i64>),
    /// The rows from one version on.
    Since(i64),
    /// One page; `order` is a column, `true` for descending.
    Page {
        /// From 1.
        number: u64,
        /// Rows of a page.
        size: u64,
        /// None for the topic's own.
        order: Option<(&'static str, bool)>,
    },
    /// The bare query.
    Bare,
}

/// What a query must answer: rows, and how many there are in all pages.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The rows.
    pub rows: List,
    /// Of a paged answer.
    pub total: Option<u64>,
}

impl Row {
    /// Reads one, and its key.
    pub fn read(json: &Json) -> Option<(i64, Self)> {
        let row = Self {
            slot: json["slot"].as_i64(),
            grp: json["grp"].as_i64(),
            v: json["v"].as_i64()?,
        };
        Some((json["id"].as_i64()?, row))
    }

    /// Whether `low` shows it.
    pub fn is_low(&self) -> bool {
        self.grp.is_some_and(|grp| grp < 3)
    }
}

impl Tables {
    /// What a topic shows.
    pub fn shown(&self, topic: &str) -> Rows {
        match topic {
            "u" => (*self.u).clone(),
            "low" => {
                let low = self.t.iter().filter(|(_, row)| row.is_low());
                low.map(|(id, row)| (*id, *row)).collect()
            }
            _ => (*self.t).clone(),
        }
    }
}

impl Select {
    /// The frame that asks, without `rid`.
    pub fn frame(&self, topic: &str) -> Json {
        let mut frame = json!({ "type": topic });
        let params = match self {
            Self::Bare => return frame,
            Self::Id(id) => {
                frame["id"] = json!(id);
                return frame;
            }
            Self::All => json!({ "all": true }),
            Self::Groups(groups) if groups.len() == 1 => {
                json!({ "filter": { "grp": groups[0] }, "size": 200 })
            }
            Self::Groups(groups) => json!({ "filter": { "grp": groups }, "size": 200 }),
            Self::Since(v) => json!({ "filter": { "v": { "gte": v } }, "size": 200 }),
            Self::Page {
                number,
                size,
                order,
            } => {
                let mut params = json!({ "page": number, "size": size });
                if let Some((column, descending)) = order {
                    let direction = if *descending { " desc" } else { "" };
                    params["order"] = json!(format!("{column}{direction}"));
                }
                params
            }
        };
        frame["params"] = params;
        frame
    }

    /// The same over HTTP.
    pub fn path(&self, topic: &str) -> String {
        let question = match self {
            Self::Bare => String::new(),
            Self::Id(id) => format!("id={id}"),
            Self::All => "all=true".to_owned(),
            Self::Groups(groups) => {
                let groups = groups.iter().map(|grp| format!("&filter[grp]={grp}"));
                format!("size=200{}", groups.collect::<String>())
            }
            Self::Since(v) => format!("size=200&filter[v][gte]={v}"),
            Self::Page {
                number,
                size,
                order,
            } => {
                let order = order.map_or(String::new(), |(column, descending)| {
                    let direction = if descending { "%20desc" } else { "" };
                    format!("&order={column}{direction}")
                });
                format!("page={number}&size={size}{order}")
            }
        };
        format!("/api/query/{topic}?{question}")
    }

    /// The right answer where a topic shows `rows`.
    pub fn answer(&self, topic: &str, rows: &Rows) -> Answer {
        let mut list: List = rows.iter().map(|(id, row)| (*id, *row)).collect();
        let (number, size, order) = match self {
            Self::All => {
                return Answer {
                    rows: list,
                    total: None,
                };
            }
            Self::Id(id) => {
                list.retain(|(other, _)| other == id);
                return Answer {
                    rows: list,
                    total: None,
                };
            }
            Self::Groups(groups) => {
                list.retain(|(_, row)| row.grp.is_some_and(|grp| groups.contains(&grp)));
                (1, 200, None)
            }
            Self::Since(v) => {
                list.retain(|(_, row)| row.v >= *v);
                (1, 200, None)
            }
            Self::Page {
                number,
                size,
                order,
            } => (*number, *size, *order),
            Self::Bare => (1, if topic == "page" { 20 } else { 50 }, None),
        };
        let own = (topic == "page").then_some(("v", true));
        if let Some((column, descending)) = order.or(own) {
            let sign = if descending { -1 } else { 1 };
            list.sort_by_key(|(id, row)| match column {
                "v" => (sign * row.v, *id),
                _ => (sign * id, *id),
            });
        }
        let total = Some(list.len() as u64);
        let from = (number - 1) * size;
        let rows = list.into_iter().skip(from as usize).take(size as usize);
        Answer {
            rows: rows.collect(),
            total,
        }
    }
}
