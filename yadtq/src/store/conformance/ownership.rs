//! The leases of partitions.

use super::*;

const TOPIC: &str = "t";

fn owner(name: &str) -> Owner {
    Owner { worker: name.into(), slots: 4, lease_ms: LEASE_MS, left_ms: LEASE_MS, is_leaving: false, dead: Vec::new() }
}

fn leaving(name: &str) -> Owner {
    Owner { is_leaving: true, ..owner(name) }
}

/// A worker that owns nothing asks for its share of four partitions.
fn join() -> OwnRequest {
    OwnRequest { topic: TOPIC.into(), partitions: 4, is_used: false, keep: Partitions::new(), give: Partitions::new() }
}

fn keep(partitions: &Partitions) -> OwnRequest {
    OwnRequest { is_used: true, keep: partitions.clone(), ..join() }
}

/// Gives the partitions from this one on, and keeps the others.
fn give_from(partition: i32, partitions: &Partitions) -> OwnRequest {
    let mut keep = partitions.clone();
    let give = keep.split_off(&partition);
    OwnRequest { is_used: true, keep, give, ..join() }
}

async fn own(store: &dyn Subject, by: &Owner, request: &OwnRequest) -> Owned {
    only(store.own(by, std::slice::from_ref(request)).await)
}

/// What a worker owns, and how many it is asked to give.
async fn owned(store: &dyn Subject, by: &Owner, request: &OwnRequest) -> (Partitions, usize) {
    match own(store, by, request).await {
        Owned::Owns { partitions, give, again_ms: 0 } => (partitions, give),
        other => panic!("{other:?}"),
    }
}

fn numbers(partitions: &Partitions) -> Vec<i32> {
    partitions.keys().copied().collect()
}

fn assert_later(partitions: &Partitions, before: &Partitions) {
    for (partition, epoch) in partitions {
        assert!(*epoch > before[partition], "{partitions:?} after {before:?}");
    }
}

/// Two workers, `w1` and `w2`, that own two of four partitions each.
async fn share_by_two(store: &dyn Subject) -> [Partitions; 2] {
    let (all, _) = owned(store, &owner("w1"), &join()).await;
    owned(store, &owner("w2"), &join()).await;
    let (first, _) = owned(store, &owner("w1"), &give_from(2, &all)).await;
    let (second, _) = owned(store, &owner("w2"), &join()).await;
    assert_eq!((numbers(&first), numbers(&second)), (vec![0, 1], vec![2, 3]));
    [first, second]
}

pub(super) async fn a_lone_worker_owns_all(store: &dyn Subject) {
    let before_ms = store.now_us().await.unwrap() / 1_000;
    let (partitions, give) = owned(store, &owner("w1"), &join()).await;
    assert_eq!((numbers(&partitions), give), (vec![0, 1, 2, 3], 0));
    let about = before_ms - 10_000..before_ms + 60_000;
    assert!(partitions.values().all(|epoch| about.contains(epoch)), "{partitions:?} at {before_ms}");
    for request in [join(), keep(&partitions)] {
        assert_eq!(owned(store, &owner("w1"), &request).await, (partitions.clone(), 0), "{request:?}");
    }
}

/// Even if the store has lost its memory, and with it the epoch.
pub(super) async fn what_is_given_comes_back_under_a_later_epoch(store: &dyn Subject) {
    let later = store.now_us().await.unwrap() / 1_000 + 1_000_000;
    let request = OwnRequest { give: Partitions::from([(0, later)]), ..join() };
    let (partitions, _) = owned(store, &owner("w1"), &request).await;
    assert_eq!(partitions[&0], later + 1);
    assert_eq!(owned(store, &owner("w1"), &request).await, (partitions, 0), "the call was sent twice");
}

