//! Whether topics survive the loss of a broker: how many brokers have their records, and how many must have one before it
//! counts as written.

use rdkafka::{admin::ConfigResource, metadata::MetadataTopic};

/// Number of topics that a warning names.
const NAMED_TOPICS: usize = 3;

/// How many brokers have the records of a topic.
#[derive(Clone, Debug)]
pub(super) struct Replicas {
    pub(super) topic: String,
    /// Of the partition that has the fewest.
    pub(super) fewest: usize,
    /// `min.insync.replicas`, if Kafka says.
    pub(super) min_in_sync: Option<usize>,
}

impl Replicas {
    pub(super) fn of(topic: &MetadataTopic) -> Self {
        let fewest = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
        Self { topic: topic.name().to_owned(), fewest: fewest.unwrap_or_default(), min_in_sync: None }
    }

    /// Reads the settings of the topic.
    pub(super) fn set(&mut self, settings: &ConfigResource) {
        let value = settings.get("min.insync.replicas").and_then(|setting| setting.value.as_deref());
        self.min_in_sync = value.and_then(|value| value.parse().ok());
    }
}

/// What can be lost with one of this many brokers, and what to do about it.
pub(super) fn warnings(topics: &[Replicas], brokers: usize, server: &str) -> Vec<String> {
    // There is nothing to choose with one broker.
    if brokers < 2 {
        return Vec::new();
    }
    let single: Vec<_> = topics.iter().filter(|topic| topic.fewest == 1).map(|topic| topic.topic.as_str()).collect();
    let unconfirmed = |topic: &&Replicas| topic.fewest > 1 && topic.min_in_sync == Some(1);
    let unconfirmed: Vec<_> = topics.iter().filter(unconfirmed).map(|topic| topic.topic.as_str()).collect();
    let single = single.first().map(|_| {
        format!(
            "one of the {brokers} brokers alone has all records of a partition of {}: while it is away these tasks do not \
             run, and they are lost with its disk. Add replicas with kafka-reassign-partitions.sh --bootstrap-server \
             {server}. For topics that are made later, set default.replication.factor of the brokers, or \
             ClientBuilder::replication",
            list(&single)
        )
    });
    let unconfirmed = unconfirmed.first().map(|first| {
        format!(
            "min.insync.replicas is 1 for {}: a task counts as sent when one broker has it, and is lost with that one. Fix \
             it for each with: kafka-configs.sh --bootstrap-server {server} --alter --entity-type topics --entity-name \
             {first} --add-config min.insync.replicas=2. For topics that are made later, set it on the brokers, or \
             ClientBuilder::replication",
            list(&unconfirmed)
        )
    });
    single.into_iter().chain(unconfirmed).collect()
}

/// Names topics, or some of many.
fn list(topics: &[&str]) -> String {
    let named = topics[..topics.len().min(NAMED_TOPICS)].join(", ");
    match topics.len().saturating_sub(NAMED_TOPICS) {
        0 => format!("topic {named}"),
        more => format!("topic {named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_are_lost_with_a_broker_are_named() {
        let topic = |n: usize, fewest, min_in_sync| Replicas { topic: format!("t{n}"), fewest, min_in_sync };
        let says = |topics: &[Replicas], brokers| warnings(topics, brokers, "kafka:9092");
        assert_eq!(says(&[topic(1, 1, Some(1))], 1), Vec::<String>::new(), "one broker has no choice");
        assert_eq!(says(&[topic(1, 3, Some(2)), topic(2, 2, None)], 3), Vec::<String>::new());
        let single: Vec<_> = (1..=5).map(|n| topic(n, 1, Some(1))).collect();
        let [warning] = &says(&single, 3)[..] else { panic!("one for all") };
        assert!(
            warning.contains("one of the 3 brokers alone") && warning.contains("t1, t2, t3 and 2 more"),
            "{warning}"
        );
        let [warning] = &says(&[topic(1, 3, Some(2)), topic(2, 3, Some(1))], 3)[..] else { panic!("one") };
        assert!(warning.contains("topic t2:") && warning.contains("--entity-name t2 --add-config"), "{warning}");
    }
}
