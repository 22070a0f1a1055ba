//! What workers send to each other: records that one offers to another, and what became of them.
//!
//! A message is a letter, and then fields: numbers as they are in memory (little endian), texts and bytes behind their lengths. Who
//! can't read one drops it, because the sender still has the records.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Headers;
use crate::core::names::WorkerId;

/// The most bytes of records in one message. A larger record is not offered.
pub(crate) const MAX_OFFER_BYTES: usize = 1_024 * 1_024;

/// Where the owner has read an offered record. Only the owner can make sense of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// The index of its source.
    pub source: u32,
    pub partition: i32,
    /// The assignment of the partition.
    pub epoch: u64,
    pub offset: i64,
}

/// A record that its owner has no slot for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfferedRecord {
    pub place: Place,
    pub topic: Arc<str>,
    pub timestamp_ms: Option<u64>,
    pub key: Option<Bytes>,
    pub value: Bytes,
    pub headers: Headers,
}

/// Records that are offered to a worker. Perhaps none: then the slots that it announced were taken in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Who holds the records.
    pub owner: WorkerId,
    pub records: Vec<OfferedRecord>,
}

/// Slots that are free again at a worker which has run a record of the receiver, and has nothing else for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FreeAgain {
    /// Who has the slots. It waits a moment for an offer before it announces them to all.
    pub worker: WorkerId,
    pub queue: Arc<str>,
    /// What ran there.
    pub task: Arc<str>,
    pub count: u32,
}

/// A message from one worker to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WorkerMessage {
    Offer(Offer),
    /// The sender does not run these records of the receiver.
    Declined(Vec<Place>),
    /// The sender has no slot for these records of the receiver any more.
    NoSlot(Vec<Place>),
    /// These records of the receiver have ended or were published anew, acknowledged by Kafka.
    Completed(Vec<Place>),
    FreeAgain(FreeAgain),
}

impl WorkerMessage {
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        match self {
            Self::Offer(Offer { owner, records }) => {
                to.put_u8(b'f');
                put(&mut to, owner.as_bytes());
                for record in records {
                    put_place(&mut to, record.place);
                    put(&mut to, record.topic.as_bytes());
                    to.put_u64_le(record.timestamp_ms.unwrap_or(u64::MAX));
                    to.put_u8(u8::from(record.key.is_some()));
                    put(&mut to, record.key.as_deref().unwrap_or_default());
                    put(&mut to, &record.value);
                    put_len(&mut to, record.headers.len());
                    for (name, value) in &record.headers {
                        put(&mut to, name.as_bytes());
                        put(&mut to, value);
                    }
                }
            }
            Self::Declined(places) => put_places(&mut to, b'd', places),
            Self::NoSlot(places) => put_places(&mut to, b'n', places),
            Self::Completed(places) => put_places(&mut to, b'c', places),
            Self::FreeAgain(FreeAgain { worker, queue, task, count }) => {
                to.put_u8(b's');
                [worker, queue, task].into_iter().for_each(|text| put(&mut to, text.as_bytes()));
                to.put_u32_le(*count);
            }
        }
        to.freeze()
    }

    /// `None`: it can't be read.
    pub(crate) fn decode(mut from: Bytes) -> Option<Self> {
        let letter = from.try_get_u8().ok()?;
        let mut places = Vec::new();
        match letter {
            b'f' => return offer(from).map(Self::Offer),
            b's' => return free_again(from).map(Self::FreeAgain),
            b'd' | b'n' | b'c' => {
                while from.has_remaining() {
                    places.push(place(&mut from)?);
                }
            }
            _ => return None,
        }
        Some(match letter {
            b'd' => Self::Declined(places),
            b'n' => Self::NoSlot(places),
            _ => Self::Completed(places),
        })
    }
}

impl OfferedRecord {
    /// The size of key, value and headers together, in bytes.
    pub(crate) fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.value.len() + headers
    }
}

fn offer(mut from: Bytes) -> Option<Offer> {
    let (owner, mut records) = (text(&mut from)?.into(), Vec::new());
    while from.has_remaining() {
        let (place, topic) = (place(&mut from)?, text(&mut from)?.into());
        let timestamp_ms = Some(from.try_get_u64_le().ok()?).filter(|&ms| ms != u64::MAX);
        let has_key = from.try_get_u8().ok()? == 1;
        let key = take(&mut from).map(|key| has_key.then_some(key))?;
        let value = take(&mut from)?;
        let mut headers = Headers::new();
        for _ in 0..from.try_get_u32_le().ok()? {
            headers.push((text(&mut from)?, take(&mut from)?));
        }
        records.push(OfferedRecord { place, topic, timestamp_ms, key, value, headers });
    }
    Some(Offer { owner, records })
}

fn free_again(mut from: Bytes) -> Option<FreeAgain> {
    let [worker, queue, task] = [text(&mut from)?, text(&mut from)?, text(&mut from)?].map(Arc::from);
    Some(FreeAgain { worker, queue, task, count: from.try_get_u32_le().ok()? })
}

