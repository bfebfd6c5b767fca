//! What a PostgreSQL column holds, as far as encoding and comparing it go.

use std::sync::Arc;

/// The kind of a PostgreSQL type: how its text becomes a value (docs/protocol.md §6), and how two
/// of its values compare. A domain has the kind of the type beneath it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `boolean`.
    Boolean,
    /// `smallint`, `integer`, `bigint`.
    Integer,
    /// `oid`: an unsigned integer of 32 bits.
    Oid,
    /// `real`: an IEEE 754 number of 32 bits.
    Float4,
    /// `double precision`.
    Float8,
    /// `numeric`: digits without end, NaN, infinities.
    Numeric,
    /// `text`, `varchar`.
    Text,
    /// `char(n)`: trailing blanks do not count when it is compared.
    Padded,
    /// `timestamp with time zone`.
    Timestamptz,
    /// `timestamp without time zone`.
    Timestamp,
    /// `date`.
    Date,
    /// `time without time zone`.
    Time,
    /// `uuid`.
    Uuid,
    /// `json` and `jsonb`.
    Json,
    /// `bytea`.
    Bytes,
    /// An enum.
    Enum {
        /// Its labels as of the description, in their order.
        labels: Arc<[Box<str>]>,
    },
    /// An array of any number of dimensions.
    Array {
        /// What it is an array of.
        element: Box<Kind>,
        /// What stands between two elements in its text: `,`, for `box` a `;`.
        delimiter: char,
    },
    /// Everything else is its text: intervals, ranges, networks, composites, …
    Other,
}
