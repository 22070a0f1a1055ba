//! `yadtq submit`: sends a task.

use std::time::Duration;

use clap::{
    Args,
    builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser as _},
};
use serde::Serialize;
use serde_json::value::RawValue;
use yadtq::{Call, Client, Error, Priority, Queue, StoreError, TaskId};

use crate::{
    cli::Global,
    exit::Exit,
    failure::{Failure, REDIS_REMEDY},
    input::Arguments,
    outcome,
    output::{self, Answer},
};
use tokio::time::timeout;

/// A healthy Redis answers much sooner, and without one the task is sent all the same.
const REDIS_PATIENCE: Duration = Duration::from_secs(2);
const PRIORITIES: [&str; 3] = [Priority::High.as_str(), Priority::Normal.as_str(), Priority::Low.as_str()];

/// Send a task, and print its id
///
/// The task is safe once the id is printed: Kafka has acknowledged it, and a worker that knows its name runs it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq submit add 1 2
  yadtq submit send_email ada@example.org 'Hello, Ada' --queue mail
  yadtq submit add --args-json '{\"a\": 1, \"b\": 2}'
  yadtq submit resize --args-json - < args.json
  yadtq submit add 1 2 --wait --timeout 30s
  yadtq submit remind ada --countdown 1h
  yadtq submit remind ada --eta 2027-01-31T08:00:00Z --max-retries 10
  yadtq submit invoice 17 --unique order-17 --unique-ttl 1h
  yadtq submit send_code ada@example.org --priority high
  yadtq submit book 17 500 --ordering-key customer-17
  yadtq submit add -- -1 2")]
pub(crate) struct Submit {
    /// The task's name, as the worker registers it
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,

    /// Arguments by position: each is a JSON value, or else a string
    ///
    /// `2`, `true`, `null`, `[1, 2]` and `"2"` are JSON. What does not parse as JSON, such as `hello` or `007`, is
    /// sent as a string. Write '"2"' to send the string 2, and -- before arguments that start with a hyphen.
    #[arg(allow_negative_numbers = true)]
    args: Vec<String>,

    /// All arguments at once: a JSON array (by position), a JSON object (by name), or - to read it from stdin
    #[arg(long, value_name = "JSON", conflicts_with = "args", allow_hyphen_values = true)]
    args_json: Option<String>,

    /// The queue to send it to; a queue that the task's code declares is not known here
    #[arg(long, default_value_t)]
    queue: Queue,

    /// How soon it runs beside others of its queue; a priority that the task's code declares is not known here
    #[arg(long, default_value_t, value_parser = PossibleValuesParser::new(PRIORITIES).try_map(|name| name.parse::<Priority>()))]
    priority: Priority,

    /// Run it after all tasks of the queue that were sent with this key before, one at a time: 1 to 256 bytes
    #[arg(long, value_name = "KEY")]
    ordering_key: Option<String>,

    /// The task's id, 1 to 128 bytes; sending a task again under its id is safe: it ends once [default: a UUIDv7]
    #[arg(long)]
    id: Option<TaskId>,

    /// How long one run of the task may take, such as 30s or 5m [default: as its code says]
    #[arg(long, value_name = "DURATION")]
    run_timeout: Option<humantime::Duration>,

    /// How long from now it may start, such as 5m; later it ends as revoked [default: no limit]
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<humantime::Duration>,

    /// How long from now it waits before it runs, such as 10m or 1day [default: it does not]
    #[arg(long, value_name = "DURATION", conflicts_with = "eta")]
    countdown: Option<humantime::Duration>,

    /// When it runs, and not before, in UTC: 2027-01-31T08:00:00Z [default: at once]
    #[arg(long, value_name = "TIME")]
    eta: Option<humantime::Timestamp>,

    /// How often it is tried again after its first attempt [default: as its code says, else 3]
    #[arg(long, value_name = "NUMBER")]
    max_retries: Option<u32>,

