//! A client as naive as the promise allows (docs/protocol.md §1.1), and the log of all that it
//! sent and got. It judges nothing itself: [`super::judge`] does, afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};

use super::{
    frame::{Frame, Place},
    random::Random,
    rows::{KEYS, Select},
    taker::{Taker, Way},
    wire::{Incoming, Wire},
    writers::pause,
};

/// How long nothing more has come for the stream to be over.
const STILL: Duration = Duration::from_secs(4);

/// Something that a client did or got.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A socket was opened, to go on from there.
    Connect(Option<Place>),
    /// A question was sent.
    Asked(u64, &'static str, Select),
    /// A frame came.
    Got(Frame),
    /// An answer came over HTTP.
    Http(&'static str, Select, Frame),
    /// The client forgets all but what it got over HTTP just now, and goes on from there.
    Begins,
    /// The client cut its socket.
    Cut,
    /// The socket was closed by the other side, or broke.
    Closed(u16),
    /// The end did not come in time: what was still missing.
    GaveUp(String),
}

impl Entry {
    /// The beginning of what it says.
    pub fn short(&self) -> String {
        match self {
            Self::Got(frame) => frame.short(),
            Self::Http(topic, select, frame) => format!("{topic} {select:?}: {}", frame.short()),
            other => format!("{other:?}").chars().take(100).collect(),
        }
    }
}

/// A client's log.
#[derive(Debug)]
pub struct Log {
    /// What the client takes.
    pub taker: Taker,
    /// All that it did and got, with the milliseconds since the run began.
    pub entries: Vec<(u64, Entry)>,
}

/// What tells clients how far the run is.
#[derive(Debug)]
pub struct Run {
    /// The number of the last transaction, once it was written; 0 before.
    pub last: AtomicU64,
    /// Clients that hold everything for the first time.
    pub ready: AtomicU64,
    /// Events that came to any client.
    pub events: AtomicU64,
    /// When it began.
    pub begun: Instant,
    /// In milliseconds since then, until when clients may still miss something; 0 while there is
    /// more to come.
    pub end_ms: AtomicU64,
}

/// One client.
pub struct Client {
    run: Arc<Run>,
    addresses: Arc<Vec<String>>,
    /// The gateway that it is on.
    gateway: usize,
    random: Random,
    log: Log,
    cursor: Option<String>,
    /// One from some time ago: to resume from it brings again what the client had.
    older: Option<String>,
    asked: BTreeMap<u64, (&'static str, Select)>,
    next_rid: u64,
    /// The topics that it holds.
    holds: BTreeSet<&'static str>,
    /// The highest numbers seen in `log`, and on a page.
    seen: (u64, u64),
    /// Where it stands, and the last event that it got. Who resumes from an older cursor holds older
    /// rows again until it has come there.
    stands: (u64, u64),
    ready: bool,
    /// How it began with an answer over HTTP, if it did.
    began: Option<Began>,
}

/// A beginning with an answer over HTTP. Where that is newer than the last transaction, this is
/// never seen in the stream.
struct Began {
    /// Whether the answer certainly holds the last transaction.
    late: bool,
    /// When it was.
    at: Instant,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(run: Arc<Run>, addresses: Arc<Vec<String>>, number: u64, seed: u64) -> Self {
        Self {
            gateway: number as usize % addresses.len(),
            random: Random::of(seed, number),
            run,
            addresses,
            log: Log {
                taker: Taker::of(number, seed),
                entries: Vec::new(),
            },
            cursor: None,
            older: None,
            asked: BTreeMap::new(),
            next_rid: number * 1_000_000 + 1,
            holds: BTreeSet::new(),
            seen: (0, 0),
            stands: (0, 0),
            ready: false,
            began: None,
        }
    }

    /// Lives until it has seen the last transaction and holds everything.
    pub async fn run(mut self) -> Log {
        while !self.is_over() && !self.is_late() {
            match self.connect().await {
                Some(mut wire) => self.stay(&mut wire).await,
                None => pause(Duration::from_millis(20)).await,
            }
            self.asked.clear();
        }
        self.log
    }

    fn note(&mut self, entry: Entry) {
        let at = self.run.begun.elapsed().as_millis() as u64;
        self.log.entries.push((at, entry));
    }

    fn taker(&self) -> &Taker {
        &self.log.taker
    }

    fn holds_all(&self) -> bool {
        self.holds.len() == self.taker().holds.len()
    }

    fn last(&self) -> u64 {
        self.run.last.load(Ordering::Acquire)
    }

    fn is_over(&self) -> bool {
        let last = self.last();
        let (at, newest) = self.stands;
        let all = self.holds_all() && self.asked.is_empty() && at >= newest;
        last > 0
            && (matches!(self.log.entries.last(), Some((_, Entry::GaveUp(_))))
                || all && self.seen == (last, last)
                || all && self.seen.1 == last && self.is_still())
    }

    /// Whether it began after the last transaction, and nothing has followed for some time.
    fn is_still(&self) -> bool {
        let began = self.began.as_ref();
        began.is_some_and(|began| began.late && began.at.elapsed() > STILL)
    }

    /// Whether it may have begun just after the last transaction, and not know it.
    fn is_in_doubt(&self) -> bool {
        let began = self.began.as_ref();
        began.is_some_and(|began| !began.late && began.at.elapsed() > STILL)
    }

    /// Connects, to another gateway now and then, and goes on from the cursor.
    async fn connect(&mut self) -> Option<Wire> {
        let restless = self.taker().restless;
        if restless || self.random.chance(50) {
            self.gateway = self.random.below(self.addresses.len() as u64) as usize;
        }
        let since = match &self.older {
            Some(older) if restless && self.random.chance(15) => Some(older.clone()),
            _ => self.cursor.clone(),
        };
        let place = since
            .as_ref()
            .map(|since| Place::read(&json!(since)).unwrap());
        let wire = match self.taker().way {
            Way::Events => self.open_events(since.as_deref()).await?,
            Way::Socket | Way::Latest => self.open_socket(since).await?,
        };
        self.stands.0 = place.as_ref().map_or(0, |place| place.offset);
        self.note(Entry::Connect(place));
        Some(wire)
    }

    fn types(&self) -> String {
        self.taker().types().join(",")
    }

    /// A browser tells the cursor in a header, whatever stands in the URL.
    async fn open_events(&mut self, since: Option<&str>) -> Option<Wire> {
        let address = &self.addresses[self.gateway];
        let mut url = format!("http://{address}/api/stream?types={}", self.types());
        match since {
            Some(since) if self.random.chance(20) => {
                url += &format!("&since={since}");
                Wire::events(url, None).await
            }
            since => Wire::events(url, since).await,
        }
    }

    /// A filter can only be told in a hello; the rest by either.
    async fn open_socket(&mut self, since: Option<String>) -> Option<Wire> {
        let filters = !self.taker().filters.is_empty();
        let hello = filters || since.is_some() && self.random.chance(30);
        let latest = self.taker().way == Way::Latest;
        let address = &self.addresses[self.gateway];
        let mut url = format!("ws://{address}/socket/all/?types={}", self.types());
        match &since {
            _ if hello => url += "&hello=1",
            Some(since) => url += &format!("&since={since}"),
            None => {}
        }
        if latest && !hello {
            url += "&mode=latest";
        }
        let mut wire = Wire::socket(url).await?;
        if hello {
            let mut frame = json!({ "type": "sys:hello", "since": since });
            if filters {
                frame["types"] = self.taker().interests();
            }
            if latest {
                frame["mode"] = json!("latest");
            }
            wire.send(&frame).await;
        }
        Some(wire)
    }

    async fn stay(&mut self, wire: &mut Wire) {
        let mut next = Instant::now();
        while !self.is_over() {
            // Also when there is always something to read.
            if Instant::now() >= next {
                next = Instant::now() + self.random.millis(20, 180);
                if !self.act(wire).await {
                    return;
                }
            }
            match tokio::time::timeout_at(next.into(), wire.next()).await {
                Ok(Incoming::Text(text, id)) => self.take(&text, id),
                Ok(Incoming::Id(id)) => self.take_id(id),
                Ok(Incoming::Closed(code)) => return self.note(Entry::Closed(code)),
                Ok(Incoming::Nothing) | Err(_) => {}
            }
        }
    }

    /// A browser would go on from there.
    fn take_id(&mut self, id: String) {
        let place = Place::read(&json!(id)).unwrap();
        self.cursor = Some(id);
        self.stands.0 = place.offset;
        self.note(Entry::Got(Frame::Current(place)));
    }

    fn take(&mut self, text: &str, id: Option<String>) {
        let json: Json = serde_json::from_str(text).unwrap_or_default();
        let frame = match id {
            Some(id) if json["cursor"] != *id => Frame::Other(format!("{text} with the id {id}")),
            _ => Frame::read(&json, text),
        };
        if let Some(place) = frame.place() {
            self.stands.0 = place.offset;
            self.cursor = json["cursor"].as_str().map(str::to_owned);
            if self.older.is_none() || self.random.below(300) == 0 {
                self.older.clone_from(&self.cursor);
            }
        }
        if let Frame::Event(event) = &frame {
            self.stands.1 = self.stands.1.max(event.at.offset);
            self.run.events.fetch_add(1, Ordering::Relaxed);
        }
        match &frame {
            Frame::Event(event) if event.reloads => drop(self.holds.remove(event.topic)),
            Frame::Event(event) if event.topic == "log" => {
                let number = event.row.map_or(0, |(_, row)| row.v as u64);
                self.seen.0 = self.seen.0.max(number);
                self.began = None;
            }
            Frame::Reply(reply) => {
                let newest = reply.answer.rows.first();
                // A page that was pushed is left out where the reply that follows is newer.
                let asked = reply.rid.and_then(|rid| self.asked.get(&rid));
                let first = asked.is_none_or(|asked| *asked == ("page", Select::Bare));
                if reply.topic == "page" && first {
                    self.seen.1 = newest.map_or(0, |(_, row)| row.v as u64);
                }
                if let Some((topic, select)) = asked
                    && self.log.taker.is_view(topic, select)
                {
                    self.holds.insert(topic);
                }
                if let Some(rid) = reply.rid.filter(|_| !reply.more) {
                    self.asked.remove(&rid);
                }
            }
            Frame::Error { rid: Some(rid), .. } => drop(self.asked.remove(rid)),
            Frame::Reset { .. } => {
                // What came before it is of no use.
                self.holds.clear();
                self.older = None;
                self.stands.1 = 0;
            }
            _ => {}
        }
        self.note(Entry::Got(frame));
        self.grows_ready();
    }

    /// Does something at random; returns whether the socket stays.
    async fn act(&mut self, wire: &mut Wire) -> bool {
        let held = self.taker().holds.iter();
        let missing = held.copied().find(|topic| !self.holds.contains(topic));
        let over_http = self.taker().way == Way::Events;
        if let Some(topic) = missing {
            let whole = self.taker().whole(topic);
            let asked = (topic, whole.clone());
            if over_http {
                return self.begin_over_http(topic).await;
            }
            if !self.asked.values().any(|other| *other == asked) {
                self.ask(wire, topic, whole).await;
            }
            return true;
        }
        if self.last() > 0 {
            if self.is_in_doubt() && self.seen.0 < self.last() {
                return self.begin_over_http(self.log.taker.holds[0]).await;
            }
            return !self.is_late();
        }
        match self.random.below(100) {
            0..45 if over_http => self.ask_over_http().await,
            0..45 if self.asked.len() < 3 => {
                let (topic, select) = self.question();
                self.ask(wire, topic, select).await;
            }
            50..58 if self.taker().restless => {
                self.note(Entry::Cut);
                return false;
            }
            60..62 => self.ask_over_http().await,
            62..64 if self.taker().begins() => {
                let held = self.taker().holds.clone();
                let topic = self.random.one(&held);
                return self.begin_over_http(topic).await;
            }
            _ => {}
        }
        true
    }

    /// Whether the last transaction is long over, and something is missing all the same.
    fn is_late(&mut self) -> bool {
        let end = self.run.end_ms.load(Ordering::Acquire);
        let late = end > 0 && self.run.begun.elapsed().as_millis() as u64 > end;
        if late {
            let what = format!(
                "transaction {} is long over; of log and page it saw {:?}, it holds {:?} and waits for {:?}",
                self.last(),
                self.seen,
                self.holds,
                self.asked
            );
            self.note(Entry::GaveUp(what));
        }
        late
    }

    async fn ask(&mut self, wire: &mut Wire, topic: &'static str, select: Select) {
        let rid = self.next_rid;
        self.next_rid += 1;
        let mut frame = select.frame(topic);
        frame["rid"] = rid.into();
        self.note(Entry::Asked(rid, topic, select.clone()));
        self.asked.insert(rid, (topic, select));
        wire.send(&frame).await;
    }

    fn question(&mut self) -> (&'static str, Select) {
        let random = &mut self.random;
        let topic = random.one(&["t", "t", "low", "u", "page"]);
        let select = match random.below(8) {
            0 | 1 => Select::All,
            2 | 3 => Select::Id(random.between(1, KEYS)),
            4 => {
                let count = random.between(1, 3) as usize;
                Select::Groups([0, 4, 2][..count].to_vec())
            }
            5 => Select::Since((self.seen.0 as i64 - random.between(0, 40)).max(0)),
            6 => Select::Page {
                number: random.below(4) + 1,
                size: random.one(&[5, 10, 25]),
                order: random.one(&[
                    None,
                    Some(("id", false)),
                    Some(("v", true)),
                    Some(("v", false)),
                ]),
            },
            _ => Select::Bare,
        };
        // The whole of a page topic is nobody's view: only row topics are held.
        match (topic, &select) {
            ("page", Select::All) => ("page", Select::Bare),
            _ => (topic, select),
        }
    }

    async fn ask_over_http(&mut self) {
        let (topic, select) = self.question();
        // Its query string has no lists.
        let select = match select {
            Select::Groups(groups) => Select::Groups(groups[..1].to_vec()),
            select => select,
        };
        self.over_http(topic, select).await;
    }

    /// Forgets everything and begins with an answer over HTTP; returns whether the socket stays,
    /// because there was none.
    async fn begin_over_http(&mut self, topic: &'static str) -> bool {
        let late = self.last() > 0;
        let Some(cursor) = self.over_http(topic, Select::All).await else {
            return true;
        };
        self.note(Entry::Begins);
        self.cursor = Some(cursor);
        self.older = None;
        self.stands.1 = 0;
        self.holds = BTreeSet::from([topic]);
        self.began = Some(Began {
            late,
            at: Instant::now(),
        });
        self.grows_ready();
        false
    }

    /// Asks, and returns the cursor of the reply.
    async fn over_http(&mut self, topic: &'static str, select: Select) -> Option<String> {
        let path = select.path(topic);
        let url = format!("http://{}{path}", self.addresses[self.gateway]);
        let asked = tokio::time::timeout(Duration::from_secs(5), async {
            reqwest::get(url).await.ok()?.text().await.ok()
        });
        let text = asked.await.ok()??;
        let json: Json = serde_json::from_str(&text).unwrap_or_default();
        let frame = Frame::read(&json, &text);
        let is_reply = matches!(frame, Frame::Reply(_));
        self.note(Entry::Http(topic, select, frame));
        let cursor = json["cursor"].as_str().filter(|_| is_reply);
        cursor.map(str::to_owned)
    }

    fn grows_ready(&mut self) {
        if !self.ready && self.holds_all() {
            self.ready = true;
            self.run.ready.fetch_add(1, Ordering::AcqRel);
        }
    }
}
