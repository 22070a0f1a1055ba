//! The channels of clients and workers: each on a connection of its own, because a subscribed one takes no other
//! commands.
//!
//! Publishes can be lost: with a connection, in a burst, or because a result is too large for the channel. For each
//! of these the reader gets `Missed`, and asks the store. A user that may not subscribe gets it every second.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::Message;

use super::{
    RedisStore,
    connection::Purpose,
    connections::Listening,
    rights::{self, Rights},
};
use crate::{
    core::{
        lifecycle::{Progress, Status},
        names::{ClientId, TaskId, WorkerId},
    },
    store::{Channels, Notice, NoticeReceiver, Reply, Report, StoreError, mailbox::Mailbox},
    wire::offer::WorkerMessage,
};

#[async_trait]
impl Channels for RedisStore {
    async fn control(&self, worker: &WorkerId) -> Result<Box<dyn NoticeReceiver>, StoreError> {
        let rights = Some(Arc::clone(&self.rights));
        Ok(Box::new(self.open(self.keys.control(worker), &self.keys.workers(), read_control, rights)))
    }

    async fn replies(&self, client: &ClientId) -> Result<Box<dyn NoticeReceiver>, StoreError> {
        let channel = self.keys.reply(client);
        Ok(Box::new(self.open(channel.clone(), &channel, read_replies, None)))
    }
}

/// One open channel.
struct RedisNoticeReceiver {
    mailbox: Arc<Mailbox>,
    _listening: Listening,
}

impl RedisStore {
    /// `home`: the key at whose server the channel is subscribed to, if it is there.
    fn open(&self, channel: String, home: &str, read: Read, rights: Option<Arc<Rights>>) -> RedisNoticeReceiver {
        let mailbox = Arc::new(Mailbox::default());
        let is_denied = AtomicBool::new(false);
        let subscription = Subscription { channel, mailbox: Arc::clone(&mailbox), read, rights, is_denied };
        RedisNoticeReceiver { mailbox, _listening: self.connections.listen(&self.config, home, subscription) }
    }
}

/// Puts what a message says into the mailbox. `false` if it says nothing that this version can read.
type Read = fn(&[u8], &Mailbox) -> bool;

#[async_trait]
impl NoticeReceiver for RedisNoticeReceiver {
    async fn next(&mut self) -> Notice {
        self.mailbox.next().await
    }
}

struct Subscription {
    channel: String,
    mailbox: Arc<Mailbox>,
    read: Read,
    /// Where to note whether the subscription is allowed.
    rights: Option<Arc<Rights>>,
    is_denied: AtomicBool,
}

impl Subscription {
    /// Returns whether it was denied before.
    fn note(&self, is_denied: bool) -> bool {
        if let Some(rights) = &self.rights {
            rights.set_may_subscribe(!is_denied);
        }
        self.is_denied.swap(is_denied, Ordering::Relaxed)
    }
}

impl Purpose for Subscription {
    const NAME: &'static str = "replies";
    /// Messages. Each has the results of up to a whole call.
    const BACKLOG: usize = 1_024;

    fn channel(&self) -> Option<&str> {
        Some(&self.channel)
    }

    fn subscribed(&self) {
        self.note(false);
        self.mailbox.miss();
    }

    fn denied(&self, error: &str) {
        if !self.note(true) {
            rights::log_denied(&self.channel, error);
        }
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

/// A message of `finish.lua` or `progress.lua`: what it says of each task.
pub(super) fn read_replies(mut rest: &[u8], mailbox: &Mailbox) -> bool {
    let mut replies = Vec::new();
    while !rest.is_empty() {
        match take_reply(&mut rest) {
            Some(News::Reply(reply)) => replies.push(reply),
            Some(News::TooLarge(id)) => mailbox.ended(id),
            Some(News::Progress(report)) => mailbox.progress(report),
            None => {
                mailbox.push(replies);
                return false;
            }
        }
    }
    mailbox.push(replies);
    true
}

/// A message to a worker: `r` and an id, of `revoke.lua`, `o`, of `own.lua`, `s`, of `announce.lua`, or what another worker sends.
pub(super) fn read_control(message: &[u8], mailbox: &Mailbox) -> bool {
    match message.split_first() {
        Some((b'r', id)) => {
            let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
            id.map(|id| mailbox.revoke(id)).is_some()
        }
        Some((b'o', [])) => {
            mailbox.own_again();
            true
        }
        Some((b's', [])) => {
            mailbox.slots_free();
            true
        }
        _ => {
            let message = WorkerMessage::decode(Bytes::copy_from_slice(message));
            message.map(|message| mailbox.message(message)).is_some()
        }
    }
}

/// What a message says of one task.
enum News {
    Reply(Reply),
    /// Its result was too large to be sent.
    TooLarge(TaskId),
    Progress(Report),
}

/// Takes what is said of one task, as `finish.lua` and `progress.lua` pack it, from the front.
fn take_reply(rest: &mut &[u8]) -> Option<News> {
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
    let (first, second) = (text()?, text()?);
    Some(match status {
        Some(status @ Status::Success) => News::Reply(Reply { id, task: None, status, result: first, error: second }),
        Some(status) => News::Reply(Reply { id, task: first, status, result: None, error: second }),
        None if letter == b'p' => {
            let (token, number) = second.as_deref()?.split_once(' ')?;
            let progress = Progress { number: number.parse().ok()?, value: first? };
            News::Progress(Report { id, token: token.parse().ok()?, progress })
        }
        None => News::TooLarge(id),
    })
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}
