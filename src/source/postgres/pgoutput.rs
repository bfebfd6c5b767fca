//! PostgreSQL's logical replication messages (`pgoutput`, protocol version 1), decoded from bytes.
//!
//! Pure: no connection, no clock, no cache. Values stay where they arrived; only their places are
//! noted. What is malformed is an error, whatever the bytes, and a message never makes us take
//! more memory than a small multiple of its own length.
//!
//! Follows PostgreSQL's documentation, "Logical Replication Message Formats".

use std::borrow::Cow;

use bytes::Bytes;

/// One message of the stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A transaction begins; its changes follow without another's between them.
    Begin {
        /// Where its commit record stands in the WAL.
        commit_lsn: u64,
        /// Commit time, microseconds since 2000-01-01 UTC.
        committed: i64,
        /// The low 32 bits of its id.
        xid: u32,
    },
    /// The transaction is whole.
    Commit {
        /// Where its commit record stands.
        commit_lsn: u64,
        /// Where the record ends.
        end_lsn: u64,
        /// As of [`Message::Begin`].
        committed: i64,
    },
    /// The transaction came from another server.
    Origin,
    /// A table as it is for the changes that follow.
    Relation(Relation),
    /// The name of a type that is not built in.
    Type {
        /// Its OID.
        oid: u32,
        /// Its schema; empty for `pg_catalog`.
        schema: String,
        /// Its name.
        name: String,
    },
    /// A new row.
    Insert {
        /// The table's OID.
        relation: u32,
        /// The row.
        new: Tuple,
    },
    /// A changed row.
    Update {
        /// The table's OID.
        relation: u32,
        /// What is told of the row before, if anything.
        old: Option<Old>,
        /// The row after.
        new: Tuple,
    },
    /// A deleted row.
    Delete {
        /// The table's OID.
        relation: u32,
        /// What is told of it.
        old: Old,
    },
    /// Tables were emptied together.
    Truncate {
        /// Their OIDs.
        relations: Vec<u32>,
    },
    /// What an application gave to `pg_logical_emit_message`.
    Logical {
        /// Whether it belongs to the transaction around it.
        transactional: bool,
        /// Where it stands in the WAL.
        lsn: u64,
        /// Its prefix.
        prefix: String,
        /// Its content, any bytes.
        content: Bytes,
    },
}

/// A table's description within the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Relation {
    /// Its OID.
    pub oid: u32,
    /// Its schema; empty for `pg_catalog`.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `d`efault, `n`othing, `f`ull or `i`ndex.
    pub identity: u8,
    /// The columns published, in their order.
    pub columns: Vec<Column>,
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Whether it belongs to the replica identity.
    pub identity: bool,
    /// Its name.
    pub name: String,
    /// Its type's OID.
    pub kind: u32,
    /// Its type's modifier; −1 for none.
    pub modifier: i32,
}

/// What is told of a row before.
#[derive(Debug, Clone, PartialEq)]
pub struct Old {
    /// Only the columns of the replica identity hold values; the others say null and mean nothing.
    pub key_only: bool,
    /// The row.
    pub tuple: Tuple,
}

/// A row: as many cells as its relation has columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuple {
    bytes: Bytes,
    cells: Vec<Place>,
}

/// Where a cell's text stands in its tuple's bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Null,
    Unchanged,
    Text(u32, u32),
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// A large value that was not sent, for it has not changed.
    Unchanged,
    /// Its text form; bytes that are no UTF-8 are replaced.
    Text(Cow<'a, str>),
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end before the message does.
    #[error("a replication message is cut short")]
    Short,
    /// They go on after it.
    #[error("{0} bytes follow a replication message")]
    Surplus(usize),
    /// No such message in protocol version 1, or no such part of one.
    #[error("an unknown replication message or part {0:#04x}")]
    Unknown(u8),
    /// A count or length that no server sends.
    #[error("a replication message with a length below zero")]
    Negative,
}

/// Microseconds from 1970 to 2000, where PostgreSQL's time begins.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A time of the stream in Unix milliseconds.
pub fn unix_ms(micros: i64) -> i64 {
    micros.saturating_add(EPOCH_MICROS).div_euclid(1000)
}

/// Decodes one message.
///
/// # Errors
/// [`Malformed`]: the connection cannot be trusted any more.
pub fn decode(bytes: &Bytes) -> Result<Message, Malformed> {
    let mut reader = Reader { bytes, at: 0 };
    let message = reader.message()?;
    match bytes.len() - reader.at {
        0 => Ok(message),
        surplus => Err(Malformed::Surplus(surplus)),
    }
}

// === impl Tuple ===

impl Tuple {
    /// How many cells there are.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The bytes of all its values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// A cell by the number of its column.
    pub fn get(&self, index: usize) -> Option<Cell<'_>> {
        Some(match *self.cells.get(index)? {
            Place::Null => Cell::Null,
            Place::Unchanged => Cell::Unchanged,
            Place::Text(start, end) => {
                let text = self.bytes.get(start as usize..end as usize)?;
                Cell::Text(String::from_utf8_lossy(text))
            }
        })
    }
}

// === reading ===

struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn message(&mut self) -> Result<Message, Malformed> {
        Ok(match self.u8()? {
            b'B' => Message::Begin {
                commit_lsn: self.u64()?,
                committed: self.u64()? as i64,
                xid: self.u32()?,
            },
            b'C' => {
                let _flags = self.u8()?;
                Message::Commit {
                    commit_lsn: self.u64()?,
                    end_lsn: self.u64()?,
                    committed: self.u64()? as i64,
                }
            }
            b'O' => {
                self.u64()?;
                self.text()?;
                Message::Origin
            }
            b'R' => Message::Relation(self.relation()?),
            b'Y' => Message::Type {
                oid: self.u32()?,
                schema: self.text()?,
                name: self.text()?,
            },
            b'I' => {
                let relation = self.u32()?;
                self.new_tag()?;
                let new = self.tuple()?;
                Message::Insert { relation, new }
            }
            b'U' => self.update()?,
            b'D' => {
                let relation = self.u32()?;
                let tag = self.u8()?;
                let old = self.old(tag)?;
                Message::Delete { relation, old }
            }
            b'T' => self.truncate()?,
            b'M' => self.logical()?,
            other => return Err(Malformed::Unknown(other)),
        })
    }

    fn relation(&mut self) -> Result<Relation, Malformed> {
        let (oid, schema, name) = (self.u32()?, self.text()?, self.text()?);
        let identity = self.u8()?;
        let count = self.count()?;
        // A column takes 10 bytes at the least: what cannot be there is not made room for.
        let mut columns = Vec::with_capacity(count.min(self.left() / 10));
        for _ in 0..count {
            columns.push(Column {
                identity: self.u8()? & 1 == 1,
                name: self.text()?,
                kind: self.u32()?,
                modifier: self.u32()? as i32,
            });
        }
        Ok(Relation {
            oid,
            schema,
            name,
            identity,
            columns,
        })
    }

    fn update(&mut self) -> Result<Message, Malformed> {
        let relation = self.u32()?;
        let old = match self.u8()? {
            b'N' => None,
            tag => {
                let old = self.old(tag)?;
                self.new_tag()?;
                Some(old)
            }
        };
        let new = self.tuple()?;
        Ok(Message::Update { relation, old, new })
    }

    fn truncate(&mut self) -> Result<Message, Malformed> {
        let count = self.length()?;
        let _options = self.u8()?;
        let mut relations = Vec::with_capacity(count.min(self.left() / 4));
        for _ in 0..count {
            relations.push(self.u32()?);
        }
        Ok(Message::Truncate { relations })
    }

    fn logical(&mut self) -> Result<Message, Malformed> {
        let flags = self.u8()?;
        let (lsn, prefix) = (self.u64()?, self.text()?);
        let length = self.length()?;
        let start = self.skip(length)?;
        Ok(Message::Logical {
            transactional: flags & 1 == 1,
            lsn,
            prefix,
            content: self.bytes.slice(start..start + length),
        })
    }

    fn old(&mut self, tag: u8) -> Result<Old, Malformed> {
        let key_only = match tag {
            b'K' => true,
            b'O' => false,
            other => return Err(Malformed::Unknown(other)),
        };
        let tuple = self.tuple()?;
        Ok(Old { key_only, tuple })
    }

    fn tuple(&mut self) -> Result<Tuple, Malformed> {
        let count = self.count()?;
        let start = self.at;
        let mut cells = Vec::with_capacity(count.min(self.left()));
        for _ in 0..count {
            cells.push(match self.u8()? {
                b'n' => Place::Null,
                b'u' => Place::Unchanged,
                b't' => {
                    let length = self.length()?;
                    let text = self.skip(length)? - start;
                    // A message's length is an Int32, so places in it fit.
                    Place::Text(text as u32, (text + length) as u32)
                }
                other => return Err(Malformed::Unknown(other)),
            });
        }
        let bytes = self.bytes.slice(start..self.at);
        Ok(Tuple { bytes, cells })
    }

    fn new_tag(&mut self) -> Result<(), Malformed> {
        match self.u8()? {
            b'N' => Ok(()),
            other => Err(Malformed::Unknown(other)),
        }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Steps over bytes; returns where they begin.
    fn skip(&mut self, length: usize) -> Result<usize, Malformed> {
        if length > self.left() {
            return Err(Malformed::Short);
        }
        let start = self.at;
        self.at += length;
        Ok(start)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let start = self.skip(N)?;
        let found = self.bytes.get(start..start + N);
        found
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(Malformed::Short)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.fixed::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.fixed().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.fixed().map(u64::from_be_bytes)
    }

    fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.fixed().map(i16::from_be_bytes)?;
        usize::try_from(count).map_err(|_| Malformed::Negative)
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        let length = self.fixed().map(i32::from_be_bytes)?;
        usize::try_from(length).map_err(|_| Malformed::Negative)
    }

    /// A text that ends with a zero byte.
    fn text(&mut self) -> Result<String, Malformed> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == 0);
        let length = length.ok_or(Malformed::Short)?;
        self.at += length + 1;
        Ok(String::from_utf8_lossy(&rest[..length]).into_owned())
    }
}

#[cfg(test)]
mod tests;