pub(super) async fn a_newcomer_gets_what_the_others_have_too_many(store: &dyn Subject) {
    let (mut first, mut second) = (open_control(store, "w1").await, open_control(store, "w2").await);
    let (all, _) = owned(store, &owner("w1"), &join()).await;
    assert_eq!(owned(store, &owner("w2"), &join()).await, (Partitions::new(), 0));
    assert_eq!(next(&mut first).await, Notice::OwnAgain, "it owns too much");
    for _ in 0..2 {
        assert_eq!(owned(store, &owner("w1"), &keep(&all)).await, (all.clone(), 2), "it owns them until it gives them");
    }
    let given = give_from(2, &all);
    assert_eq!(owned(store, &owner("w1"), &given).await, (given.keep.clone(), 0));
    assert_eq!(next(&mut second).await, Notice::OwnAgain, "it owns what was given");
    let (partitions, give) = owned(store, &owner("w2"), &join()).await;
    assert_eq!((numbers(&partitions), give), (vec![2, 3], 0));
    assert_later(&partitions, &all);
    assert_eq!(owned(store, &owner("w1"), &keep(&given.keep)).await, (given.keep, 0));
}

pub(super) async fn a_late_copy_of_a_give_frees_nothing(store: &dyn Subject) {
    let (all, _) = owned(store, &owner("w1"), &join()).await;
    owned(store, &owner("w2"), &join()).await;
    let given = give_from(2, &all);
    let (kept, _) = owned(store, &owner("w1"), &given).await;
    assert_eq!(owned(store, &owner("w1"), &given).await, (kept.clone(), 0), "sent twice");
    assert_eq!(own(store, &leaving("w2"), &join()).await, Owned::Gone);
    let (all, _) = owned(store, &owner("w1"), &keep(&kept)).await;
    assert_eq!(numbers(&all), [0, 1, 2, 3]);
    assert_eq!(owned(store, &owner("w1"), &given).await, (all.clone(), 0), "the epochs are over");
    assert_later(&all.clone().split_off(&2), &given.give);
}

pub(super) async fn who_leaves_frees_its_partitions_and_uses_up_its_id(store: &dyn Subject) {
    let mut first = open_control(store, "w1").await;
    let [kept, left] = share_by_two(store).await;
    assert_eq!(next(&mut first).await, Notice::OwnAgain, "another has joined");
    for _ in 0..2 {
        assert_eq!(own(store, &leaving("w2"), &keep(&left)).await, Owned::Gone);
    }
    assert_eq!(next(&mut first).await, Notice::OwnAgain, "something is free");
    assert_eq!(own(store, &owner("w2"), &keep(&left)).await, Owned::Gone, "a late call revives nobody");
    let (all, give) = owned(store, &owner("w1"), &keep(&kept)).await;
    assert_eq!((numbers(&all), give), (vec![0, 1, 2, 3], 0));
    assert_later(&all.clone().split_off(&2), &left);
    assert_eq!(all[&0], kept[&0]);
}

pub(super) async fn the_partitions_of_the_dead_are_free(store: &dyn Subject) {
    let [kept, lost] = share_by_two(store).await;
    let by = Owner { dead: vec!["w2".into(), "nobody".into()], ..owner("w1") };
    let (all, _) = owned(store, &by, &keep(&kept)).await;
    assert_eq!(numbers(&all), [0, 1, 2, 3]);
    assert_later(&all.clone().split_off(&2), &lost);
    assert_eq!(owned(store, &by, &keep(&kept)).await, (all, 0), "sent twice");
    for dead in ["w2", "nobody"] {
        assert_eq!(own(store, &owner(dead), &keep(&lost)).await, Owned::Gone);
    }
}

pub(super) async fn a_lease_that_is_over_frees_its_partitions(store: &dyn Subject) {
    let [mut kept, lost] = share_by_two(store).await;
    let by = Owner { left_ms: 50, ..owner("w2") };
    assert_eq!(owned(store, &by, &keep(&lost)).await.0, lost);
    let taken = async {
        while kept.len() < 4 {
            kept = owned(store, &owner("w1"), &keep(&kept)).await.0;
        }
    };
    timeout(Duration::from_secs(10), taken).await.expect("the lease ends");
    assert_later(&kept.clone().split_off(&2), &lost);
    // It is no member any more, but may be one again.
    assert_eq!(owned(store, &owner("w2"), &keep(&lost)).await, (Partitions::new(), 0));
    assert_eq!(owned(store, &owner("w1"), &keep(&kept)).await, (kept, 2));
}

