//! What a worker reads and gives, by what the store and Kafka answer.

use super::*;
use crate::{
    core::priority::Priority,
    store::StoreError,
    worker::{job::SourceId, options::DEFAULT_LEASE},
};

struct Rig {
    ownership: Ownership,
    topic: TopicId,
    now: Instant,
    out: Effects,
}

impl Rig {
    /// A worker of one topic, which exists with four partitions.
    fn new() -> Self {
        let (topic, now) = (TopicId::from(SourceId { queue: 0, priority: Priority::High }), Instant::now());
        let topics = std::iter::once((topic, Arc::from("yadtq.default")));
        let mut rig = Self {
            ownership: Ownership::new(&"w".into(), 4, DEFAULT_LEASE, topics, now),
            topic,
            now,
            out: Effects::new(),
        };
        assert!(rig.call().is_none(), "nothing is known to exist");
        rig.looked_up(Some(4));
        rig
    }

    fn looked_up(&mut self, partitions: Option<u32>) {
        let state = partitions.map(|partitions| TopicState { partitions, has_commits: false });
        self.ownership.looked_up(vec![state], self.now, self.now, &mut self.out);
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn call(&mut self) -> Option<OwnCall> {
        self.ownership.call(true, self.now)
    }

    /// The next call, without waiting for its time.
    fn call_now(&mut self) -> OwnCall {
        self.ownership.due = self.now;
        self.call().unwrap()
    }

    fn answer(&mut self, owned: &[(i32, u64)], give: usize) -> bool {
        let partitions = owned.iter().copied().collect();
        let answers = Ok(vec![Ok(Owned::Owns { partitions, give, again_ms: 0 })]);
        self.ownership.answered(answers, self.now, &mut self.out)
    }

    fn owns(&mut self, owned: &[(i32, u64)], give: usize) {
        self.call_now();
        assert!(self.answer(owned, give));
    }

    /// What is to be done, as text.
    fn effects(&mut self) -> Vec<String> {
        let text = |effect| match effect {
            Effect::Assign(_, partitions) => format!("assign {partitions:?}"),
            Effect::Revoke(_, partitions) => format!("revoke {partitions:?}"),
            Effect::Release(_, partitions) => format!("release {:?}", partitions.keys().collect::<Vec<_>>()),
            Effect::Forget(_) => "forget".to_owned(),
            other => panic!("{other:?}"),
        };
        self.out.drain(..).map(text).collect()
    }
}

fn pairs(epochs: &BTreeMap<i32, u64>) -> Vec<(i32, u64)> {
    epochs.iter().map(|(&partition, &epoch)| (partition, epoch)).collect()
}

#[test]
fn what_is_owned_is_read_and_kept() {
    let mut rig = Rig::new();
    let call = rig.call().unwrap();
    assert_eq!((call.requests[0].partitions, call.requests[0].keep.len()), (4, 0));
    assert!(rig.call().is_none(), "one call at a time");
    assert!(rig.answer(&[(0, 7), (1, 8)], 0));
    assert_eq!(rig.effects(), ["assign [0, 1]"]);
    rig.wait(999);
    assert!(rig.call().is_none(), "not before its time");
    rig.wait(1);
    let call = rig.call().unwrap();
    assert_eq!(pairs(&call.requests[0].keep), [(0, 7), (1, 8)]);
    assert!(rig.answer(&[(0, 7), (1, 8)], 0));
    assert!(rig.effects().is_empty(), "at rest nothing changes");
    rig.owns(&[(0, 7), (3, 9)], 0);
    assert_eq!(rig.effects(), ["revoke [1]", "assign [3]"]);
}

/// As in a Redis Cluster, where each topic may lie at another master.
#[test]
fn a_topic_whose_master_alone_is_away_is_read_on_for_as_long_as_it_takes() {
    let mut rig = Rig::new();
    rig.owns(&[(0, 7)], 0);
    rig.effects();
    for _ in 0..20 {
        rig.wait(1_000);
        rig.looked_up(Some(4));
        assert_eq!(pairs(&rig.call_now().requests[0].keep), [(0, 7)]);
        let away = Ok(vec![Err(StoreError::Unavailable("away".to_owned()))]);
        assert!(rig.ownership.answered(away, rig.now, &mut rig.out));
        assert!(rig.effects().is_empty());
        assert!(rig.ownership.may_read(true, rig.now));
    }
    assert!(!rig.ownership.may_read(false, rig.now), "with all of the store away");
}

#[test]
fn a_partition_that_came_back_under_another_epoch_is_read_on() {
    let mut rig = Rig::new();
    rig.owns(&[(0, 7)], 0);
    rig.effects();
    rig.owns(&[(0, 12)], 0);
    assert!(rig.effects().is_empty());
    assert_eq!(pairs(&rig.call_now().requests[0].keep), [(0, 12)]);
}

#[test]
fn what_is_too_much_is_committed_and_then_given_with_its_epoch() {
    let mut rig = Rig::new();
    rig.owns(&[(0, 7), (1, 8), (2, 9)], 2);
    assert_eq!(rig.effects(), ["assign [0, 1, 2]", "release [1, 2]"]);
    rig.owns(&[(0, 7), (1, 8), (2, 9)], 2);
    assert!(rig.effects().is_empty(), "two are on their way");
    rig.ownership.woken(rig.now);
    assert!(rig.call().is_none(), "the acknowledgement ends in a call anyway");
    rig.ownership.released(rig.topic, &[(1, 8), (2, 3)].into(), rig.now);
    assert_eq!(pairs(&rig.call_now().requests[0].give), [(1, 8)], "the other answer is of an earlier release");
    rig.ownership.calling = None;
    rig.ownership.released(rig.topic, &[(1, 8), (2, 9)].into(), rig.now);
    let call = rig.call().unwrap();
    assert_eq!(pairs(&call.requests[0].keep), [(0, 7)]);
    assert_eq!(pairs(&call.requests[0].give), [(1, 8), (2, 9)]);
}

#[test]
fn what_was_given_is_not_read_again_under_its_epoch_even_if_the_answer_was_lost() {
    let mut rig = Rig::new();
    rig.owns(&[(0, 7), (1, 8)], 1);
    rig.ownership.released(rig.topic, &[(1, 8)].into(), rig.now);
    rig.effects();
    rig.call().unwrap();
    let lost = Err(StoreError::Unavailable("gone".to_owned()));
    assert!(rig.ownership.answered(lost, rig.now, &mut rig.out));
    rig.owns(&[(0, 7), (1, 8)], 0);
    assert!(rig.effects().is_empty());
    let call = rig.call_now();
    assert_eq!(pairs(&call.requests[0].give), [(1, 8)], "it is given again");
    assert!(rig.answer(&[(0, 7), (1, 10)], 0));
    assert_eq!(rig.effects(), ["assign [1]"], "it is another ownership");
}

#[test]
fn the_lease_counts_from_the_sending() {
    let mut rig = Rig::new();
    rig.call().unwrap();
    assert!(!rig.ownership.may_read(true, rig.now), "nothing was answered yet");
    rig.wait(2_000);
    assert!(rig.answer(&[(0, 7)], 0));
    rig.wait(3_999);
    assert!(rig.ownership.may_read(true, rig.now));
    rig.wait(1);
    assert!(!rig.ownership.may_read(true, rig.now));
}

#[test]
fn without_a_connection_it_reads_on_until_it_may_have_been_declared_dead() {
    let mut rig = Rig::new();
    rig.owns(&[(0, 7)], 0);
    rig.ownership.beaten(rig.now, Vec::new(), false, rig.now);
    rig.wait(749);
    assert!(rig.ownership.may_read(false, rig.now));
    rig.wait(1);
    assert!(!rig.ownership.may_read(false, rig.now) && rig.ownership.may_read(true, rig.now));
    rig.owns(&[(0, 7)], 0);
    assert_eq!(rig.effects(), ["assign [0]"], "it kept its memory and its place");
}

#[test]
fn a_worker_that_kafka_does_not_answer_lets_its_lease_end() {
    let mut rig = Rig::new();
    rig.wait(1_500);
    assert_eq!(rig.call_now().by.left_ms, 4_500);
    rig.ownership.calling = None;
    rig.wait(1_501);
    rig.ownership.due = rig.now;
    assert!(rig.call().is_none(), "half a lease without an answer");
    rig.looked_up(Some(4));
    rig.ownership.due = rig.now;
    assert_eq!(rig.call().unwrap().by.left_ms, 6_000);
}

#[test]
fn the_dead_are_passed_on_until_a_call_was_answered() {
    let mut rig = Rig::new();
    rig.owns(&[], 0);
    rig.ownership.beaten(rig.now, vec!["victim".into()], false, rig.now);
    assert!(rig.call().is_none(), "whoever declared it dead calls at once");
    rig.ownership.beaten(rig.now, vec!["victim".into()], true, rig.now);
    assert_eq!(rig.call().unwrap().by.dead, ["victim".into()]);
    rig.ownership.calling = None;
    rig.ownership.beaten(rig.now, vec!["victim".into()], false, rig.now);
    for _ in 0..2 {
        let call = rig.call_now();
        assert_eq!(call.by.dead, ["victim".into()]);
        let lost = Err(StoreError::Unavailable("gone".to_owned()));
        assert!(rig.ownership.answered(lost, rig.now, &mut rig.out));
    }
    rig.owns(&[], 0);
    assert!(rig.call_now().by.dead.is_empty());
}

#[test]
fn a_deleted_topic_is_read_from_scratch_when_it_is_back() {
    let mut rig = Rig::new();
    rig.owns(&[(0, 7)], 0);
    rig.looked_up(None);
    assert_eq!(rig.effects(), ["assign [0]", "revoke [0]", "forget"]);
    rig.ownership.due = rig.now;
    assert!(rig.call().is_none());
    rig.looked_up(Some(4));
    rig.owns(&[(0, 7)], 0);
    assert_eq!(rig.effects(), ["assign [0]"]);
}

#[test]
fn what_was_answered_before_counts_as_used_even_if_nothing_was_committed() {
    let mut rig = Rig::new();
    assert!(!rig.call_now().requests[0].is_used);
    rig.ownership.calling = None;
    rig.owns(&[], 0);
    assert!(rig.call_now().requests[0].is_used);
}

#[test]
fn without_a_connection_no_call_is_made_and_soon_after_it_is_back_one_is() {
    let mut rig = Rig::new();
    rig.ownership.due = rig.now;
    assert!(rig.ownership.call(false, rig.now).is_none());
    assert!(rig.ownership.next_due().unwrap() <= rig.now + Duration::from_millis(50));
    rig.wait(50);
    assert!(rig.call().is_some());
}

#[test]
fn a_worker_that_was_declared_dead_learns_it() {
    let mut rig = Rig::new();
    rig.call().unwrap();
    assert!(!rig.ownership.answered(Ok(vec![Ok(Owned::Gone)]), rig.now, &mut rig.out));
}
