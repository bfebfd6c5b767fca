//! What a socket takes: which topics, and of each which rows; of guarded ones no more than may be seen.

use std::{collections::HashMap, sync::Arc};

use super::{
    filters::{Filter, Filters, TOO_MANY_TOPICS},
    scopes::{Scope, Scopes, Stake},
};
use crate::{
    identity::Identity,
    predicate::{Judges, Verdict},
    protocol::{Encoded, ErrorCode, Failure, Interest},
    ring::Frame,
    sabotage::{self, Fault},
    topic::Topics,
};

/// Topics, each once, in order: a few words for each socket, that are looked through for each pass of its lane.
#[derive(Debug, Default)]
struct Chosen(Vec<Arc<str>>);

/// Which topics a socket takes, and of each which rows. Nothing on the heap for who takes all.
#[derive(Debug, Default)]
pub struct Interests(Option<Box<Choice>>);

#[derive(Debug, Default)]
struct Choice {
    /// Only these topics; all where none.
    only: Option<Chosen>,
    filters: HashMap<Arc<str>, Arc<Filter>>,
    /// What the client may see of each guarded topic, whatever it asks for.
    scopes: Scopes,
    /// The lane knows what concerns this socket.
    listed: bool,
}

/// Topics named by a client, with their filters compiled.
pub type Named = Vec<(Arc<str>, Option<Arc<Filter>>)>;

impl Interests {
    /// These topics, or all, without filters.
    pub fn new(only: Option<Vec<Arc<str>>>) -> Self {
        let choice = only.map(|only| Choice {
            only: Some(Chosen::new(only)),
            ..Choice::default()
        });
        Self(choice.map(Box::new))
    }

    /// Whether topics were chosen, and one of them is none of those that exist.
    pub fn names_others(&self, exists: impl Fn(&str) -> bool) -> bool {
        let only = self.0.as_ref().and_then(|choice| choice.only.as_ref());
        only.is_some_and(|only| only.0.iter().any(|name| !exists(name)))
    }

    /// Exactly these topics, as far as they may be seen.
    pub fn choose(&mut self, named: Named) {
        let choice = self.0.get_or_insert_default();
        choice.only = Some(Chosen::default());
        choice.filters.clear();
        self.add(named);
    }

    /// Whatever is taken, of guarded topics only what may be seen. A filter on what may not is gone.
    pub fn confine(&mut self, scopes: Scopes) {
        if scopes.is_empty() {
            return;
        }
        let choice = self.0.get_or_insert_default();
        for (name, scope) in &scopes {
            let fits =
                |filter: &Arc<Filter>| scope.as_ref().is_some_and(|scope| scope.admits(filter));
            if choice.filters.get(name).is_some_and(|filter| !fits(filter)) {
                choice.filters.remove(name);
            }
        }
        choice.scopes = scopes;
        choice.listed = false;
    }

    /// These, too, each with the filter given or none. Who takes all topics goes on doing so.
    pub fn add(&mut self, named: Named) {
        let choice = self.0.get_or_insert_default();
        choice.listed = false;
        for (topic, filter) in named {
            if let Some(only) = &mut choice.only {
                only.insert(topic.clone());
            }
            match filter {
                Some(filter) => drop(choice.filters.insert(topic, filter)),
                None => drop(choice.filters.remove(&topic)),
            }
        }
    }

    /// These no more.
    pub fn remove(&mut self, types: &[String], topics: &Topics) {
        let all = || Chosen::new(topics.iter().map(|topic| topic.name.clone()).collect());
        let choice = self.0.get_or_insert_default();
        choice.listed = false;
        let only = choice.only.get_or_insert_with(all);
        only.0
            .retain(|name| !types.iter().any(|gone| **gone == **name));
        choice.filters.retain(|name, _| only.contains(name));
    }

