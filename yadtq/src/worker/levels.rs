//! The priorities of the worker's queues: a source each, of which the high and the low one are joined once there is a
//! topic for them.
//!
//! A queue that never sees a high or low task costs one consumer, not three. Whoever sends the first one creates the
//! topic, and workers, who look for it every second, join its group then.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{claims::Claims, control::Control, job::Lane, source::Source, step::Step};
use crate::{
    broker::{Broker, BrokerError},
    core::{
        names::{Namespace, Queue},
        priority::{Levels, Priority},
    },
};

/// How often missing topics are looked for: the first high or low task of a queue waits for as long.
const LOOK: Duration = Duration::from_secs(1);
/// Sources per queue.
const EACH: usize = Priority::ALL.len();

/// What a source of the worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rank {
    /// Which queue of the worker.
    pub(super) queue: usize,
    pub(super) priority: Priority,
}

impl Rank {
    pub(super) const fn of(source: usize) -> Self {
        Self { queue: source / EACH, priority: Priority::ALL[source % EACH] }
    }

    /// Which source of the worker.
    pub(super) const fn source(self) -> usize {
        self.queue * EACH + self.priority as usize
    }
}

/// Which of these topics are there, or why that is not known.
pub(super) struct Looked {
    /// The sources they belong to.
    missing: Vec<usize>,
    found: Result<Vec<bool>, BrokerError>,
}

/// The sources of all queues; those of normal priority have joined.
pub(super) fn sources(
    broker: &dyn Broker, namespace: &Namespace, queues: &[Queue],
) -> Result<Vec<Source>, BrokerError> {
    let levels = |queue| Priority::ALL.map(|priority| Source::new(namespace, queue, priority));
    let mut sources: Vec<Source> = queues.iter().flat_map(levels).collect();
    sources.iter_mut().filter(|source| source.priority.is_normal()).try_for_each(|source| source.join(broker))?;
    Ok(sources)
}

/// The sources of a queue, the highest priority first.
pub(super) fn of(sources: &[Source], queue: usize) -> Levels<&Source> {
    Priority::ALL.map(|priority| &sources[Rank { queue, priority }.source()])
}

/// Which levels of a queue have tasks that are about to be granted: asked for, or about to be.
pub(super) fn coming(sources: &[Source], claims: &Claims, queue: usize, lane: Lane) -> Levels<bool> {
    Priority::ALL.map(|priority| {
        let index = Rank { queue, priority }.source();
        sources[index].is_ready(lane) || claims.has_asked(index, lane)
    })
}

impl Control {
    /// Looks for the topics of sources that have not joined, after a while.
    pub(super) fn look_for_topics(&mut self, after: Duration) {
        let is_missing = |(_, source): &(usize, &Source)| source.subscription().is_none();
        let (missing, topics): (Vec<_>, Vec<_>) = self
            .sources
            .iter()
            .enumerate()
            .filter(is_missing)
            .map(|(index, source)| (index, Arc::clone(&source.topic)))
            .unzip();
        if missing.is_empty() {
            return;
        }
        let broker = Arc::clone(&self.broker);
        self.calls.push(Box::pin(async move {
            sleep(after).await;
            let found = broker.exist(&topics).await;
            Step::Looked(Looked { missing, found })
        }));
    }

    pub(super) fn looked(&mut self, Looked { missing, found }: Looked) {
        if self.draining {
            return;
        }
        match found {
            Ok(found) => {
                for (index, _) in missing.into_iter().zip(found).filter(|(_, found)| *found) {
                    self.join(index);
                }
            }
            Err(error) => debug!(event = "topics_not_looked_for", worker = %self.id, %error, "trying again"),
        }
        self.look_for_topics(LOOK);
    }

    fn join(&mut self, index: usize) {
        let source = &mut self.sources[index];
        match source.join(&*self.broker) {
            Ok(()) => info!(event = "priority_joined", worker = %self.id, queue = %source.queue,
                priority = %source.priority, topic = %source.topic, "the queue has tasks of this priority"),
            Err(error) => {
                warn!(event = "topic_unavailable", topic = %source.topic, %error, "will try again in {LOOK:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_rank() {
        let ranks: Vec<_> = (0..6).map(Rank::of).collect();
        assert!(ranks.iter().enumerate().all(|(index, rank)| rank.source() == index));
        assert_eq!((ranks[4].queue, ranks[4].priority), (1, Priority::Normal));
    }
}
