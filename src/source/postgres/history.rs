//! Whether the database that is read now is the one of which the bus holds the past.

use std::sync::Arc;

use super::place;
use crate::{horizon::Visible, position::Checkpoint};

/// Where slot and server stand when the slot has become ours.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Server, timeline, database and slot, as [`place::identity`].
    pub identity: String,
    /// The slot is confirmed up to here: this much it does not send again.
    pub confirmed: u64,
    /// The server's WAL reaches to here.
    pub insert: u64,
    /// What is visible. All of it lies before `insert`.
    pub snapshot: Visible,
}

/// What a stored checkpoint and a [`Standing`] say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The history goes on.
    Same,
    /// It goes on if the transaction of the checkpoint comes by again.
    SameIfSeen,
    /// Another one begins; the text says why.
    Other(&'static str),
}

/// Judges what is known before the first message.
pub fn judge(standing: &Standing, stored: &Checkpoint) -> Verdict {
    // A part of a transaction ends nowhere; its commit record stands at its beginning.
    let end = place::end(stored).unwrap_or(stored.high);
    if !place::belongs(&stored.source, &standing.identity) {
        return Verdict::Other("it is another server, timeline, database or slot");
    }
    if standing.confirmed > end {
        return Verdict::Other("the slot was advanced or made anew by somebody else");
    }
    if standing.insert < end {
        return Verdict::Other("the database was put back to an earlier point");
    }
    // The server sends again what commits at or after the place that was confirmed.
    match !place::is_between(stored) && standing.confirmed <= stored.high {
        true => Verdict::SameIfSeen,
        false => Verdict::Same,
    }
}

/// The place at which another history begins: behind all that is visible now.
///
/// # Errors
/// The system has no random numbers to give.
pub fn fresh(standing: &Standing) -> Result<Checkpoint, getrandom::Error> {
    let source: Arc<str> = place::fresh(&standing.identity)?;
    Ok(place::between(&source, standing.insert))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(confirmed: u64, insert: u64) -> Standing {
        Standing {
            identity: "0123456789".into(),
            confirmed,
            insert,
            snapshot: "5:5:".parse().unwrap(),
        }
    }

    #[test]
    fn a_history_goes_on_only_where_slot_and_server_stand_as_they_were_left() {
        let source: Arc<str> = "0123456789-abcdef".into();
        let stored = place::whole(&source, 0x100, 0x130, 5);
        let verdict = |confirmed, insert| judge(&standing(confirmed, insert), &stored);
        assert_eq!(verdict(0x130, 0x130), Verdict::Same);
        assert_eq!(verdict(0x110, 0x200), Verdict::Same);
        assert_eq!(verdict(0x100, 0x200), Verdict::SameIfSeen);
        assert_eq!(verdict(0x080, 0x200), Verdict::SameIfSeen);
        assert!(matches!(verdict(0x131, 0x200), Verdict::Other(_)));
        assert!(matches!(verdict(0x080, 0x12f), Verdict::Other(_)));
        let idle = place::between(&source, 0x100);
        assert_eq!(judge(&standing(0x80, 0x200), &idle), Verdict::Same);
        let part = Checkpoint { low: 7, ..stored };
        assert_eq!(judge(&standing(0x80, 0x200), &part), Verdict::SameIfSeen);
        assert!(matches!(
            judge(&standing(0x101, 0x200), &part),
            Verdict::Other(_)
        ));
        let elsewhere = Checkpoint {
            source: "999-1".into(),
            ..part
        };
        assert!(matches!(
            judge(&standing(0, 0x200), &elsewhere),
            Verdict::Other(_)
        ));
    }
}