    /// Whether with these, too, no more than `most` topics are chosen, and have filters.
    fn admits(&self, more: &[Interest], most: usize) -> bool {
        if more.len() > most {
            return false;
        }
        let Some(choice) = &self.0 else {
            return true;
        };
        let is_other = |topic: &&Arc<str>| more.iter().all(|interest| *interest.topic != ***topic);
        let only = choice.only.iter().flat_map(|only| &only.0);
        let chosen = only.filter(is_other).count();
        let filtered = choice.filters.keys().filter(is_other).count();
        let more_filtered = more.iter().filter(|interest| !interest.filter.is_empty());
        chosen + more.len() <= most && filtered + more_filtered.count() <= most
    }

    /// Whether events of a topic are taken.
    pub fn takes(&self, topic: &str) -> bool {
        let Some(choice) = &self.0 else {
            return true;
        };
        let wanted = choice.only.as_ref().is_none_or(|only| only.contains(topic));
        wanted && choice.scope(topic).is_none_or(|scope| scope.is_some())
    }

    /// Whether events of a topic are judged by something that was compiled for its table.
    pub fn filters(&self, topic: &str) -> bool {
        let judged = |choice: &Choice| {
            let scope = choice.scope(topic).and_then(Option::as_ref);
            choice.filters.contains_key(topic) || scope.is_some()
        };
        self.0.as_deref().is_some_and(judged)
    }

    /// Whether a change of a row cannot be judged yet, though its topic is taken.
    pub fn cannot_judge(&self, frame: &Frame) -> bool {
        let Some(choice) = &self.0 else {
            return false;
        };
        let is_unknown = || {
            let scope = choice.scope(&frame.topic).and_then(Option::as_ref);
            scope.is_some_and(|scope| scope.is_unknown())
        };
        frame.is_of_a_row() && is_unknown() && self.takes(&frame.topic)
    }

    /// Whether rows of a topic that is taken cannot be judged, by what is known of its table by now.
    pub fn awaits(&mut self, topic: &str, filters: &Filters) -> bool {
        let takes = self.takes(topic);
        let Some(choice) = self.0.as_mut().filter(|_| takes) else {
            return false;
        };
        let scopes = choice.scopes.iter_mut();
        let mut scopes = scopes.filter_map(|(name, scope)| Some((name, scope.as_mut()?)));
        let Some((_, scope)) = scopes.find(|(name, _)| ***name == *topic) else {
            return false;
        };
        if scope.is_unknown() {
            *scope = filters.scope(&scope.topic);
            choice.listed = false;
        }
        scope.is_unknown()
    }

    /// The form in which this socket gets a frame, and its text; `None` for one that it does not
    /// get.
    pub fn form(&self, frame: &Frame) -> Option<(Verdict, Encoded)> {
        if !self.takes(&frame.topic) {
            return None;
        }
        let Some(choice) = &self.0 else {
            return Some((Verdict::Pass, frame.form(Verdict::Pass, None)?));
        };
        let filter = choice.filters.get(&frame.topic);
        let scope = choice.scope(&frame.topic).and_then(Option::as_ref);
        if let Some(scope) = scope {
            // What is no change of a row nobody can judge.
            let change = frame.change.as_ref()?;
            if scope.is_shut() && change.key.is_some() {
                return None;
            }
        }
        let policy = scope.and_then(|scope| scope.policy());
        let table = policy.map(|(_, table)| table);
        let table = table.or(filter.map(|filter| &filter.table));
        let judges = Judges {
            // Sabotage: everybody is sent every row.
            policy: policy
                .map(|(predicate, _)| predicate)
                .filter(|_| !sabotage::active(Fault::ShowOthers)),
            filter: filter.map(|filter| &filter.predicate),
        };
        let verdict = table.map_or(Verdict::Pass, |table| frame.judged(judges, table));
        let columns = scope.and_then(|scope| scope.columns.as_ref());
        Some((verdict, frame.form(verdict, columns)?))
    }

