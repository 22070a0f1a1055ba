//! The progress buffer: the latest progress report of each running task, until the worker writes it to Redis.
//!
//! A task may report a hundred thousand times per second. The buffer keeps one report for each task, and the worker writes
//! one batch at a time.
//!
//! Only clients that listen are notified. A report carries the run's token and a number, so that a pushed and a looked-up report
//! cannot come in the wrong order.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Serialize;
use tokio::sync::Notify;
use tracing::warn;

use crate::{
    core::{
        lifecycle::{Progress, Token},
        names::TaskId,
    },
    store::Report,
};

/// The longest JSON text of one report, in bytes.
pub(crate) const MAX_REPORT_BYTES: usize = 4 * 1_024;

/// The latest reports of one worker's tasks.
#[derive(Debug, Default)]
pub(crate) struct ProgressBuffer {
    inner: Mutex<Inner>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    reports: HashMap<TaskId, Report>,
    /// The number of the latest report of any task.
    number: u64,
}

impl ProgressBuffer {
    fn put(&self, id: &TaskId, token: Token, value: Arc<str>) {
        let mut inner = self.lock();
        inner.number += 1;
        let progress = Progress { number: inner.number, value };
        inner.put(Report { id: id.clone(), token, progress });
        drop(inner);
        self.filled.notify_one();
    }

    /// Waits until there is a report. Cancel safe.
    pub(crate) async fn filled(&self) {
        while self.lock().reports.is_empty() {
            // `Notify` remembers a report that comes before this line, so none is missed.
            self.filled.notified().await;
        }
    }

    /// Takes at most `most` reports.
    pub(crate) fn take(&self, most: usize) -> Vec<Report> {
        let mut inner = self.lock();
        if inner.reports.len() <= most {
            return std::mem::take(&mut inner.reports).into_values().collect();
        }
        let ids: Vec<TaskId> = inner.reports.keys().take(most).cloned().collect();
        ids.iter().filter_map(|id| inner.reports.remove(id)).collect()
    }

    /// Puts back reports that could not be written, except where the task has made a later report in the meantime.
    pub(crate) fn put_back(&self, reports: Vec<Report>) {
        let mut inner = self.lock();
        reports.into_iter().for_each(|report| inner.put(report));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn put(&mut self, report: Report) {
        match self.reports.entry(report.id.clone()) {
            Entry::Occupied(mut known) if known.get().order() < report.order() => {
                known.insert(report);
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(free) => {
                free.insert(report);
            }
        }
    }
}

/// Puts the reports of one run into the buffer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reporter {
    buffer: Arc<ProgressBuffer>,
    /// Whether a report of the run was refused. Only the first one is logged.
    refused: Arc<AtomicBool>,
}

impl Reporter {
    pub(crate) fn new(buffer: &Arc<ProgressBuffer>) -> Self {
        Self { buffer: Arc::clone(buffer), refused: Arc::default() }
    }

    pub(crate) fn report(&self, id: &TaskId, token: Token, value: &impl Serialize) {
        match text(value) {
            Ok(text) => self.buffer.put(id, token, text),
            Err(error) => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    warn!(event = "progress_refused", task_id = %id.shown(), %error, "the progress report is ignored; the task continues");
                }
            }
        }
    }
}

/// The value as JSON text, if it is short enough.
fn text(value: &impl Serialize) -> Result<Arc<str>, String> {
    let mut bytes = Limited(Vec::new());
    serde_json::to_writer(&mut bytes, value).map_err(|error| match error.is_io() {
        true => format!("it has more than {MAX_REPORT_BYTES} bytes of JSON; report a summary instead"),
        false => format!("it is not JSON: {error}"),
    })?;
    String::from_utf8(bytes.0).map(Arc::from).map_err(|error| error.to_string())
}

/// Stops the serializer at the limit, so that a large value costs no more than one that fits.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_REPORT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures_util::FutureExt as _;

    use super::*;

    fn values(buffer: &ProgressBuffer) -> Vec<(Token, String)> {
        buffer.take(10).into_iter().map(|report| (report.token, report.progress.value.to_string())).collect()
    }

    #[test]
    fn the_latest_report_of_the_latest_run_counts() {
        let (buffer, id) = (Arc::new(ProgressBuffer::default()), TaskId::new());
        let reporter = Reporter::new(&buffer);
        assert!(buffer.filled().now_or_never().is_none());
        for percent in 0..100_000 {
            reporter.report(&id, 7, &percent);
        }
        assert!(buffer.filled().now_or_never().is_some());
        let taken = buffer.take(10);
        assert_eq!((taken.len(), &*taken[0].progress.value), (1, "99999"));
        assert!(buffer.filled().now_or_never().is_none());
        buffer.put_back(taken.clone());
        assert_eq!(values(&buffer), [(7, "99999".to_owned())], "there was no later report");
        reporter.report(&id, 7, &"later");
        buffer.put_back(taken);
        assert_eq!(values(&buffer), [(7, "\"later\"".to_owned())]);
        reporter.report(&id, 8, &1);
        reporter.report(&id, 7, &2);
        assert_eq!(values(&buffer), [(8, "1".to_owned())], "a report of an earlier run is ignored");
    }

    #[test]
    fn a_batch_is_bounded_and_loses_nothing() {
        let buffer = Arc::new(ProgressBuffer::default());
        (0..10).for_each(|i| Reporter::new(&buffer).report(&TaskId::new(), 1, &i));
        let mut all = [buffer.take(4), buffer.take(4), buffer.take(4)].concat();
        all.sort_by_key(|report| report.progress.number);
        let values: Vec<_> = all.iter().map(|report| report.progress.value.to_string()).collect();
        assert_eq!(values, (0..10).map(|i| i.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_too_large_or_no_json_is_refused() {
        assert_eq!(text(&"x".repeat(MAX_REPORT_BYTES - 2)).map(|text| text.len()), Ok(MAX_REPORT_BYTES));
        assert!(text(&"x".repeat(MAX_REPORT_BYTES - 1)).is_err_and(|error| error.contains("report a summary")));
        assert!(text(&BTreeMap::from([([1, 2], 3)])).is_err_and(|error| error.contains("not JSON")));
    }
}
