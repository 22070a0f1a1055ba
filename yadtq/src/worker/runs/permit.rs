//! A permit to run among at most so many tasks at once, over all workers (`max_running`).

use tokio::sync::mpsc;

use crate::store::PermitKey;

/// The permit of a run. It is returned when it is dropped, however its run ends.
#[derive(Debug)]
pub(crate) struct Permit {
    pub(crate) key: PermitKey,
    /// The number of permits that its limit has.
    pub(crate) max_running: u32,
    /// Where the key goes when the permit is returned.
    pub(crate) returns: mpsc::UnboundedSender<PermitKey>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Fails only when the loop has ended; then the permit lapses with its lease.
        let _ = self.returns.send(self.key.clone());
    }
}
