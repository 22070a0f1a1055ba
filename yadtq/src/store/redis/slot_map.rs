//! Which master of a cluster has which slots, as one of its nodes says.

use fred::types::{Value, config::Server};

use super::codec;

/// Slots of a cluster.
const SLOTS: usize = 16_384;

/// The masters by their slots.
#[derive(Debug, Default)]
pub(super) struct SlotMap {
    /// First slot, last slot and master; the lowest first.
    ranges: Vec<(u16, u16, Server)>,
}

impl SlotMap {
    /// Reads the answer to `CLUSTER SLOTS` of a node at this host, which is the address of a master that has none of its own.
    /// `None`: it names no master, or cannot be read.
    pub(super) fn read(answer: Value, host: &str) -> Option<Self> {
        let range = |range: Value| {
            let mut parts = range.into_array().into_iter();
            let (first, last) = (slot(&parts.next()?)?, slot(&parts.next()?)?);
            // Replicas follow.
            let mut master = parts.next()?.into_array().into_iter();
            let (name, port) = (codec::text(&master.next()?), master.next()?);
            let name = if matches!(&*name, "" | "?") { host } else { &*name };
            Some((first, last, Server::new(name, slot(&port)?)))
        };
        let mut ranges: Vec<_> = answer.into_array().into_iter().map(range).collect::<Option<_>>()?;
        ranges.sort_unstable_by_key(|(first, ..)| *first);
        (!ranges.is_empty()).then_some(Self { ranges })
    }

    /// The master that has this slot.
    pub(super) fn find(&self, slot: u16) -> Option<&Server> {
        let at = self.ranges.partition_point(|(_, last, _)| *last < slot);
        self.ranges.get(at).filter(|(first, ..)| *first <= slot).map(|(.., server)| server)
    }

    /// All masters; those with several ranges come as often.
    pub(super) fn masters(&self) -> impl Iterator<Item = &Server> {
        self.ranges.iter().map(|(.., server)| server)
    }

    /// Whether every slot has a master.
    pub(super) fn is_complete(&self) -> bool {
        let slots = self.ranges.iter().map(|(first, last, _)| usize::from(last - first) + 1);
        slots.sum::<usize>() == SLOTS
    }
}

/// A slot or a port.
fn slot(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| number.try_into().ok())
}

/// Where a node sends a call that it does not answer itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// Another master has the slot.
    Moved(Server),
    /// The key has been moved there, and its slot is on the way.
    Ask(Server),
    /// Some of the keys have been moved, others not yet.
    Later,
}

impl Redirect {
    /// Reads the error of a node at this host. `None`: it is another error.
    pub(super) fn read(reply: &str, host: &str) -> Option<Self> {
        let mut words = reply.split_ascii_whitespace();
        let code = words.next()?;
        if code == "TRYAGAIN" {
            return Some(Self::Later);
        }
        let redirect = match code {
            "MOVED" => Self::Moved,
            "ASK" => Self::Ask,
            _ => return None,
        };
        let (name, port) = words.nth(1)?.rsplit_once(':')?;
        let name = if matches!(name, "" | "?") { host } else { name };
        Some(redirect(Server::new(name, port.parse().ok()?)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let node = vec![host, Value::from(port), Value::from("id"), Value::Array(Vec::new())];
        // The second node is a replica.
        let replica = vec![Value::from("replica"), Value::from(1), Value::from("id"), Value::Array(Vec::new())];
        Value::Array(vec![Value::from(first), Value::from(last), Value::Array(node), Value::Array(replica)])
    }

    #[test]
    fn each_slot_has_its_master_and_gaps_have_none() {
        let answer = Value::Array(vec![
            range(10_000, 16_383, Value::Null, 7_003),
            range(0, 99, Value::from("a"), 7_001),
            range(100, 100, Value::from(""), 7_003),
            range(102, 9_999, Value::from("::1"), 7_002),
        ]);
        let map = SlotMap::read(answer, "asked").unwrap();
        let found = |slot| map.find(slot).map(ToString::to_string);
        for (slot, server) in
            [(0, "a:7001"), (99, "a:7001"), (100, "asked:7003"), (102, "::1:7002"), (9_999, "::1:7002")]
        {
            assert_eq!(found(slot).unwrap(), server, "{slot}");
        }
        assert_eq!((found(101), found(16_383).unwrap()), (None, "asked:7003".to_owned()));
        assert!(!map.is_complete());
        assert_eq!(map.masters().count(), 4);
        assert!(SlotMap::read(Value::Array(vec![range(0, 16_383, Value::from("a"), 1)]), "").unwrap().is_complete());
    }

    #[test]
    fn what_names_no_master_is_no_map() {
        for answer in [Value::Null, Value::Array(Vec::new()), Value::Array(vec![Value::from("x")])] {
            assert!(SlotMap::read(answer, "asked").is_none());
        }
    }

    #[test]
    fn redirects_are_read() {
        let server = Server::new("10.0.0.1", 7_001);
        assert_eq!(Redirect::read("MOVED 3999 10.0.0.1:7001", "asked"), Some(Redirect::Moved(server.clone())));
        assert_eq!(Redirect::read("ASK 3999 10.0.0.1:7001", "asked"), Some(Redirect::Ask(server)));
        let ours = Redirect::Moved(Server::new("asked", 7_001));
        assert_eq!(Redirect::read("MOVED 3999 :7001", "asked").as_ref(), Some(&ours));
        assert_eq!(Redirect::read("MOVED 3999 ?:7001", "asked"), Some(ours));
        let ipv6 = Redirect::Moved(Server::new("::1", 7_001));
        assert_eq!(Redirect::read("MOVED 3999 ::1:7001", "asked"), Some(ipv6));
        assert_eq!(Redirect::read("TRYAGAIN Multiple keys request", "asked"), Some(Redirect::Later));
        for other in ["", "MOVED", "MOVED 1 x", "ERR unknown command", "CLUSTERDOWN The cluster is down"] {
            assert_eq!(Redirect::read(other, "asked"), None, "{other}");
        }
    }
}