fn put_places(to: &mut BytesMut, letter: u8, places: &[Place]) {
    to.put_u8(letter);
    places.iter().for_each(|&place| put_place(to, place));
}

fn put_place(to: &mut BytesMut, Place { source, partition, epoch, offset }: Place) {
    to.put_u32_le(source);
    to.put_i32_le(partition);
    to.put_u64_le(epoch);
    to.put_i64_le(offset);
}

fn place(from: &mut Bytes) -> Option<Place> {
    Some(Place {
        source: from.try_get_u32_le().ok()?,
        partition: from.try_get_i32_le().ok()?,
        epoch: from.try_get_u64_le().ok()?,
        offset: from.try_get_i64_le().ok()?,
    })
}

fn put(to: &mut BytesMut, bytes: &[u8]) {
    put_len(to, bytes.len());
    to.put_slice(bytes);
}

fn put_len(to: &mut BytesMut, len: usize) {
    to.put_u32_le(u32::try_from(len).expect("a record is smaller than 4 GB"));
}

fn take(from: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(from.try_get_u32_le().ok()?).ok()?;
    (len <= from.len()).then(|| from.split_to(len))
}

fn text(from: &mut Bytes) -> Option<String> {
    String::from_utf8(take(from)?.into()).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn places() -> impl Strategy<Value = Place> {
        (any::<u32>(), any::<i32>(), any::<u64>(), any::<i64>()).prop_map(|(source, partition, epoch, offset)| Place {
            source,
            partition,
            epoch,
            offset,
        })
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..20).prop_map(Bytes::from)
    }

    fn records() -> impl Strategy<Value = OfferedRecord> {
        let record =
            (places(), ".{0,9}", option::of(0..u64::MAX), option::of(bytes()), bytes(), vec((".{0,9}", bytes()), 0..3));
        record.prop_map(|(place, topic, timestamp_ms, key, value, headers)| OfferedRecord {
            place,
            topic: topic.into(),
            timestamp_ms,
            key,
            value,
            headers,
        })
    }

    fn messages() -> impl Strategy<Value = WorkerMessage> {
        prop_oneof![
            ("[a-z0-9-]{0,9}", vec(records(), 0..4))
                .prop_map(|(owner, records)| WorkerMessage::Offer(Offer { owner: owner.into(), records })),
            vec(places(), 0..4).prop_map(WorkerMessage::Declined),
            vec(places(), 0..4).prop_map(WorkerMessage::NoSlot),
            vec(places(), 0..4).prop_map(WorkerMessage::Completed),
            ("[a-z]{0,9}", "[a-z]{0,9}", ".{0,9}", any::<u32>()).prop_map(|(worker, queue, task, count)| {
                let [worker, queue, task] = [worker, queue, task].map(Arc::from);
                WorkerMessage::FreeAgain(FreeAgain { worker, queue, task, count })
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_is_read(message in messages()) {
            prop_assert_eq!(WorkerMessage::decode(message.encode()), Some(message));
        }

        #[test]
        fn whatever_comes_is_read_or_dropped(bytes in bytes(), message in messages(), cut in any::<prop::sample::Index>()) {
            let _ = WorkerMessage::decode(bytes);
            let encoded = message.encode();
            let _ = WorkerMessage::decode(encoded.slice(..cut.index(encoded.len())));
        }
    }

    /// Workers of different versions send them to each other.
    #[test]
    fn released_bytes_keep_their_meaning() {
        let place = Place { source: 1, partition: 2, epoch: 3, offset: 4 };
        let numbers = b"\x01\0\0\0\x02\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0";
        for (letter, message) in [
            (b"d", WorkerMessage::Declined(vec![place])),
            (b"n", WorkerMessage::NoSlot(vec![place])),
            (b"c", WorkerMessage::Completed(vec![place])),
        ] {
            assert_eq!(WorkerMessage::decode([letter, &numbers[..]].concat().into()), Some(message));
        }
        let free = FreeAgain { worker: "w".into(), queue: "q".into(), task: "t".into(), count: 2 };
        let bytes = Bytes::from_static(b"s\x01\0\0\0w\x01\0\0\0q\x01\0\0\0t\x02\0\0\0");
        assert_eq!(WorkerMessage::decode(bytes), Some(WorkerMessage::FreeAgain(free)));
        let rest = b"\x01\0\0\0t\x07\0\0\0\0\0\0\0\x01\x01\0\0\0k\x02\0\0\0{}\x01\0\0\0\x01\0\0\0h\x01\0\0\0v";
        let offer = [b"f\x01\0\0\0w", &numbers[..], rest].concat();
        let record = OfferedRecord {
            place,
            topic: "t".into(),
            timestamp_ms: Some(7),
            key: Some("k".into()),
            value: "{}".into(),
            headers: vec![("h".to_owned(), "v".into())],
        };
        let message = WorkerMessage::Offer(Offer { owner: "w".into(), records: vec![record] });
        assert_eq!(message.encode(), offer);
        assert_eq!(WorkerMessage::decode(offer.into()), Some(message));
    }
}
