//! In what order reads have their turns, who is told, and that no line is without end.

use futures_util::FutureExt;
use serde_json::json;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::advance,
};

use super::*;
use crate::{
    identity::Identity,
    protocol::{ErrorCode, Params, Select},
    topic::Topic,
};

const SECOND: Duration = Duration::from_secs(1);

type Told = oneshot::Receiver<Result<Arc<crate::store::Snapshot>, crate::protocol::Failure>>;

fn asker(sub: &str) -> Option<Who> {
    let claims = json!({ "sub": sub });
    let identity = Identity::new(claims.as_object().unwrap().clone(), None);
    Asker::of(&identity, None).map(Who::Asker)
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

/// Somebody who asks for a page and waits, unless there is no place for him; those who are refused are told.
fn ask(lines: &Lines, who: Option<Who>, page: u32) -> Told {
    let (reply, told) = oneshot::channel();
    let refused = match lines.ask(who, read(page), reply) {
        Ok(pushed_out) => pushed_out,
        Err(NoPlace::Full(reply) | NoPlace::Closed(reply)) => vec![reply],
    };
    for reply in refused {
        let _ = reply.send(Err(ErrorCode::TooManyRequests.into()));
    }
    told
}

fn is_refused(told: &mut Told) -> bool {
    matches!(told.try_recv(), Ok(Err(_)))
}

fn waits(told: &mut Told) -> bool {
    matches!(told.try_recv(), Err(TryRecvError::Empty))
}

fn put(lines: &Lines, who: Option<Who>, pages: impl IntoIterator<Item = u32>) -> Vec<Told> {
    let pages = pages.into_iter();
    pages.map(|page| ask(lines, who.clone(), page)).collect()
}

/// The next turn, if it has come.
fn next(turns: &mut Turns) -> Option<Turn> {
    turns.next().now_or_never().flatten()
}

/// Ends a turn after so long; of which page it was, and for how many.
async fn end(mut turn: Turn, took: Duration) -> (u32, usize) {
    let askers = turn.begin().len();
    advance(took).await;
    (page(&turn.read), askers)
}

/// Has all turns that come, each of a second; the pages that were read for somebody.
async fn all(turns: &mut Turns) -> Vec<u32> {
    let mut order = Vec::new();
    while let Some(turn) = next(turns) {
        let (page, askers) = end(turn, SECOND).await;
        assert!(askers > 0, "{page} was read for nobody");
        order.push(page);
    }
    order
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_behind_what_somebody_else_has_piled_up() {
    let (lines, mut turns) = lines(100, 1);
    let _greedy = put(&lines, asker("greedy"), 0..50);
    let _modest = put(&lines, asker("modest"), [100, 101]);
    let order = all(&mut turns).await;
    assert_eq!(order[..6], [0, 100, 1, 101, 2, 3]);
    assert_eq!(order.len(), 52);
}

#[tokio::test(start_paused = true)]
async fn who_has_had_less_of_the_time_comes_first_and_saves_nothing_up() {
    let (lines, mut turns) = lines(200, 1);
    let _slow = put(&lines, asker("slow"), 0..50);
    let _quick = put(&lines, asker("quick"), 100..150);
    let mut slow = 0;
    for _ in 0..22 {
        let turn = next(&mut turns).unwrap();
        let is_slow = page(&turn.read) < 100;
        slow += usize::from(is_slow);
        end(turn, if is_slow { SECOND * 10 } else { SECOND }).await;
    }
    assert!((2..=3).contains(&slow), "{slow}");
    // Who comes only now is not owed all that the others have had.
    let _new = put(&lines, asker("new"), 200..250);
    let mut new = 0;
    for _ in 0..12 {
        let (page, _) = end(next(&mut turns).unwrap(), SECOND).await;
        new += usize::from(page >= 200);
    }
    assert!((3..=8).contains(&new), "{new}");
}

#[tokio::test(start_paused = true)]
async fn who_asks_again_has_his_turn_however_many_come_who_are_new() {
    let newcomers: [fn(u32) -> Option<Who>; 3] = [
        |_| None,
        |number| asker(&number.to_string()),
        |_| Some(Who::Gateway),
    ];
    for newcomer in newcomers {
        for places in [1, 2, 3] {
            let (lines, mut turns) = lines(100, places);
            let mut waiting: Vec<Told> = Vec::new();
            let mut running = VecDeque::new();
            let (mut number, mut his, mut since) = (1000, 0, 0);
            let mut told = ask(&lines, asker("known"), 0);
            for turn in 0..200 {
                // There are always four of them who wait, or are read for.
                waiting.retain_mut(waits);
                while waiting.len() < places + 4 {
                    number += 1;
                    waiting.push(ask(&lines, newcomer(number), number));
                }
                while let Some(turn) = next(&mut turns) {
                    running.push_back(turn);
                }
                let (page, _) = end(running.pop_front().unwrap(), SECOND).await;
                since += 1;
                if page < 1000 {
                    his += 1;
                    since = 0;
                    told = ask(&lines, asker("known"), his);
                }
                assert!(since <= 16, "{places} places, turn {turn}: {his} of his");
            }
            drop(told);
            assert!(his >= 200 / 16, "{his}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn time_that_others_have_while_he_is_read_for_is_not_his() {
    let (lines, mut turns) = lines(100, 2);
    let _his = put(&lines, asker("slow"), [0]);
    let slow = next(&mut turns).unwrap();
    let (one, another) = (asker("one"), asker("another"));
    let _others = [
        put(&lines, one.clone(), 100..115),
        put(&lines, another, 200..215),
    ];
    for _ in 0..29 {
        end(next(&mut turns).unwrap(), SECOND / 10).await;
    }
    let _his = put(&lines, asker("slow"), [1]);
    end(slow, SECOND / 10).await;
    // He has had three seconds, and each of the others one and a half.
    let _one = put(&lines, one, 300..350);
    let mut before = 0;
    while end(next(&mut turns).unwrap(), SECOND / 10).await.0 != 1 {
        before += 1;
    }
    assert!(before <= 17, "{before}");
}

#[tokio::test(start_paused = true)]
async fn nobody_has_all_places_at_once_and_who_is_unknown_is_many() {
    for (places, of_one) in [(1, 1), (2, 1), (3, 2), (7, 4)] {
        for greedy in [asker("greedy"), Some(Who::Gateway)] {
            let (lines, mut turns) = lines(100, places);
            let _greedy = put(&lines, greedy, 0..50);
            let his: Vec<_> = std::iter::from_fn(|| next(&mut turns)).collect();
            assert_eq!(his.len(), of_one, "of {places}");
            let _others = put(&lines, None, 100..110);
            let others: Vec<_> = std::iter::from_fn(|| next(&mut turns)).collect();
            assert_eq!(his.len() + others.len(), places);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_all_room_is_taken_it_is_his_newest_who_has_most() {
    let (lines, _turns) = lines(10, 1);
    let mut greedy = put(&lines, asker("greedy"), 0..10);
    assert!(is_refused(&mut ask(&lines, asker("greedy"), 10)));
    let mut modest = Vec::new();
    for (new, pushed_out) in [(100, 9), (101, 8)] {
        modest.push(ask(&lines, asker("modest"), new));
        assert!(is_refused(&mut greedy[pushed_out]));
    }
    assert!(modest.iter_mut().all(waits));
    assert!(!is_refused(&mut greedy[7]));
}

#[tokio::test(start_paused = true)]
async fn whose_answer_nobody_waits_for_has_no_place_where_others_need_it() {
    let (lines, mut turns) = lines(3, 1);
    drop(put(&lines, asker("one"), [0]));
    drop(put(&lines, None, [1]));
    let _other = put(&lines, asker("other"), [2]);
    let _new = put(&lines, None, [3, 4]);
    assert!(is_refused(&mut ask(&lines, None, 5)));
    assert_eq!(all(&mut turns).await, [2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn what_several_want_is_read_once_when_the_first_of_them_has_his_turn() {
    let (lines, mut turns) = lines(100, 1);
    let greedy = put(&lines, asker("greedy"), 0..6);
    let running = next(&mut turns).unwrap();
    // One after the other, as pages do: neither waits behind what is before it elsewhere.
    let _modest = put(&lines, asker("modest"), [5, 4]);
    let _nobody = ask(&lines, None, 5);
    end(running, SECOND).await;
    let first = next(&mut turns).unwrap();
    assert_eq!(end(first, SECOND).await, (5, 3));
    assert_eq!(all(&mut turns).await, [1, 4, 2, 3]);
    drop(greedy);
}

#[tokio::test(start_paused = true)]
async fn who_wants_the_same_makes_it_no_later_for_others_and_is_not_refused_in_their_place() {
    let (lines, mut turns) = lines(4, 1);
    let _modest = put(&lines, asker("modest"), [100, 101]);
    let _greedy = put(&lines, asker("greedy"), [101, 1, 2]);
    // All room is taken, and of his the newest goes that is his alone.
    let _new = ask(&lines, asker("new"), 200);
    assert_eq!(all(&mut turns).await, [100, 101, 200, 1]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_when_a_read_has_begun_waits_for_the_next() {
    let (lines, mut turns) = lines(10, 2);
    let _first = ask(&lines, asker("first"), 0);
    let mut turn = next(&mut turns).unwrap();
    // Its turn has come, and it has not begun.
    let _second = ask(&lines, asker("second"), 0);
    assert!(next(&mut turns).is_none());
    assert_eq!(turn.begin().len(), 2);
    let _third = ask(&lines, asker("third"), 0);
    let again = next(&mut turns).unwrap();
    drop(turn);
    assert_eq!(end(again, SECOND).await, (0, 1));
    assert!(next(&mut turns).is_none());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_read_that_never_begins_is_told() {
    let (lines, mut turns) = lines(10, 1);
    let mut told = ask(&lines, asker("somebody"), 0);
    drop(next(&mut turns).unwrap());
    assert!(!waits(&mut told));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_those_who_have_gone() {
    let (lines, mut turns) = lines(10, 1);
    let _always = ask(&lines, None, 0);
    for number in 1..1000 {
        let own = (number % 2 == 0)
            .then(|| asker(&number.to_string()))
            .flatten();
        let _told = [
            ask(&lines, own.clone(), number),
            ask(&lines, None, number),
            ask(&lines, own, 0),
        ];
        if number % 3 == 0 {
            end(next(&mut turns).unwrap(), SECOND).await;
        }
        let state = lines.0.lock();
        assert!(state.lines.len() <= 22, "{number}: {}", state.lines.len());
        assert!(state.wanted.len() <= 10 && state.standing <= 30);
        for wanted in state.wanted.values() {
            assert!(wanted.replies.capacity() <= 16);
        }
    }
    while let Some(turn) = next(&mut turns) {
        end(turn, SECOND).await;
    }
    let state = lines.0.lock();
    assert!(state.lines.is_empty() && state.wanted.is_empty());
    assert_eq!((state.standing, state.running), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_turns_end_with_those_who_ask_and_the_other_way_about() {
    let (one, mut turns) = lines(10, 1);
    let _told = ask(&one, asker("somebody"), 0);
    drop(one);
    assert!(turns.next().await.is_some());
    assert!(turns.next().await.is_none());
    let (one, turns) = lines(10, 1);
    drop(turns);
    let (reply, _told) = oneshot::channel();
    let closed = one.ask(None, read(0), reply);
    assert!(matches!(closed, Err(NoPlace::Closed(_))));
}
