//! From a topic and what is asked of it to one SELECT. Names come from the table's own
//! description, values are bound: no text of a client's ever becomes SQL.

mod dialect;
mod guard;

use super::StoreError;
use crate::{
    predicate,
    protocol::{After, Condition, Key, Page, Params, Select, Test},
    row::{self, Value},
    sqlite::quote,
    topic::{Affinity, Column, Order, Table, View},
};

pub use dialect::Dialect;

/// What is said of an `after` that is not one of this topic.
const FOREIGN: StoreError = StoreError::BadParam("params.after: a page.next of this topic");

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
    dialect: Dialect,
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
pub fn plan(
    dialect: Dialect,
    topic: &str,
    view: &View,
    table: &Table,
    select: &Select,
) -> Result<Plan, StoreError> {
    let mut builder = Builder {
        dialect,
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
    if let Some(policy) = &view.policy {
        builder.guard(policy)?;
    }
    match select {
        Select::Id(key) => builder.one(key),
        Select::Page(params) => builder.page(params),
        Select::After(after) if after.topic != topic => Err(FOREIGN),
        Select::After(after) => builder.after(after),
        Select::All(params) => builder.all(params),
    }
}

impl<'a> Builder<'a> {
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
            let sql = self.test(&column, &Test::Eq(value), "id: a value of the key's type")?;
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
            return Err(FOREIGN);
        }
        self.place = Some((order.clone(), after.last.clone()));
        self.finish(Kind::Page, order, after.params.filter.clone(), size, None)
    }

    /// Binds a value that is compared with a column.
    fn bind(
        &mut self,
        column: &str,
        value: Value,
        wrong: &'static str,
    ) -> Result<String, StoreError> {
        let column = self.column(column)?;
        let value = self.dialect.typed(column, value);
        self.values.push(value.ok_or(StoreError::BadParam(wrong))?);
        Ok(self.dialect.place(self.values.len(), column))
    }

    fn column(&self, name: &str) -> Result<&'a Column, StoreError> {
        let lost = || format!("{} has lost column \"{name}\"", self.table.called());
        self.table
            .column(name)
            .ok_or_else(|| StoreError::Gone(lost()))
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

    fn shown(&self, column: &str, wrong: &'static str) -> Result<(), StoreError> {
        match self.view.shows(column) && self.table.column(column).is_some() {
            true => Ok(()),
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
            if !dialect::ordered(self.column(&by.column)?) {
                return Err(StoreError::BadParam(
                    "params.order: columns that have an order",
                ));
            }
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
            self.shown(&condition.column, "params.filter: the topic's own columns")?;
            let wrong = "params.filter: a value of the column's type";
            let sql = self.test(&condition.column, &condition.test, wrong)?;
            self.wheres.push(sql);
        }
        Ok(())
    }

    fn test(&mut self, name: &str, test: &Test, wrong: &'static str) -> Result<String, StoreError> {
        let column = quote(name);
        let (operator, value) = match test {
            Test::Eq(Value::Null) => return Ok(format!("{column} IS NULL")),
            Test::Ne(Value::Null) => return Ok(format!("{column} IS NOT NULL")),
            Test::Eq(value) if self.encoded(name, value).is_some() => {
                return self.in_list(name, std::slice::from_ref(value), wrong);
            }
            Test::Ne(value) if self.encoded(name, value).is_some() => {
                let listed = self.in_list(name, std::slice::from_ref(value), wrong)?;
                return Ok(format!("NOT ({listed})"));
            }
            Test::In(values) => return self.in_list(name, values, wrong),
            Test::Like(pattern) => {
                let pattern = self.dialect.pattern(pattern);
                self.values
                    .push(pattern.ok_or(StoreError::BadParam(wrong))?);
                let place = self.values.len();
                return Ok(self.dialect.like(self.column(name)?, place));
            }
            Test::Eq(value) => ("=", value),
            Test::Ne(value) => ("<>", value),
            Test::Lt(value) => ("<", value),
            Test::Lte(value) => ("<=", value),
            Test::Gt(value) => (">", value),
            Test::Gte(value) => (">=", value),
        };
        let place = self.bind(name, value.clone(), wrong)?;
        Ok(format!("{column} {operator} {place}"))
    }

    /// What a text may stand for in SQLite, beside itself: the wire spells bytes, and integers
    /// that a browser would round, as text. A column's affinity makes numbers of texts by itself.
    fn encoded(&self, name: &str, value: &Value) -> Option<Value> {
        let (Dialect::Sqlite, Value::Text(text)) = (self.dialect, value) else {
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

    fn in_list(
        &mut self,
        name: &str,
        values: &[Value],
        wrong: &'static str,
    ) -> Result<String, StoreError> {
        let column = quote(name);
        let (nulls, others): (Vec<_>, Vec<_>) =
            values.iter().partition(|value| **value == Value::Null);
        let mut places = Vec::with_capacity(others.len());
        for value in others {
            places.push(self.bind(name, value.clone(), wrong)?);
            if let Some(encoded) = self.encoded(name, value) {
                places.push(self.bind(name, encoded, wrong)?);
            }
        }
        let listed = match places.is_empty() {
            true => self.dialect.never().to_owned(),
            false => format!("{column} IN ({})", places.join(", ")),
        };
        Ok(match nulls.is_empty() {
            true => listed,
            false => format!("({listed} OR {column} IS NULL)"),
        })
    }

    /// What stands after the row with these values: `a > x OR a = x AND (b > y OR …)`, with
    /// NULL the smallest of all, as both databases are told to sort it.
    fn beyond(&mut self, order: &[Order], last: &[Value]) -> Result<String, StoreError> {
        let wrong = "params.after: a page.next of this topic";
        let mut sql = self.dialect.never().to_owned();
        for (by, value) in order.iter().zip(last).rev() {
            let column = quote(&by.column);
            if *value == Value::Null {
                let after = match by.descending {
                    false => format!("{column} IS NOT NULL"),
                    true => self.dialect.never().to_owned(),
                };
                sql = format!("({after} OR ({column} IS NULL AND {sql}))");
                continue;
            }
            let place = self.bind(&by.column, value.clone(), wrong)?;
            let after = match by.descending {
                false => format!("{column} > {place}"),
                true => format!("({column} < {place} OR {column} IS NULL)"),
            };
            sql = format!("({after} OR ({column} = {place} AND {sql}))");
        }
        Ok(sql)
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
        for column in &columns {
            self.column(column)?;
        }
        let table = self.dialect.base(&self.view.base, &self.table.name);
        // The list's length is that of the whole list, wherever the page stands in it.
        let total = (kind == Kind::Page).then(|| count(&table, &self.wheres));
        let shared = self.values.len();
        if let Some((order, last)) = self.place.take() {
            let beyond = self.beyond(&order, &last)?;
            self.wheres.push(beyond);
        }
        let mut rows = format!(
            "SELECT {} FROM {table}{}",
            self.dialect.outputs(self.table, &columns),
            filter_sql(&self.wheres)
        );
        if !order.is_empty() {
            let order = order
                .iter()
                .map(|by| Ok(self.dialect.order(self.column(&by.column)?, by.descending)));
            let order: Vec<String> = order.collect::<Result<_, StoreError>>()?;
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

// === impl Plan ===

impl Plan {
    /// The values of a row, in the order of [`Plan::columns`], that a continuation goes by.
    pub fn place(&self, values: &[Value]) -> Vec<Value> {
        let place = |by: &Order| self.columns.iter().position(|column| *column == by.column);
        let places = self.order.iter().filter_map(place);
        places.map(|place| values[place].clone()).collect()
    }

    /// The page: `last` is the place of its last row, if there are more.
    pub fn page(&self, topic: &str, total: u64, last: Option<Vec<Value>>) -> Page {
        let next = last.map(|last| After {
            topic: topic.to_owned(),
            params: Params {
                page: None,
                size: Some(self.limit),
                order: self.order.clone(),
                filter: self.filter.clone(),
            },
            last,
        });
        Page {
            number: self.number,
            size: self.limit,
            total,
            next: next.map(|next| next.token()),
        }
    }

    /// The reply's page, or the refusal of more rows than an `all` may have.
    pub fn paged(
        &self,
        topic: &str,
        total: u64,
        last: Option<Vec<Value>>,
    ) -> Result<Option<Page>, StoreError> {
        match self.kind {
            Kind::One => Ok(None),
            Kind::All if last.is_some() => Err(StoreError::BadParam(
                "params.all: the view has more rows than the topic's max_rows, take pages",
            )),
            Kind::All => Ok(None),
            Kind::Page => Ok(Some(self.page(topic, total, last))),
        }
    }
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
