//! A01: thousands at the door who say nothing, or a byte of a head now and then, at the deadline that a
//! gateway has of its own accord.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    stage::{Stage, request},
    told::{Told, status},
};
use crate::{
    connections::handshake,
    support::{STANDSTILL, Server, in_time},
    wire::{CARE, CARE_TABLES},
};

/// How many they are, where this process may have so many files open.
const CROWD: usize = 5_000;

/// What other tests of this process may have open meanwhile.
const OTHERS: usize = 4_000;

/// So many come at once, and then somebody waits until they are let in.
const WAVE: usize = 250;

/// `server.head_timeout_ms`, as it is where nobody sets it.
const DEADLINE: Duration = Duration::from_secs(10);

/// Later than that nobody may be cut off: for the clocks of thousands that are due at the same time.
const LATE: Duration = Duration::from_secs(2);

/// What a handshake may take meanwhile, but for one in a hundred.
const SOON: Duration = Duration::from_millis(500);

/// The pause between two handshakes.
const PACE: Duration = Duration::from_millis(20);

/// How many may come: the limit of files is raised as far as it goes.
fn crowd() -> usize {
    let limits = || {
        let text = fs::read_to_string("/proc/self/limits").unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"));
        let mut limits = line.unwrap().split_whitespace().map(str::parse::<usize>);
        // What is no number is `unlimited`.
        let mut next = || limits.next().unwrap().unwrap_or(usize::MAX);
        (next(), next())
    };
    let (soft, hard) = limits();
    if soft < CROWD + OTHERS && soft < hard {
        let most = hard.min(CROWD + OTHERS);
        let raised = Command::new("prlimit")
            .arg(format!("--pid={}", std::process::id()))
            .arg(format!("--nofile={most}:"))
            .status();
        assert!(raised.unwrap().success());
    }
    let (soft, _) = limits();
    CROWD.min(soft.saturating_sub(OTHERS).max(soft / 4))
}

/// Says nothing, or a byte in a second of what it never ends to say, and is cut off: how long after it came, and
/// with which words.
async fn hardly_anything(mut stream: TcpStream, says: bool, begun: Instant) -> (Duration, Told) {
    let head = handshake("/socket/all/", "");
    let mut bytes = head.as_bytes().iter().filter(|_| says);
    let mut pace = tokio::time::interval(Duration::from_secs(1));
    let (mut told, mut buffer) = (Vec::new(), [0; 256]);
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(count) => told.extend(&buffer[..count]),
            },
            _ = pace.tick() => if let Some(byte) = bytes.next() {
                let _ = stream.write_all(&[*byte]).await;
            }
        }
    }
    (
        begun.elapsed(),
        Told::answer(&String::from_utf8_lossy(&told)),
    )
}

/// How long handshakes take at the door with the crowd, and at the same time at one without, until they are to
/// stop.
async fn beside(with: String, without: String, stop: CancellationToken) -> [Vec<Duration>; 2] {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let head = handshake("/socket/all/?types=notice", "");
    let opened = async |address: &str| {
        let begun = Instant::now();
        assert_eq!(request(address, head.as_bytes()).await.0, status(101, ""));
        begun.elapsed()
    };
    let mut took = [Vec::new(), Vec::new()];
    while !stop.is_cancelled() {
        pace.tick().await;
        let (crowded, quiet) = tokio::join!(opened(&with), opened(&without));
        took[0].push(crowded);
        took[1].push(quiet);
    }
    took
}

/// What all but one in a hundred stay below.
fn p99(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    took[(took.len() * 99).div_ceil(100) - 1]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_who_say_hardly_anything_are_cut_off_and_hinder_nobody() {
    let size = crowd();
    let mut stage = Stage::care().await;
    let quiet = Server::configured(CARE, CARE_TABLES);
    let stop = CancellationToken::new();
    let (with, without) = (stage.server.address(), quiet.address());
    let handshakes = tokio::spawn(beside(with.into(), without.into(), stop.clone()));
    let (mut people, begun, mut most) = (JoinSet::new(), Instant::now(), 0);
    while people.len() < size {
        let (came, wave) = (Instant::now(), WAVE.min(size - people.len()));
        let wave = (0..wave).map(|_| TcpStream::connect(with));
        for stream in join_all(wave).await {
            let says = people.len().is_multiple_of(2);
            people.spawn(hardly_anything(stream.unwrap(), says, came));
        }
        // Who asks is let in behind all who came before him.
        most = stage.server.counted("connections").await;
    }
    let arrived = begun.elapsed();
    let mut ends = Vec::new();
    while let Some(end) = in_time("everybody to be cut off", people.join_next()).await {
        ends.push(end.unwrap());
    }
    stop.cancel();
    let [mut crowded, mut alone] = in_time("the handshakes", handshakes).await.unwrap();
    let count = crowded.len();
    let (crowded, alone) = (p99(&mut crowded), p99(&mut alone));
    let longest = ends.iter().map(|(took, _)| *took).max().unwrap();
    println!(
        "{size} came within {arrived:?}, {most} were there at once, the last was cut off after {longest:?}; \
         the p99 of {count} handshakes is {crowded:?}, and {alone:?} beside them"
    );
    for (took, told) in ends {
        assert!(took >= DEADLINE, "cut off after {took:?}");
        let expected = [Told::Cut, status(408, "")];
        stage.note("A01", "hardly anything", &[told], &expected);
    }
    // What others do on the machine holds up both; CI's stands still now and then on top of that.
    let (late, soon) = match std::env::var_os("ROWCAST_LONG") {
        Some(_) => (LATE, SOON.max(alone * 3)),
        None => (LATE + STANDSTILL * 4, SOON.max(alone * 3) + STANDSTILL),
    };
    assert!(longest < DEADLINE + late, "cut off after {longest:?}");
    assert!(
        crowded < soon,
        "a handshake took {crowded:?}, and {alone:?} beside the crowd"
    );
    if arrived < DEADLINE {
        assert!(most >= size as u64, "{most} of {size} were there");
    }
    stage.end().await;
}
