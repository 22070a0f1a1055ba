//! How a script is sent: by its hash, with its text where the server does not know it (yet, or any more).

use std::{fmt::Write, sync::OnceLock};

use bytes::{Bytes, BytesMut};
use fred::{
    clients::Client,
    interfaces::{ClientLike, FredResult, LuaInterface},
    types::{ClusterHash, CustomCommand, Value},
};
use futures_util::future::join_all;

use crate::{core::names::TaskId, store::Lease};

/// A Lua script.
pub(super) struct Script {
    /// What comes before the text, where scripts share it.
    prelude: &'static str,
    text: &'static str,
    /// As the first server that was asked told it.
    hash: OnceLock<Bytes>,
}

impl Script {
    pub(super) const fn new(text: &'static str) -> Self {
        Self::after("", text)
    }

    /// A script that uses what the prelude defines.
    pub(super) const fn after(prelude: &'static str, text: &'static str) -> Self {
        Self { prelude, text, hash: OnceLock::new() }
    }

    /// All of it, as the server has to know it.
    fn whole(&self) -> String {
        [self.prelude, self.text].concat()
    }

    async fn hash(&self, client: &Client) -> FredResult<Bytes> {
        if let Some(hash) = self.hash.get() {
            return Ok(hash.clone());
        }
        let hash = client.script_load::<Bytes, _>(self.whole()).await?;
        Ok(self.hash.get_or_init(|| hash).clone())
    }
}

/// One call of a script: its keys, then its other arguments.
pub(super) struct Call {
    pub(super) args: Args,
    pub(super) keys: usize,
}

/// Sends calls, one behind the other without waiting; returns their answers in order.
pub(super) async fn send(client: &Client, script: &Script, calls: &[Call]) -> FredResult<Vec<Value>> {
    let hash = script.hash(client).await?;
    let one = async |call: &Call| {
        let answer = send_one(client, "EVALSHA", hash.clone(), call).await;
        match answer {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                send_one(client, "EVAL", script.whole().into(), call).await
            }
            answer => answer,
        }
    };
    match calls {
        [call] => Ok(vec![one(call).await?]),
        calls => join_all(calls.iter().map(one)).await.into_iter().collect(),
    }
}

async fn send_one(client: &Client, command: &'static str, script: Bytes, call: &Call) -> FredResult<Value> {
    // In a cluster the first key decides who is asked.
    let command = CustomCommand::new_static(command, ClusterHash::Offset(2), false);
    client.custom(command, call.args.values(script, call.keys)).await
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

    /// What a script needs to make a lost hash again, if the lease allows it.
    pub(super) fn remake(&mut self, lease: &Lease) -> &mut Self {
        if lease.held.recent {
            let ask = &lease.ask;
            write!(self.buffer, "{} {} {} {} {}", ask.seq, ask.attempt, ask.nonce, ask.queue, ask.task)
                .expect("the buffer grows");
        }
        self.end()
    }

    fn end(&mut self) -> &mut Self {
        self.ends.push(self.buffer.len());
        self
    }

    fn values(&self, script: Bytes, keys: usize) -> Vec<Value> {
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