    /// How long its result is kept, such as 1h or 7d; 0s: not at all [default: as its code says, else 24h]
    #[arg(long, value_name = "DURATION")]
    result_ttl: Option<humantime::Duration>,

    /// Make no second task of the same NAME and KEY: while the key is kept, print the id of the first
    #[arg(long, value_name = "KEY", requires = "unique_ttl")]
    unique: Option<String>,

    /// How long the key is kept from the first task on, such as 1h: 1 second to 365 days
    #[arg(long, value_name = "DURATION", requires = "unique")]
    unique_ttl: Option<humantime::Duration>,

    /// Wait until the task has ended, and print its result as `yadtq result` does
    #[arg(long)]
    wait: bool,

    /// How long to wait for the result, such as 30s or 5m; the task goes on after that [default: no limit]
    #[arg(long, value_name = "DURATION", requires = "wait")]
    timeout: Option<humantime::Duration>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Sent<'a> {
    id: &'a str,
    task: &'a str,
    queue: &'a str,
    /// With a unique key: whether this made the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<bool>,
}

impl Answer for Sent<'_> {
    fn human(&self) -> String {
        self.id.to_owned()
    }
}

impl Submit {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let args = match &self.args_json {
            Some(json) => Arguments::from_json(json)?,
            None => Arguments::from_words(&self.args)?,
        };
        let client = global.connect().await?;
        let id = self.id.unwrap_or_else(TaskId::new);
        let mut call = Call::<Box<RawValue>>::named(&*self.name, args).queue(self.queue.as_str()).id(id.clone());
        call = call.priority(self.priority);
        if let Some(key) = &self.ordering_key {
            call = call.ordering_key(key);
        }
        if let Some(timeout) = self.run_timeout {
            call = call.timeout(*timeout);
        }
        if let Some(time) = self.expires_in {
            call = call.expires_in(*time);
        }
        if let Some(time) = self.countdown {
            call = call.countdown(*time);
        }
        if let Some(time) = self.eta {
            call = call.eta(*time);
        }
        if let Some(retries) = self.max_retries {
            call = call.max_retries(retries);
        }
        if let Some(ttl) = self.result_ttl {
            call = call.result_ttl(*ttl);
        }
        if let (Some(key), Some(ttl)) = (&self.unique, self.unique_ttl) {
            call = call.unique(key, *ttl);
        }
        let met = meet_redis(&client, &id, self.wait).await?;
        let handle = call.send(&client).await?;
        let (id, output) = (handle.id(), global.output());
        if !handle.is_new() {
            output::note(&format!("task {id} has this key already; no second one was made"));
        }
        if self.wait {
            if handle.is_new() {
                output::note(&format!("sent as {id}"));
            }
            return outcome::wait(&handle, self.timeout.map(Into::into), output).await;
        }
        if !met {
            output::warning(&format!(
                "redis did not answer within {REDIS_PATIENCE:?}, so the task's status is not known until a worker has \
                 the task; {REDIS_REMEDY}"
            ));
        }
        let new = self.unique.is_some().then(|| handle.is_new());
        output.print(&Sent { id: id.as_str(), task: &self.name, queue: self.queue.as_str(), new })?;
        Ok(Exit::Done)
    }
}

/// Waits until Redis answers: a client that has not met it yet sends without noting the task as queued, and
/// `yadtq status` right after would know nothing of it. `needed`: without Redis nothing is to be sent.
async fn meet_redis(client: &Client, id: &TaskId, needed: bool) -> Result<bool, Failure> {
    let admin = client.admin();
    let known = if needed {
        admin.task(id).await?
    } else {
        match timeout(REDIS_PATIENCE, admin.task(id)).await {
            Err(_) | Ok(Err(Error::Store(StoreError::Unavailable(_)))) => return Ok(false),
            Ok(known) => known?,
        }
    };
    if let Some(task) = known {
        output::note(&format!("task {id} is known already, it is {}; sent again, it still ends once", task.status));
    }
    Ok(true)
}
