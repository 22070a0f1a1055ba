//! What stands in for Kafka and Redis in a build without them: an error that says how to get them.

use std::sync::Arc;

use super::settings::{KAFKA, Settings};
use crate::{broker::Broker, core::names::Namespace, error::Error, store::Store};

/// There are none in this build.
#[derive(Clone, Debug)]
pub(crate) enum Servers {}

impl Servers {
    pub(super) fn new(settings: Settings, _namespace: &Namespace) -> Result<Self, Error> {
        Err(Error::config(
            KAFKA,
            format!(
                "is `{}`, but yadtq was built without its features `kafka` and `redis`: add both to the dependency, or \
                 set {KAFKA}=embedded",
                settings.kafka
            ),
        ))
    }

    pub(super) fn open_broker(&self) -> Result<Arc<dyn Broker>, Error> {
        match *self {}
    }

    pub(super) fn open_store(&self, _namespace: &Namespace) -> Result<Arc<dyn Store>, Error> {
        match *self {}
    }

    pub(super) fn addresses(&self) -> String {
        match *self {}
    }
}
