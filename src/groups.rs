//! Groups: named audiences of sockets. There is one so far, which every socket of `/socket/all/`
//! joins when it opens.

use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

/// A named audience, and how many it may hold. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Group {
    name: &'static str,
    members: TaskTracker,
    max: usize,
}

/// Keeps a socket's place in its group until dropped.
#[derive(Debug)]
pub struct Membership {
    _token: TaskTrackerToken,
}

impl Group {
    /// An empty group for at most `max` sockets.
    pub fn new(name: &'static str, max: usize) -> Self {
        Self {
            name,
            members: TaskTracker::new(),
            max,
        }
    }

    /// The name, as in the tutorial.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Takes a place; `None` where the group is full or closed.
    pub fn join(&self) -> Option<Membership> {
        let room = self.members.len() < self.max && !self.members.is_closed();
        room.then(|| Membership {
            _token: self.members.token(),
        })
    }

    /// How many sockets are in the group.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is in the group.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Admits nobody any more, and waits until everybody has left.
    ///
    /// # Cancel safety
    /// Cancel safe: the group stays closed, and the wait can be taken up again.
    pub async fn emptied(&self) {
        self.members.close();
        self.members.wait().await;
    }
}
