//! Calls of scripts: what a batch of them says, and what the answers are.
//!
//! A call carries up to [`TASKS_PER_CALL`] tasks and [`BYTES_PER_CALL`] bytes; in a cluster one task, because a script needs its
//! keys in one slot. The calls of one batch are pipelined, and each has an answer of its own: `send.rs`.

use std::{fmt::Write, sync::OnceLock};

use bytes::{Bytes, BytesMut};
use fred::{
    clients::Client,
    interfaces::{FredResult, LuaInterface},
    types::Value,
};

use super::RedisStore;
use crate::{
    core::{names::TaskId, ownership::Partitions},
    store::{Answers, Lease, StoreError},
};

/// Tasks that one script call handles: enough to make the call's own cost small, few enough (1 to 3 ms) to let
/// others in between.
const TASKS_PER_CALL: usize = 256;
/// A call is full once its arguments have this many bytes, and a script that reads or publishes ends once it has moved as many:
/// 1 MB, which takes Redis 2 to 3 ms.
pub(super) const BYTES_PER_CALL: usize = 1_024 * 1_024;

/// A Lua script.
#[derive(Debug)]
pub(super) struct Script {
    /// Its text, after what it shares with other scripts.
    parts: &'static [&'static str],
    /// As the first server that was asked answered.
    hash: OnceLock<Bytes>,
}

impl Script {
    pub(super) const fn new(parts: &'static [&'static str]) -> Self {
        Self { parts, hash: OnceLock::new() }
    }

    pub(super) fn text(&self) -> String {
        self.parts.concat()
    }

    pub(super) async fn hash(&self, client: &Client) -> FredResult<Bytes> {
        if let Some(hash) = self.hash.get() {
            return Ok(hash.clone());
        }
        let hash = client.script_load::<Bytes, _>(self.text()).await?;
        Ok(self.hash.get_or_init(|| hash).clone())
    }
}

/// What becomes of a call if the connection breaks before it is answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Resend {
    /// It is sent again over the next connection.
    AfterReconnect,
    /// It fails, if it was sent: its caller sends it again.
    IfConnected,
    /// It fails, even if it has not been sent yet: over another connection it would be wrong.
    Never,
}

/// One call of a script: its keys, then its other arguments.
pub(super) struct Call {
    pub(super) args: Args,
    pub(super) keys: usize,
}

impl Call {
    /// In a cluster it decides who is asked.
    pub(super) fn first_key(&self) -> &[u8] {
        let end = self.args.ends.first().copied().unwrap_or(0);
        &self.args.buffer[..end]
    }
}

impl RedisStore {
    /// Runs a script over a batch of tasks; returns for each the values that the script answers.
    pub(super) async fn batch<T, const N: usize>(
        &self, script: &Script, batch: &[T], id: impl Fn(&T) -> &TaskId, shared: impl Fn(&mut Args),
        each: impl Fn(&mut Args, &T),
    ) -> Answers<[Value; N]> {
        let key = |args: &mut Args, task: &T| {
            args.key(self.keys.task_prefix(), id(task));
        };
        self.batch_of(script, batch, key, shared, each).await
    }

    /// The same, whatever the keys are, and how many each of the batch has.
    pub(super) async fn batch_of<T, const N: usize>(
        &self, script: &Script, batch: &[T], keys: impl Fn(&mut Args, &T), shared: impl Fn(&mut Args),
        each: impl Fn(&mut Args, &T),
    ) -> Answers<[Value; N]> {
        let layout = Layout { keys, last_key: None, shared: |args: &mut Args, _: &T| shared(args), each };
        self.send_batch(script, batch, &layout, Resend::AfterReconnect).await
    }

    /// The same, for calls that are not sent again over another connection.
    pub(super) async fn batch_once<T, const N: usize>(
        &self, script: &Script, batch: &[T], keys: impl Fn(&mut Args, &T), shared: impl Fn(&mut Args),
        each: impl Fn(&mut Args, &T),
    ) -> Answers<[Value; N]> {
        let layout = Layout { keys, last_key: None, shared: |args: &mut Args, _: &T| shared(args), each };
        self.send_batch(script, batch, &layout, Resend::Never).await
    }

    /// A script may answer for fewer tasks than it was called for, but for one at least, if the answers would be large: it is
    /// called again for the rest.
    pub(super) async fn send_batch<T, K, S, E, const N: usize>(
        &self, script: &Script, batch: &[T], layout: &Layout<'_, K, S, E>, resend: Resend,
    ) -> Answers<[Value; N]>
    where
        K: Fn(&mut Args, &T),
        S: Fn(&mut Args, &T),
        E: Fn(&mut Args, &T),
    {
        let mut answers: Vec<Option<Result<[Value; N], StoreError>>> = batch.iter().map(|_| None).collect();
        let mut left: Vec<usize> = (0..batch.len()).collect();
        while !left.is_empty() {
            let (mut calls, mut counts, mut rest) = (Vec::new(), Vec::new(), &left[..]);
            while !rest.is_empty() {
                let (call, count) = layout.call(rest.iter().map(|&at| &batch[at]).take(self.per_call()));
                calls.push(call);
                counts.push(count);
                rest = &rest[count..];
            }
            let sent = self.send_each(script, &calls, resend).await?;
            let (mut called, mut later) = (left.iter().copied(), Vec::new());
            for (answer, count) in sent.into_iter().zip(counts) {
                let of_call = called.by_ref().take(count);
                match answer {
                    Ok(value) => {
                        let mut values = value.into_array().into_iter();
                        let before = later.len();
                        for at in of_call {
                            match std::array::from_fn(|_| values.next()) {
                                answer if answer.iter().all(Option::is_some) => {
                                    answers[at] = Some(Ok(answer.map(|value| value.unwrap_or(Value::Null))));
                                }
                                _ => later.push(at),
                            }
                        }
                        if later.len() - before == count {
                            return Err(StoreError::Refused("a script answered for nothing".to_owned()));
                        }
                    }
                    Err(error) => of_call.for_each(|at| answers[at] = Some(Err(error.clone()))),
                }
            }
            left = later;
        }
        Ok(answers.into_iter().flatten().collect())
    }

