//! Which of a queue's tasks starts first: three priorities, weighted or strict.
//!
//! Weighted: a round has six turns for high, three for normal and one for low, the higher priority first. A priority
//! that has no tasks gives up its turns. So none waits for more than a round of the others, and each gets its share.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::as_text::as_text;

/// How soon a task starts, compared with other tasks of its queue. Each priority has its own topic:
/// `<ns>.<queue>.high`, `<ns>.<queue>` and `<ns>.<queue>.low`.
///
/// By default a worker that has tasks of all three starts six high and three normal tasks for each low one. With
/// [`strict_priority`](crate::WorkerBuilder::strict_priority) it always starts a task of the highest priority that it
/// has.
///
/// ```
/// use yadtq::Priority;
///
/// assert_eq!("high".parse(), Ok(Priority::High));
/// assert_eq!(Priority::default(), Priority::Normal);
/// assert_eq!(Priority::Low.to_string(), "low");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Starts before tasks of the other priorities.
    High,
    /// The default.
    #[default]
    Normal,
    /// Starts after tasks of the other priorities.
    Low,
}

/// The text is not the name of a priority.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("there is no priority `{0}`; choose high, normal or low")]
pub struct UnknownPriority(String);

impl Priority {
    /// All priorities, the highest first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The name that records, logs and commands use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    pub(crate) const fn is_normal(&self) -> bool {
        matches!(self, Self::Normal)
    }
}

impl FromStr for Priority {
    type Err = UnknownPriority;

    fn from_str(name: &str) -> Result<Self, UnknownPriority> {
        let named = Self::ALL.into_iter().find(|priority| priority.as_str() == name);
        named.ok_or_else(|| UnknownPriority(name.to_owned()))
    }
}

as_text!(Priority);

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One value per priority, the highest first.
pub(crate) type PerPriority<T> = [T; 3];

/// Number of turns that each priority has in a round.
const WEIGHTS: PerPriority<u32> = [6, 3, 1];

/// Chooses the priority whose turn it is.
#[derive(Clone, Debug)]
pub(crate) struct PriorityChooser {
    strict: bool,
    /// Turns that are left in this round.
    left: PerPriority<u32>,
}

impl PriorityChooser {
    /// `strict`: always chooses the highest priority that has tasks.
    pub(crate) const fn new(strict: bool) -> Self {
        Self { strict, left: WEIGHTS }
    }

    pub(crate) const fn is_strict(&self) -> bool {
        self.strict
    }

    /// The priority whose turn it is, among those that have tasks. `None` if no priority has any.
    pub(crate) fn next(&self, has: PerPriority<bool>) -> Option<Priority> {
        let ready = || Priority::ALL.into_iter().filter(|&priority| has[priority as usize]);
        let in_round = ready().find(|&priority| self.strict || self.left[priority as usize] > 0);
        // If none of them has a turn left, a new round begins.
        in_round.or_else(|| ready().next())
    }

    /// Notes that the priority took its turn.
    pub(crate) fn spend(&mut self, priority: Priority) {
        if self.left[priority as usize] == 0 {
            self.left = WEIGHTS;
        }
        self.left[priority as usize] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TURNS_PER_ROUND: u32 = 10;

    type Has = PerPriority<bool>;

    impl PriorityChooser {
        fn take(&mut self, has: Has) -> Option<Priority> {
            let priority = self.next(has)?;
            self.spend(priority);
            Some(priority)
        }

        /// A chooser that has chosen a few times.
        fn after(strict: bool, history: &[Has]) -> Self {
            let mut chooser = Self::new(strict);
            for &has in history {
                chooser.take(has);
            }
            chooser
        }
    }

    fn round_of(has: Has) -> usize {
        WEIGHTS.iter().zip(has).filter(|(_, has)| *has).map(|(&weight, _)| weight as usize).sum()
    }

    #[test]
    fn a_full_round_is_six_three_one() {
        let mut chooser = PriorityChooser::new(false);
        let round: String = (0..TURNS_PER_ROUND).map(|_| &chooser.take([true; 3]).unwrap().as_str()[..1]).collect();
        assert_eq!(round, "hhhhhhnnnl");
        assert_eq!(WEIGHTS.iter().sum::<u32>(), TURNS_PER_ROUND);
    }

    #[test]
    fn a_lone_high_task_never_waits_for_a_turn() {
        let mut chooser = PriorityChooser::new(false);
        for _ in 0..25 {
            assert_eq!(chooser.take([false, false, true]), Some(Priority::Low));
            assert_eq!(chooser.next([true, false, true]), Some(Priority::High));
        }
    }

    #[test]
    fn names_are_parsed_as_they_are_printed() {
        for priority in Priority::ALL {
            assert_eq!(priority.to_string().parse(), Ok(priority));
            assert_eq!(serde_json::to_value(priority).unwrap(), priority.as_str());
        }
        assert_eq!(
            "urgent".parse::<Priority>().unwrap_err().to_string(),
            "there is no priority `urgent`; choose high, normal or low"
        );
    }

    proptest! {
        /// A priority is chosen if and only if one has tasks, and the chosen one has tasks.
        #[test]
        fn the_chosen_priority_has_tasks(strict: bool, history: Vec<Has>, has: Has) {
            let chosen = PriorityChooser::after(strict, &history).next(has);
            prop_assert_eq!(chosen.is_some(), has.contains(&true));
            prop_assert!(chosen.is_none_or(|priority| has[priority as usize]));
        }

        #[test]
        fn strict_is_always_the_highest(history: Vec<Has>, has: Has) {
            let chosen = PriorityChooser::after(true, &history).next(has);
            prop_assert_eq!(chosen, Priority::ALL.into_iter().find(|&priority| has[priority as usize]));
        }

        /// Whatever happened before: after the present round, each round gives each priority its share.
        #[test]
        fn each_priority_gets_its_share_of_every_round(history: Vec<Has>, has: Has) {
            prop_assume!(has.contains(&true));
            let mut chooser = PriorityChooser::after(false, &history);
            let rest: u32 = chooser.left.iter().zip(has).filter(|(_, has)| *has).map(|(left, _)| left).sum();
            for _ in 0..rest {
                chooser.take(has);
            }
            for _ in 0..3 {
                let mut turns = [0; 3];
                for _ in 0..round_of(has) {
                    turns[chooser.take(has).unwrap() as usize] += 1;
                }
                for priority in Priority::ALL {
                    let expected = if has[priority as usize] { WEIGHTS[priority as usize] } else { 0 };
                    prop_assert_eq!(turns[priority as usize], expected, "{}", priority);
                }
            }
        }

        /// No priority waits for longer than a round of the others, whatever tasks these get.
        #[test]
        fn no_priority_starves(
            history: Vec<Has>, priority in 0_usize..3, others in prop::collection::vec(any::<Has>(), 20),
        ) {
            let mut chooser = PriorityChooser::after(false, &history);
            let waited = others.iter().position(|&(mut has)| {
                has[priority] = true;
                chooser.take(has) == Some(Priority::ALL[priority])
            });
            // The rest of a round in which it had its turns, and the turns of the higher ones in the next round.
            let higher: u32 = WEIGHTS[..priority].iter().sum();
            let others = TURNS_PER_ROUND - WEIGHTS[priority];
            prop_assert!(waited.is_some_and(|waited| waited <= (others + higher) as usize), "waited for {waited:?}");
        }
    }
}
