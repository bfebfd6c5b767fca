//! What is published: a text with a mark in it, filled up to a size.

use anyhow::{Context, ensure};

use super::mark::{MARK_BYTES, Mark};

/// Where the mark comes.
const PLACE: &str = "{mark}";

/// A text with a place for a mark.
#[derive(Debug, Clone)]
pub struct Body {
    before: String,
    after: String,
}

impl Body {
    /// A text in which `{mark}` stands, made `size` bytes long by letters behind the mark.
    ///
    /// # Errors
    /// `{mark}` is missing, or the text is longer than that already.
    pub fn parse(text: &str, size: usize) -> anyhow::Result<Self> {
        let (before, after) = text
            .split_once(PLACE)
            .context("--body needs {mark} where the time and the number go")?;
        let least = before.len() + MARK_BYTES + after.len();
        ensure!(
            size >= least,
            "--size {size} is too small: the text with its mark has {least} bytes"
        );
        Ok(Self {
            before: before.to_owned(),
            after: "x".repeat(size - least) + after,
        })
    }

    /// Bytes of each.
    pub fn len(&self) -> usize {
        self.before.len() + MARK_BYTES + self.after.len()
    }

    /// Appends the text with this mark.
    pub fn write(&self, mark: Mark, out: &mut Vec<u8>) {
        out.extend_from_slice(self.before.as_bytes());
        mark.write(out);
        out.extend_from_slice(self.after.as_bytes());
    }
}
