//! Retired words: `words.toml` lists them, and what to say instead.
//!
//! A file is read as one sequence of words. Identifiers are split at `_` and at
//! capitals, so that a word is found inside a name; a phrase may go over the end
//! of a line, even in a comment.

use std::path::Path;
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::command;
use crate::project::Project;

const LIST: &str = "xtask/words.toml";
const SUFFIXES: [&str; 5] = [".rs", ".md", ".lua", ".yml", ".toml"];
/// What may stand between two words of one phrase: blanks, the marks of comments
/// and quotes at the start of a line, and what joins an identifier.
const JOINTS: &str = " \t\r\n/!*#>-_";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    retired: Vec<Retired>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Retired {
    /// Words and phrases, in lower case.
    words: Vec<String>,
    instead: String,
}

/// A text that stays although it holds a retired word.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    text: String,
    /// The only file in which it stays. Default: all files.
    path: Option<String>,
    reason: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Hit {
    line: usize,
    phrase: String,
    instead: String,
}

/// Fails with a line for each use of a retired word in a tracked file, and for
/// each exception that excuses nothing.
pub(crate) fn check(project: &Project) -> Result<()> {
    let list = List::read(&project.root.join(LIST))?;
    let mut complaints = Vec::new();
    let mut unused: Vec<&Exception> = list.exceptions.iter().collect();
    let paths = tracked_files(project)?;
    for path in &paths {
        let Some(text) = read(&project.root.join(path))? else { continue };
        let (hits, excused) = list.search(path, &text);
        unused.retain(|exception| !excused.iter().any(|used| std::ptr::eq(*used, *exception)));
        let complaint = |hit: Hit| format!("  {path}:{}: `{}`; say {}", hit.line, hit.phrase, hit.instead);
        complaints.extend(hits.into_iter().map(complaint));
    }
    complaints
        .extend(unused.iter().map(|exception| format!("  {LIST}: nothing needs `{}`; delete it", exception.text)));
    if !complaints.is_empty() {
        bail!("{} retired words, see {LIST}:\n{}", complaints.len(), complaints.join("\n"));
    }
    eprintln!("{} files: no retired word", paths.len());
    Ok(())
}

impl List {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("can't read {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let list: Self = toml::from_str(text)?;
        for Exception { text, reason, .. } in &list.exceptions {
            ensure!(!reason.trim().is_empty(), "the exception `{text}` has no reason");
        }
        Ok(list)
    }

    /// The hits in a file, and the exceptions that excused others.
    fn search(&self, path: &str, text: &str) -> (Vec<Hit>, Vec<&Exception>) {
        let words = split(text);
        let mut hits = Vec::new();
        let mut excused = Vec::new();
        for (retired, phrase) in self.phrases() {
            for found in occurrences(&words, phrase, text) {
                if let Some(exception) = self.exceptions.iter().find(|exception| exception.covers(path, text, &found)) {
                    excused.push(exception);
                    continue;
                }
                let line = text[..found.start].matches('\n').count() + 1;
                hits.push(Hit { line, phrase: phrase.to_owned(), instead: retired.instead.clone() });
            }
        }
        hits.sort_by_key(|hit| hit.line);
        (hits, excused)
    }

    fn phrases(&self) -> impl Iterator<Item = (&Retired, &str)> {
        self.retired.iter().flat_map(|retired| retired.words.iter().map(move |phrase| (retired, phrase.as_str())))
    }
}

impl Exception {
    fn covers(&self, path: &str, text: &str, found: &Span) -> bool {
        let in_scope = self.path.as_deref().is_none_or(|only| only == path);
        in_scope && text.match_indices(&self.text).any(|(at, stays)| at <= found.start && found.end <= at + stays.len())
    }
}

type Span = std::ops::Range<usize>;

/// A word in lower case, and where it is.
struct Word {
    text: String,
    span: Span,
}

/// Where the words of a phrase follow each other.
fn occurrences(words: &[Word], phrase: &str, text: &str) -> Vec<Span> {
    let phrase: Vec<&str> = phrase.split(' ').collect();
    let joined = |pair: &[Word]| text[pair[0].span.end..pair[1].span.start].chars().all(|c| JOINTS.contains(c));
    words
        .windows(phrase.len())
        .filter(|found| found.iter().map(|word| word.text.as_str()).eq(phrase.iter().copied()))
        .filter(|found| found.windows(2).all(joined))
        .map(|found| found[0].span.start..found[found.len() - 1].span.end)
        .collect()
}

