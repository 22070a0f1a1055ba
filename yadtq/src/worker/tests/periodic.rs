//! Periodic tasks by a clock that is moved.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{client, until};
use crate::{
    Client, Context, Error, Missed, Periodic, RunningWorker, TaskId, Worker,
    admin::times,
    clock::{Clock as _, ManualClock},
    task::TaskError,
};

type Runs = Arc<Mutex<Vec<String>>>;

#[crate::task(crate = crate)]
async fn tick(ctx: Context) -> Result<(), TaskError> {
    ctx.state::<Runs>()?.lock().unwrap().push(ctx.id().to_string());
    Ok(())
}

/// 2027-03-27T01:59:50Z, ten seconds before a nightly tick in Berlin's winter, and one of all ten minutes.
const BEFORE: u64 = 1_806_112_790_000_000;

/// A worker that has started: what is due from now on, it has not missed.
async fn worker(client: &Client, runs: &Runs, periodics: &[Periodic]) -> RunningWorker {
    let workers = async || client.admin().workers().await.unwrap().len();
    let before = workers().await;
    let worker = Worker::builder().client(client).register(tick).state(Arc::clone(runs));
    let worker = periodics.iter().cloned().fold(worker, crate::WorkerBuilder::periodic).start().await.unwrap();
    until(async || (workers().await > before).then_some(())).await;
    worker
}

async fn has_run(runs: &Runs, id: &str) {
    until(async || runs.lock().unwrap().iter().any(|run| run == id).then_some(())).await;
}

fn nightly(missed: Missed) -> Periodic {
    Periodic::cron(missed.as_str(), "0 3 * * *", tick.call()).time_zone("Europe/Berlin").missed(missed)
}

#[tokio::test]
async fn a_tick_runs_once_however_many_declare_it() {
    let (clock, runs) = (Arc::new(ManualClock::at_us(BEFORE)), Runs::default());
    let client = client(&clock);
    let often = Periodic::every("often", Duration::from_secs(600), tick.call());
    let first = worker(&client, &runs, &[often.clone(), nightly(Missed::Skip)]).await;
    let second = worker(&client, &runs, &[often]).await;
    let neither = worker(&client, &runs, &[]).await;
    until(async || (client.admin().periodics().await.unwrap().len() == 2).then_some(())).await;
    clock.advance(Duration::from_secs(12));
    has_run(&runs, "often@2027-03-27T02:00:00Z").await;
    has_run(&runs, "skip@2027-03-27T02:00:00Z").await;
    // Whoever has sent the next one has had its chance with the one before.
    clock.advance(Duration::from_secs(600));
    has_run(&runs, "often@2027-03-27T02:10:00Z").await;
    first.stop().await.unwrap();
    clock.advance(Duration::from_secs(600));
    has_run(&runs, "often@2027-03-27T02:20:00Z").await;

    let listed = until(async || {
        let listed = client.admin().periodics().await.unwrap();
        (listed[0].last == Some(times::at(BEFORE / 1_000 + 1_210_000))).then_some(listed)
    })
    .await;
    assert_eq!(listed[0].last_id.as_ref().map(TaskId::as_str), Some("often@2027-03-27T02:20:00Z"));
    assert_eq!((&*listed[0].schedule, &listed[0].time_zone), ("every 600s", &None));
    assert_eq!((&*listed[1].schedule, listed[1].time_zone.as_deref()), ("0 3 * * *", Some("Europe/Berlin")));
    // Summer time begins.
    assert_eq!(listed[1].next, Some(times::at(BEFORE / 1_000 + 10_000 + 23 * 3_600_000)));
    second.stop().await.unwrap();
    neither.stop().await.unwrap();
    let mut runs = runs.lock().unwrap().clone();
    runs.sort_unstable();
    let often = ["00:00Z", "10:00Z", "20:00Z"].map(|time| format!("often@2027-03-27T02:{time}"));
    assert_eq!(runs, [&often[..], &["skip@2027-03-27T02:00:00Z".to_owned()]].concat());
}

#[tokio::test]
async fn missed_ticks_are_skipped_or_run_once() {
    let (clock, runs) = (Arc::new(ManualClock::at_us(BEFORE)), Runs::default());
    let client = client(&clock);
    let both = [nightly(Missed::Skip), nightly(Missed::RunOnce)];
    let start = async || {
        let worker = worker(&client, &runs, &both).await;
        let now = clock.now_ms();
        until(async || {
            let listed = client.admin().periodics().await.unwrap();
            let declared = listed.iter().filter(|one| one.name != "often" && one.declared_at >= times::at(now));
            (declared.count() == 2).then_some(())
        })
        .await;
        worker
    };
    // Declared before the first tick, and down at its time.
    start().await.stop().await.unwrap();
    clock.advance(Duration::from_secs(5 * 86_400));
    let worker = start().await;
    has_run(&runs, "run-once@2027-04-01T01:00:00Z").await;
    worker.stop().await.unwrap();
    // Again, with nothing missed in between, for long enough to run something else.
    let often = Periodic::every("often", Duration::from_secs(600), tick.call());
    let other = self::worker(&client, &runs, &[often]).await;
    let worker = start().await;
    clock.advance(Duration::from_secs(12));
    has_run(&runs, "often@2027-04-01T02:00:00Z").await;
    worker.stop().await.unwrap();
    other.stop().await.unwrap();
    let nightly: Vec<_> = runs.lock().unwrap().iter().filter(|run| !run.starts_with("often")).cloned().collect();
    assert_eq!(nightly, ["run-once@2027-04-01T01:00:00Z"]);
}

#[tokio::test]
async fn what_only_a_client_can_check_is_refused_before_the_start() {
    let clock = Arc::new(ManualClock::at_us(BEFORE));
    let second = Duration::from_secs(1);
    let start = async |call| {
        let worker = Worker::builder().client(&client(&clock)).register(tick);
        worker.periodic(Periodic::every("often", second, call)).start().await.unwrap_err()
    };
    let error = start(tick.call().timeout(Duration::ZERO)).await.to_string();
    assert_eq!(error, "periodic `often`: timeout: must be at least 1 ms");
    let error = start(crate::Call::named("tick", ["x".repeat(2_000)])).await;
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    let twice = Periodic::every("often", second, tick.call());
    let error = Worker::builder().register(tick).periodic(twice.clone()).periodic(twice).build().unwrap_err();
    assert_eq!(error.to_string(), "periodic: two are named `often`; give one another name");
}
