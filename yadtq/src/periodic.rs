//! Periodic tasks, as a worker declares them.

use std::{fmt, sync::Arc, time::Duration};

use chrono_tz::Tz;

use crate::{
    client::{Call, CallSpec, Client},
    core::{
        names::{Queue, TaskId},
        schedule::{self, Ms, Schedule},
        ticks::Missed,
    },
    error::Error,
};

/// Longest name of a periodic task. Its name and a tick together must fit in a task id.
const MAX_NAME_LENGTH: usize = 96;

/// A call that is sent periodically: every tick of its schedule makes one task.
///
/// Declare it with [`WorkerBuilder::periodic`](crate::WorkerBuilder::periodic), on one worker or on many: every tick makes
/// one task, whichever of them are up. There is no separate scheduler to operate; see [the guide](crate::guide::periodic).
///
/// ```no_run
/// # #[yadtq::task] async fn report(region: String) {}
/// # #[yadtq::task] async fn sweep() {}
/// # async fn f() -> Result<(), yadtq::Error> {
/// use std::time::Duration;
/// use yadtq::{Missed, Periodic, Worker};
///
/// Worker::builder()
///     .register(report)
///     .register(sweep)
///     .periodic(
///         Periodic::cron("nightly-report", "0 3 * * *", report.call("eu".to_owned())).time_zone("Europe/Berlin"),
///     )
///     .periodic(
///         Periodic::every("sweep", Duration::from_secs(30), sweep.call().ignore_result()).missed(Missed::Skip),
///     )
///     .run()
///     .await
/// # }
/// ```
#[derive(Clone)]
#[must_use = "it does nothing until a worker declares it"]
pub struct Periodic {
    name: String,
    when: When,
    zone: Option<String>,
    missed: Missed,
    call: CallSpec,
}

#[derive(Clone, Debug)]
enum When {
    Cron(String),
    Every(Duration),
}

impl Periodic {
    /// Sends the call by a cron expression: minute, hour, day of the month, month, day of the week, such as `0 3 * * *`, with
    /// seconds in front if it has six fields; or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. Its times are in UTC,
    /// unless a [`time_zone`](Self::time_zone) is set.
    ///
    /// The name identifies the periodic task and its history: `[a-z0-9][a-z0-9-]*`, at most 96 characters.
    ///
    /// ```
    /// # #[yadtq::task] async fn report(region: String) {}
    /// use yadtq::Periodic;
    ///
    /// let weekdays = Periodic::cron("standup", "30 9 * * MON-FRI", report.call("eu".to_owned()));
    /// ```
    pub fn cron<T>(name: impl Into<String>, cron: impl Into<String>, call: Call<T>) -> Self {
        Self::new(name.into(), When::Cron(cron.into()), call)
    }

    /// Sends the call at every multiple of an interval since the Unix epoch, so that all workers agree on the ticks: an
    /// interval of 10 minutes ticks at :00, :10, :20. The interval is 1 s to 100 years, in whole milliseconds. The name has
    /// the same rules as for [`cron`](Self::cron).
    ///
    /// ```
    /// # #[yadtq::task] async fn sweep() {}
    /// use std::time::Duration;
    /// use yadtq::Periodic;
    ///
    /// let often = Periodic::every("sweep", Duration::from_secs(30), sweep.call());
    /// ```
    pub fn every<T>(name: impl Into<String>, interval: Duration, call: Call<T>) -> Self {
        Self::new(name.into(), When::Every(interval), call)
    }

    fn new<T>(name: String, when: When, call: Call<T>) -> Self {
        Self { name, when, zone: None, missed: Missed::default(), call: call.spec }
    }

    /// The time zone of a cron expression, by its IANA name, such as `Europe/Berlin`. Default: `UTC`.
    pub fn time_zone(mut self, name: impl Into<String>) -> Self {
        self.zone = Some(name.into());
        self
    }

    /// What happens to ticks that were missed because no worker was up, or because Kafka could not be reached for over a
    /// minute. Default: [`Missed::RunOnce`].
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }

    /// Checks everything that does not need a client.
    pub(crate) fn check(self) -> Result<Plan, Error> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let Self { name, when, zone, missed, call } = self;
        if name.is_empty() || name.len() > MAX_NAME_LENGTH || name.starts_with('-') || !name.chars().all(allowed) {
            let problem =
                format!("name `{name}` must match [a-z0-9][a-z0-9-]* and have at most {MAX_NAME_LENGTH} characters");
            return Err(Error::config("periodic", problem));
        }
        let refused = |field: &str, problem: &str| Error::config(format!("periodic `{name}`: {field}"), problem);
        let schedule = match (when, zone) {
            (When::Every(_), Some(_)) => {
                return Err(refused("time_zone", "an interval has no time zone; leave it out, or use Periodic::cron"));
            }
            (When::Every(interval), None) => Schedule::every(interval).map_err(|problem| refused("interval", &problem)),
            (When::Cron(cron), zone) => {
                let zone = zone.map_or(Ok(Tz::UTC), |name| schedule::zone(&name));
                let zone = zone.map_err(|problem| refused("time_zone", &problem))?;
                Schedule::cron(&cron, zone).map_err(|problem| refused("cron", &problem))
            }
        }?;
        if call.id.is_some() {
            return Err(refused("id", "every tick has an id of its own; leave it out"));
        }
        if call.eta.is_some() || call.countdown.is_some() {
            return Err(refused("eta", "the schedule says when it runs; leave out `eta` and `countdown`"));
        }
        let queue = call.queue.as_deref().map_or_else(|| Ok(Queue::default()), str::parse);
        let queue = queue.map_err(|error| refused("queue", &error.to_string()))?;
        call.args.clone()?;
        Ok(Plan { name: name.into(), schedule, missed, queue, call })
    }
}