/// The words of a text. `HTTPServer_name2` has three: http, server, name.
fn split(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut before: Option<char> = None;
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        if !c.is_alphabetic() {
            before = None;
            continue;
        }
        let next = characters.peek().map(|&(_, next)| next);
        let end = at + c.len_utf8();
        match words.last_mut().filter(|_| before.is_some_and(|before| !starts_word(before, c, next))) {
            Some(word) => {
                word.text.extend(c.to_lowercase());
                word.span.end = end;
            }
            None => words.push(Word { text: c.to_lowercase().collect(), span: at..end }),
        }
        before = Some(c);
    }
    words
}

/// Whether a letter that follows another one starts a word of an identifier.
fn starts_word(before: char, c: char, next: Option<char>) -> bool {
    c.is_uppercase() && (before.is_lowercase() || next.is_some_and(char::is_lowercase))
}

/// Paths of the files to search, relative to the workspace's root.
fn tracked_files(project: &Project) -> Result<Vec<String>> {
    let list = command::probe(project.command("git").args(["ls-files", "-z"]))
        .context("`git ls-files` failed; the words are checked in a Git checkout only")?;
    // The list itself is made of retired words.
    let searched = |path: &&str| SUFFIXES.iter().any(|suffix| path.ends_with(suffix)) && *path != LIST;
    Ok(list.split('\0').filter(searched).map(str::to_owned).collect())
}

/// `None`: the file was deleted, and Git does not know it yet.
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(exceptions: &str) -> List {
        let retired = "[[retired]]\nwords = ['gizmo', 'far out']\ninstead = 'device'\n";
        List::parse(&format!("{retired}{exceptions}")).unwrap()
    }

    /// Lines of the hits.
    fn lines(list: &List, text: &str) -> Vec<usize> {
        list.search("some/file.rs", text).0.iter().map(|hit| hit.line).collect()
    }

    #[test]
    fn identifiers_are_split() {
        let words: Vec<_> = split("HTTPServer_name2: GIZMO, aGizmo's").into_iter().map(|word| word.text).collect();
        assert_eq!(words, ["http", "server", "name", "gizmo", "a", "gizmo", "s"]);
    }

    #[test]
    fn whole_words_are_found_in_prose_and_in_identifiers() {
        let list = list("");
        for text in ["a Gizmo.", "gizmo_failed", "LAST_GIZMO", "BadGizmo::new", "`far_out`", "FarOut", "far-out"] {
            assert_eq!(lines(&list, text), [1], "{text}");
        }
        for text in ["gizmos", "agizmo", "far, out", "far(out)", "out far", "a far outing"] {
            assert_eq!(lines(&list, text), [0; 0], "{text}");
        }
    }

    #[test]
    fn a_hit_names_its_line_and_what_to_say_instead() {
        let hits = list("").search("some/file.rs", "one\n//! far\n//! out\n\nGizmo\n").0;
        let hit = |line, phrase: &str| Hit { line, phrase: phrase.to_owned(), instead: "device".to_owned() };
        assert_eq!(hits, [hit(2, "far out"), hit(5, "gizmo")]);
    }

    #[test]
    fn an_exception_excuses_its_text_alone() {
        let list = list("[[exceptions]]\ntext = 'gizmo_failed'\nreason = 'a log event'\n");
        let text = "gizmo_failed\ngizmo\nno_gizmo_failed";
        assert_eq!(lines(&list, text), [2]);
        assert_eq!(list.search("some/file.rs", text).1.len(), 2);
        assert!(list.search("some/file.rs", "gizmo").1.is_empty());
    }

    #[test]
    fn an_exception_of_one_file_holds_there_alone() {
        let list = list("[[exceptions]]\ntext = 'gizmo'\npath = 'some/file.rs'\nreason = 'a quotation'\n");
        assert_eq!(lines(&list, "gizmo"), [0; 0]);
        assert_eq!(list.search("another.rs", "gizmo").0.len(), 1);
    }

    #[test]
    fn an_exception_needs_a_reason() {
        assert!(List::parse("retired = []\n[[exceptions]]\ntext = 'gizmo'\nreason = ' '\n").is_err());
        assert!(List::parse("retired = []\n[[exceptions]]\ntext = 'gizmo'\n").is_err());
    }

    #[test]
    fn the_list_of_the_project_can_be_read() {
        let list = List::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("words.toml")).unwrap();
        assert!(list.phrases().all(|(_, phrase)| phrase == phrase.to_lowercase()), "words are compared in lower case");
    }
}
