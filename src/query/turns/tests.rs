//! In what order reads have their turns, and that no line is without end.

use futures_util::FutureExt;
use serde_json::json;
use tokio::time::advance;

use super::*;
use crate::{
    identity::Identity,
    protocol::{Params, Select},
    topic::Topic,
};

const SECOND: Duration = Duration::from_secs(1);

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

/// The next turn, if it has come.
fn next(turns: &mut Turns) -> Option<Turn> {
    turns.next().now_or_never().flatten()
}

/// Ends a turn after so long.
async fn end(turn: Turn, took: Duration) -> u32 {
    advance(took).await;
    page(&turn.read)
}

/// Has all turns that come, each of a second.
async fn all(turns: &mut Turns) -> Vec<u32> {
    let mut order = Vec::new();
    while let Some(turn) = next(turns) {
        order.push(end(turn, SECOND).await);
    }
    order
}

fn put(lines: &Lines, sub: &str, pages: impl IntoIterator<Item = u32>) {
    for page in pages {
        assert!(lines.wait(asker(sub), read(page)).unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_behind_what_somebody_else_has_piled_up() {
    let (lines, mut turns) = lines(100, 1);
    put(&lines, "greedy", 0..50);
    put(&lines, "modest", [100, 101]);
    let order = all(&mut turns).await;
    assert_eq!(order[..6], [0, 100, 1, 101, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn who_has_had_less_of_the_time_comes_first_and_saves_nothing_up() {
    let (lines, mut turns) = lines(200, 1);
    put(&lines, "slow", 0..50);
    put(&lines, "quick", 100..150);
    let mut order = Vec::new();
    for _ in 0..22 {
        let turn = next(&mut turns).unwrap();
        let took = if page(&turn.read) < 100 {
            SECOND * 10
        } else {
            SECOND
        };
        order.push(end(turn, took).await);
    }
    let slow = order.iter().filter(|page| **page < 100).count();
    assert!((2..=3).contains(&slow), "{order:?}");
    // Who comes only now is not owed all that the others have had.
    put(&lines, "new", 200..250);
    let mut order = Vec::new();
    for _ in 0..10 {
        order.push(end(next(&mut turns).unwrap(), SECOND).await);
    }
    let new = order.iter().filter(|page| **page >= 200).count();
    assert!((3..=8).contains(&new), "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_has_all_places_at_once_and_who_is_unknown_is_many() {
    for (places, of_one) in [(1, 1), (2, 1), (3, 2), (7, 4)] {
        let (lines, mut turns) = lines(100, places);
        put(&lines, "greedy", 0..50);
        let his: Vec<_> = std::iter::from_fn(|| next(&mut turns)).collect();
        assert_eq!(his.len(), of_one, "of {places}");
        for page in 100..110 {
            assert!(lines.wait(None, read(page)).unwrap().is_none());
        }
        let others: Vec<_> = std::iter::from_fn(|| next(&mut turns)).collect();
        assert_eq!(his.len() + others.len(), places);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_read_for_many_comes_in_time_and_leaves_places_to_the_others() {
    let (lines, mut turns) = lines(100, 2);
    put(&lines, "slow", 0..10);
    for page in 100..110 {
        assert!(
            lines
                .wait(Some(Who::Gateway), read(page))
                .unwrap()
                .is_none()
        );
    }
    let both = [next(&mut turns).unwrap(), next(&mut turns).unwrap()];
    assert!(next(&mut turns).is_none());
    assert_eq!(both.each_ref().map(|turn| page(&turn.read)), [0, 100]);
    drop(both);
    for expected in 101..105 {
        let mut one = next(&mut turns).unwrap();
        if page(&one.read) < 100 {
            one = next(&mut turns).unwrap();
        }
        assert_eq!(end(one, SECOND).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn where_all_room_is_taken_it_is_his_newest_who_has_most() {
    let (lines, _turns) = lines(10, 1);
    put(&lines, "greedy", 0..10);
    let full = lines.wait(asker("greedy"), read(10));
    assert!(matches!(full, Err(NoPlace::Full(own)) if page(&own) == 10));
    for (new, pushed_out) in [(100, 9), (101, 8)] {
        let other = lines.wait(asker("modest"), read(new)).unwrap();
        assert_eq!(other.as_ref().map(page), Some(pushed_out));
    }
    for nobody in 0..10 {
        let pushed_out = lines.wait(None, read(200 + nobody));
        assert_eq!(pushed_out.is_ok(), nobody < 8, "{nobody}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_wants_too_is_read_when_the_first_of_them_has_his_turn() {
    let (lines, mut turns) = lines(100, 1);
    put(&lines, "greedy", 0..5);
    let running = next(&mut turns).unwrap();
    lines.join(asker("modest"), &read(4).key);
    // Of the two it is his who has had nothing, and it is read once.
    end(running, SECOND).await;
    assert_eq!(all(&mut turns).await, [4, 1, 2, 3]);
    // Who has had much cannot draw a read behind what he has had.
    put(&lines, "greedy", [0]);
    put(&lines, "modest", [100, 101]);
    put(&lines, "third", [200, 201]);
    assert_eq!(end(next(&mut turns).unwrap(), SECOND).await, 0);
    lines.join(asker("greedy"), &read(101).key);
    assert_eq!(all(&mut turns).await, [100, 200, 101, 201]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_those_who_have_gone() {
    let (lines, mut turns) = lines(10, 1);
    for number in 0..1000 {
        let own = (number % 2 == 0)
            .then(|| asker(&number.to_string()))
            .flatten();
        assert!(lines.wait(own, read(number)).unwrap().is_none());
        // Somebody always waits, so that all is never over.
        if number > 0 {
            end(next(&mut turns).unwrap(), SECOND).await;
        }
        assert!(lines.0.lock().lines.len() <= 12);
    }
    end(next(&mut turns).unwrap(), SECOND).await;
    let state = lines.0.lock();
    assert!(state.lines.is_empty() && state.waiting.is_empty());
    assert_eq!((state.queued, state.running), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_turns_end_with_those_who_ask_and_the_other_way_about() {
    let (one, mut turns) = lines(10, 1);
    put(&one, "somebody", [0]);
    drop(one);
    assert!(turns.next().await.is_some());
    assert!(turns.next().await.is_none());
    let (one, turns) = lines(10, 1);
    drop(turns);
    let closed = one.wait(None, read(0));
    assert!(matches!(closed, Err(NoPlace::Closed(_))));
}
