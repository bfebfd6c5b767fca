//! By what somebody is counted who asks for something: by who he is, or else by where he comes from.

use std::net::IpAddr;

use super::{Address, identities::Name};
use crate::identity::Identity;

/// Somebody who asks: whatever he asks for, by however many connections, is his.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asker(pub(super) Name);

impl Asker {
    /// By his subject, or by the token's id where it has none, or by the address that he comes from. None for who
    /// has none of these, and for this machine, on which a proxy may bring everybody.
    pub fn of(identity: &Identity, from: Option<IpAddr>) -> Option<Self> {
        let address = || from.and_then(Address::of).map(Name::Address);
        Name::of(identity).or_else(address).map(Self)
    }
}