    pub(super) async fn send(&self, script: &Script, calls: &[Call]) -> Result<Vec<Value>, StoreError> {
        self.send_with(script, calls, Resend::AfterReconnect).await
    }

    pub(super) async fn send_with(
        &self, script: &Script, calls: &[Call], resend: Resend,
    ) -> Result<Vec<Value>, StoreError> {
        self.send_each(script, calls, resend).await?.into_iter().collect()
    }

    pub(super) fn per_call(&self) -> usize {
        if self.is_clustered { 1 } else { TASKS_PER_CALL }
    }
}

/// How a call is written.
pub(super) struct Layout<'a, K, S, E> {
    /// The keys of a task.
    pub(super) keys: K,
    /// One more key behind those of all tasks.
    pub(super) last_key: Option<&'a str>,
    /// What is said once. It sees the first task: in a cluster that is the only one.
    pub(super) shared: S,
    /// What is said of each task.
    pub(super) each: E,
}

impl<K, S, E> Layout<'_, K, S, E> {
    /// A call for the first of these tasks, and for how many: until it is full.
    fn call<'a, T: 'a>(&self, tasks: impl Iterator<Item = &'a T>) -> (Call, usize)
    where
        K: Fn(&mut Args, &T),
        S: Fn(&mut Args, &T),
        E: Fn(&mut Args, &T),
    {
        let (mut args, mut rest, mut count, mut first) = (Args::default(), Args::default(), 0, None);
        for task in tasks {
            first.get_or_insert(task);
            (self.keys)(&mut args, task);
            (self.each)(&mut rest, task);
            count += 1;
            if rest.buffer.len() >= BYTES_PER_CALL {
                break;
            }
        }
        if let Some(key) = self.last_key {
            args.text(key);
        }
        let keys = args.ends.len();
        if let Some(first) = first {
            (self.shared)(&mut args, first);
        }
        args.append(&rest);
        (Call { args, keys }, count)
    }
}

/// Reads the answers to a batch.
pub(super) fn read<T, A, R>(
    batch: &[T], answers: Vec<Result<A, StoreError>>, one: impl Fn((&T, A)) -> Result<R, StoreError>,
) -> Vec<Result<R, StoreError>> {
    batch.iter().zip(answers).map(|(task, answer)| one((task, answer?))).collect()
}

/// Arguments in one buffer, so that a batch of some thousand costs a few allocations.
#[derive(Default)]
pub(super) struct Args {
    buffer: BytesMut,
    ends: Vec<usize>,
}

impl Args {
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.buffer.extend_from_slice(text.as_bytes());
        self.end()
    }

    /// Absent is empty: nothing that is sent this way is ever empty itself.
    pub(super) fn optional(&mut self, text: Option<&str>) -> &mut Self {
        self.text(text.unwrap_or_default())
    }

    pub(super) fn number(&mut self, number: impl std::fmt::Display) -> &mut Self {
        write!(self.buffer, "{number}").expect("the buffer grows");
        self.end()
    }

    pub(super) fn key(&mut self, prefix: &str, id: &TaskId) -> &mut Self {
        self.buffer.extend_from_slice(prefix.as_bytes());
        self.buffer.extend_from_slice(id.as_str().as_bytes());
        self.text("}")
    }

    /// `partition:epoch`, with blanks between them, the lowest partition first.
    pub(super) fn partitions(&mut self, partitions: &Partitions) -> &mut Self {
        for (at, (partition, epoch)) in partitions.iter().enumerate() {
            let blank = if at == 0 { "" } else { " " };
            write!(self.buffer, "{blank}{partition}:{epoch}").expect("the buffer grows");
        }
        self.end()
    }

    /// What a script needs to make a lost hash again, if the lease allows it.
    pub(super) fn remake(&mut self, lease: &Lease) -> &mut Self {
        if lease.held.recent {
            let ask = &lease.ask;
            write!(self.buffer, "{} {} {} {} {}", ask.seq, ask.attempt, ask.nonce, ask.queue, ask.task)
                .expect("the buffer grows");
        }
        self.end()
    }

    fn append(&mut self, other: &Self) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&other.buffer);
        self.ends.extend(other.ends.iter().map(|end| start + end));
    }

    fn end(&mut self) -> &mut Self {
        self.ends.push(self.buffer.len());
        self
    }

    /// What is sent after the name of the command.
    pub(super) fn values(&self, script: Bytes, keys: usize) -> Vec<Value> {
        let buffer = Bytes::copy_from_slice(&self.buffer);
        let mut values = Vec::with_capacity(self.ends.len() + 2);
        values.push(Value::Bytes(script));
        values.push(Value::Integer(i64::try_from(keys).expect("a batch is small")));
        let mut start = 0;
        for &end in &self.ends {
            values.push(Value::Bytes(buffer.slice(start..end)));
            start = end;
        }
        values
    }
}
