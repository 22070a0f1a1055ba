//! A dead letter as an operator sees it: the original record, and why it could not be run.

use std::{fmt, str::FromStr, time::SystemTime};

use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeSeq as _};

use super::times;
use crate::{
    broker::Incoming,
    core::names::{Namespace, TaskId},
    wire::{
        Headers,
        dead::header,
        envelope::{self, Envelope},
    },
};

/// The place of a dead letter, `partition/offset` in the topic of dead letters. It never changes.
///
/// ```
/// use yadtq::admin::Place;
///
/// let place: Place = "3/1042".parse()?;
/// assert_eq!((place.partition, place.offset), (3, 1042));
/// assert_eq!(place.to_string(), "3/1042");
/// # Ok::<(), yadtq::admin::BadPlace>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
}

/// The text is not a [`Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a place is written partition/offset, such as 3/1042")]
pub struct BadPlace;

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

impl FromStr for Place {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let (partition, offset) = text.split_once('/').ok_or(BadPlace)?;
        Ok(Self { partition: number(partition).ok_or(BadPlace)?, offset: number(offset).ok_or(BadPlace)? })
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Parses a number that has digits only, without a sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A record that could not be run, or whose task failed for good. See [`Admin::dead_letters`](crate::admin::Admin::dead_letters).
///
/// In its JSON, the value and the values of headers are strings, or arrays of bytes if they are not UTF-8, and the time is in ms since
/// the Unix epoch.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DeadLetter {
    /// The letter's place in the topic of dead letters.
    pub place: Place,
    /// The task's id; `None` if the record cannot be read as a task.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "id")]
    pub id: Option<TaskId>,
    /// The task's name; `None` if the record cannot be read as a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The queue from which the record came, or to which it was to go when it was due, if it is a queue of this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Why the record became a dead letter: `retries`, `fatal`, `arguments`, `unknown-task`, `deliveries`, `disabled`,
    /// `unpublishable`, `unreadable`, or a reason of a later version.
    pub reason: String,
    /// The text of the error.
    pub error: String,
    /// Number of attempts that were made.
    pub attempts: u32,
    /// Number of workers that died while they ran the task.
    pub deliveries: u32,
    /// When the record became a dead letter, if Kafka has the time.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "times::write_some")]
    pub at: Option<SystemTime>,
    /// The topic from which the record came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_topic: Option<String>,
    /// The partition and offset that the record had in that topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Place>,
    /// The original size of the value in bytes, if the value was too large and was cut. Then the letter cannot be replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_from: Option<u64>,
    /// The topic to which the task goes if it is replayed.
    #[serde(skip)]
    queue_topic: Option<String>,
    #[serde(serialize_with = "text_or_bytes")]
    value: Bytes,
    #[serde(serialize_with = "pairs")]
    headers: Headers,
}

impl DeadLetter {
    pub(super) fn read(record: Incoming, namespace: &Namespace) -> Self {
        let (of_ours, headers): (Headers, Headers) =
            record.headers.into_iter().partition(|(name, _)| header::ALL.contains(&name.as_str()));
        let ours = |name: &str| {
            let value = of_ours.iter().find(|(other, _)| other == name)?;
            Some(String::from_utf8_lossy(&value.1).into_owned())
        };
        let envelope = Envelope::read(&record.value).ok();
        let source_topic = ours(header::TOPIC);
        // The record of a delayed task says to which queue it was to go.
        let queue_topic = match &source_topic {
            Some(topic) if *topic == namespace.delayed_topic() => {
                let due = envelope::due(&record.value).ok();
                due.map(|due| namespace.topic_of(&due.queue, due.priority))
            }
            topic => topic.clone(),
        };
        Self {
            place: Place { partition: record.partition, offset: record.offset },
            id: envelope.as_ref().map(|envelope| envelope.id.clone()),
            task: envelope.map(|envelope| envelope.task.to_string()),
            queue: queue_topic.as_deref().and_then(|topic| queue(namespace, topic)),
            reason: ours(header::REASON).unwrap_or_default(),
            error: ours(header::ERROR).unwrap_or_default(),
            attempts: ours(header::ATTEMPTS).and_then(|text| number(&text)).unwrap_or(0),
            deliveries: ours(header::DELIVERIES).and_then(|text| number(&text)).unwrap_or(0),
            at: record.timestamp_ms.map(times::at),
            queue_topic,
            source_topic,
            source: ours(header::PARTITION).zip(ours(header::OFFSET)).and_then(|(partition, offset)| {
                Some(Place { partition: number(&partition)?, offset: number(&offset)? })
            }),
            cut_from: ours(header::CUT).and_then(|text| number(&text)),
            value: record.value,
            headers,
        }
    }

