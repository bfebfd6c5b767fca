//! What every room that speaks to PostgreSQL shares: where a server is and how to connect to it,
//! how a table describes itself, and how values cross the border.

mod address;
mod arrays;
mod connect;
mod describe;
mod kinds;
mod query;
mod tls;

pub use address::{Address, BadAddress, TlsMode};
pub use connect::{ConnectError, Connected, SESSION_OPTIONS, config, connect, told};
pub use describe::{
    DescribeError, describe, describe_all, quote, quote_table, tables, tells_rows_before,
};
pub use kinds::{Catalog, builtin, value};
pub use query::describe_query;
pub use tls::{TlsError, connector, root_file};
