//! From a topic and what is asked of it to one SELECT. Names come from the table's own
//! description, values are bound: no text of a client's ever becomes SQL.

use super::StoreError;
use crate::{
    predicate,
    protocol::{After, Condition, Key, Params, Select, Test},
    row::{self, Value},
    sqlite::quote,
    topic::{Affinity, Order, Table, View},
};

/// One SELECT, and what is needed to make a reply of its rows.
#[derive(Debug)]
pub struct Plan {
    /// The columns shown, in the order in which the reply holds them.
    pub columns: Vec<String>,
    /// The statement for the rows.
    pub rows: String,
    /// The statement for the number of rows in the whole list; for pages only.
    pub total: Option<String>,
    /// Values for both statements; `total` uses the first [`Plan::shared`] of them.
    pub values: Vec<Value>,
    /// How many values the condition and the filter use.
    pub shared: usize,
    /// The order, the key appended: what a continuation goes by.
    pub order: Vec<Order>,
    /// The filter, carried on by a continuation.
    pub filter: Vec<Condition>,
    /// The most rows to return; the statement asks for one more, to see whether there is one.
    pub limit: u32,
    /// The page's number; none after a continuation.
    pub number: Option<u32>,
    /// What kind of reply it is.
    pub kind: Kind,
}

/// What kind of reply a plan makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// At most one row.
    One,
    /// A page with its place in the list.
    Page,
    /// The whole view.
    All,
}

struct Builder<'a> {
    view: &'a View,
    table: &'a Table,
    wheres: Vec<String>,
    values: Vec<Value>,
    /// Where a continuation goes on: the order, and the last row's values of it.
    place: Option<(Vec<Order>, Vec<Value>)>,
}

/// Plans the read of a view as `table` describes it now.
///
/// # Errors
/// [`StoreError::BadParam`] for what does not fit the topic; [`StoreError::Gone`] where the
/// topic's condition or columns do not fit the table any more.
pub fn plan(topic: &str, view: &View, table: &Table, select: &Select) -> Result<Plan, StoreError> {
    let mut builder = Builder {
        view,
        table,
        wheres: Vec::new(),
        values: Vec::new(),
        place: None,
    };
    if let Some(text) = &view.condition {
        let condition =
            predicate::parse(text, table).map_err(|err| StoreError::Gone(err.to_string()))?;
        builder.wheres.push(condition.to_sql());
    }
    match select {
        Select::Id(key) => builder.one(key),
        Select::Page(params) => builder.page(params),
        Select::After(after) if after.topic != topic => Err(StoreError::BadParam(
            "params.after: a page.next of this topic",
        )),
        Select::After(after) => builder.after(after),
        Select::All(params) => builder.all(params),
    }
}