    /// The original record's value, byte for byte. If [`cut_from`](Self::cut_from) is set, it is only the beginning.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The original record's headers, in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    pub(super) fn queue_topic(&self) -> Option<&str> {
        self.queue_topic.as_deref()
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.value
    }

    pub(super) fn own_headers(&self) -> &Headers {
        &self.headers
    }

    /// The memory that the letter takes, in bytes.
    pub(super) fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.value.len() + headers + self.error.len()
    }
}

/// The queue of a topic. A queue has one topic for each priority.
fn queue(namespace: &Namespace, topic: &str) -> Option<String> {
    let name = topic.strip_prefix(namespace.as_str())?.strip_prefix('.')?;
    Some(name.split('.').next().unwrap_or(name).to_owned())
}

fn id<S: Serializer>(id: &Option<TaskId>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(id.as_ref().map_or("", TaskId::as_str))
}

fn text_or_bytes<S: Serializer>(value: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(value) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => serializer.collect_seq(value.iter()),
    }
}

fn pairs<S: Serializer>(headers: &Headers, serializer: S) -> Result<S::Ok, S::Error> {
    struct Value<'a>(&'a Bytes);

    impl Serialize for Value<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            text_or_bytes(self.0, serializer)
        }
    }

    let mut pairs = serializer.serialize_seq(Some(headers.len()))?;
    for (name, value) in headers {
        pairs.serialize_element(&(name, Value(value)))?;
    }
    pairs.end()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn letter(value: &'static [u8], headers: &[(&str, &'static [u8])]) -> DeadLetter {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), Bytes::from_static(value))).collect();
        let record =
            Incoming { partition: 3, offset: 7, timestamp_ms: Some(9), key: None, value: value.into(), headers };
        DeadLetter::read(record, &Namespace::default())
    }

    #[test]
    fn added_headers_are_read_and_the_others_kept() {
        let headers: [(&str, &[u8]); 7] = [
            ("yadtq-reason", b"a later one"),
            ("yadtq-attempts", b"4"),
            ("yadtq-source-topic", b"yadtq.mail.high"),
            ("yadtq-source-partition", b"2"),
            ("yadtq-source-offset", b"12"),
            ("traceparent", b"00-1"),
            ("raw", &[255, 0]),
        ];
        let letter = letter(br#"{"task-id":"x","task":"add","args":[1]}"#, &headers);
        let expected = json!({
            "place": "3/7", "id": "x", "task": "add", "queue": "mail", "reason": "a later one", "error": "",
            "attempts": 4, "deliveries": 0, "at": 9, "source-topic": "yadtq.mail.high", "source": "2/12",
            "value": "{\"task-id\":\"x\",\"task\":\"add\",\"args\":[1]}",
            "headers": [["traceparent", "00-1"], ["raw", [255, 0]]],
        });
        assert_eq!(serde_json::to_value(&letter).unwrap(), expected);
    }

    #[test]
    fn any_record_can_be_shown() {
        let letter = letter(&[0, 159], &[("yadtq-attempts", b"-1"), ("yadtq-source-topic", b"elsewhere")]);
        let expected = json!({
            "place": "3/7", "reason": "", "error": "", "attempts": 0, "deliveries": 0, "at": 9,
            "source-topic": "elsewhere", "value": [0, 159], "headers": [],
        });
        assert_eq!(serde_json::to_value(&letter).unwrap(), expected);
    }

    #[test]
    fn places_are_digits_only() {
        for text in ["", "/", "3", "3/", "/3", "+3/1", "3/-1", "3/1/2", "3 /1", "99999999999/1"] {
            assert_eq!(text.parse::<Place>(), Err(BadPlace), "{text}");
        }
    }
}
