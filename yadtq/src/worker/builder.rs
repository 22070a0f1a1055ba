//! Settings of a worker, and what is checked before it starts.

use std::{
    any::Any,
    collections::{BTreeSet, HashMap, HashSet},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use super::{
    options::{Options, Plan},
    worker::Worker,
};
use crate::{
    client::{Client, MAX_TTL},
    core::{limits::Rate, names::Queue, retry::Retry},
    error::Error,
    periodic::Periodic,
    task::{Definition, Limits, States, Tasks},
};

/// The most tasks that one worker may run at once: more are a mistake.
const MAX_SLOTS: usize = 1_000_000;
/// The longest time that a revoked task gets to end by itself.
const LONGEST_REVOKE_GRACE: Duration = Duration::from_secs(24 * 3_600);
/// How long a lease may last: a shorter one could not be extended in time, for a longer one nobody waits.
const LEASES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);

/// Settings of a [`Worker`](crate::Worker). Nothing fails before [`build`](Self::build), `start` or `run`.
///
/// ```no_run
/// # #[yadtq::task] async fn add(a: i64, b: i64) -> i64 { a + b }
/// # async fn f() -> Result<(), yadtq::Error> {
/// use std::time::Duration;
///
/// yadtq::Worker::builder()
///     .register(add)
///     .concurrency(64)
///     .drain_timeout(Duration::from_secs(60))
///     .run()
///     .await
/// # }
/// ```
#[must_use]
#[derive(Default)]
pub struct WorkerBuilder {
    client: Option<Client>,
    tasks: Vec<Definition>,
    state: States,
    queues: Option<Vec<String>>,
    periodics: Vec<Periodic>,
    queue_rates: Vec<(String, Rate)>,
    task_limits: Vec<(String, Limits)>,
    options: Options,
}

impl Worker {
    /// A worker with settings of its own.
    pub fn builder() -> WorkerBuilder {
        WorkerBuilder::default()
    }
}

impl WorkerBuilder {
    /// The client whose servers the worker works for, and which `delay` uses inside its tasks. Default: the installed
    /// one, else one from the environment.
    pub fn client(mut self, client: &Client) -> Self {
        self.client = Some(client.clone());
        self
    }

    /// A task that this worker can run, or several: `register((add, mul))`; see [`Tasks`].
    pub fn register(mut self, tasks: impl Tasks) -> Self {
        self.tasks.extend(tasks.definitions());
        self
    }

    /// A value that tasks get by its type, as a parameter of type [`State<T>`](crate::State), or from
    /// [`Context::state`](crate::Context::state). A second value of one type replaces the first.
    pub fn state<T: Any + Send + Sync>(mut self, value: T) -> Self {
        self.state.insert(value);
        self
    }

    /// The queues that the worker takes tasks from. Default: those of the registered tasks.
    pub fn queues<Q: Into<String>>(mut self, queues: impl IntoIterator<Item = Q>) -> Self {
        self.queues = Some(queues.into_iter().map(Into::into).collect());
        self
    }

    /// A call that is sent by the clock: every tick of its schedule is one task, however many workers declare it. The task
    /// need not be registered here, if other workers run it. See [`Periodic`].
    ///
    /// ```no_run
    /// # #[yadtq::task] async fn report(region: String) {}
    /// # async fn f() -> Result<(), yadtq::Error> {
    /// use yadtq::{Periodic, Worker};
    ///
    /// let nightly = Periodic::cron("nightly-report", "0 3 * * *", report.call("eu".to_owned()));
    /// Worker::builder().register(report).periodic(nightly.time_zone("Europe/Berlin")).run().await
    /// # }
    /// ```
    pub fn periodic(mut self, periodic: Periodic) -> Self {
        self.periodics.push(periodic);
        self
    }

    /// How many `async` tasks run at once. Default: 10 x cores.
    pub fn concurrency(mut self, slots: usize) -> Self {
        self.options.concurrency = slots;
        self
    }

