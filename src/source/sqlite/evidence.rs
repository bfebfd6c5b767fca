//! By what a file is recognised after a restart. A copy of it that was restored and went another
//! way may hold as many entries, of the same rows even: clients must be told, never misled.

use rusqlite::Connection;

use super::{
    batch::{self, Shape},
    changelog::{self, Watched},
};

/// What a place in the changelog is recognised by after a restart.
#[derive(Debug, Clone, Copy)]
pub struct Evidence {
    /// [`changelog::fingerprint`]
    pub entries: u16,
    /// [`batch::image`]: of the row and of its columns; their last bits count.
    image: Option<(u32, u32)>,
}

impl Evidence {
    /// What is found at an entry; `None` where the entry is gone. Call it inside a read
    /// transaction; without `shapes` rows are not looked at.
    pub fn of(
        conn: &Connection,
        watched: &[Watched],
        shapes: &[Option<Shape>],
        id: u64,
    ) -> rusqlite::Result<Option<Self>> {
        let Some(entries) = changelog::fingerprint(conn, id)? else {
            return Ok(None);
        };
        let image = match shapes.is_empty() {
            true => None,
            false => batch::image(conn, watched, shapes, id)?,
        };
        Ok(Some(Self { entries, image }))
    }

    /// As a checkpoint carries it: 16 bits, 4 bits and 12 bits.
    pub fn pack(self) -> u32 {
        let (row, columns) = self.image.unwrap_or_default();
        u32::from(self.entries) << 16 | (columns & 0xf) << 12 | row & 0xfff
    }

    /// Reads what [`Evidence::pack`] wrote.
    pub fn unpack(low: u32) -> Self {
        Self {
            entries: (low >> 16) as u16,
            image: Some((low & 0xfff, low >> 12 & 0xf)),
        }
    }

    /// The row can only be compared where neither it nor its columns may have changed since.
    pub fn agrees_with(self, before: Self) -> bool {
        let now = Self::unpack(self.pack());
        let columns = |evidence: Self| evidence.image.map(|(_, columns)| columns);
        let comparable = self.image.is_some() && columns(now) == columns(before);
        now.entries == before.entries && (!comparable || now.image == before.image)
    }
}
