//! How many connections each identity has: one person with many windows is welcome, one account that
//! takes the room of all is not.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Address, Asker};
use crate::identity::Identity;

/// The connections of all identities. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Identities(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    present: Mutex<HashMap<Name, usize>>,
}

/// By what somebody is counted: a subject and a token's id that are alike are two. By his address only where nothing
/// is known of him but that.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Subject(Arc<str>),
    TokenId(Arc<str>),
    Address(Address),
}

/// One connection of an identity, until dropped. Of who is not counted it is nothing.
#[derive(Debug, Default)]
pub struct Share(Option<Box<Counted>>);

#[derive(Debug)]
struct Counted {
    identities: Arc<Inner>,
    name: Name,
}

/// An identity has all the connections that it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowded;

impl Identities {
    /// Nobody yet; each may have so many connections.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Inner {
            most,
            present: Mutex::default(),
        }))
    }

    /// Counts a connection of that identity: by its subject, or by the token's id where it has none. Who has
    /// neither, or is anonymous, is not counted.
    ///
    /// # Errors
    /// [`Crowded`]; whoever refuses the connection for that counts it.
    pub fn admit(&self, identity: &Identity) -> Result<Share, Crowded> {
        self.count(Name::of(identity))
    }

    /// Counts something of somebody else's who asks: by his address where he has no name.
    ///
    /// # Errors
    /// [`Crowded`]; whoever refuses it for that counts it.
    pub fn admit_asker(&self, asker: Option<&Asker>) -> Result<Share, Crowded> {
        self.count(asker.map(|asker| asker.0.clone()))
    }

    fn count(&self, name: Option<Name>) -> Result<Share, Crowded> {
        let Some(name) = name else {
            return Ok(Share::default());
        };
        let inner = &self.0;
        let mut present = inner.guard();
        let known = present.get_key_value(&name);
        let (name, there) = known.map_or((name, 0), |(known, there)| (known.clone(), *there));
        if there >= inner.most {
            return Err(Crowded);
        }
        present.insert(name.clone(), there + 1);
        let identities = inner.clone();
        Ok(Share(Some(Box::new(Counted { identities, name }))))
    }

    /// Has a connection count as one of that identity from here on. It stays one, and needs no room, where
    /// it was one before.
    ///
    /// # Errors
    /// [`Crowded`]: it goes on counting as it did.
    pub fn pass(&self, share: &mut Share, to: &Identity) -> Result<(), Crowded> {
        if share.name() != Name::of(to).as_ref() {
            *share = self.admit(to)?;
        }
        Ok(())
    }
}

impl Name {
    /// None for who is not counted so.
    pub(super) fn of(identity: &Identity) -> Option<Self> {
        let subject = identity.subject().map(|name| Self::Subject(name.into()));
        subject.or_else(|| identity.token_id().map(|id| Self::TokenId(id.into())))
    }
}

impl Share {
    fn name(&self) -> Option<&Name> {
        self.0.as_ref().map(|counted| &counted.name)
    }
}

impl Inner {
    fn guard(&self) -> MutexGuard<'_, HashMap<Name, usize>> {
        // Nothing in here panics half way through a change.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut present = self.identities.guard();
        if let Some(there) = present.get_mut(&self.name) {
            *there -= 1;
            // Who has gone leaves nothing behind, or names would fill the memory.
            if *there == 0 {
                present.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn identity(claims: Json) -> Identity {
        Identity::new(claims.as_object().unwrap().clone(), None)
    }

    fn of(sub: &str) -> Identity {
        identity(json!({ "sub": sub }))
    }

    #[test]
    fn an_identity_has_its_share_and_gives_it_back() {
        let identities = Identities::new(2);
        let first = identities.admit(&of("anna")).unwrap();
        let _second = identities.admit(&of("anna")).unwrap();
        assert_eq!(identities.admit(&of("anna")).err(), Some(Crowded));
        let _other = identities.admit(&of("bert")).unwrap();
        drop(first);
        let _third = identities.admit(&of("anna")).unwrap();
        assert_eq!(identities.admit(&of("anna")).err(), Some(Crowded));
    }

    #[test]
    fn who_has_no_subject_is_counted_by_his_token_and_who_has_no_name_is_not() {
        let identities = Identities::new(1);
        let _subject = identities.admit(&of("7")).unwrap();
        let token = identity(json!({ "jti": 7, "ward": "3" }));
        let _token = identities.admit(&token).unwrap();
        assert_eq!(identities.admit(&token).err(), Some(Crowded));
        let both = identity(json!({ "sub": 7, "jti": "8" }));
        assert_eq!(identities.admit(&both).err(), Some(Crowded));
        for nameless in [Identity::anonymous(), identity(json!({ "ward": "3" }))] {
            let _two = [(); 2].map(|()| identities.admit(&nameless).unwrap());
        }
    }

    #[test]
    fn a_share_is_passed_on_where_there_is_room_and_stays_where_there_is_none() {
        let identities = Identities::new(1);
        let mut anna = identities.admit(&of("anna")).unwrap();
        let bert = identities.admit(&of("bert")).unwrap();
        assert_eq!(identities.pass(&mut anna, &of("anna")), Ok(()));
        assert_eq!(identities.pass(&mut anna, &of("bert")), Err(Crowded));
        assert_eq!(identities.admit(&of("anna")).err(), Some(Crowded));
        drop(bert);
        assert_eq!(identities.pass(&mut anna, &of("bert")), Ok(()));
        assert_eq!(identities.admit(&of("bert")).err(), Some(Crowded));
        let mut second = identities.admit(&of("anna")).unwrap();
        let nobody = Identity::anonymous();
        assert_eq!(identities.pass(&mut second, &nobody), Ok(()));
        assert_eq!(identities.pass(&mut second, &of("anna")), Ok(()));
        drop((anna, second));
        assert!(identities.0.guard().is_empty());
    }

    #[test]
    fn who_has_gone_leaves_nothing_behind() {
        let identities = Identities::new(1);
        for person in 0..100 {
            drop(identities.admit(&of(&person.to_string())).unwrap());
        }
        assert!(identities.0.guard().is_empty());
    }
}