pub(super) async fn an_emptied_store_gives_all_back_to_who_held_it(store: &dyn Subject) {
    let [first, second] = share_by_two(store).await;
    store.forget_owners(TOPIC).await;
    let newcomer = OwnRequest { is_used: true, ..join() };
    assert_eq!(owned(store, &owner("w3"), &newcomer).await, (Partitions::new(), 0), "they wait for their holders");
    let (back, give) = owned(store, &owner("w1"), &keep(&first)).await;
    assert_eq!((numbers(&back), give), (numbers(&first), 0));
    assert_later(&back, &first);
    let (back, give) = owned(store, &owner("w2"), &keep(&second)).await;
    assert_eq!((numbers(&back), give), (numbers(&second), 1), "whatever its share is");
    assert_later(&back, &second);
    assert_eq!(owned(store, &owner("w3"), &newcomer).await, (Partitions::new(), 0));
    owned(store, &owner("w2"), &give_from(3, &back)).await;
    assert_eq!(numbers(&owned(store, &owner("w3"), &newcomer).await.0), [3]);
}

pub(super) async fn shares_go_by_slots(store: &dyn Subject) {
    let (heavy, light) = (Owner { slots: 3, ..owner("w1") }, Owner { slots: 1, ..owner("w2") });
    let (all, _) = owned(store, &heavy, &join()).await;
    owned(store, &light, &join()).await;
    assert_eq!(owned(store, &heavy, &keep(&all)).await, (all.clone(), 1));
    owned(store, &heavy, &give_from(3, &all)).await;
    let (one, _) = owned(store, &light, &join()).await;
    assert_eq!(numbers(&one), [3]);
    let mut notices = open_control(store, "w1").await;
    let (heavier, three) = (Owner { slots: 9, ..light }, give_from(3, &all).keep);
    assert_eq!(owned(store, &heavier, &keep(&one)).await, (one, 0));
    assert_eq!(next(&mut notices).await, Notice::OwnAgain);
    assert_eq!(owned(store, &heavy, &keep(&three)).await, (three, 2));
}

pub(super) async fn a_topic_that_grows_is_shared_anew(store: &dyn Subject) {
    let mut notices = open_control(store, "w2").await;
    let [first, second] = share_by_two(store).await;
    assert_eq!(next(&mut notices).await, Notice::OwnAgain, "it was given something");
    let grown = |partitions: &Partitions| OwnRequest { partitions: 8, ..keep(partitions) };
    let (more, give) = owned(store, &owner("w1"), &grown(&first)).await;
    assert_eq!((numbers(&more), give), (vec![0, 1, 4, 5], 0));
    assert_eq!(next(&mut notices).await, Notice::OwnAgain, "something is free");
    // It has not learned yet that the topic has grown.
    let (more, give) = owned(store, &owner("w2"), &keep(&second)).await;
    assert_eq!((numbers(&more), give), (vec![2, 3, 6, 7], 0));
}

pub(super) async fn topics_are_owned_apart(store: &dyn Subject) {
    let of = |topic: &str, partitions: u32| OwnRequest { topic: topic.into(), partitions, ..join() };
    owned(store, &owner("w2"), &of("b", 2)).await;
    let requests = [of("a", 3), of("b", 2), of("c", 0), of("d{}: ", 1)];
    let answers = store.own(&owner("w1"), &requests).await.unwrap();
    let partitions = answers.into_iter().map(|answer| match answer.unwrap() {
        Owned::Owns { partitions, .. } => numbers(&partitions),
        Owned::Gone => panic!("it is alive"),
    });
    assert_eq!(partitions.collect::<Vec<_>>(), [vec![0, 1, 2], vec![], vec![], vec![0]]);
    assert!(store.own(&owner("w1"), &[]).await.unwrap().is_empty());
    assert_eq!(own(store, &leaving("w1"), &of("a", 3)).await, Owned::Gone);
    assert_eq!(numbers(&owned(store, &owner("w1"), &of("d{}: ", 1)).await.0), [0], "it has left one topic only");
}

pub(super) async fn a_spoiled_topic_fails_alone(store: &dyn Subject) {
    if !store.spoil_owners("b").await {
        return;
    }
    let requests = ["a", "b", "c"].map(|topic| OwnRequest { topic: topic.into(), ..join() });
    let answers = store.own(&owner("w1"), &requests).await.unwrap();
    assert!(
        matches!(&answers[..], [Ok(Owned::Owns { .. }), Err(StoreError::WrongType { key, .. }), Ok(Owned::Owns { .. })]
            if key.ends_with(":owners:{b}")),
        "{answers:?}"
    );
}