    /// What a lane is to know of each guarded topic, where it does not know it yet.
    pub fn stakes(&mut self) -> Option<Vec<(Arc<str>, Stake)>> {
        let choice = self.0.as_mut().filter(|choice| !choice.listed)?;
        choice.listed = true;
        let stake = |(topic, scope): &(Arc<str>, Option<Arc<Scope>>)| {
            let taken = choice.only.as_ref().is_none_or(|only| only.contains(topic));
            let scope = scope.as_ref().filter(|_| taken);
            (
                topic.clone(),
                scope.map_or(Stake::None, |scope| scope.stake()),
            )
        };
        Some(choice.scopes.iter().map(stake).collect())
    }

    /// Compiles anew by what a topic's events are judged, if by anything: the topic's table may be another
    /// now.
    ///
    /// A filter that does not fit the table any more is gone, and every row is sent that may be: its client has
    /// been told to query again, and is told why it cannot; while the database cannot be asked it stays as it is.
    /// A policy that does not fit it lets nothing through, and until the table is described no row is judged.
    pub async fn refresh(&mut self, gateway: &super::Gateway, topic: &str) {
        let Some(choice) = &mut self.0 else {
            return;
        };
        let mut seen = gateway.topics.get(topic).cloned();
        let scope = choice.scopes.iter_mut().find(|(name, _)| **name == *topic);
        if let Some((_, scope)) = scope {
            seen = scope.as_ref().map(|scope| scope.topic.clone());
            if let Some(scope) = scope {
                *scope = gateway.filters.scope(&scope.topic);
                choice.listed = false;
            }
        }
        let (Some(filter), Some(topic)) = (choice.filters.get_mut(topic), seen) else {
            return;
        };
        let conditions = filter.conditions.clone();
        match gateway.filters.compile(&topic, conditions).await {
            Ok(fresh) => *filter = fresh,
            Err(failure) if failure.code == ErrorCode::BadParam => {
                choice.filters.remove(&topic.name);
            }
            Err(_) => {}
        }
    }

    /// Compiles everything anew.
    pub async fn refresh_all(&mut self, gateway: &super::Gateway) {
        let judged = match self.0.as_deref() {
            Some(choice) => {
                let scopes = choice.scopes.iter().map(|(name, _)| name);
                Chosen::new(choice.filters.keys().chain(scopes).cloned().collect()).0
            }
            None => return,
        };
        for topic in judged {
            self.refresh(gateway, &topic).await;
        }
    }
}

impl Chosen {
    fn new(mut names: Vec<Arc<str>>) -> Self {
        names.sort_unstable();
        names.dedup();
        names.shrink_to_fit();
        Self(names)
    }

    fn place(&self, topic: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|name| (**name).cmp(topic))
    }

    fn contains(&self, topic: &str) -> bool {
        self.place(topic).is_ok()
    }

    fn insert(&mut self, topic: Arc<str>) {
        if let Err(place) = self.place(&topic) {
            self.0.insert(place, topic);
        }
    }
}

impl Choice {
    /// What may be seen of a guarded topic; `None` for one that is not guarded.
    fn scope(&self, topic: &str) -> Option<&Option<Arc<Scope>>> {
        let found = self.scopes.iter().find(|(name, _)| **name == *topic);
        found.map(|(_, scope)| scope)
    }
}

impl super::Gateway {
    /// The topics that a client names beside those that it has, as far as they exist for it, with their
    /// filters compiled.
    ///
    /// # Errors
    /// The [`Failure`] to answer with.
    pub(super) async fn named(
        &self,
        interests: Vec<Interest>,
        beside: &Interests,
        identity: &Identity,
    ) -> Result<Named, Failure> {
        if !beside.admits(&interests, self.config.max_topics) {
            self.metrics.limited("topics");
            return Err(Failure::param(TOO_MANY_TOPICS));
        }
        let mut named = Vec::with_capacity(interests.len());
        for interest in interests {
            let topic = self.topic(&interest.topic, identity);
            let topic = topic.ok_or(ErrorCode::UnknownType)?;
            let filter = match interest.filter.is_empty() {
                true => None,
                false => Some(self.filters.compile(&topic, interest.filter).await?),
            };
            named.push((topic.name.clone(), filter));
        }
        Ok(named)
    }
}
