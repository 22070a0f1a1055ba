//! Records that are no tasks, from producers that know no better. Each becomes a dead letter, and holds up nobody.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use yadtq::TaskId;

use super::load::RETRY_DELAY;

const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// A record's topic, partition and offset.
pub(crate) type Source = (String, i32, i64);

/// Sends such records to the queue and among the delayed tasks.
pub(crate) struct Hostile {
    producer: FutureProducer,
    topics: [String; 2],
    sent: Mutex<Vec<Source>>,
}

impl Hostile {
    pub(crate) fn new(kafka: &str, namespace: &str) -> Self {
        let mut config = ClientConfig::new();
        let producer = config.set("bootstrap.servers", kafka).create().expect("a producer");
        Self {
            producer,
            topics: ["default", "delayed"].map(|name| format!("{namespace}.{name}")),
            sent: Mutex::default(),
        }
    }

    /// Sends one of each kind to each topic.
    pub(crate) async fn burst(self: Arc<Self>) {
        for topic in &self.topics {
            for record in records() {
                let source = self.send(topic, &record).await;
                self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(source);
            }
        }
    }

    async fn send(&self, topic: &str, record: &[u8]) -> Source {
        loop {
            // In a compacted topic an equal key would replace the one before.
            let key = format!("hostile/{}", TaskId::new());
            match self.producer.send(FutureRecord::to(topic).key(&key).payload(record), SEND_TIMEOUT).await {
                Ok(sent) => return (topic.to_owned(), sent.partition, sent.offset),
                Err(_) => tokio::time::sleep(RETRY_DELAY).await,
            }
        }
    }

    /// What is missing among the sources of all dead letters.
    pub(crate) fn violations(&self, letters: &HashSet<Source>) -> Vec<String> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        println!("{} hostile records", sent.len());
        let missing = sent.iter().filter(|source| !letters.contains(source));
        missing.map(|source| format!("no dead letter of the hostile record at {source:?}")).collect()
    }
}

fn records() -> Vec<Vec<u8>> {
    let id = TaskId::new();
    let large = format!(r#"{{"task-id":"{id}","task":"soak_sum","args":[1,2],"seq":"{}"}}"#, "\u{7f}".repeat(200_000));
    let no_room = format!(r#"{{"task-id":"{id}","task":"soak_sum","args":[1,2],"seq":{}}}"#, 1_u64 << 52);
    vec![
        b"\xff\xfe\x00 no text".to_vec(),
        br#"["a","task","of",16,"elements",1,2,3,4,5,6,7,8,9,10,11]"#.to_vec(),
        br#"{"task-id":"","task":"soak_sum","args":[1,2]}"#.to_vec(),
        large.into_bytes(),
        no_room.into_bytes(),
    ]
}
