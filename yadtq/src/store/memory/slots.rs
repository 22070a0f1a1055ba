//! Free slots in memory.

use std::sync::{Arc, Weak};

use async_trait::async_trait;

use super::{MemoryStore, control};
use crate::{
    core::names::WorkerId,
    store::{Answers, FreeSlots, Slots, StoreError, WantedSlots},
    wire::offer::WorkerMessage,
};

#[async_trait]
impl Slots for MemoryStore {
    async fn announce(&self, by: &WorkerId, slots: &[FreeSlots]) -> Result<(), StoreError> {
        let (mut inner, now_us) = self.lock();
        for FreeSlots { queue, tasks, count } in slots {
            let idle = inner.idle.entry(Arc::clone(queue)).or_default();
            for woken in idle.announce(by, tasks, *count, now_us / 1_000) {
                inner.with_mailbox(&control(&woken), |mailbox| mailbox.slots_free());
            }
        }
        Ok(())
    }

    async fn take_slots(&self, by: &WorkerId, wanted: &[WantedSlots]) -> Answers<Vec<(WorkerId, usize)>> {
        let (mut inner, now_us) = self.lock();
        let take = |WantedSlots { queue, task, count }: &WantedSlots| {
            Ok(inner.idle.entry(Arc::clone(queue)).or_default().take(by, task, *count, now_us / 1_000))
        };
        Ok(wanted.iter().map(take).collect())
    }

    async fn send(&self, messages: &[(WorkerId, WorkerMessage)]) -> Answers<bool> {
        let (inner, _) = self.lock();
        let send = |(to, message): &(WorkerId, WorkerMessage)| {
            let mailbox = inner.mailboxes.get(&control(to)).and_then(Weak::upgrade);
            Ok(mailbox.map(|mailbox| mailbox.message(message.clone())).is_some())
        };
        Ok(messages.iter().map(send).collect())
    }
}