impl fmt::Debug for Periodic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, when, zone, missed, call: _ } = self;
        f.debug_struct("Periodic")
            .field("name", name)
            .field("when", when)
            .field("zone", zone)
            .field("missed", missed)
            .finish_non_exhaustive()
    }
}

/// A checked declaration.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: Arc<str>,
    pub(crate) schedule: Schedule,
    pub(crate) missed: Missed,
    pub(crate) queue: Queue,
    call: CallSpec,
}

impl Plan {
    /// The name of the task.
    pub(crate) fn task(&self) -> &str {
        &self.call.task
    }

    /// Checks what needs a client: the options of the call, and the size of its record.
    pub(crate) fn check(&self, client: &Client) -> Result<(), Error> {
        client.check(self.call(0).spec).map_err(|error| match error {
            Error::Config { what, problem } => Error::config(format!("periodic `{}`: {what}", self.name), problem),
            other => other,
        })
    }

    /// The call of one tick. Every worker makes the same call with the same id.
    pub(crate) fn call(&self, tick: Ms) -> Call<()> {
        Call::from(self.call.clone()).id(id(&self.name, tick))
    }
}

/// The task id of a tick, such as `nightly-report@2027-03-28T01:00:00Z`.
pub(crate) fn id(name: &str, tick: Ms) -> TaskId {
    format!("{name}@{}", schedule::format_tick(tick)).parse().expect("a checked name and a time are short")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call<u8> {
        Call::named("report", ["eu"])
    }

    fn refused(periodic: Periodic) -> String {
        periodic.check().unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_wrong_setting() {
        let cron = |text: &str| Periodic::cron("nightly", text, call());
        let every = |interval| Periodic::every("nightly", interval, call());
        let second = Duration::from_secs(1);
        for (periodic, said) in [
            (cron("0 25 * * *"), "periodic `nightly`: cron: `0 25 * * *` is no cron expression"),
            (cron("0 0 31 4 *"), "periodic `nightly`: cron: `0 0 31 4 *` is never due"),
            (cron("@daily").time_zone("Mars"), "periodic `nightly`: time_zone: `Mars` is no time zone"),
            (every(Duration::ZERO), "periodic `nightly`: interval: must be 1 s to 100 years, not 0ns"),
            (every(second).time_zone("UTC"), "periodic `nightly`: time_zone: an interval has no"),
            (Periodic::every("nightly", second, call().id(TaskId::new())), "periodic `nightly`: id: every tick has"),
            (
                Periodic::every("nightly", second, call().countdown(second)),
                "periodic `nightly`: eta: the schedule says",
            ),
            (
                Periodic::every("nightly", second, call().eta(std::time::SystemTime::UNIX_EPOCH)),
                "periodic `nightly`: eta: the schedule says when it runs",
            ),
            (
                Periodic::every("nightly", second, call().countdown(second)),
                "periodic `nightly`: eta: the schedule says when it runs",
            ),
            (Periodic::every("nightly", second, call().queue("dead")), "periodic `nightly`: queue: queue name `dead`"),
            (Periodic::every("nightly", second, Call::<u8>::named("report", 3)), "argument `args` of task report"),
        ] {
            let error = refused(periodic);
            assert!(error.starts_with(said), "{error}");
        }
        for name in ["", "-a", "Nightly", "a b", "ü", &"a".repeat(97)] {
            let error = refused(Periodic::every(name, second, call()));
            assert!(error.starts_with(&format!("periodic: name `{name}` must match")), "{error}");
        }
    }

    #[test]
    fn a_tick_has_one_id_and_may_be_sent_again() {
        let name = "a".repeat(96);
        let plan = Periodic::every(&name, Duration::from_secs(10 * 365 * 86_400), call()).check().unwrap();
        assert_eq!((plan.task(), plan.queue.as_str(), plan.missed), ("report", "default", Missed::RunOnce));
        let tick = plan.schedule.after(1_806_195_600_000).unwrap();
        let (once, again) = (plan.call(tick).spec, plan.call(tick).spec);
        assert_eq!((once.id.clone(), once.args.unwrap().get()), (again.id, again.args.unwrap().get()));
        assert_eq!(once.id.unwrap().to_string(), format!("{name}@2029-12-17T00:00:00Z"));
        assert_eq!(id("n", 1_806_195_600_250).to_string(), "n@2027-03-28T01:00:00.250Z");
        assert!(id(&name, u64::MAX).as_str().len() <= TaskId::MAX_BYTES);
    }
}
