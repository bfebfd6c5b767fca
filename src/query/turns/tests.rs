//! In what order reads have their turns, who is told, and that nothing is left of those who have gone.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use futures_util::FutureExt;
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::json;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::*;
use crate::{
    identity::Identity,
    protocol::{ErrorCode, Failure, Params, Select},
    store::Snapshot,
    topic::Topic,
};

/// Somebody who waits.
struct Waits {
    standing: Option<Standing>,
    told: oneshot::Receiver<Result<Arc<Snapshot>, Failure>>,
}

impl Waits {
    fn still(&mut self) -> bool {
        matches!(self.told.try_recv(), Err(TryRecvError::Empty))
    }

    fn is_refused(&mut self) -> bool {
        matches!(self.told.try_recv(), Ok(Err(_)))
    }
}

pub fn asker(sub: &str) -> Who {
    let claims = json!({ "sub": sub });
    let identity = Identity::new(claims.as_object().unwrap().clone(), None);
    Who::Asker(Asker::of(&identity, None).unwrap())
}

/// A page of that number.
fn read(page: u32) -> Read {
    let topic = Topic::resolve(&serde_json::from_str(r#"{"type":"t"}"#).unwrap(), None);
    let topic = Arc::new(topic.unwrap());
    let select = Select::Page(Params {
        page: Some(page),
        ..Params::default()
    });
    Read {
        key: Key::of(&topic, select, true),
        topic,
    }
}

fn page(read: &Read) -> u32 {
    match read.key.select() {
        Select::Page(params) => params.page.unwrap(),
        _ => 0,
    }
}

/// Somebody who asks for a page; those who are refused for it are told.
fn ask(lines: &Lines, who: &Who, page: u32) -> Waits {
    let (reply, told) = oneshot::channel();
    let asked = lines.ask(who.clone(), read(page), reply).unwrap();
    for reply in asked.refused {
        let _ = reply.send(Err(ErrorCode::TooManyRequests.into()));
    }
    Waits {
        standing: asked.standing,
        told,
    }
}

fn put(lines: &Lines, who: &Who, pages: impl IntoIterator<Item = u32>) -> Vec<Waits> {
    let pages = pages.into_iter();
    pages.map(|page| ask(lines, who, page)).collect()
}

/// The next turn, if it has come.
fn next(turns: &mut Turns) -> Option<Turn> {
    turns.next().now_or_never().flatten()
}

/// Ends a turn; of which page it was, and for how many.
fn end(mut turn: Turn) -> (u32, usize) {
    let askers = turn.begin().len();
    (page(&turn.read), askers)
}

/// The pages of all turns that come one after the other.
fn all(turns: &mut Turns) -> Vec<u32> {
    let one = || {
        let (page, askers) = end(next(turns)?);
        assert!(askers > 0, "{page} was read for nobody");
        Some(page)
    };
    std::iter::from_fn(one).collect()
}

fn is_empty(lines: &Lines) -> bool {
    let state = lines.0.lock();
    let is_empty = state.lines.is_empty() && state.ring.is_empty() && state.running == 0;
    is_empty && state.wanted.is_empty() && state.ids.is_empty()
}

#[test]
fn nobody_waits_behind_what_somebody_else_has_piled_up() {
    let (lines, mut turns) = lines(100, 1);
    let greedy = put(&lines, &asker("greedy"), 0..50);
    let modest = put(&lines, &asker("modest"), [100, 101]);
    let order = all(&mut turns);
    assert_eq!(order[..6], [0, 100, 1, 101, 2, 3]);
    assert_eq!(order.len(), 52);
    drop((greedy, modest));
    assert!(is_empty(&lines));
}

#[test]
fn who_asks_again_has_his_turn_however_many_come_who_are_new_or_go_or_want_the_same() {
    const OTHERS: usize = 6;
    let newcomers: [fn(u32) -> (Who, u32); 5] = [
        |number| (Who::Nobody, number),
        |number| (Who::Gateway, number),
        |number| (asker(&number.to_string()), number),
        // One of many who want one of three.
        |number| (asker(&(number % 40).to_string()), 5000 + number % 3),
        |number| (asker("greedy"), number),
    ];
    for newcomer in newcomers {
        for places in [1, 2, 3] {
            let (lines, mut turns) = lines(100, places);
            let (mut others, mut running) = (Vec::new(), VecDeque::new());
            let (mut number, mut his, mut since) = (1000, 0, 0);
            let mut told = ask(&lines, &asker("known"), 0);
            for turn in 0..200 {
                others.retain_mut(Waits::still);
                while others.len() < places + OTHERS {
                    number += 1;
                    let (who, page) = newcomer(number);
                    others.push(ask(&lines, &who, page));
                    // And as many who do not wait for their turn.
                    drop(ask(
                        &lines,
                        &asker(&format!("gone {number}")),
                        90_000 + number,
                    ));
                }
                while let Some(turn) = next(&mut turns) {
                    running.push_back(turn);
                }
                let (page, _) = end(running.pop_front().unwrap());
                since += 1;
                if page < 1000 {
                    his += 1;
                    since = 0;
                    told = ask(&lines, &asker("known"), his);
                }
                let most = 2 * (places + OTHERS);
                assert!(since <= most, "{places} places, turn {turn}: {his} of his");
            }
            drop(told);
        }
    }
}

#[test]
fn who_comes_while_reads_run_goes_before_those_whose_reads_they_are() {
    for places in 1..=4 {
        let (lines, mut turns) = lines(100, places as usize);
        // Nearly twice as many who want more than there are places.
        let greedy: Vec<_> = (0..2 * places - 1)
            .map(|one| asker(&one.to_string()))
            .collect();
        let mut more = Vec::new();
        for (number, who) in (0..).zip(&greedy) {
            more.extend(put(&lines, who, 1000 * number..1000 * number + 20));
        }
        let mut running: VecDeque<_> = std::iter::from_fn(|| next(&mut turns)).collect();
        let mut end_one = || {
            let ended = end(running.pop_front().unwrap()).0;
            running.extend(std::iter::from_fn(|| next(&mut turns)));
            ended
        };
        for round in 90_000..90_010 {
            let one = ask(&lines, &asker("one"), round);
            let is_called = || one.standing.as_ref().unwrap().is_called();
            // As many ends as there are places are one read's time.
            let ends = (0..places).find(|_| {
                end_one();
                is_called()
            });
            assert!(ends.is_some(), "round {round} of {places} places");
            while end_one() != round {}
        }
    }
}

#[test]
fn who_has_waited_in_vain_and_asks_again_has_the_turn_that_he_would_have_had() {
    let (lines, mut turns) = lines(100, 1);
    let mut others = put(&lines, &asker("running"), [0]);
    let running = next(&mut turns).unwrap();
    others.extend(put(&lines, &asker("before"), [1]));
    for page in 10..15 {
        drop(ask(&lines, &asker("in vain"), page));
        others.push(ask(&lines, &asker(&format!("behind {page}")), page + 100));
    }
    let _again = put(&lines, &asker("in vain"), [2, 3]);
    end(running);
    let order = all(&mut turns);
    assert_eq!(order[..2], [1, 2]);
    // It was one turn.
    assert_eq!(order.last(), Some(&3));
}

#[test]
fn who_is_read_for_does_not_keep_a_turn_besides() {
    let (lines, mut turns) = lines(100, 4);
    let greedy = put(&lines, &asker("greedy"), [0, 1, 2]);
    let running: Vec<_> = std::iter::from_fn(|| next(&mut turns)).collect();
    drop(greedy);
    let others = ["one", "two", "three"].map(|sub| put(&lines, &asker(sub), [10, 11, 12]));
    for turn in running {
        end(turn);
    }
    let _again = put(&lines, &asker("greedy"), [5]);
    assert_eq!(all(&mut turns), [10, 11, 12, 5]);
    drop(others);
}

#[test]
fn nobody_has_all_places_at_once() {
    for (places, of_one) in [(1, 1), (2, 1), (3, 2), (7, 4)] {
        for greedy in [asker("greedy"), Who::Gateway, Who::Nobody] {
            let (lines, mut turns) = lines(100, places);
            let _greedy = put(&lines, &greedy, 0..50);
            let his: Vec<_> = std::iter::from_fn(|| next(&mut turns)).collect();
            assert_eq!(his.len(), of_one, "of {places}");
            let _one = put(&lines, &asker("one"), 100..110);
            let _two = put(&lines, &asker("two"), 200..210);
            let others: Vec<_> = std::iter::from_fn(|| next(&mut turns)).collect();
            assert_eq!(his.len() + others.len(), places);
        }
    }
}

#[test]
fn what_several_want_is_read_once_when_the_first_of_them_has_his_turn() {
    let (lines, mut turns) = lines(100, 1);
    let _greedy = put(&lines, &asker("greedy"), 0..6);
    let running = next(&mut turns).unwrap();
    // As pages do: neither waits behind what is before it elsewhere.
    let _modest = put(&lines, &asker("modest"), [5, 4]);
    let _nobody = ask(&lines, &Who::Nobody, 5);
    end(running);
    assert_eq!(end(next(&mut turns).unwrap()), (5, 3));
    assert_eq!(all(&mut turns), [1, 4, 2, 3]);
}

#[test]
fn where_all_room_is_taken_it_is_the_newest_of_who_has_most_and_of_fewest_who_want_it() {
    let (lines, _turns) = lines(10, 1);
    let mut greedy = put(&lines, &asker("greedy"), 0..10);
    assert!(ask(&lines, &asker("greedy"), 10).is_refused());
    // Who wants the same is told with him, but where there is anything else that goes.
    let mut same = put(&lines, &asker("same"), [9]);
    let mut modest = Vec::new();
    for (new, pushed_out) in [(100, 8), (101, 7)] {
        modest.push(ask(&lines, &asker("modest"), new));
        assert!(greedy[pushed_out].is_refused());
    }
    assert!(modest.iter_mut().chain(&mut same).all(Waits::still));
    assert!(greedy[9].still());
}

#[test]
fn two_names_for_one_cannot_keep_the_room() {
    let (lines, _turns) = lines(10, 1);
    let _squatter = put(&lines, &asker("squatter"), 0..10);
    let _same = put(&lines, &Who::Nobody, 0..10);
    for new in 100..108 {
        assert!(ask(&lines, &asker(&new.to_string()), new).still());
    }
}

#[test]
fn who_has_one_read_is_not_refused_for_what_others_want_of_it() {
    let (lines, _turns) = lines(10, 1);
    let one = |one: u32| ask(&lines, &asker(&one.to_string()), one);
    let mut modest: Vec<_> = (0..10).map(one).collect();
    let mut greedy = put(&lines, &asker("greedy"), 0..10);
    let mut new = put(&lines, &asker("new"), 100..106);
    assert!(new.iter_mut().all(Waits::is_refused));
    assert!(modest.iter_mut().chain(&mut greedy).all(Waits::still));
}

#[test]
fn whose_turn_has_come_knows_it() {
    let (lines, mut turns) = lines(10, 1);
    let [first, second] = [0, 1].map(|page| ask(&lines, &asker("one"), page));
    let is_called = |waits: &Waits| waits.standing.as_ref().unwrap().is_called();
    let mut turn = next(&mut turns).unwrap();
    assert!(is_called(&first) && !is_called(&second));
    turn.begin();
    assert!(is_called(&first));
}

#[test]
fn who_asks_when_a_read_has_begun_waits_for_the_next() {
    let (lines, mut turns) = lines(10, 2);
    let _first = ask(&lines, &asker("first"), 0);
    let mut turn = next(&mut turns).unwrap();
    // Its turn has come, and it has not begun.
    let _second = ask(&lines, &asker("second"), 0);
    assert!(next(&mut turns).is_none());
    assert_eq!(turn.begin().len(), 2);
    let mut third = ask(&lines, &asker("third"), 0);
    drop(turn);
    assert!(third.still());
    assert_eq!(end(next(&mut turns).unwrap()), (0, 1));
    assert!(next(&mut turns).is_none());
}

#[test]
fn who_waits_for_a_read_that_never_begins_is_told() {
    let (lines, mut turns) = lines(10, 1);
    let mut told = ask(&lines, &asker("somebody"), 0);
    drop(next(&mut turns).unwrap());
    assert!(!told.still());
    assert!(is_empty(&lines));
}

#[test]
fn nothing_is_read_for_who_has_gone_and_nothing_left_of_him() {
    let (lines, mut turns) = lines(3, 1);
    let running = ask(&lines, &asker("first"), 99);
    let turn = next(&mut turns).unwrap();
    for number in 0..1000 {
        let who = asker(&(number % 7).to_string());
        let own = put(&lines, &who, [number, 1, 2]);
        let same = [ask(&lines, &who, 1), ask(&lines, &Who::Nobody, 1)];
        drop(own);
        let state = lines.0.lock();
        let ring: HashSet<_> = state.ring.values().collect();
        assert_eq!(ring, [&who, &Who::Nobody].into());
        assert_eq!(state.wanted.len(), 2, "{number}");
        drop(state);
        drop(same);
    }
    assert!(lines.0.lock().ring.is_empty());
    let _other = put(&lines, &asker("other"), [7, 8]);
    drop((turn, running));
    assert_eq!(all(&mut turns), [7, 8]);
    assert!(is_empty(&lines));
}

#[test]
fn who_goes_between_his_turn_and_its_beginning_is_not_waited_for() {
    let (lines, mut turns) = lines(3, 1);
    let one = ask(&lines, &asker("one"), 0);
    let turn = next(&mut turns).unwrap();
    drop(one);
    assert_eq!(end(turn), (0, 0));
    assert!(is_empty(&lines));
}

#[tokio::test]
async fn the_turns_end_with_those_who_ask_and_the_other_way_about() {
    let (one, mut turns) = lines(10, 1);
    let _told = ask(&one, &asker("somebody"), 0);
    drop(one);
    assert!(turns.next().await.is_some());
    assert!(turns.next().await.is_none());
    let (one, turns) = lines(10, 1);
    drop(turns);
    let (reply, _told) = oneshot::channel();
    assert!(one.ask(Who::Nobody, read(0), reply).is_err());
}

/// Every read that waits stands in the lines of all who want it, and nowhere else is anything.
fn is_consistent(lines: &Lines) {
    let state = lines.0.lock();
    let waiting = state.wanted.iter().filter(|(_, wanted)| !wanted.is_called);
    let mut places = 0;
    for (id, wanted) in waiting {
        let mut askers = 0;
        for (who, place) in &wanted.by {
            assert_eq!(state.lines[who].places[&place.at], *id);
            askers += place.askers;
            places += 1;
        }
        assert!(askers > 0 && askers == wanted.askers.len());
    }
    let standing = state.lines.values().map(|line| line.places.len());
    assert_eq!(standing.sum::<usize>(), places);
    let waits = state
        .lines
        .iter()
        .filter(|(_, line)| !line.places.is_empty());
    let waits: BTreeMap<_, _> = waits.map(|(who, line)| (line.at, who.clone())).collect();
    assert_eq!(waits, state.ring);
    let lengths = state
        .lines
        .values()
        .map(|line| (line.places.len(), line.id));
    let lengths: BTreeSet<_> = lengths.filter(|(length, _)| *length > 0).collect();
    assert!(lengths.iter().eq(state.lengths.keys()));
    let running = state.lines.values().map(|line| line.running);
    assert_eq!(running.sum::<usize>(), state.running);
    assert!(state.lines.values().all(|line| !line.is_over()));
    assert_eq!(state.ids.len(), state.wanted.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_comes_and_goes_all_stand_where_they_belong(
        steps in vec((0..8_u8, 0..5_u32, 0..12_u32, any::<Index>()), 1..200),
    ) {
        let (lines, mut turns) = lines(6, 3);
        let (mut waiting, mut running) = (Vec::new(), Vec::new());
        for (step, who, page, of) in steps {
            match step {
                0..=2 => waiting.push(ask(&lines, &asker(&who.to_string()), page)),
                3..=5 if !waiting.is_empty() => drop(waiting.swap_remove(of.index(waiting.len()))),
                6 if !running.is_empty() => drop(running.swap_remove(of.index(running.len()))),
                _ => running.extend(next(&mut turns).map(|mut turn| {
                    // Not all begin at once.
                    if page % 2 == 0 {
                        turn.begin();
                    }
                    turn
                })),
            }
            is_consistent(&lines);
        }
        drop((waiting, running));
        assert!(is_empty(&lines));
    }
}
