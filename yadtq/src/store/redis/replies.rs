//! The reply channel of a client: a connection of its own, because a subscribed one takes no other commands.
//!
//! Publishes can be lost: with a connection, in a burst, or because a result is too large for the channel. Each
//! of these is told as `Missed`, and the client asks.

use std::sync::Arc;

use async_trait::async_trait;
use fred::types::{Message, config::Config};

use super::connection::{Connection, Purpose};
use crate::{
    core::{
        lifecycle::{Progress, Status},
        names::TaskId,
    },
    store::{Notice, Replies, Reply, Report, mailbox::Mailbox},
};

/// The open reply channel of one client.
pub(super) struct RedisReplies {
    mailbox: Arc<Mailbox>,
    _connection: Connection,
}

impl RedisReplies {
    pub(super) fn open(config: &Config, channel: String) -> Self {
        Self::listen(config, channel, read_replies)
    }

    /// The channel on which a worker is told what to do.
    pub(super) fn control(config: &Config, channel: String) -> Self {
        Self::listen(config, channel, read_order)
    }

    fn listen(config: &Config, channel: String, read: Read) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let subscription = Subscription { channel, mailbox: Arc::clone(&mailbox), read };
        Self { mailbox, _connection: Connection::open(config, subscription) }
    }
}

/// Puts what a message says into the mailbox. `false` if it says nothing that this version can read.
type Read = fn(&[u8], &Mailbox) -> bool;

#[async_trait]
impl Replies for RedisReplies {
    async fn next(&mut self) -> Notice {
        self.mailbox.next().await
    }
}

struct Subscription {
    channel: String,
    mailbox: Arc<Mailbox>,
    read: Read,
}

impl Purpose for Subscription {
    const NAME: &'static str = "replies";
    /// Each message has the results of up to a whole call.
    const BACKLOG: usize = 1_024;

    fn channel(&self) -> Option<&str> {
        Some(&self.channel)
    }

    fn subscribed(&self) {
        self.mailbox.miss();
    }

    fn received(&self, message: Message) {
        if !(self.read)(message.value.as_bytes().unwrap_or_default(), &self.mailbox) {
            tracing::warn!(event = "reply_unreadable", channel = self.channel);
            self.mailbox.miss();
        }
    }

    fn lagged(&self) {
        self.mailbox.miss();
    }
}

/// A message of `complete.lua` or `progress.lua`: what it says of each task.
fn read_replies(mut rest: &[u8], mailbox: &Mailbox) -> bool {
    let mut replies = Vec::new();
    while !rest.is_empty() {
        match take_reply(&mut rest) {
            Some(Told::Reply(reply)) => replies.push(reply),
            Some(Told::TooLarge(id)) => mailbox.ended(id),
            Some(Told::Progress(report)) => mailbox.progress(report),
            None => {
                mailbox.push(replies);
                return false;
            }
        }
    }
    mailbox.push(replies);
    true
}

/// A message of `revoke.lua`: an id.
fn read_order(message: &[u8], mailbox: &Mailbox) -> bool {
    let id = std::str::from_utf8(message).ok().and_then(|id| id.parse().ok());
    id.map(|id| mailbox.revoke(id)).is_some()
}

/// What a message says of one task.
enum Told {
    Reply(Reply),
    /// Its result was too large to be sent.
    TooLarge(TaskId),
    Progress(Report),
}

/// Takes what is said of one task, as `complete.lua` and `progress.lua` pack it, from the front.
fn take_reply(rest: &mut &[u8]) -> Option<Told> {
    let letter = take(rest, 1)?[0];
    let status = match letter {
        b's' => Some(Status::Success),
        b'f' => Some(Status::Failure),
        b'r' => Some(Status::Revoked),
        b'm' | b'p' => None,
        _ => return None,
    };
    let id_len = take(rest, 1)?[0];
    let id: TaskId = std::str::from_utf8(take(rest, id_len.into())?).ok()?.parse().ok()?;
    let mut text = || {
        let len = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?);
        let bytes = take(rest, usize::try_from(len).ok()?)?;
        std::str::from_utf8(bytes).ok().map(|text| (!text.is_empty()).then(|| Arc::from(text)))
    };
    let (result, error) = (text()?, text()?);
    Some(match status {
        Some(status) => Told::Reply(Reply { id, status, result, error }),
        None if letter == b'p' => {
            let (token, number) = error.as_deref()?.split_once(' ')?;
            let progress = Progress { number: number.parse().ok()?, value: result? };
            Told::Progress(Report { id, token: token.parse().ok()?, progress })
        }
        None => Told::TooLarge(id),
    })
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}
