//! `yadtq submit`: sends a task.

use std::time::Duration;

use clap::{
    Args,
    builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser as _},
};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::timeout;
use yadtq::{Call, Client, Error, Priority, Queue, StoreError, TaskId};

use crate::{
    exit::Exit,
    failure::{Failure, REDIS_REMEDY},
    global::Global,
    input::Arguments,
    message, outcome,
    output::Answer,
};

/// Longest wait for Redis before the task is sent without it. A healthy Redis answers much sooner.
const REDIS_TIMEOUT: Duration = Duration::from_secs(2);
const PRIORITIES: [&str; 3] = [Priority::High.as_str(), Priority::Normal.as_str(), Priority::Low.as_str()];

/// Send a task and print its id
///
/// When the id is printed, Kafka has acknowledged the task, and a worker that registers this name will run it.
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
  yadtq submit invoice 17 --header tenant=acme
  yadtq submit add -- -1 2")]
pub(crate) struct Submit {
    /// The task's name, as workers register it
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,

    /// Arguments by position; each is a JSON value, or else a string
    ///
    /// `2`, `true`, `null`, `[1, 2]` and `"2"` are JSON. An argument that is not valid JSON, such as `hello` or `007`, is
    /// sent as a string. Write '"2"' to send the string 2, and -- before arguments that start with a hyphen.
    #[arg(allow_negative_numbers = true)]
    args: Vec<String>,

    /// All arguments at once: a JSON array (by position), a JSON object (by name), or - to read either from stdin
    #[arg(long, value_name = "JSON", conflicts_with = "args", allow_hyphen_values = true)]
    args_json: Option<String>,

    /// The queue. The queue that the task's code declares does not apply here
    #[arg(long, default_value_t)]
    queue: Queue,

    /// The task's priority in its queue. The priority that the task's code declares does not apply here
    #[arg(long, default_value_t, value_parser = PossibleValuesParser::new(PRIORITIES).try_map(|name| name.parse::<Priority>()))]
    priority: Priority,

    /// Run tasks with this key one at a time, in the order in which they were sent: 1 to 256 bytes
    #[arg(long, value_name = "KEY")]
    ordering_key: Option<String>,

    /// A header of the task, and of the tasks that it sends; may be given several times
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// The task's id, 1 to 128 bytes. Sending a task again with its id is safe: it ends once [default: a UUIDv7]
    #[arg(long)]
    id: Option<TaskId>,

    /// Longest time that one run of the task may take, such as 30s or 5m [default: as its code says]
    #[arg(long, value_name = "DURATION")]
    run_timeout: Option<humantime::Duration>,

    /// Time from now after which the task no longer starts, such as 5m; it is revoked instead [default: no limit]
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<humantime::Duration>,

    /// Delay before the task runs, such as 10m or 1day [default: none]
    #[arg(long, value_name = "DURATION", conflicts_with = "eta")]
    countdown: Option<humantime::Duration>,

    /// Earliest time at which the task runs, in UTC: 2027-01-31T08:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    eta: Option<humantime::Timestamp>,

    /// Number of retries after the first attempt [default: as its code says, else 12]
    #[arg(long, value_name = "NUMBER")]
    max_retries: Option<u32>,

    /// How long the result is kept, such as 1h or 7d; 0s keeps no result [default: as its code says, else 24h]
    #[arg(long, value_name = "DURATION")]
    result_ttl: Option<humantime::Duration>,

    /// Deduplicate by key: while the key is kept, a later call with the same NAME and KEY sends nothing and prints the first id
    #[arg(long, value_name = "KEY", requires = "unique_ttl")]
    unique: Option<String>,

    /// How long the key is kept, counted from the first call, such as 1h: 1 second to 365 days
    #[arg(long, value_name = "DURATION", requires = "unique")]
    unique_ttl: Option<humantime::Duration>,

    /// Wait until the task has ended, and print its result as `yadtq result` does
    #[arg(long)]
    wait: bool,

    /// Longest time to wait for the result, such as 30s or 5m; the task continues after it [default: no limit]
    #[arg(long, value_name = "DURATION", requires = "wait")]
    timeout: Option<humantime::Duration>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Sent<'a> {
    id: &'a str,
    task: &'a str,
    queue: &'a str,
    /// With a unique key: whether this call sent the task.
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
        for (name, value) in self.headers {
            call = call.header(name, value);
        }
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
        let connected = wait_for_redis(&client, &id, self.wait).await?;
        let handle = call.send(&client).await?;
        let (id, output) = (handle.id(), global.output());
        if !handle.is_new() {
            message::note(&format!("task {id} already has this key; no second task was sent"));
        }
        if self.wait {
            if handle.is_new() {
                message::note(&format!("sent as {id}"));
            }
            return outcome::wait(&handle, self.timeout.map(Into::into), output).await;
        }
        if !connected {
            message::warning(&format!(
                "redis did not answer within {REDIS_TIMEOUT:?}, so the task's status is unknown until a worker has read \
                 the task; {REDIS_REMEDY}"
            ));
        }
        let new = self.unique.is_some().then(|| handle.is_new());
        output.print(&Sent { id: id.as_str(), task: &self.name, queue: self.queue.as_str(), new })?;
        Ok(Exit::Done)
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Waits until Redis answers, and returns whether it does. Until then a client sends tasks without recording them as
/// queued, and `yadtq status` right after would not find the task. If Redis is `needed`, its absence is an error.
async fn wait_for_redis(client: &Client, id: &TaskId, needed: bool) -> Result<bool, Failure> {
    let admin = client.admin();
    let known = if needed {
        admin.task(id).await?
    } else {
        match timeout(REDIS_TIMEOUT, admin.task(id)).await {
            Err(_) | Ok(Err(Error::Store(StoreError::Unavailable(_)))) => return Ok(false),
            Ok(known) => known?,
        }
    };
    if let Some(task) = known {
        message::note(&format!(
            "task {id} already exists, its status is {}; it is sent again, and still ends once",
            task.status
        ));
    }
    Ok(true)
}