    /// How many plain `fn` tasks run at once, each on a thread of the blocking pool. Default: the number of
    /// cores.
    pub fn blocking_concurrency(mut self, slots: usize) -> Self {
        self.options.blocking_concurrency = slots;
        self
    }

    /// How long the leases of this worker last: of the tasks that it runs, and of the partitions that it reads. That is how
    /// long others wait for a worker that hangs or is cut off from the servers. A worker whose process has died is noticed
    /// within a second, whatever its lease. A short lease costs more calls: each is extended every third of it. From 1 s to
    /// 1 h. Default: 6 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.lease = lease;
        self
    }

    /// Longest time a stopping worker waits for running tasks before it cancels them and hands them back.
    /// Default: 30 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.options.drain_timeout = timeout;
        self
    }

    /// How often a task may crash its worker. With one more crash it becomes a dead letter. Default: 5.
    pub fn max_deliveries(mut self, crashes: u32) -> Self {
        self.options.max_deliveries = crashes;
        self
    }

    /// Size of the largest record that is read as a task, in bytes. Larger records become dead letters. Default: 8 MiB.
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.options.max_record_bytes = bytes;
        self
    }

    /// Size of the largest result, in bytes of JSON. A task whose result is larger fails. Default: 1 MiB.
    pub fn max_result_bytes(mut self, bytes: usize) -> Self {
        self.options.max_result_bytes = bytes;
        self
    }

    /// How long a revoked `async` task that runs may take to end by itself, before its future is dropped; at most a
    /// day. Default: 5 s.
    pub fn revoke_grace(mut self, grace: Duration) -> Self {
        self.options.revoke_grace = grace;
        self
    }

    /// How long the ends of tasks and their results are kept, where neither the task nor its sender says; at most 365 days. With zero,
    /// results are not kept, and ends for an hour. Default: 24 h, and an hour for a task that returns nothing (`()` or `None`).
    pub fn result_ttl(mut self, ttl: Duration) -> Self {
        self.options.result_ttl = Some(ttl);
        self
    }

    /// When failed attempts are made again, where neither the task nor its sender says. Default: 12 retries,
    /// exponential with equal jitter, 2 s base, 1 h cap, which is one to two hours in all; see the
    /// [guide](crate::guide::scheduling).
    ///
    /// ```
    /// # #[yadtq::task] async fn add(a: i64, b: i64) -> i64 { a + b }
    /// use yadtq::{Retry, Worker};
    ///
    /// let worker = Worker::builder().register(add).retry(Retry::new().max(10)).build()?;
    /// # Ok::<(), yadtq::Error>(())
    /// ```
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = retry;
        self
    }

    /// Whether this worker takes a share in firing delayed tasks and retries. Some worker of the namespace has to.
    /// Default: true.
    pub fn scheduler(mut self, takes_part: bool) -> Self {
        self.options.scheduler = takes_part;
        self
    }

    /// How often tasks of a queue start, over all workers, besides the limits of each task. See the
    /// [guide](crate::guide::limits). Default: no limit.
    ///
    /// ```
    /// # #[yadtq::task(queue = "mail")] async fn send_mail(to: String) {}
    /// use yadtq::{Rate, Worker};
    ///
    /// let worker = Worker::builder().register(send_mail).queue_rate("mail", Rate::per_second(10)).build()?;
    /// # Ok::<(), yadtq::Error>(())
    /// ```
    pub fn queue_rate(mut self, queue: impl Into<String>, rate: Rate) -> Self {
        self.queue_rates.push((queue.into(), rate));
        self
    }

    /// How often a registered task starts, over all workers, instead of its own `rate_limit`; for each value of its
    /// `limit_key`, if it has one.
    ///
    /// ```
    /// # #[yadtq::task(rate_limit = "10/s")] async fn fetch(url: String) {}
    /// use yadtq::{Rate, Worker};
    ///
    /// let worker = Worker::builder().register(fetch).task_rate("fetch", Rate::per_minute(100).burst(20)).build()?;
    /// # Ok::<(), yadtq::Error>(())
    /// ```
    pub fn task_rate(mut self, task: impl Into<String>, rate: Rate) -> Self {
        self.task_limits.push((task.into(), Limits { rate: Some(rate), ..Limits::new() }));
        self
    }

    /// How many of a registered task run at once, over all workers, instead of its own `max_running`; for each value of
    /// its `limit_key`, if it has one. 1 to 1,000,000.
    ///
    /// ```
    /// # #[yadtq::task] async fn import(file: String) {}
    /// use yadtq::Worker;
    ///
    /// let worker = Worker::builder().register(import).task_max_running("import", 2).build()?;
    /// # Ok::<(), yadtq::Error>(())
    /// ```
    pub fn task_max_running(mut self, task: impl Into<String>, most: u32) -> Self {
        self.task_limits.push((task.into(), Limits { max_running: Some(most), ..Limits::new() }));
        self
    }

    /// For how long a record whose task this worker does not know is offered to workers that do. Then it waits in Kafka and is
    /// tried again, see [`unknown_task_window`](Self::unknown_task_window). Default: 5 s.
    pub fn unknown_task_grace(mut self, grace: Duration) -> Self {
        self.options.unknown_task_grace = grace;
        self
    }

    /// For how long a task waits for a worker that knows its name, since the first worker that did not: a rolling deploy may
    /// bring one. It is tried again after pauses that grow from 1 s to 1 min, and makes no attempt. Then it becomes a dead
    /// letter (`unknown-task`). Default: 1 h.
    ///
    /// ```
    /// # #[yadtq::task]
    /// # async fn add(a: i64, b: i64) -> i64 { a + b }
    /// # use std::time::Duration;
    /// let worker = yadtq::Worker::builder().register(add).unknown_task_window(Duration::from_secs(600));
    /// # let _ = worker;
    /// ```
    pub fn unknown_task_window(mut self, window: Duration) -> Self {
        self.options.unknown_task_window = window;
        self
    }

    /// Whether the worker always starts the highest [`Priority`](crate::Priority) that waits in a queue, so that lower ones run
    /// only when there is nothing above them. Otherwise each priority gets its share: six high and three normal tasks for each
    /// low one. Queues take turns either way. Default: `false`.
    pub fn strict_priority(mut self, strict: bool) -> Self {
        self.options.strict_priority = strict;
        self
    }

    /// Checks everything. Connects to nothing yet.
    ///
    /// # Errors
    /// - [`Error::DuplicateTask`]: two tasks have one name.
    /// - [`Error::Config`]: nothing is registered, a task needs state that is missing, a queue name is wrong, a number is 0 or
    ///   beyond reason, a time is too short or too long, the longest wait before a retry is shorter than the first one, a limit is
    ///   that of a task or queue that this worker does not have, or a periodic task has a wrong name, cron expression, time zone,
    ///   interval or queue, or the name of another one.
    /// - [`Error::Argument`]: an argument of a periodic task cannot be written as JSON.
    pub fn build(self) -> Result<Worker, Error> {
        let options = self.options;
        for (what, value) in [
            ("concurrency", options.concurrency),
            ("blocking_concurrency", options.blocking_concurrency),
            ("max_record_bytes", options.max_record_bytes),
            ("max_result_bytes", options.max_result_bytes),
        ] {
            if value == 0 {
                return Err(Error::config(what, "must be at least 1"));
            }
        }
        for (what, slots) in
            [("concurrency", options.concurrency), ("blocking_concurrency", options.blocking_concurrency)]
        {
            if slots > MAX_SLOTS {
                return Err(Error::config(what, format!("must be at most {MAX_SLOTS}")));
            }
        }
        if !LEASES.contains(&options.lease) {
            return Err(Error::config("lease", "must be at least 1 s and at most 1 h"));
        }
        if options.result_ttl.is_some_and(|ttl| ttl > MAX_TTL) {
            return Err(Error::config("result_ttl", "must be at most 365 days"));
        }
        if options.revoke_grace > LONGEST_REVOKE_GRACE {
            return Err(Error::config("revoke_grace", "must be at most a day"));
        }
        options.retry.check().map_err(|(field, problem)| Error::config(field, problem))?;
        for task in &self.tasks {
            let named = |(field, problem)| Error::config(format!("task `{}`: {field}", task.name), problem);
            // What a task says itself is a part of it.
            task.options.retry.or(options.retry).check().map_err(named)?;
        }
        if self.tasks.is_empty() {
            return Err(Error::config("register", "no task is registered; add .register(my_task)"));
        }
        let names = match self.queues {
            Some(names) => names,
            None => self.tasks.iter().map(|task| task.queue.unwrap_or("default").to_owned()).collect(),
        };
        let mut queues = names.iter().map(|name| name.parse()).collect::<Result<Vec<Queue>, _>>()?;
        queues.sort();
        queues.dedup();
        if queues.is_empty() {
            return Err(Error::config("queues", "none is given"));
        }
        let mut tasks = HashMap::new();
        for task in self.tasks {
            if tasks.insert(task.name, task.clone()).is_some() {
                return Err(Error::DuplicateTask { name: task.name.to_owned() });
            }
        }
        for (name, limits) in self.task_limits {
            let field = if limits.rate.is_some() { "task_rate" } else { "task_max_running" };
            let task = tasks.get_mut(&*name);
            let task: &mut Definition =
                task.ok_or_else(|| Error::config(field, format!("no task named `{name}` is registered")))?;
            task.limits.rate = limits.rate.or(task.limits.rate);
            task.limits.max_running = limits.max_running.or(task.limits.max_running);
        }
        let missing: BTreeSet<String> = tasks
            .values()
            .flat_map(|task| task.states.iter().map(|state| (task.name, *state)))
            .filter(|(_, state)| !self.state.has(*state))
            .map(|(task, state)| format!("task `{task}` needs {}", state.type_name))
            .collect();
        if !missing.is_empty() {
            let missing = missing.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Error::config("state", format!("{missing}; add .state(value) for each type")));
        }
        for task in tasks.values() {
            let named = |(field, problem)| Error::config(format!("task `{}`: {field}", task.name), problem);
            task.limits.check().map_err(named)?;
        }
        let mut queue_rates = HashMap::new();
        for (name, rate) in self.queue_rates {
            let refused = |problem: String| Error::config("queue_rate", format!("queue `{name}`: {problem}"));
            rate.check().map_err(|(field, problem)| refused(format!("{field}: {problem}")))?;
            if !queues.iter().any(|queue| queue.as_str() == name) {
                return Err(refused("this worker does not take from it; name one of its queues".to_owned()));
            }
            queue_rates.insert(name, rate);
        }
        let periodics = self.periodics.into_iter().map(Periodic::check).collect::<Result<Arc<[_]>, _>>()?;
        let mut names = HashSet::new();
        if let Some(twice) = periodics.iter().find(|periodic| !names.insert(&periodic.name)) {
            return Err(Error::config("periodic", format!("two are named `{}`; give one another name", twice.name)));
        }
        Ok(Worker::new(self.client, Plan { tasks, queues, state: self.state, periodics, queue_rates, options }))
    }

    /// Builds the worker and starts it; see [`Worker::start`].
    ///
    /// # Errors
    /// As [`build`](Self::build) and [`Worker::start`].
    pub async fn start(self) -> Result<super::worker::RunningWorker, Error> {
        self.build()?.start().await
    }

    /// Builds the worker and runs it until the process is asked to stop; see [`Worker::run`].
    ///
    /// # Errors
    /// As [`build`](Self::build) and [`Worker::run`].
    pub async fn run(self) -> Result<(), Error> {
        self.build()?.run().await
    }
}

impl std::fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("tasks", &self.tasks)
            .field("queues", &self.queues)
            .field("periodics", &self.periodics)
            .finish_non_exhaustive()
    }
}
