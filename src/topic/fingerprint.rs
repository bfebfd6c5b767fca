//! What producers and gateways compare, to know that they speak of the same topics.

use super::{Base, Topic};

impl Topic {
    /// A short text that two definitions share only if they show and push the same: what
    /// producers and gateways compare.
    pub fn fingerprint(&self) -> String {
        let mut hash = Fnv::default();
        hash.text(self.push.as_str());
        if let Some(view) = &self.view {
            match &view.base {
                Base::Table(table) => hash.text(table),
                Base::Query { sql, watch } => {
                    hash.text("");
                    hash.text(sql);
                    for watch in watch {
                        hash.text(&watch.table);
                        hash.list(&watch.key);
                    }
                    hash.text("");
                }
            }
            hash.list(&view.key);
            hash.list(&view.columns);
            hash.text(view.condition.as_deref().unwrap_or(""));
            for by in &view.order {
                hash.text(&by.column);
                hash.text(if by.descending { "desc" } else { "asc" });
            }
            hash.text(&view.page_size.to_string());
            // Who is shown more than before must be told so, too.
            if let Some(policy) = &view.policy {
                hash.text(policy.text());
            }
            if let Some(roles) = &view.roles {
                hash.text(&roles.claim);
                for (role, columns) in &roles.columns {
                    hash.text(role);
                    hash.list(columns);
                }
            }
        }
        format!("{:016x}", hash.0)
    }
}

/// FNV-1a: the same on every machine and in every version, which the standard hasher is not.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// A text and its end, so that no two lists of texts run together.
    fn text(&mut self, text: &str) {
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn list(&mut self, texts: &[String]) {
        texts.iter().for_each(|text| self.text(text));
        self.text("");
    }
}
