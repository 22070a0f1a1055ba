//! Nothing starts while all queues are paused.

use yadtq_tests::soak::{Note, What};

/// Finds tasks that started nevertheless.
pub(crate) fn check(notes: &[Note], found: &mut Vec<String>) {
    let mut paused = false;
    for note in notes {
        match note.what {
            What::Paused => paused = true,
            What::Resumed => paused = false,
            What::Start if paused => found.push(format!("{} ({}) started in a paused queue", note.id, note.task)),
            What::Start | What::End | What::Killed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_start_during_the_pause_is_a_violation() {
        let note =
            |what| Note { at: 0, what, pid: 1, id: "a".to_owned(), task: "soak_sum".to_owned(), attempt: 1, token: 1 };
        let mut found = Vec::new();
        let good = [What::Start, What::Paused, What::End, What::Killed, What::Resumed, What::Start].map(note);
        check(&good, &mut found);
        assert!(found.is_empty(), "{found:?}");
        check(&[What::Paused, What::Start, What::Resumed].map(note), &mut found);
        assert_eq!(found, ["a (soak_sum) started in a paused queue"]);
    }
}
