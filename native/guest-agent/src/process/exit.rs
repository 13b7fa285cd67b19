//! The moment a process ended, for all who wait on it.
use tokio::sync::watch;

pub(super) struct Exit(watch::Sender<bool>);

#[derive(Clone)]
pub(super) struct ExitWatch(watch::Receiver<bool>);

impl Default for Exit {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Exit {
    pub(super) fn announce(&self) {
        self.0.send_replace(true);
    }

    pub(super) fn has_happened(&self) -> bool {
        *self.0.borrow()
    }

    pub(super) fn watch(&self) -> ExitWatch {
        ExitWatch(self.0.subscribe())
    }
}

impl ExitWatch {
    pub(super) fn has_happened(&self) -> bool {
        *self.0.borrow()
    }

    pub(super) async fn wait(&mut self) {
        // An error is the process's record being gone, which is later still.
        let _ = self.0.wait_for(|exited| *exited).await;
    }
}