impl Builder<'_> {
    fn one(mut self, key: &Key) -> Result<Plan, StoreError> {
        let columns = &self.view.key;
        let named = match (key, &columns[..]) {
            (Key::One(value), [column]) => vec![(column.clone(), value.clone())],
            (Key::One(_), _) => {
                return Err(StoreError::BadParam("id: an object of the key columns"));
            }
            (Key::Named(named), _) => named.clone(),
        };
        let fits =
            named.len() == columns.len() && named.iter().all(|(name, _)| columns.contains(name));
        if !fits {
            return Err(StoreError::BadParam("id: exactly the key columns"));
        }
        for (column, value) in named {
            let sql = self.test(&quote(&column), &column, &Test::Eq(value));
            self.wheres.push(sql);
        }
        self.finish(Kind::One, Vec::new(), Vec::new(), 1, None)
    }

    fn page(mut self, params: &Params) -> Result<Plan, StoreError> {
        self.filter(&params.filter)?;
        let (order, size) = (self.order(&params.order)?, self.size(params.size)?);
        self.finish(
            Kind::Page,
            order,
            params.filter.clone(),
            size,
            Some(params.page.unwrap_or(1)),
        )
    }

    fn all(mut self, params: &Params) -> Result<Plan, StoreError> {
        self.filter(&params.filter)?;
        let (order, rows) = (self.order(&params.order)?, self.view.max_rows);
        self.finish(Kind::All, order, params.filter.clone(), rows, None)
    }

    fn after(mut self, after: &After) -> Result<Plan, StoreError> {
        self.filter(&after.params.filter)?;
        let (order, size) = (
            self.order(&after.params.order)?,
            self.size(after.params.size)?,
        );
        if order.len() != after.last.len() {
            return Err(StoreError::BadParam(
                "params.after: a page.next of this topic",
            ));
        }
        self.place = Some((order.clone(), after.last.clone()));
        self.finish(Kind::Page, order, after.params.filter.clone(), size, None)
    }

    fn bind(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("?{}", self.values.len())
    }

    fn size(&self, asked: Option<u32>) -> Result<u32, StoreError> {
        match asked {
            None => Ok(self.view.page_size),
            Some(size) if size <= self.view.max_page_size => Ok(size),
            Some(_) => Err(StoreError::BadParam(
                "params.size: above the topic's max_page_size",
            )),
        }
    }

    fn shown(&self, column: &str, wrong: &'static str) -> Result<String, StoreError> {
        match self.view.shows(column) && self.table.column(column).is_some() {
            true => Ok(quote(column)),
            false => Err(StoreError::BadParam(wrong)),
        }
    }

    /// The order asked for, or the topic's own; the key columns are appended.
    fn order(&self, asked: &[Order]) -> Result<Vec<Order>, StoreError> {
        let mut order = if asked.is_empty() {
            self.view.order.clone()
        } else {
            asked.to_vec()
        };
        for by in &order {
            self.shown(&by.column, "params.order: the topic's own columns")?;
        }
        for column in &self.view.key {
            if !order.iter().any(|by| by.column == *column) {
                order.push(Order {
                    column: column.clone(),
                    descending: false,
                });
            }
        }
        Ok(order)
    }

    fn filter(&mut self, conditions: &[Condition]) -> Result<(), StoreError> {
        for condition in conditions {
            let column = self.shown(&condition.column, "params.filter: the topic's own columns")?;
            let sql = self.test(&column, &condition.column, &condition.test);
            self.wheres.push(sql);
        }
        Ok(())
    }

    fn test(&mut self, column: &str, name: &str, test: &Test) -> String {
        let (operator, value) = match test {
            Test::Eq(Value::Null) => return format!("{column} IS NULL"),
            Test::Ne(Value::Null) => return format!("{column} IS NOT NULL"),
            Test::Eq(value) if self.encoded(name, value).is_some() => {
                return self.in_list(column, name, std::slice::from_ref(value));
            }
            Test::Ne(value) if self.encoded(name, value).is_some() => {
                let listed = self.in_list(column, name, std::slice::from_ref(value));
                return format!("NOT ({listed})");
            }
            Test::In(values) => return self.in_list(column, name, values),
            Test::Like(pattern) => ("LIKE", Value::Text(pattern.clone())),
            Test::Eq(value) => ("=", value.clone()),
            Test::Ne(value) => ("<>", value.clone()),
            Test::Lt(value) => ("<", value.clone()),
            Test::Lte(value) => ("<=", value.clone()),
            Test::Gt(value) => (">", value.clone()),
            Test::Gte(value) => (">=", value.clone()),
        };
        format!("{column} {operator} {}", self.bind(value))
    }

    /// What a text may stand for, beside itself: the wire spells bytes, and integers that a
    /// browser would round, as text. A column's affinity makes numbers of texts by itself.
    fn encoded(&self, name: &str, value: &Value) -> Option<Value> {
        let Value::Text(text) = value else {
            return None;
        };
        if let Some(bytes) = row::unhex(text) {
            return Some(Value::Blob(bytes));
        }
        let untyped = self
            .table
            .column(name)
            .is_some_and(|c| c.affinity == Affinity::Blob);
        let integer = text
            .parse::<i64>()
            .ok()
            .filter(|integer| integer.to_string() == *text);
        integer.filter(|_| untyped).map(Value::Integer)
    }

    fn in_list(&mut self, column: &str, name: &str, values: &[Value]) -> String {
        let (nulls, others): (Vec<_>, Vec<_>) =
            values.iter().partition(|value| **value == Value::Null);
        let mut places = Vec::with_capacity(others.len());
        for value in others {
            places.push(self.bind(value.clone()));
            if let Some(encoded) = self.encoded(name, value) {
                places.push(self.bind(encoded));
            }
        }
        let listed = format!("{column} IN ({})", places.join(", "));
        match nulls.is_empty() {
            true => listed,
            false => format!("({listed} OR {column} IS NULL)"),
        }
    }

    /// What stands after the row with these values: `a > x OR a = x AND (b > y OR …)`, with
    /// NULL the smallest of all, as SQLite sorts it.
    fn beyond(&mut self, order: &[Order], last: &[Value]) -> String {
        let mut sql = "0".to_owned();
        for (by, value) in order.iter().zip(last).rev() {
            let column = quote(&by.column);
            let after = match (by.descending, value) {
                (false, Value::Null) => format!("{column} IS NOT NULL"),
                (true, Value::Null) => "0".to_owned(),
                (false, value) => format!("{column} > {}", self.bind(value.clone())),
                (true, value) => {
                    format!(
                        "({column} < {} OR {column} IS NULL)",
                        self.bind(value.clone())
                    )
                }
            };
            let same = self.bind(value.clone());
            sql = format!("({after} OR ({column} IS {same} AND {sql}))");
        }
        sql
    }

    fn finish(
        mut self,
        kind: Kind,
        order: Vec<Order>,
        filter: Vec<Condition>,
        limit: u32,
        number: Option<u32>,
    ) -> Result<Plan, StoreError> {
        let columns: Vec<String> = match self.view.columns.is_empty() {
            true => self
                .table
                .columns
                .iter()
                .map(|column| column.name.to_string())
                .collect(),
            false => self.view.columns.clone(),
        };
        let missing = columns
            .iter()
            .find(|column| self.table.column(column).is_none());
        if let Some(column) = missing {
            let text = format!("table \"{}\" has lost column \"{column}\"", self.table.name);
            return Err(StoreError::Gone(text));
        }
        let table = format!("main.{}", quote(&self.table.name));
        // The list's length is that of the whole list, wherever the page stands in it.
        let total = (kind == Kind::Page).then(|| count(&table, &self.wheres));
        let shared = self.values.len();
        if let Some((order, last)) = self.place.take() {
            let beyond = self.beyond(&order, &last);
            self.wheres.push(beyond);
        }
        let list: Vec<String> = columns.iter().map(|column| quote(column)).collect();
        let mut rows = format!(
            "SELECT {} FROM {table}{}",
            list.join(", "),
            filter_sql(&self.wheres)
        );
        if !order.is_empty() {
            let order: Vec<String> = order.iter().map(order_sql).collect();
            rows += &format!(" ORDER BY {}", order.join(", "));
        }
        let skip = u64::from(number.unwrap_or(1) - 1) * u64::from(limit);
        rows += &format!(" LIMIT {} OFFSET {skip}", u64::from(limit) + 1);
        Ok(Plan {
            columns,
            rows,
            total,
            shared,
            values: self.values,
            order,
            filter,
            limit,
            number,
            kind,
        })
    }
}

fn order_sql(by: &Order) -> String {
    format!(
        "{} {}",
        quote(&by.column),
        if by.descending { "DESC" } else { "ASC" }
    )
}

fn filter_sql(wheres: &[String]) -> String {
    match wheres.is_empty() {
        true => String::new(),
        false => format!(" WHERE ({})", wheres.join(") AND (")),
    }
}

fn count(table: &str, wheres: &[String]) -> String {
    format!("SELECT count(*) FROM {table}{}", filter_sql(wheres))
}
