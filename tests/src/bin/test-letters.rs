//! Replays or reads dead letters in a process of its own, for tests that kill it or measure its memory.
//!
//! `replay` prints the id of each task that it has queued again. `walk` prints how many letters it has read, how many of
//! them were new, and its peak memory in KiB.

use std::{env, io::Write as _};

use yadtq::{Client, Error, admin::DeadLetters};

/// Letters per page. The tests have more letters than that, so cursors are used.
const PAGE: usize = 10_000;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::from_env().await?;
    let letters = client.admin().dead_letters();
    match env::args().nth(1).as_deref() {
        Some("replay") => replay(letters).await,
        Some("walk") => walk(letters).await,
        other => panic!("no such command: {other:?}"),
    }
}

async fn replay(letters: DeadLetters) -> Result<(), Error> {
    let mut output = std::io::stdout().lock();
    let report = letters
        .replay_each(|letter, outcome| {
            let id = letter.id.as_ref().map(ToString::to_string);
            writeln!(output, "{} {}", id.unwrap_or_default(), outcome.is_ok()).expect("somebody reads");
        })
        .await?;
    writeln!(output, "done {report:?}").expect("somebody reads");
    Ok(())
}

/// Reads all pages. Ids are numbers here.
async fn walk(letters: DeadLetters) -> Result<(), Error> {
    let (mut seen, mut marks) = (0_usize, Vec::new());
    let mut next: Option<String> = None;
    loop {
        let letters = letters.clone().limit(PAGE);
        let page = match next {
            Some(cursor) => letters.cursor(cursor).page().await?,
            None => letters.page().await?,
        };
        for letter in &page.letters {
            let id: usize = letter.id.as_ref().and_then(|id| id.as_str().parse().ok()).expect("a number");
            marks.resize(marks.len().max(id + 1), false);
            marks[id] = true;
            seen += 1;
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    println!("{seen} {} {}", marks.iter().filter(|mark| **mark).count(), most_memory_kib());
    Ok(())
}

fn most_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
