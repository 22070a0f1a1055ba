//! Which of a queue's tasks goes first: three levels, by weights or strictly.
//!
//! By weights, a round has six turns for high, three for normal and one for low, the higher level first. A level that has
//! nothing gives its turns up. So no level waits for more than a round of the others, and each gets its share.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How soon a task runs beside others of its queue. Each level is a topic of its own: `<ns>.<queue>.high`, `<ns>.<queue>`
/// and `<ns>.<queue>.low`.
///
/// By default a worker that has all three starts six high and three normal tasks for each low one;
/// [`strict_priority`](crate::WorkerBuilder::strict_priority) lets it start the highest it has.
///
/// ```
/// use yadtq::Priority;
///
/// assert_eq!("high".parse(), Ok(Priority::High));
/// assert_eq!(Priority::default(), Priority::Normal);
/// assert_eq!(Priority::Low.to_string(), "low");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "Cow<'_, str>")]
pub enum Priority {
    /// Before all others.
    High,
    /// What a task has that says nothing.
    #[default]
    Normal,
    /// After all others.
    Low,
}

/// The text names no priority.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("there is no priority `{0}`; choose high, normal or low")]
pub struct UnknownPriority(String);

impl Priority {
    /// All of them, the highest first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The name in records, logs and commands.
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

impl From<Priority> for &'static str {
    fn from(priority: Priority) -> Self {
        priority.as_str()
    }
}

impl TryFrom<Cow<'_, str>> for Priority {
    type Error = UnknownPriority;

    fn try_from(name: Cow<'_, str>) -> Result<Self, UnknownPriority> {
        name.parse()
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Something of each level, the highest first.
pub(crate) type Levels<T> = [T; 3];

/// Turns of each level in a round.
const WEIGHTS: Levels<u32> = [6, 3, 1];
/// Turns of a whole round.
pub(crate) const ROUND: u32 = 10;

/// Chooses the level whose turn it is.
#[derive(Clone, Debug)]
pub(crate) struct Chooser {
    strict: bool,
    /// Turns that are left in this round.
    left: Levels<u32>,
}

impl Chooser {
    /// `strict`: always the highest that has something.
    pub(crate) const fn new(strict: bool) -> Self {
        Self { strict, left: WEIGHTS }
    }

    pub(crate) const fn is_strict(&self) -> bool {
        self.strict
    }

    /// The level whose turn it is, of those that have something.
    pub(crate) fn next(&self, has: Levels<bool>) -> Option<Priority> {
        let ready = || Priority::ALL.into_iter().filter(|&level| has[level as usize]);
        let in_round = ready().find(|&level| self.strict || self.left[level as usize] > 0);
        // Where nobody has a turn left, a new round begins.
        in_round.or_else(|| ready().next())
    }

    /// Notes that the level took its turn.
    pub(crate) fn spend(&mut self, level: Priority) {
        if self.left[level as usize] == 0 {
            self.left = WEIGHTS;
        }
        self.left[level as usize] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Has = Levels<bool>;

    impl Chooser {
        fn take(&mut self, has: Has) -> Option<Priority> {
            let level = self.next(has)?;
            self.spend(level);
            Some(level)
        }

        /// One that has chosen a few times.
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
        let mut chooser = Chooser::new(false);
        let round: String = (0..ROUND).map(|_| &chooser.take([true; 3]).unwrap().as_str()[..1]).collect();
        assert_eq!(round, "hhhhhhnnnl");
        assert_eq!(WEIGHTS.iter().sum::<u32>(), ROUND);
    }

    #[test]
    fn a_lone_high_task_never_waits_for_a_turn() {
        let mut chooser = Chooser::new(false);
        for _ in 0..25 {
            assert_eq!(chooser.take([false, false, true]), Some(Priority::Low));
            assert_eq!(chooser.next([true, false, true]), Some(Priority::High));
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
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
        /// Only what is there is chosen, and something is if there is something.
        #[test]
        fn what_is_chosen_is_there(strict: bool, history: Vec<Has>, has: Has) {
            let chosen = Chooser::after(strict, &history).next(has);
            prop_assert_eq!(chosen.is_some(), has.contains(&true));
            prop_assert!(chosen.is_none_or(|level| has[level as usize]));
        }

        #[test]
        fn strict_is_always_the_highest(history: Vec<Has>, has: Has) {
            let chosen = Chooser::after(true, &history).next(has);
            prop_assert_eq!(chosen, Priority::ALL.into_iter().find(|&level| has[level as usize]));
        }

        /// From whatever went before: once the round under way is over, each round gives each level its share.
        #[test]
        fn each_level_gets_its_share_of_every_round(history: Vec<Has>, has: Has) {
            prop_assume!(has.contains(&true));
            let mut chooser = Chooser::after(false, &history);
            let rest: u32 = chooser.left.iter().zip(has).filter(|(_, has)| *has).map(|(left, _)| left).sum();
            for _ in 0..rest {
                chooser.take(has);
            }
            for _ in 0..3 {
                let mut turns = [0; 3];
                for _ in 0..round_of(has) {
                    turns[chooser.take(has).unwrap() as usize] += 1;
                }
                for level in Priority::ALL {
                    let expected = if has[level as usize] { WEIGHTS[level as usize] } else { 0 };
                    prop_assert_eq!(turns[level as usize], expected, "{}", level);
                }
            }
        }

        /// No level waits for longer than a round of the others, whatever comes and goes there.
        #[test]
        fn no_level_starves(history: Vec<Has>, level in 0_usize..3, others in prop::collection::vec(any::<Has>(), 20)) {
            let mut chooser = Chooser::after(false, &history);
            let waited = others.iter().position(|&(mut has)| {
                has[level] = true;
                chooser.take(has) == Some(Priority::ALL[level])
            });
            // The rest of a round in which it had its turns, and the higher ones of the next.
            let higher: u32 = WEIGHTS[..level].iter().sum();
            let others = ROUND - WEIGHTS[level];
            prop_assert!(waited.is_some_and(|waited| waited <= (others + higher) as usize), "waited for {waited:?}");
        }
    }
}
